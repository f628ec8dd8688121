// SPDX-License-Identifier: Apache-2.0
// The versions of attestation policies.
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "attest/evidence_bundle.h"
#include "attest/host_verification.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "controller/allow_list_use.h"
#include "controller/attestation_policies.h"
#include "controller/controller.h"
#include "controller/evidence_book.h"
#include "controller/principal.h"
#include "controller/rest_context.h"
#include "controller/rest_json.h"
#include "controller/trust_message.h"
#include "http/message.h"

namespace vallum::controller {
namespace {

using http::Request;
using http::Response;

constexpr Kind kKind = Kind::kAttestationPolicy;
constexpr int kMaxTriedReasons = 8;  // of one host

Result<v1::ChangePolicyRequest> ReadChange(const Request& request) {
  v1::ChangePolicyRequest wanted;
  if (!Trim(request.body).empty()) {
    RETURN_IF_ERROR(FromJson(request.body, wanted));
  }
  if (wanted.version() < 0) return InvalidInput("version: negative");
  return wanted;
}

Result<Response> Changed(RestContext& context, const Principal& principal,
                         const v1::AttestationPolicy& policy, const std::string& what,
                         int32_t version) {
  const std::string& name = policy.metadata().name();
  // The change stands in the policy, told or not.
  (void)context.controller.events().Append(
      {.kind = "attestationpolicy." + what,
       .severity = "info",
       .object = "attestationpolicies/" + name,
       .user = principal.name,
       .message = "attestation policy " + name + " version " + std::to_string(version) + " " + what,
       .tenant = {}});
  return ResourceResponse(200, *Shown(context, kKind, policy));
}

Result<Response> Activate(RestContext& context, const Request& request,
                          const Principal& principal) {
  RETURN_IF_ERROR(Authorize(principal, Verb::kUpdate, kKind, {}));
  ASSIGN_OR_RETURN(const v1::ChangePolicyRequest wanted, ReadChange(request));
  ASSIGN_OR_RETURN(
      const v1::AttestationPolicy policy,
      context.controller.policies().Activate(*request.Param("name"), wanted.version()));
  return Changed(context, principal, policy, "activated", policy.status().active_version());
}

Result<Response> Retire(RestContext& context, const Request& request, const Principal& principal) {
  RETURN_IF_ERROR(Authorize(principal, Verb::kUpdate, kKind, {}));
  ASSIGN_OR_RETURN(const v1::ChangePolicyRequest wanted, ReadChange(request));
  const std::string name = *request.Param("name");
  if (wanted.version() == 0) {
    return InvalidInput("version: say which one is to be retired")
        .WithFix("`vallum policy show " + Printable(name, 63) + "` lists them");
  }
  ASSIGN_OR_RETURN(const v1::AttestationPolicy policy,
                   context.controller.policies().Retire(name, wanted.version()));
  for (const v1::AttestationPolicyVersion& version : policy.status().versions()) {
    if (version.version() == wanted.version()) {
      context.contents.RemoveUnused(AllowListOf(version));
    }
  }
  return Changed(context, principal, policy, "retired", wanted.version());
}

Result<Response> GetVersion(RestContext& context, const Request& request,
                            const Principal& principal) {
  RETURN_IF_ERROR(Authorize(principal, Verb::kRead, kKind, {}));
  const std::string name = *request.Param("name");
  const std::string wanted = *request.Param("version");
  ASSIGN_OR_RETURN(const AnyResource found, FindVisible(context, principal, kKind, name));
  const auto& policy = static_cast<const v1::AttestationPolicy&>(*found);
  for (const v1::AttestationPolicyVersion& version : policy.status().versions()) {
    if (std::to_string(version.version()) != wanted) continue;
    ASSIGN_OR_RETURN(std::string body, ToJson(version));
    return Response::Json(200, std::move(body));
  }
  return NotFound("attestation policy " + name + " has no version " + Printable(wanted, 20))
      .WithFix("`vallum policy show " + name + "` lists the versions");
}

// Whose evidence a policy is tried on: the hosts of the pools that use it, or, while none does, of
// every trusted pool.
std::vector<std::shared_ptr<const v1::Host>> HostsToTry(const View& view,
                                                        const std::string& policy) {
  std::vector<std::shared_ptr<const v1::Host>> users;
  std::vector<std::shared_ptr<const v1::Host>> all;
  for (const auto& host : view.All<v1::Host>()) {
    const auto pool = view.Get<v1::Pool>(host->spec().pool());
    if (pool == nullptr || !pool->spec().trusted_service()) continue;
    if (pool->spec().attestation_policy() == policy) users.push_back(host);
    all.push_back(host);
  }
  return users.empty() ? all : users;
}

// What the host's kept evidence is worth under the policy.
Result<attest::Verdict> Try(EvidenceBook& evidence, const v1::Host& host,
                            const attest::PreparedPolicy& policy) {
  ASSIGN_OR_RETURN(const Bytes file, evidence.Get(host.metadata().uid(), EvidenceKind::kWhole));
  ASSIGN_OR_RETURN(const attest::EvidenceBundle bundle, attest::ParseBundle(file));
  if (AsText(bundle.ak_public) != host.status().identity().ak_public()) {
    return NotFound("the evidence that is kept is of a TPM that is no longer the host's")
        .WithFix("`vallum host attest " + host.metadata().name() + "`");
  }
  std::vector<attest::TrialOutcome> outcome =
      attest::TryPolicy(policy, {{.name = host.metadata().name(), .bundle = &bundle}});
  if (outcome.empty()) return Internal("the trial says nothing");
  return std::move(outcome.front().verdict);
}

void CountChange(const v1::TestPolicyReply::Host& host, v1::TestPolicyReply& reply) {
  const bool before = host.now() == v1::TRUST_TRUSTED;
  const bool after = host.then() == v1::TRUST_TRUSTED;
  if (before && !after) reply.set_would_fall_out(reply.would_fall_out() + 1);
  if (!before && after) reply.set_would_come_in(reply.would_come_in() + 1);
}

void SayVerdict(const attest::Verdict& verdict, v1::TestPolicyReply::Host& out) {
  out.set_then(LevelOf(verdict.kind));
  for (const attest::Reason& reason : verdict.reasons) {
    if (out.reasons_size() == kMaxTriedReasons) break;
    *out.add_reasons() = ToMessage(reason);
  }
}

Result<Response> Test(RestContext& context, const Request& request, const Principal& principal) {
  RETURN_IF_ERROR(Authorize(principal, Verb::kRead, kKind, {}));
  const std::string name = *request.Param("name");
  v1::TestPolicyRequest wanted;
  if (!Trim(request.body).empty()) {
    RETURN_IF_ERROR(FromJson(request.body, wanted));
  }
  if (!wanted.document().empty() && wanted.version() != 0) {
    return InvalidInput("document and version both say what is to be tested")
        .WithFix("give one of them");
  }
  AttestationPolicies& policies = context.controller.policies();
  ASSIGN_OR_RETURN(const attest::SharedPolicy policy,
                   wanted.document().empty() ? policies.Version(name, wanted.version())
                                             : policies.Prepare(wanted.document(), name, 0));
  const std::unique_lock only(*context.policy_trial, std::try_to_lock);
  if (!only.owns_lock()) {
    return Exhausted("another policy is being tested").WithFix("try again when it is done");
  }
  v1::TestPolicyReply reply;
  // One after the other: evidence is large, and there may be thousands.
  for (const auto& host : HostsToTry(context.controller.view(), name)) {
    v1::TestPolicyReply::Host& out = *reply.add_hosts();
    out.set_host(host->metadata().name());
    out.set_now(host->status().trust().level());
    const auto verdict = Try(context.controller.evidence(), *host, *policy);
    if (verdict.has_value()) {
      SayVerdict(*verdict, out);
    } else {
      out.set_then(v1::TRUST_UNKNOWN);
      out.set_detail(verdict.error().Describe());
    }
    // Also one of which nothing says that it would stay.
    CountChange(out, reply);
  }
  ASSIGN_OR_RETURN(std::string body, ToJson(reply));
  return Response::Json(200, std::move(body));
}

ApiHandler Bind(RestContext& context,
                Result<Response> (*handler)(RestContext&, const Request&, const Principal&)) {
  return [&context, handler](const Request& request, const Principal& principal) {
    return handler(context, request, principal);
  };
}

}  // namespace

void ShowPolicy(v1::AttestationPolicy& policy) {
  for (auto& version : *policy.mutable_status()->mutable_versions()) version.clear_document();
}

std::vector<ApiRoute> PolicyRoutes(RestContext& context) {
  using http::Method;
  const std::string one = "/v1/attestationpolicies/{name}";
  const auto* change = v1::ChangePolicyRequest::descriptor();
  const auto* policy = v1::AttestationPolicy::descriptor();
  return {
      {Method::kGet, one + "/versions/{version}", "One version of a policy, with its document",
       nullptr, v1::AttestationPolicyVersion::descriptor(), 200, Bind(context, GetVersion)},
      {Method::kPost, one + "/activate", "Judge hosts by this version", change, policy, 200,
       Bind(context, Activate)},
      {Method::kPost, one + "/retire", "Never judge by this version again", change, policy, 200,
       Bind(context, Retire)},
      {Method::kPost, one + "/test",
       "Which hosts would be trusted by a document or a version, by the evidence that is kept",
       v1::TestPolicyRequest::descriptor(), v1::TestPolicyReply::descriptor(), 200,
       Bind(context, Test)},
  };
}

}  // namespace vallum::controller
