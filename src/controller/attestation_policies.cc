// SPDX-License-Identifier: Apache-2.0
#include "controller/attestation_policies.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "base/digest.h"
#include "base/text.h"
#include "tls/file.h"

namespace vallum::controller {
namespace {

using Versions = google::protobuf::RepeatedPtrField<v1::AttestationPolicyVersion>;

Result<attest::AttestationPolicy> Parse(std::string_view document, const std::string& name) {
  if (document.empty()) {
    return InvalidInput("spec.document: a policy without rules would trust nobody")
        .WithFix("`vallum policy learn --from HOST` drafts one that a host meets");
  }
  if (document.size() > kMaxPolicyDocument) {
    return Exhausted("spec.document: more than " + std::to_string(kMaxPolicyDocument) + " bytes")
        .WithFix("put lists of files into an allow list and name it in the policy");
  }
  ASSIGN_OR_RETURN(attest::AttestationPolicy policy, attest::ParsePolicy(document));
  policy.name = name;
  return policy;
}

std::string Sha256Hex(std::string_view text) { return ToHex(Sha256(AsBytes(text))); }

int32_t NewestOf(const Versions& versions) {
  return versions.empty() ? 0 : versions.rbegin()->version();
}

v1::AttestationPolicyVersion* FindVersion(v1::AttestationPolicy& policy, int32_t version) {
  auto& versions = *policy.mutable_status()->mutable_versions();
  const int32_t wanted = version == 0 ? NewestOf(versions) : version;
  const auto found = std::ranges::find(versions, wanted, &v1::AttestationPolicyVersion::version);
  return found == versions.end() ? nullptr : &*found;
}

Error NoVersion(const std::string& name, int32_t version) {
  return NotFound("attestation policy " + name + " has no version " + std::to_string(version))
      .WithFix("`vallum policy show " + name + "` lists them");
}

void AddVersion(v1::AttestationPolicy& policy, const std::string& user, WallTime now) {
  auto& versions = *policy.mutable_status()->mutable_versions();
  const int32_t next = NewestOf(versions) + 1;
  v1::AttestationPolicyVersion& added = *versions.Add();
  added.set_version(next);
  added.set_state(v1::POLICY_DRAFT);
  added.set_sha256(Sha256Hex(policy.spec().document()));
  *added.mutable_create_time() = ToTimestamp(now);
  added.set_user(user);
  added.set_document(policy.spec().document());
}

// Drops the oldest retired versions until the documents fit.
Result<void> Trim(v1::AttestationPolicy& policy) {
  auto& versions = *policy.mutable_status()->mutable_versions();
  const auto size = [&] {
    size_t bytes = policy.spec().document().size();
    for (const auto& version : versions) bytes += version.document().size();
    return bytes;
  };
  while (size() > kMaxPolicyDocuments) {
    const auto retired =
        std::ranges::find(versions, v1::POLICY_RETIRED, &v1::AttestationPolicyVersion::state);
    if (retired == versions.end()) {
      return Exhausted("the versions of attestation policy " + policy.metadata().name() +
                       " take more than " + std::to_string(kMaxPolicyDocuments) + " bytes")
          .WithFix("retire old drafts: `vallum policy retire NAME --version N`");
    }
    versions.erase(retired);
  }
  return Ok();
}

Result<std::string> ReadBlob(const store::BlobStore& blobs, const std::string& digest) {
  ASSIGN_OR_RETURN(const store::OpenBlob blob, blobs.Open(digest));
  if (blob.size.bytes() > measure::kMaxAllowListInput) {
    return Exhausted("an allow list of more than " + std::to_string(measure::kMaxAllowListInput) +
                     " bytes");
  }
  ASSIGN_OR_RETURN(const Bytes bytes, tls::ReadSmallFile(blob.path, measure::kMaxAllowListInput));
  return std::string(AsText(bytes));
}

}  // namespace

Result<measure::SharedImaAllowList> ParseAllowList(std::string_view content) {
  const size_t first = content.find_first_not_of(" \t\r\n");
  const bool json = first != std::string_view::npos && content[first] == '{';
  return json ? measure::ImportKeylimePolicy(content) : measure::ImportDigestList(content);
}

Result<measure::SharedImaAllowList> AttestationPolicies::AllowListOf(
    const attest::AttestationPolicy& policy) {
  if (policy.ima.allow_list_sha256.empty()) return measure::SharedImaAllowList();
  const std::string digest = ToHex(policy.ima.allow_list_sha256);
  {
    const std::lock_guard lock(mutex_);
    if (auto known = allow_lists_[digest].lock(); known != nullptr) return known;
  }
  const auto text = ReadBlob(blobs_, digest);
  if (!text.has_value()) {
    if (text.error().code() != ErrorCode::kNotFound) return text.error();
    return NotFound("the allow list " + Printable(policy.ima.allow_list, 64) + " with SHA-256 " +
                    digest + " is not here")
        .WithFix("`vallum allowlist import FILE --name " + Printable(policy.ima.allow_list, 64) +
                 "`");
  }
  ASSIGN_OR_RETURN(measure::SharedImaAllowList list, ParseAllowList(*text));
  const std::lock_guard lock(mutex_);
  allow_lists_[digest] = list;
  return list;
}

Result<attest::SharedPolicy> AttestationPolicies::Prepare(std::string_view document,
                                                          const std::string& name,
                                                          int32_t version) {
  const std::string key = name + "@" + std::to_string(version) + "@" + Sha256Hex(document);
  {
    const std::lock_guard lock(mutex_);
    if (auto known = prepared_[key].lock(); known != nullptr) return known;
  }
  ASSIGN_OR_RETURN(attest::AttestationPolicy policy, Parse(document, name));
  policy.version = static_cast<uint64_t>(version);
  ASSIGN_OR_RETURN(measure::SharedImaAllowList list, AllowListOf(policy));
  attest::SharedPolicy prepared = attest::PreparePolicy(std::move(policy), std::move(list));
  const std::lock_guard lock(mutex_);
  std::erase_if(prepared_, [](const auto& item) { return item.second.expired(); });
  prepared_[key] = prepared;
  return prepared;
}

Result<void> AttestationPolicies::Create(v1::AttestationPolicy& policy, const std::string& user) {
  RETURN_IF_ERROR(Parse(policy.spec().document(), policy.metadata().name()));
  policy.clear_status();
  AddVersion(policy, user, resources_.clock().Now());
  RETURN_IF_ERROR(resources_.CreateAny(Kind::kAttestationPolicy, policy));
  return view_.WaitFor(policy.metadata().revision());
}

Result<void> AttestationPolicies::Update(v1::AttestationPolicy& policy, store::Revision if_match,
                                         const std::string& user) {
  const std::string name = policy.metadata().name();
  RETURN_IF_ERROR(Parse(policy.spec().document(), name));
  ASSIGN_OR_RETURN(const v1::AttestationPolicy current,
                   resources_.Get<v1::AttestationPolicy>(name));
  *policy.mutable_status() = current.status();
  const auto& versions = current.status().versions();
  if (versions.empty() || versions.rbegin()->state() == v1::POLICY_RETIRED ||
      versions.rbegin()->sha256() != Sha256Hex(policy.spec().document())) {
    AddVersion(policy, user, resources_.clock().Now());
    RETURN_IF_ERROR(Trim(policy));
  }
  const store::Revision from = if_match != 0 ? if_match : current.metadata().revision();
  RETURN_IF_ERROR(resources_.UpdateAny(Kind::kAttestationPolicy, policy, from));
  return view_.WaitFor(policy.metadata().revision());
}

Result<v1::AttestationPolicy> AttestationPolicies::Activate(const std::string& name,
                                                            int32_t version) {
  // Read and compiled before: a version that cannot be judged by must not become active.
  ASSIGN_OR_RETURN(const attest::SharedPolicy prepared, Version(name, version));
  version = static_cast<int32_t>(prepared->policy.version);  // of 0, the newest: no newer one
  ASSIGN_OR_RETURN(v1::AttestationPolicy changed,
                   resources_.Modify<v1::AttestationPolicy>(
                       name, [&](v1::AttestationPolicy& policy) -> Result<Change> {
                         v1::AttestationPolicyVersion* chosen = FindVersion(policy, version);
                         if (chosen == nullptr) return NoVersion(name, version);
                         if (chosen->state() == v1::POLICY_RETIRED) {
                           return Conflict("version " + std::to_string(chosen->version()) +
                                           " of attestation policy " + name + " is retired")
                               .WithFix("write its document again: that makes a new version");
                         }
                         for (auto& other : *policy.mutable_status()->mutable_versions()) {
                           if (other.state() == v1::POLICY_ACTIVE)
                             other.set_state(v1::POLICY_DRAFT);
                         }
                         chosen->set_state(v1::POLICY_ACTIVE);
                         *chosen->mutable_activate_time() = ToTimestamp(resources_.clock().Now());
                         policy.mutable_status()->set_active_version(chosen->version());
                         return Change::kWrite;
                       }));
  RETURN_IF_ERROR(view_.WaitFor(changed.metadata().revision()));
  return changed;
}

Result<v1::AttestationPolicy> AttestationPolicies::Retire(const std::string& name,
                                                          int32_t version) {
  ASSIGN_OR_RETURN(v1::AttestationPolicy changed,
                   resources_.Modify<v1::AttestationPolicy>(
                       name, [&](v1::AttestationPolicy& policy) -> Result<Change> {
                         v1::AttestationPolicyVersion* chosen = FindVersion(policy, version);
                         if (chosen == nullptr) return NoVersion(name, version);
                         if (chosen->state() == v1::POLICY_ACTIVE) {
                           policy.mutable_status()->clear_active_version();
                         }
                         chosen->set_state(v1::POLICY_RETIRED);
                         return Change::kWrite;
                       }));
  RETURN_IF_ERROR(view_.WaitFor(changed.metadata().revision()));
  return changed;
}

Result<attest::SharedPolicy> AttestationPolicies::Version(const std::string& name,
                                                          int32_t version) {
  ASSIGN_OR_RETURN(v1::AttestationPolicy policy, resources_.Get<v1::AttestationPolicy>(name));
  const v1::AttestationPolicyVersion* chosen = FindVersion(policy, version);
  if (chosen == nullptr) return NoVersion(name, version);
  return Prepare(chosen->document(), name, chosen->version());
}

Result<attest::SharedPolicy> AttestationPolicies::ForPool(const v1::Pool& pool) {
  const std::string& name = pool.spec().attestation_policy();
  const std::string where = "pool " + pool.metadata().name();
  if (name.empty()) {
    return NotFound(where + " is trusted and names no attestation policy")
        .WithFix("`vallum pool update " + pool.metadata().name() + " --attestation-policy NAME`");
  }
  const auto policy = view_.Get<v1::AttestationPolicy>(name);
  if (policy == nullptr) {
    return NotFound("attestation policy " + name + " of " + where + " does not exist")
        .WithFix("`vallum policy create " + name + " --file FILE`");
  }
  const std::string uid = policy->metadata().uid();
  const int32_t version = policy->status().active_version();
  if (version == 0) {
    return NotFound("attestation policy " + name + " of " + where + " has no active version")
        .WithFix("`vallum policy activate " + name + "`");
  }
  {
    const std::lock_guard lock(mutex_);
    const auto found = active_.find(uid);
    if (found != active_.end() && found->second.first == version) return found->second.second;
  }
  v1::AttestationPolicy copy = *policy;
  const v1::AttestationPolicyVersion* chosen = FindVersion(copy, version);
  if (chosen == nullptr) return NoVersion(name, version);
  ASSIGN_OR_RETURN(attest::SharedPolicy prepared, Prepare(chosen->document(), name, version));
  const std::lock_guard lock(mutex_);
  active_[uid] = {version, prepared};
  return prepared;
}

}  // namespace vallum::controller
