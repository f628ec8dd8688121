// SPDX-License-Identifier: Apache-2.0
// Verdicts on hosts as signed attestation results (EAR).
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "attest/ear.h"
#include "base/result.h"
#include "base/text.h"
#include "controller/controller.h"
#include "controller/host_standing.h"
#include "controller/principal.h"
#include "controller/rest_context.h"
#include "controller/statement_signer.h"
#include "http/message.h"

namespace vallum::controller {
namespace {

using http::Request;
using http::Response;

// RFC 9711, section 4.1: a nonce in JSON has 8 to 88 bytes.
constexpr size_t kMinNonce = 8;
constexpr size_t kMaxNonce = 88;

Result<std::string> NonceOf(const Request& request) {
  std::string nonce = request.Query("nonce").value_or("");
  const bool given = request.Query("nonce").has_value();
  if (given &&
      (nonce.size() < kMinNonce || nonce.size() > kMaxNonce || Printable(nonce) != nonce)) {
    return InvalidInput("nonce: not 8 to 88 printable bytes")
        .WithFix("send random bytes as base64url or hexadecimal");
  }
  return nonce;
}

Result<Response> Export(RestContext& context, const Request& request, const Principal& principal) {
  RETURN_IF_ERROR(Authorize(principal, Verb::kRead, Kind::kHost, {}));
  const std::string name = *request.Param("name");
  ASSIGN_OR_RETURN(const AnyResource found, FindVisible(context, principal, Kind::kHost, name));
  attest::Ear ear{.developer = "Vallum", .build = "vallum-controller " VALLUM_VERSION};
  ear.issued_at = std::chrono::duration_cast<std::chrono::seconds>(
                      context.controller.resources().clock().Now().time_since_epoch())
                      .count();
  ASSIGN_OR_RETURN(ear.nonce, NonceOf(request));
  // By the host's name, so that a result on one host is none on another.
  ear.submods.emplace(name, attest::AppraiseHost(StandingOf(
                                static_cast<const v1::Host&>(*found), context.controller.view(),
                                context.controller.resources().clock().Now())));
  ASSIGN_OR_RETURN(const StatementSigner::Signed made,
                   context.controller.result_signer().Sign([&](const std::vector<Bytes>& chain) {
                     return attest::EarSigningInput(ear, chain);
                   }));
  ASSIGN_OR_RETURN(const Bytes signature, JwsSignature(made.signature));
  Response response = Response::Text(200, made.statement + "." + ToBase64Url(signature));
  response.headers.Set("Content-Type", "application/eat+jwt");
  response.headers.Set("Cache-Control", "no-store");
  return response;
}

}  // namespace

std::vector<ApiRoute> EarRoutes(RestContext& context) {
  std::vector<ApiRoute> routes;
  routes.push_back({http::Method::kGet, "/v1/hosts/{name}/ear",
                    "The verdict on a host as a signed attestation result: ?nonce=", nullptr,
                    nullptr, 200, [&context](const Request& request, const Principal& principal) {
                      return Export(context, request, principal);
                    }});
  return routes;
}

}  // namespace vallum::controller
