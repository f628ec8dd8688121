// SPDX-License-Identifier: Apache-2.0
// What an instance booted, and what it is meant to boot.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/text.h"
#include "controller/boot_verdicts.h"
#include "controller/controller.h"
#include "controller/principal.h"
#include "controller/rest_context.h"
#include "controller/rest_json.h"
#include "http/message.h"

namespace vallum::controller {
namespace {

using http::Request;
using http::Response;

// The instance of the path, if the principal may do this to it. A baseline belongs to its instance:
// who may start and stop it says what it is meant to boot.
Result<std::shared_ptr<const v1::Instance>> Target(RestContext& context, const Request& request,
                                                   const Principal& principal, Verb verb) {
  ASSIGN_OR_RETURN(const AnyResource found,
                   FindVisible(context, principal, Kind::kInstance, *request.Param("name")));
  RETURN_IF_ERROR(Authorize(principal, verb, Kind::kInstance, MetadataOf(*found).tenant()));
  return std::static_pointer_cast<const v1::Instance>(found);
}

Result<Response> MessageResponse(const google::protobuf::Message& message) {
  ASSIGN_OR_RETURN(std::string body, ToJson(message));
  return Response::Json(200, std::move(body));
}

template <typename T>
ApiHandler Reading(RestContext& context, Result<T> (BootVerdicts::*read)(const v1::Instance&)) {
  return [&context, read](const Request& request, const Principal& principal) -> Result<Response> {
    ASSIGN_OR_RETURN(const auto instance, Target(context, request, principal, Verb::kRead));
    ASSIGN_OR_RETURN(const T found, (context.controller.verdicts().*read)(*instance));
    return MessageResponse(found);
  };
}

// Tells what was done, and has the verdict judged again.
Result<Response> Changed(RestContext& context, const Principal& principal,
                         const v1::Instance& instance, const v1::Baseline& baseline,
                         const std::string& what) {
  const std::string& name = instance.metadata().name();
  (void)context.controller.events().Append(
      {.kind = "instance.baseline-" + what,
       .severity = "info",
       .object = "instances/" + name,
       .user = principal.name,
       .message = "baseline " + what + ": " + std::to_string(baseline.spec().events_size()) +
                  " extends, " + baseline.spec().origin(),
       .tenant = instance.metadata().tenant()});
  context.controller.reconciler().Rejudge(name);
  return ResourceResponse(200, baseline);
}

Result<Response> Accept(RestContext& context, const Request& request, const Principal& principal) {
  ASSIGN_OR_RETURN(const auto instance, Target(context, request, principal, Verb::kOperate));
  v1::BaselineAcceptRequest wanted;
  if (!Trim(request.body).empty()) {
    RETURN_IF_ERROR(FromJson(request.body, wanted));
  }
  ASSIGN_OR_RETURN(
      const v1::Baseline baseline,
      context.controller.verdicts().Accept(*instance, wanted.events_sha256(), principal.name));
  return Changed(context, principal, *instance, baseline, "accepted");
}

Result<Response> Replace(RestContext& context, const Request& request, const Principal& principal) {
  ASSIGN_OR_RETURN(const auto instance, Target(context, request, principal, Verb::kOperate));
  v1::Baseline wanted;
  RETURN_IF_ERROR(FromJson(request.body, wanted));
  ASSIGN_OR_RETURN(const v1::Baseline baseline,
                   context.controller.verdicts().Replace(*instance, wanted.spec(), principal.name));
  return Changed(context, principal, *instance, baseline, "set");
}

ApiHandler Pinning(RestContext& context, const std::string& what,
                   Result<v1::Baseline> (BootVerdicts::*change)(const v1::Instance&)) {
  return [&context, what, change](const Request& request,
                                  const Principal& principal) -> Result<Response> {
    ASSIGN_OR_RETURN(const auto instance, Target(context, request, principal, Verb::kOperate));
    ASSIGN_OR_RETURN(const v1::Baseline baseline,
                     (context.controller.verdicts().*change)(*instance));
    return Changed(context, principal, *instance, baseline, what);
  };
}

ApiHandler Bind(RestContext& context,
                Result<Response> (*handler)(RestContext&, const Request&, const Principal&)) {
  return [&context, handler](const Request& request, const Principal& principal) {
    return handler(context, request, principal);
  };
}

}  // namespace

std::vector<ApiRoute> BootRoutes(RestContext& context) {
  using http::Method;
  const std::string one = "/v1/instances/{name}";
  const std::string baseline = one + "/baseline";
  const auto* type = v1::Baseline::descriptor();
  return {
      {Method::kGet, one + "/boot", "What the last boot measured, what was predicted, the verdict",
       nullptr, v1::BootRecord::descriptor(), 200, Reading(context, &BootVerdicts::Record)},
      {Method::kGet, baseline, "What the instance is meant to boot", nullptr, type, 200,
       Reading(context, &BootVerdicts::Baseline)},
      {Method::kPost, baseline, "Replace its extends", type, type, 200, Bind(context, Replace)},
      {Method::kGet, baseline + "/diff", "What the last boot and the baseline have not in common",
       nullptr, v1::BaselineDiff::descriptor(), 200, Reading(context, &BootVerdicts::Diff)},
      {Method::kPost, baseline + "/accept", "Make what was measured last the baseline",
       v1::BaselineAcceptRequest::descriptor(), type, 200, Bind(context, Accept)},
      {Method::kPost, baseline + "/pin", "Let nothing but `accept` change it, and accept no update",
       nullptr, type, 200, Pinning(context, "pinned", &BootVerdicts::Pin)},
      {Method::kPost, baseline + "/unpin", "Undo pin", nullptr, type, 200,
       Pinning(context, "unpinned", &BootVerdicts::Unpin)},
  };
}

}  // namespace vallum::controller
