// SPDX-License-Identifier: Apache-2.0
// Keylime's verification of evidence on demand.
#include <utility>
#include <vector>

#include "attest/keylime_evidence.h"
#include "base/result.h"
#include "base/units.h"
#include "controller/principal.h"
#include "controller/rest_context.h"
#include "http/message.h"

namespace vallum::controller {
namespace {

using http::Request;
using http::Response;

Response ResponseOf(attest::KeylimeReply reply) {
  return Response::Json(reply.status, std::move(reply.body));
}

}  // namespace

std::vector<ApiRoute> KeylimeRoutes() {
  std::vector<ApiRoute> routes;
  routes.push_back({http::Method::kGet, "/version", "Keylime: the version of its API", nullptr,
                    nullptr, 200,
                    [](const Request&, const Principal& principal) -> Result<Response> {
                      RETURN_IF_ERROR(Authorize(principal, Verb::kRead, Kind::kHost, {}));
                      return ResponseOf(attest::KeylimeVersion());
                    }});
  ApiRoute verify{http::Method::kPost,
                  "/v2.5/verify/evidence",
                  "Keylime: judge evidence of a TPM by the policies beside it",
                  nullptr,
                  nullptr,
                  200,
                  [](const Request& request, const Principal& principal) -> Result<Response> {
                    RETURN_IF_ERROR(Authorize(principal, Verb::kRead, Kind::kHost, {}));
                    return ResponseOf(attest::VerifyKeylimeEvidence(request.body));
                  }};
  verify.body_limit = ByteCount::Bytes(attest::kMaxKeylimeBody);
  routes.push_back(std::move(verify));
  return routes;
}

}  // namespace vallum::controller
