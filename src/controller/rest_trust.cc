// SPDX-License-Identifier: Apache-2.0
// Hosts and their trust: TPMs that wait, evidence, and what pools may ask for.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "attest/ek_certificate.h"
#include "attest/evidence_bundle.h"
#include "attest/learn.h"
#include "attest/tpm_public.h"
#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/ids.h"
#include "base/result.h"
#include "base/text.h"
#include "controller/controller.h"
#include "controller/evidence_book.h"
#include "controller/principal.h"
#include "controller/rest_context.h"
#include "controller/rest_json.h"
#include "http/message.h"
#include "vallum/v1/trust.pb.h"

namespace vallum::controller {
namespace {

using http::Request;
using http::Response;

Result<std::shared_ptr<const v1::Host>> Target(RestContext& context, const Request& request,
                                               const Principal& principal, Verb verb) {
  RETURN_IF_ERROR(Authorize(principal, verb, Kind::kHost, {}));
  ASSIGN_OR_RETURN(const AnyResource found,
                   FindVisible(context, principal, Kind::kHost, *request.Param("name")));
  return std::static_pointer_cast<const v1::Host>(found);
}

// Who approves a TPM says which machine is believed, as who writes a TPM authority does.
Result<Response> Approve(RestContext& context, const Request& request, const Principal& principal) {
  ASSIGN_OR_RETURN(const auto host, Target(context, request, principal, Verb::kUpdate));
  if (principal.role != v1::ROLE_ADMIN) {
    return Denied("token \"" + principal.name + "\" may not approve the TPM of a host")
        .WithFix("it takes the role admin");
  }
  v1::ApproveHostRequest wanted;
  RETURN_IF_ERROR(FromJson(request.body, wanted));
  ASSIGN_OR_RETURN(const v1::Host approved,
                   context.controller.tpm_bindings().Approve(
                       host->metadata().name(), ToLower(wanted.ek_sha256()), principal.name));
  return ResourceResponse(200, approved);
}

Result<Response> Attest(RestContext& context, const Request& request, const Principal& principal) {
  ASSIGN_OR_RETURN(const auto host, Target(context, request, principal, Verb::kOperate));
  const std::string& name = host->metadata().name();
  const std::string& pool_name = host->spec().pool();
  const auto pool = context.controller.view().Get<v1::Pool>(pool_name);
  if (pool == nullptr || !pool->spec().trusted_service()) {
    return Conflict("pool " + pool_name + " of host " + name +
                    " is not trusted: its hosts are not attested")
        .WithFix("`vallum pool update " + pool_name + " --trusted true`");
  }
  if (host->status().state() == v1::HOST_DOWN) {
    return Unavailable("the agent of host " + name + " is not connected")
        .WithFix("start it; the host is attested as soon as it connects");
  }
  context.controller.attestor().AttestNow(name);
  return ResourceResponse(200, *host);
}

Result<EvidenceKind> ParseEvidenceKind(const Request& request) {
  const std::string kind = request.Query("kind").value_or("whole");
  if (kind == "whole") return EvidenceKind::kWhole;
  if (kind == "last") return EvidenceKind::kLast;
  if (kind == "untrusted") return EvidenceKind::kUntrusted;
  return InvalidInput("kind=" + Printable(kind, 40) + " is unknown")
      .WithFix("use whole, last or untrusted");
}

Result<Response> Evidence(RestContext& context, const Request& request,
                          const Principal& principal) {
  ASSIGN_OR_RETURN(const auto host, Target(context, request, principal, Verb::kRead));
  const std::string& uid = host->metadata().uid();
  EvidenceBook& book = context.controller.evidence();
  const auto exactly = request.Query("sha256");
  if (exactly && request.Query("kind")) {
    return InvalidInput("kind and sha256 are both given").WithFix("give one of them");
  }
  ASSIGN_OR_RETURN(const EvidenceKind kind, ParseEvidenceKind(request));
  ASSIGN_OR_RETURN(const Bytes bundle,
                   exactly ? book.GetExactly(uid, *exactly) : book.Get(uid, kind));
  Response response;
  response.headers.Set("Content-Type", "application/octet-stream");
  response.headers.Set("ETag", "\"" + ToHex(Sha256(bundle)) + "\"");
  response.body = std::string(AsText(bundle));
  return response;
}

Result<Response> Learn(RestContext& context, const Request& request, const Principal& principal) {
  ASSIGN_OR_RETURN(const auto host, Target(context, request, principal, Verb::kRead));
  v1::LearnRequest wanted;
  if (!Trim(request.body).empty()) {
    RETURN_IF_ERROR(FromJson(request.body, wanted));
  }
  const std::string& name = host->metadata().name();
  if (wanted.name().empty()) wanted.set_name(name);
  RETURN_IF_ERROR(ValidateName("policy", wanted.name()));
  ASSIGN_OR_RETURN(const Bytes file,
                   context.controller.evidence().Get(host->metadata().uid(), EvidenceKind::kWhole));
  ASSIGN_OR_RETURN(const attest::EvidenceBundle bundle, attest::ParseBundle(file));
  if (bundle.ima_before.entries != 0) {
    return Conflict("the evidence that is kept of host " + name +
                    " begins in the middle of what IMA measured")
        .WithFix("reboot the host: it then sends all");
  }
  ASSIGN_OR_RETURN(const attest::TpmPublic ak, attest::ParseTpmtPublic(bundle.ak_public));
  ASSIGN_OR_RETURN(attest::QuoteKey key, attest::QuoteKey::Create(ak));
  ASSIGN_OR_RETURN_CONTEXT(
      const attest::LearnedPolicy learned,
      attest::LearnPolicy(wanted.name(), {.key = std::move(key), .kind = bundle.tpm},
                          attest::EvidenceOf(bundle), bundle.nonce),
      "learning from host " + name);
  v1::LearnReply reply;
  reply.set_document(learned.document);
  reply.set_ima_list(learned.ima_list);
  reply.set_allow_list(learned.policy.ima.allow_list);
  ASSIGN_OR_RETURN(std::string body, ToJson(reply));
  return Response::Json(200, std::move(body));
}

Result<Response> Certificates(RestContext& context, const Request& request,
                              const Principal& principal) {
  RETURN_IF_ERROR(Authorize(principal, Verb::kRead, Kind::kTpmAuthority, {}));
  const std::string name = *request.Param("name");
  ASSIGN_OR_RETURN(const AnyResource found,
                   FindVisible(context, principal, Kind::kTpmAuthority, name));
  const auto& authority = static_cast<const v1::TpmAuthority&>(*found);
  const attest::CertificateBundle bundle =
      attest::ReadCertificateBundle(AsBytes(authority.spec().certificates_pem()));
  v1::TpmAuthorityReport report;
  for (const attest::TpmCertificate& certificate : bundle.certificates) {
    v1::TpmAuthorityReport::Certificate& out = *report.add_certificates();
    out.set_subject(certificate.subject());
    out.set_issuer(certificate.issuer());
    *out.mutable_not_before() = ToTimestamp(certificate.not_before());
    *out.mutable_not_after() = ToTimestamp(certificate.not_after());
  }
  report.mutable_unreadable()->Assign(bundle.problems.begin(), bundle.problems.end());
  for (const auto& host : context.controller.view().All<v1::Host>()) {
    if (host->status().identity().authority() == name) report.add_hosts(host->metadata().name());
  }
  ASSIGN_OR_RETURN(std::string body, ToJson(report));
  return Response::Json(200, std::move(body));
}

// A trusted instance that was promised attested hosts, and that nobody released from them.
bool InsistsOnTrust(const v1::Instance& instance) {
  return instance.spec().trusted_service() && !instance.spec().allow_untrusted() &&
         !instance.metadata().has_delete_time();
}

bool IsTrusted(const View& view, const std::string& pool_name) {
  const auto pool = view.Get<v1::Pool>(pool_name);
  return pool != nullptr && pool->spec().trusted_service();
}

Result<TrustCrossing> Crossing(const v1::Instance& instance, const std::string& what,
                               UntrustedAllowance allowance) {
  if (allowance == UntrustedAllowance::kSaid) return TrustCrossing::kAllowed;
  return Conflict("instance " + instance.metadata().name() + " with trusted_service=true " + what)
      .WithFix(
          "move or delete the instance, or say allow_untrusted (?allowUntrusted=true, "
          "--allow-untrusted), which is recorded");
}

ApiHandler Bind(RestContext& context,
                Result<Response> (*handler)(RestContext&, const Request&, const Principal&)) {
  return [&context, handler](const Request& request, const Principal& principal) {
    return handler(context, request, principal);
  };
}

}  // namespace

Result<void> CheckReferences(const View& view, Kind kind, const google::protobuf::Message& after) {
  if (kind == Kind::kPool) {
    const std::string& policy = static_cast<const v1::Pool&>(after).spec().attestation_policy();
    if (policy.empty() || view.Get<v1::AttestationPolicy>(policy) != nullptr) return Ok();
    return InvalidInput("spec.attestationPolicy: there is no attestation policy \"" +
                        Printable(policy, 63) + "\"")
        .WithFix("`vallum policy list` shows what there is; `vallum policy create` makes one");
  }
  if (kind == Kind::kHost) {
    const std::string& pool = static_cast<const v1::Host&>(after).spec().pool();
    if (view.Get<v1::Pool>(pool) != nullptr) return Ok();
    return InvalidInput("spec.pool: there is no pool \"" + Printable(pool, 63) + "\"")
        .WithFix("`vallum pool list` shows what there is");
  }
  return Ok();
}

Result<void> CheckTrustAnchors(const Principal& principal, Kind kind,
                               const google::protobuf::Message* before,
                               const google::protobuf::Message& after) {
  if (kind != Kind::kPool || principal.role == v1::ROLE_ADMIN) return Ok();
  const v1::PoolSpec none;
  const auto& was = before == nullptr ? none : static_cast<const v1::Pool*>(before)->spec();
  const auto& is = static_cast<const v1::Pool&>(after).spec();
  const auto anchors = [](const v1::PoolSpec& spec) {
    return std::tuple(spec.trusted_service(), spec.attestation_policy(), spec.on_untrusted(),
                      spec.lease_seconds(), spec.attest_interval_seconds(),
                      spec.stale_grace_seconds(), spec.unknown_grace_seconds());
  };
  if (anchors(was) == anchors(is)) return Ok();
  return Denied("token \"" + principal.name + "\" may not say which hosts of pool " +
                MetadataOf(after).name() +
                " are trusted: trustedService, attestationPolicy, onUntrusted, leaseSeconds, "
                "attestIntervalSeconds, staleGraceSeconds and unknownGraceSeconds")
      .WithFix("it takes the role admin");
}

Result<TrustCrossing> CheckTrustKept(const View& view, Kind kind,
                                     const google::protobuf::Message& before,
                                     const google::protobuf::Message& after,
                                     UntrustedAllowance allowance) {
  if (kind == Kind::kPool) {
    const bool was = static_cast<const v1::Pool&>(before).spec().trusted_service();
    const bool is = static_cast<const v1::Pool&>(after).spec().trusted_service();
    if (!was || is) return TrustCrossing::kNone;
    const std::string& name = MetadataOf(after).name();
    for (const auto& instance : view.All<v1::Instance>()) {
      const std::string& in = instance->spec().pool();
      if ((in.empty() ? "default" : in) != name || !InsistsOnTrust(*instance)) continue;
      return Crossing(*instance, "is in pool " + name + ", whose hosts would no longer be attested",
                      allowance);
    }
  }
  if (kind == Kind::kHost) {
    const std::string& from = static_cast<const v1::Host&>(before).spec().pool();
    const std::string& to = static_cast<const v1::Host&>(after).spec().pool();
    if (from == to || !IsTrusted(view, from)) return TrustCrossing::kNone;
    const std::string& name = MetadataOf(after).name();
    for (const auto& instance : view.All<v1::Instance>()) {
      if (instance->status().host() != name || !InsistsOnTrust(*instance)) continue;
      if (IsTrusted(view, to)) {
        return Conflict("instance " + instance->metadata().name() + " of pool " + from +
                        " is on host " + name + ": what pool " + to +
                        " asks of its hosts is not what the instance was promised")
            .WithFix("delete the instance, or move the host when nothing is on it");
      }
      return Crossing(*instance,
                      "is on host " + name + ", which would no longer be attested in pool " + to,
                      allowance);
    }
  }
  return TrustCrossing::kNone;
}

std::vector<ApiRoute> TrustRoutes(RestContext& context) {
  using http::Method;
  const std::string one = "/v1/hosts/{name}";
  const auto* host = v1::Host::descriptor();
  return {
      {Method::kPost, one + "/approve", "Make the TPM that waits the host's own",
       v1::ApproveHostRequest::descriptor(), host, 200, Bind(context, Approve)},
      {Method::kPost, one + "/attest", "Ask the host for evidence now", nullptr, host, 200,
       Bind(context, Attest)},
      {Method::kPost, one + "/learn", "Rules that the host's kept evidence satisfies",
       v1::LearnRequest::descriptor(), v1::LearnReply::descriptor(), 200, Bind(context, Learn)},
      {Method::kGet, one + "/evidence",
       "The evidence that is kept, as a bundle: ?kind=whole (default), last or untrusted; or "
       "?sha256=",
       nullptr, nullptr, 200, Bind(context, Evidence)},
      {Method::kGet, "/v1/tpmauthorities/{name}/certificates",
       "What its certificates are, which cannot be read, and whose TPMs it certified", nullptr,
       v1::TpmAuthorityReport::descriptor(), 200, Bind(context, Certificates)},
  };
}

}  // namespace vallum::controller
