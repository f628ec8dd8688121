// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "controller/controller.h"
#include "controller/instance_service.h"
#include "controller/key_set_content.h"
#include "controller/principal.h"
#include "controller/rest_context.h"
#include "controller/rest_json.h"
#include "controller/rest_query.h"
#include "http/message.h"

namespace vallum::controller {
namespace {

using http::Request;
using http::Response;

constexpr size_t kMaxNonce = 64;
constexpr const char* kDefaultPcrs = "sha256:0,1,2,3,4,5,6,7";

Result<Response> Create(RestContext& context, const Request& request, const Principal& principal) {
  v1::Instance instance;
  RETURN_IF_ERROR(FromJson(request.body, instance));
  // A tenant owns what it makes; others may make it for a tenant.
  if (principal.role == v1::ROLE_TENANT) instance.mutable_metadata()->set_tenant(principal.tenant);
  RETURN_IF_ERROR(
      Authorize(principal, Verb::kCreate, Kind::kInstance, instance.metadata().tenant()));
  RETURN_IF_ERROR(ValidateResource(Kind::kInstance, instance));
  instance.clear_status();
  ASSIGN_OR_RETURN(
      const InstanceService::Accepted accepted,
      context.controller.instances().Create(instance, principal, PreflightOf(context)));
  return AcceptedResponse(accepted.operation);
}

// The instance of the path, if the principal may do this to it.
Result<std::string> Target(RestContext& context, const Request& request, const Principal& principal,
                           Verb verb) {
  const std::string name = *request.Param("name");
  ASSIGN_OR_RETURN(const AnyResource instance,
                   FindVisible(context, principal, Kind::kInstance, name));
  RETURN_IF_ERROR(Authorize(principal, verb, Kind::kInstance, MetadataOf(*instance).tenant()));
  return name;
}

// What changed, for the event.
std::string ChangeWords(const v1::Instance& before, const v1::Instance& after) {
  if (before.spec().key_set() == after.spec().key_set() &&
      before.spec().key_set_version() == after.spec().key_set_version()) {
    return "labels or spec changed";
  }
  return "key set " + VersionWords(after.spec().key_set(), after.spec().key_set_version()) +
         " from its next start or reboot on";
}

// Another key set without a version is its newest, not the number that the former one had.
void ForgetVersion(const std::string& patch, v1::Instance& updated) {
  const nlohmann::json parsed = nlohmann::json::parse(patch, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object() || !parsed.contains("spec") || !parsed["spec"].is_object()) return;
  const nlohmann::json& spec = parsed["spec"];
  const auto has = [&](const char* camel, const char* snake) {
    return spec.contains(camel) || spec.contains(snake);
  };
  if (has("keySet", "key_set") && !has("keySetVersion", "key_set_version")) {
    updated.mutable_spec()->clear_key_set_version();
  }
}

//   if_match: 0: whatever is there. read: becomes the revision that the change was applied to.
Result<Response> ReplaceOnce(RestContext& context, const Request& request,
                             const Principal& principal, int64_t if_match, int64_t& read) {
  ASSIGN_OR_RETURN(const std::string name, Target(context, request, principal, Verb::kUpdate));
  ASSIGN_OR_RETURN(const bool force, ParseFlag(request, "force"));
  const auto current = context.controller.view().Get<v1::Instance>(name);
  if (current == nullptr) return NotFound("there is no instance " + name);
  read = current->metadata().revision();
  v1::Instance updated;
  if (request.method == http::Method::kPatch) {
    updated = *current;
    RETURN_IF_ERROR(ApplyMergePatch(request.body, updated));
    ForgetVersion(request.body, updated);
  } else {
    RETURN_IF_ERROR(FromJson(request.body, updated));
  }
  if (updated.metadata().name() != name) {
    return InvalidInput("metadata.name is not the path's \"" + name +
                        "\"; names cannot be changed");
  }
  RETURN_IF_ERROR(ValidateResource(Kind::kInstance, updated));
  const int64_t compare = if_match != 0 ? if_match : read;
  ASSIGN_OR_RETURN(const v1::Instance stored, context.controller.instances().Update(
                                                  updated, compare, PreflightOf(context),
                                                  force ? Unbootable::kWarn : Unbootable::kRefuse));
  (void)context.controller.events().Append({.kind = "instance.update",
                                            .severity = "info",
                                            .object = "instances/" + name,
                                            .user = principal.name,
                                            .message = ChangeWords(*current, stored),
                                            .tenant = stored.metadata().tenant()});
  return ResourceResponse(200, stored);
}

// Without If-Match a change is applied again to what its instance's host reported meanwhile.
Result<Response> Replace(RestContext& context, const Request& request, const Principal& principal) {
  constexpr int kAttempts = 10;
  ASSIGN_OR_RETURN(const int64_t if_match, ParseIfMatch(request.headers));
  for (int attempt = 1;; ++attempt) {
    int64_t read = 0;
    Result<Response> answer = ReplaceOnce(context, request, principal, if_match, read);
    const bool raced = !answer.has_value() && answer.error().code() == ErrorCode::kConflict &&
                       if_match == 0 && read != 0 && attempt < kAttempts;
    if (!raced) return answer;
    ASSIGN_OR_RETURN(const v1::Instance latest,
                     context.controller.resources().Get<v1::Instance>(*request.Param("name")));
    if (latest.metadata().revision() == read) return answer;
    RETURN_IF_ERROR(context.controller.view().WaitFor(latest.metadata().revision()));
  }
}

// {"force": true} or nothing.
Result<StopKind> ParseStop(const std::string& body) {
  if (Trim(body).empty()) return StopKind::kGraceful;
  const nlohmann::json parsed = nlohmann::json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object() || parsed.size() > 1 ||
      (parsed.size() == 1 && !(parsed.contains("force") && parsed["force"].is_boolean()))) {
    return InvalidInput("the request's body is not valid")
        .WithFix(R"(send {"force": true}, or nothing)");
  }
  return parsed.value("force", false) ? StopKind::kForce : StopKind::kGraceful;
}

using Action = Result<InstanceService::Accepted> (InstanceService::*)(std::string_view,
                                                                      const Principal&,
                                                                      store::Revision);

ApiHandler Act(RestContext& context, Verb verb, Action action) {
  return [&context, verb, action](const Request& request,
                                  const Principal& principal) -> Result<Response> {
    ASSIGN_OR_RETURN(const std::string name, Target(context, request, principal, verb));
    ASSIGN_OR_RETURN(const int64_t if_match, ParseIfMatch(request.headers));
    ASSIGN_OR_RETURN(const InstanceService::Accepted accepted,
                     (context.controller.instances().*action)(name, principal, if_match));
    return AcceptedResponse(accepted.operation);
  };
}

Result<Response> Stop(RestContext& context, const Request& request, const Principal& principal) {
  ASSIGN_OR_RETURN(const std::string name, Target(context, request, principal, Verb::kOperate));
  ASSIGN_OR_RETURN(const StopKind kind, ParseStop(request.body));
  ASSIGN_OR_RETURN(const int64_t if_match, ParseIfMatch(request.headers));
  ASSIGN_OR_RETURN(const InstanceService::Accepted accepted,
                   context.controller.instances().Stop(name, kind, principal, if_match));
  return AcceptedResponse(accepted.operation);
}

Result<Response> GrantConsole(RestContext& context, const Request& request,
                              const Principal& principal) {
  ASSIGN_OR_RETURN(const std::string name, Target(context, request, principal, Verb::kConsole));
  const auto instance = context.controller.view().Get<v1::Instance>(name);
  if (instance == nullptr) return NotFound("there is no instance " + name);
  const auto phase = instance->status().phase();
  if (phase != v1::INSTANCE_RUNNING && phase != v1::INSTANCE_PAUSED) {
    return Conflict("instance " + name + " does not run, so it has no console")
        .WithFix("start it first");
  }
  ASSIGN_OR_RETURN(
      const v1::ConsoleGrant grant,
      context.controller.console_grants().Issue({name, instance->metadata().uid(), principal}));
  ASSIGN_OR_RETURN(std::string body, ToJson(grant));
  return Response::Json(201, std::move(body));
}

Result<Response> Quote(RestContext& context, const Request& request, const Principal& principal) {
  ASSIGN_OR_RETURN(const std::string name, Target(context, request, principal, Verb::kRead));
  v1::InstanceQuoteRequest wanted;
  RETURN_IF_ERROR(FromJson(request.body, wanted));
  const auto nonce = FromHex(wanted.nonce());
  if (!nonce.has_value() || nonce->size() > kMaxNonce) {
    return InvalidInput("nonce is not hexadecimal, or longer than " + std::to_string(kMaxNonce) +
                        " bytes")
        .WithFix("send random bytes, such as the output of `openssl rand -hex 32`");
  }
  if (wanted.pcrs().empty()) wanted.set_pcrs(kDefaultPcrs);
  const auto instance = context.controller.view().Get<v1::Instance>(name);
  if (instance == nullptr) return NotFound("there is no instance " + name);
  const auto phase = instance->status().phase();
  if (phase != v1::INSTANCE_RUNNING && phase != v1::INSTANCE_PAUSED) {
    return Conflict("instance " + name + " does not run, so its vTPM cannot sign")
        .WithFix("start it first");
  }
  if (instance->status().boot().effective().tpm_model() == "none") {
    return Conflict("instance " + name + " has no vTPM").WithFix("make one with --tpm tpm-crb");
  }
  ASSIGN_OR_RETURN(const v1::InstanceQuote quote,
                   context.controller.gateway().Quote(name, *nonce, wanted.pcrs()));
  (void)context.controller.events().Append(
      {.kind = "instance.quoted",
       .severity = "info",
       .object = "instances/" + name,
       .user = principal.name,
       .message = "its vTPM signed " + quote.pcr_selection() + " with nonce " + quote.nonce(),
       .tenant = instance->metadata().tenant()});
  ASSIGN_OR_RETURN(std::string body, ToJson(quote));
  return Response::Json(200, std::move(body));
}

Result<Response> Explain(RestContext& context, const Request& request, const Principal& principal) {
  RETURN_IF_ERROR(Authorize(principal, Verb::kExplain, Kind::kInstance, principal.tenant));
  v1::ScheduleExplainRequest wanted;
  RETURN_IF_ERROR(FromJson(request.body, wanted));
  ASSIGN_OR_RETURN(v1::ScheduleExplainReply reply,
                   context.controller.instances().Explain(wanted.spec(), principal));
  if (principal.role == v1::ROLE_TENANT) {
    // Tenants do not read hosts: whether it fits is theirs, where and why not elsewhere is not.
    reply.clear_hosts();
    if (!reply.chosen().empty()) reply.set_chosen("a host");
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

Result<bool> ParseFlag(const http::Request& request, std::string_view name) {
  const std::optional<std::string> value = request.Query(name);
  if (!value.has_value() || *value == "false") return false;
  if (*value == "true") return true;
  return InvalidInput(std::string(name) + "=" + Printable(*value, 40) + " is not true or false");
}

Result<Response> AcceptedResponse(const v1::Operation& operation) {
  ASSIGN_OR_RETURN(Response response, ResourceResponse(202, operation));
  response.headers.Set("Location", "/v1/operations/" + operation.metadata().name());
  return response;
}

std::vector<ApiRoute> InstanceRoutes(RestContext& context) {
  using http::Method;
  const auto* instance = v1::Instance::descriptor();
  const auto* operation = v1::Operation::descriptor();
  const std::string all = "/v1/instances";
  const std::string one = all + "/{name}";
  return {
      {Method::kPost, all, "Create an instance; the answer is its operation", instance, operation,
       202, Bind(context, Create)},
      {Method::kPut, one, "Replace labels and the changeable part of spec", instance, instance, 200,
       Bind(context, Replace)},
      {Method::kPatch, one,
       "Merge-patch labels and the changeable part of spec; ?force=true for keys under which the "
       "image does not start",
       instance, instance, 200, Bind(context, Replace)},
      {Method::kDelete, one, "Delete an instance and its disks", nullptr, operation, 202,
       Act(context, Verb::kDelete, &InstanceService::Delete)},
      {Method::kPost, one + "/start", "Start", nullptr, operation, 202,
       Act(context, Verb::kOperate, &InstanceService::Start)},
      {Method::kPost, one + "/stop", R"(Stop by the power button, or at once with {"force": true})",
       nullptr, operation, 202, Bind(context, Stop)},
      {Method::kPost, one + "/reboot", "Reset", nullptr, operation, 202,
       Act(context, Verb::kOperate, &InstanceService::Reboot)},
      {Method::kPost, one + "/pause", "Pause", nullptr, operation, 202,
       Act(context, Verb::kOperate, &InstanceService::Pause)},
      {Method::kPost, one + "/resume", "Resume", nullptr, operation, 202,
       Act(context, Verb::kOperate, &InstanceService::Resume)},
      {Method::kPost, one + "/console", "A ticket for the serial console, good once and for 600 s",
       nullptr, v1::ConsoleGrant::descriptor(), 201, Bind(context, GrantConsole)},
      {Method::kPost, one + "/quote", "Have its vTPM sign PCR values, for tpm2_checkquote",
       v1::InstanceQuoteRequest::descriptor(), v1::InstanceQuote::descriptor(), 200,
       Bind(context, Quote)},
      {Method::kPost, "/v1/schedule/explain", "Where an instance would go, and why not elsewhere",
       v1::ScheduleExplainRequest::descriptor(), v1::ScheduleExplainReply::descriptor(), 200,
       Bind(context, Explain)},
  };
}

}  // namespace vallum::controller
