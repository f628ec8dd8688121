// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "base/result.h"
#include "controller/controller.h"
#include "controller/key_set_content.h"
#include "controller/principal.h"
#include "controller/rest_context.h"
#include "controller/rest_json.h"
#include "controller/rollouts.h"
#include "http/message.h"

namespace vallum::controller {
namespace {

using http::Request;
using http::Response;

// One that says what it is: "prod-3-1f9a2c".
std::string NameFor(const v1::RolloutSpec& spec) {
  constexpr size_t kRoom = 40;
  return spec.key_set().substr(0, kRoom) + "-" + std::to_string(spec.version()) + "-" +
         NewUid().substr(0, 6);
}

void Tell(RestContext& context, const Principal& principal, const std::string& what,
          const v1::Rollout& rollout) {
  const std::string& name = rollout.metadata().name();
  (void)context.controller.events().Append(
      {.kind = "rollout." + what,
       .severity = "info",
       .object = "rollouts/" + name,
       .user = principal.name,
       .message = "rollout " + name + " of key set " +
                  VersionWords(rollout.spec().key_set(), rollout.spec().version()) + " " + what,
       .tenant = {}});
}

Result<Response> Create(RestContext& context, const Request& request, const Principal& principal) {
  RETURN_IF_ERROR(Authorize(principal, Verb::kCreate, Kind::kRollout, {}));
  ASSIGN_OR_RETURN(const bool dry_run, ParseFlag(request, "dryRun"));
  v1::Rollout rollout;
  RETURN_IF_ERROR(FromJson(request.body, rollout));
  const View& view = context.controller.view();
  RETURN_IF_ERROR(PlanRollout(view, PreflightOf(context), rollout));
  if (dry_run) {
    ASSIGN_OR_RETURN(std::string body, ToJson(rollout));
    return Response::Json(200, std::move(body));
  }
  if (rollout.metadata().name().empty()) {
    rollout.mutable_metadata()->set_name(NameFor(rollout.spec()));
  }
  RETURN_IF_ERROR(ValidateResource(Kind::kRollout, rollout));
  RETURN_IF_ERROR(CreateRollout(context.controller.resources(), view, rollout));
  Tell(context, principal, "created", rollout);
  return ResourceResponse(201, rollout);
}

Result<Response> Stop(RestContext& context, const Request& request, const Principal& principal) {
  RETURN_IF_ERROR(Authorize(principal, Verb::kUpdate, Kind::kRollout, {}));
  ASSIGN_OR_RETURN(const v1::Rollout stopped,
                   StopRollout(context.controller.resources(), context.controller.view(),
                               *request.Param("name"), principal.name));
  Tell(context, principal, "stopped", stopped);
  return ResourceResponse(200, stopped);
}

}  // namespace

std::vector<ApiRoute> RolloutRoutes(RestContext& context) {
  const auto* rollout = v1::Rollout::descriptor();
  return {{http::Method::kPost, "/v1/rollouts",
           "Bring instances to a version of a key set; with ?dryRun=true only say which, and which "
           "would stop booting",
           rollout, rollout, 201,
           [&context](const Request& request, const Principal& principal) {
             return Create(context, request, principal);
           }},
          {http::Method::kPost, "/v1/rollouts/{name}/stop",
           "Set no more instances; nothing is taken back", nullptr, rollout, 200,
           [&context](const Request& request, const Principal& principal) {
             return Stop(context, request, principal);
           }}};
}

}  // namespace vallum::controller
