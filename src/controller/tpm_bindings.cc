// SPDX-License-Identifier: Apache-2.0
#include "controller/tpm_bindings.h"

#include <google/protobuf/util/message_differencer.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "attest/credential.h"
#include "attest/ek_certificate.h"
#include "attest/ek_chain.h"
#include "attest/ek_template.h"
#include "attest/public_key.h"
#include "attest/quote_key.h"
#include "base/digest.h"
#include "base/ids.h"
#include "base/text.h"
#include "controller/trust_message.h"

namespace vallum::controller {
namespace {

using Write = ResourceStore::Change;
constexpr size_t kSecretBytes = 32;
constexpr int kMaxChain = 8;

Result<attest::TpmPublic> ParseKey(const std::string& bytes, const char* what) {
  ASSIGN_OR_RETURN_CONTEXT(attest::TpmPublic key, attest::ParseTpmtPublic(AsBytes(bytes)), what);
  return key;
}

Result<attest::TpmPublic> ParseEk(const std::string& bytes) {
  ASSIGN_OR_RETURN(attest::TpmPublic ek, ParseKey(bytes, "the endorsement key"));
  std::vector<std::string> problems;
  for (const attest::EkProblem problem : attest::CheckEkPublic(ek)) {
    problems.emplace_back(attest::EkProblemName(problem));
  }
  if (!problems.empty()) {
    return InvalidInput("the endorsement key is not made by TCG's template L-1 or L-2: " +
                        Join(problems, ", "));
  }
  return ek;
}

std::string Words(const attest::EkCertificateVerdict& verdict) {
  const attest::EkCertificateFinding& first = verdict.rejections.front();
  return std::string(attest::EkCertificateReasonName(first.reason)) +
         (first.what.empty() ? "" : ": " + first.what);
}

void FillMaker(const attest::TpmMaker& maker, v1::HostIdentity& identity) {
  identity.set_manufacturer(maker.vendor.empty() ? maker.manufacturer : maker.vendor);
  identity.set_model(maker.model);
  identity.set_firmware_version(maker.version);
}

// Whether they differ in the time of binding at most.
bool SameBut(v1::HostIdentity known, const v1::HostIdentity& identity) {
  *known.mutable_bind_time() = identity.bind_time();
  return google::protobuf::util::MessageDifferencer::Equals(known, identity);
}

// What quotes by the former key told: the TPM's time, and that the host may be trusted. A TPM whose
// owner cleared it has made another key and begun its clock anew; no quote by the former key is
// believed any more, and no lease names the new one.
void ForgetKey(WallTime now, v1::HostTrust& trust) {
  trust.clear_reset_count();
  trust.clear_restart_count();
  trust.clear_clock_ms();
  trust.clear_tpm_firmware_version();
  if (trust.level() != v1::TRUST_TRUSTED) return;
  SetWithoutEvidence(v1::TRUST_STALE,
                     "its TPM has another attestation key since it was found trusted", now, trust);
}

// Who vouched for an endorsement key, and what for.
void CarryOver(const v1::HostIdentity& known, v1::HostIdentity& identity) {
  identity.set_accepted_by(known.accepted_by());
  identity.set_authority(known.authority());
  identity.set_emulated(known.emulated());
  identity.set_ek_certificate(known.ek_certificate());
  identity.set_manufacturer(known.manufacturer());
  identity.set_model(known.model());
  identity.set_firmware_version(known.firmware_version());
}

std::string Brief(const std::string& digest) { return digest.substr(0, 16); }

}  // namespace

bool TpmBindings::Certify(const v1::TpmIdentity& sent, const attest::TpmPublic& ek,
                          v1::HostIdentity& identity) const {
  if (sent.ek_certificate().empty()) {
    identity.set_detail("its TPM has no endorsement certificate");
    return false;
  }
  const auto certificate = attest::TpmCertificate::Parse(AsBytes(sent.ek_certificate()));
  if (!certificate.has_value()) {
    identity.set_detail("its TPM's endorsement certificate cannot be read: " +
                        certificate.error().message());
    return false;
  }
  FillMaker(certificate->maker(), identity);
  std::vector<attest::TpmCertificate> intermediates;
  for (const std::string& der : sent.ek_certificate_chain()) {
    if (intermediates.size() == kMaxChain) break;
    auto parsed = attest::TpmCertificate::Parse(AsBytes(der));
    if (parsed.has_value()) intermediates.push_back(*std::move(parsed));
  }
  const auto now = std::chrono::floor<std::chrono::seconds>(clock_.Now());
  std::string refusal = "no TPM authority is known";
  for (const auto& authority : view_.All<v1::TpmAuthority>()) {
    const attest::CertificateBundle bundle =
        attest::ReadCertificateBundle(AsBytes(authority->spec().certificates_pem()));
    const attest::EkTrust trust(bundle.certificates, intermediates);
    const attest::EkCertificateVerdict verdict =
        attest::VerifyEkCertificate(*certificate, ek, trust, now, attest::Sha1Policy::kRefused);
    if (verdict.Accepted()) {
      const std::string& name = authority->metadata().name();
      identity.set_authority(name);
      identity.set_emulated(authority->spec().emulated());
      identity.set_accepted_by("certified by TPM authority " + name);
      return true;
    }
    refusal = "TPM authority " + authority->metadata().name() + ": " + Words(verdict);
  }
  identity.set_detail("its TPM's certificate by " + certificate->issuer() +
                      " is not believed: " + refusal);
  return false;
}

std::string TpmBindings::Objection(const v1::Host& host, const v1::HostIdentity& identity) const {
  const std::string& name = host.metadata().name();
  for (const auto& other : view_.All<v1::Host>()) {
    if (other->metadata().name() != name &&
        other->status().identity().ek_sha256() == identity.ek_sha256()) {
      return "its TPM is that of host " + other->metadata().name() +
             ": one machine has two names, or a TPM was moved";
    }
  }
  const v1::HostIdentity& own = host.status().identity();
  if (!own.ek_sha256().empty() && own.ek_sha256() != identity.ek_sha256()) {
    return "host " + name + " is known by another TPM (endorsement key " + Brief(own.ek_sha256()) +
           "): this is another machine, or its mainboard was replaced";
  }
  return {};
}

Result<void> TpmBindings::CheckPace(const std::string& host) {
  const MonotonicTime now = clock_.Monotonic();
  const std::lock_guard lock(mutex_);
  std::erase_if(begun_, [&](const auto& item) { return item.second.since + kPaceWindow <= now; });
  Begun& begun = begun_.try_emplace(host, Begun{.since = now, .count = 0}).first->second;
  if (++begun.count <= kMaxPerWindow) return Ok();
  return Exhausted("host " + host + " has bound its TPM more than " +
                   std::to_string(kMaxPerWindow) + " times within a minute")
      .WithFix("it may try again in a minute");
}

Result<v1::TpmChallenge> TpmBindings::Begin(const std::string& host, const v1::TpmIdentity& sent) {
  RETURN_IF_ERROR(CheckPace(host));
  ASSIGN_OR_RETURN(const attest::TpmPublic ek, ParseEk(sent.ek_public()));
  ASSIGN_OR_RETURN(const attest::TpmPublic ak, ParseKey(sent.ak_public(), "the attestation key"));
  RETURN_IF_ERROR(attest::QuoteKey::Create(ak)).context("the attestation key");
  ASSIGN_OR_RETURN(const attest::PublicKey ek_key, attest::PublicKey::FromTpm(ek));
  Challenge challenge;
  challenge.host = host;
  challenge.ends = clock_.Monotonic() + kChallengeLife;
  challenge.secret = SecretBytes::Random(kSecretBytes);
  v1::HostIdentity& identity = challenge.identity;
  identity.set_ek_sha256(ToHex(Sha256(ek_key.ToSpki())));
  identity.set_ek_type(ek_key.IsRsa() ? "rsa-2048" : "ecc-p256");
  identity.set_ek_public(ek.encoded.data(), ek.encoded.size());
  if (sent.ek_certificate().size() <= attest::kMaxTpmCertificate) {
    identity.set_ek_certificate(sent.ek_certificate());
  }
  identity.set_ak_public(ak.encoded.data(), ak.encoded.size());
  identity.set_ak_name(ToHex(ak.Name()));
  Certify(sent, ek, identity);
  ASSIGN_OR_RETURN(const attest::Credential credential,
                   attest::MakeCredential(ek, ak.Name(), challenge.secret));
  v1::TpmChallenge reply;
  reply.set_challenge_id(NewUid());
  reply.set_credential_blob(credential.id_object.data(), credential.id_object.size());
  reply.set_encrypted_secret(credential.encrypted_secret.data(),
                             credential.encrypted_secret.size());
  const std::lock_guard lock(mutex_);
  std::erase_if(challenges_, [&](const auto& item) {
    return item.second.host == host || item.second.ends < clock_.Monotonic();
  });
  if (challenges_.size() >= kMaxChallenges) return Exhausted("too many TPMs are being bound");
  challenges_.emplace(reply.challenge_id(), std::move(challenge));
  return reply;
}

Result<v1::TpmBinding> TpmBindings::Finish(const std::string& host, const v1::TpmProof& proof) {
  v1::HostIdentity identity;
  {
    const std::lock_guard lock(mutex_);
    const auto found = challenges_.find(proof.challenge_id());
    if (found == challenges_.end() || found->second.host != host ||
        found->second.ends < clock_.Monotonic()) {
      return Denied("no such challenge waits for the TPM of host " + host)
          .WithFix("the agent asks for another one by itself");
    }
    // One try: a wrong answer is no TPM's.
    const auto challenge = challenges_.extract(found);
    if (!ConstantTimeEqual(AsBytes(proof.secret()),
                           challenge.mapped().secret.Reveal(SecretAccess(
                               "comparing a credential's secret with what a TPM returned")))) {
      return Denied("the TPM of host " + host + " did not open its credential");
    }
    identity = challenge.mapped().identity;
  }
  *identity.mutable_bind_time() = ToTimestamp(clock_.Now());
  bool accepted = false;
  bool waited = false;
  bool known = false;
  const std::lock_guard binding_lock(binding_);
  ASSIGN_OR_RETURN(
      const v1::Host stored,
      resources_.Modify<v1::Host>(host, [&](v1::Host& current) -> Result<Write> {
        v1::HostStatus& status = *current.mutable_status();
        const bool same = status.identity().ek_sha256() == identity.ek_sha256();
        const std::string objection = Objection(current, identity);
        // What is known of a key stays known, whatever its host leaves out now.
        if (same && identity.authority().empty()) {
          CarryOver(status.identity(), identity);
        }
        accepted = objection.empty() && !identity.accepted_by().empty();
        waited = status.pending_identity().ek_sha256() == identity.ek_sha256();
        if (accepted) {
          identity.clear_detail();
          known = SameBut(status.identity(), identity);
          if (known && !status.has_pending_identity()) return Write::kKeep;
          if (status.has_trust() && status.identity().ak_name() != identity.ak_name()) {
            ForgetKey(clock_.Now(), *status.mutable_trust());
          }
          *status.mutable_identity() = identity;
          status.clear_pending_identity();
          return Write::kWrite;
        }
        identity.clear_accepted_by();
        if (!objection.empty()) identity.set_detail(objection);
        *status.mutable_pending_identity() = identity;
        return Write::kWrite;
      }));
  RETURN_IF_ERROR(view_.WaitFor(stored.metadata().revision()));
  v1::TpmBinding binding;
  binding.set_accepted(accepted);
  if (accepted) {
    if (known) return binding;
    Tell("host.tpm-bound", "info", host, "",
         "endorsement key " + Brief(identity.ek_sha256()) + ", " + identity.accepted_by());
    return binding;
  }
  binding.set_detail(identity.detail() +
                     "; an administrator may approve it: `vallum host approve " + host + " --ek " +
                     Brief(identity.ek_sha256()) + "`");
  if (!waited) Tell("host.tpm-waits", "warning", host, "", binding.detail());
  return binding;
}

Result<v1::Host> TpmBindings::Approve(const std::string& host, const std::string& ek_sha256,
                                      const std::string& user) {
  constexpr size_t kLeastDigits = 16;
  const std::lock_guard binding_lock(binding_);
  ASSIGN_OR_RETURN(v1::Host stored,
                   resources_.Modify<v1::Host>(host, [&](v1::Host& current) -> Result<Write> {
                     v1::HostStatus& status = *current.mutable_status();
                     if (!status.has_pending_identity()) {
                       return NotFound("no TPM of host " + host + " waits for approval");
                     }
                     const std::string& pending = status.pending_identity().ek_sha256();
                     if (ek_sha256.size() < kLeastDigits || !pending.starts_with(ek_sha256)) {
                       return Conflict("the TPM that waits has the endorsement key " + pending +
                                       ", not " + Printable(ek_sha256, 64))
                           .WithFix("compare it with what the machine itself says, then name it");
                     }
                     for (const auto& other : view_.All<v1::Host>()) {
                       if (other->metadata().name() != host &&
                           other->status().identity().ek_sha256() == pending) {
                         return Conflict("this TPM is that of host " + other->metadata().name())
                             .WithFix("delete that host first");
                       }
                     }
                     *status.mutable_identity() = status.pending_identity();
                     status.clear_pending_identity();
                     status.mutable_identity()->clear_detail();
                     status.mutable_identity()->set_accepted_by("approved by " + user);
                     // Another machine: what was found of the one before says nothing of it.
                     status.clear_trust();
                     return Write::kWrite;
                   }));
  RETURN_IF_ERROR(view_.WaitFor(stored.metadata().revision()));
  Tell("host.tpm-approved", "info", host, user,
       "endorsement key " + Brief(stored.status().identity().ek_sha256()));
  return stored;
}

void TpmBindings::Tell(std::string_view kind, std::string_view severity, const std::string& host,
                       const std::string& user, const std::string& message) {
  // The binding stands in the host's status, told or not.
  static_cast<void>(events_.Append({.kind = std::string(kind),
                                    .severity = std::string(severity),
                                    .object = "hosts/" + host,
                                    .user = user,
                                    .message = message,
                                    .tenant = {}}));
}

}  // namespace vallum::controller
