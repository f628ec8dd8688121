// SPDX-License-Identifier: Apache-2.0
// What clients of OpenAttestation ask: which hosts are trusted, and the whitelist.
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "attest/oat_trust.h"
#include "attest/oat_whitelist.h"
#include "base/error.h"
#include "base/result.h"
#include "controller/attestation_policies.h"
#include "controller/controller.h"
#include "controller/host_standing.h"
#include "controller/principal.h"
#include "controller/resource_store.h"
#include "controller/rest_context.h"
#include "http/message.h"

namespace vallum::controller {
namespace {

using attest::OatCollection;
using attest::OatEdit;
using attest::OatWhitelist;
using http::Method;
using http::Request;
using http::Response;

// The attestation policy that the whitelist is.
const std::string kWhitelist = "oat-whitelist";
constexpr int kAttempts = 5;

// Of what is there already, or is not there: OpenAttestation's code for both.
constexpr int kDataError = 1006;

Response Fault(const Error& error) {
  const int status = http::StatusOf(error.code());
  const bool data = error.code() == ErrorCode::kNotFound || error.code() == ErrorCode::kConflict;
  std::string message = error.Describe();
  if (!error.fix().empty()) message += "; " + error.fix();
  const nlohmann::ordered_json body = {{"error_code", std::to_string(data ? kDataError : status)},
                                       {"error_message", message}};
  return Response::Json(
      status, body.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

// Errors as clients of OpenAttestation read them.
ApiHandler WithFaults(ApiHandler handler) {
  return [handler = std::move(handler)](const Request& request,
                                        const Principal& principal) -> Result<Response> {
    Result<Response> response = handler(request, principal);
    return response.has_value() ? *std::move(response) : Fault(response.error());
  };
}

std::shared_ptr<const v1::Host> FindHost(const RestContext& context, const std::string& name) {
  return context.controller.view().Get<v1::Host>(name);
}

Result<Response> PollHosts(const RestContext& context, const Request& request,
                           const Principal& principal) {
  RETURN_IF_ERROR(Authorize(principal, Verb::kRead, Kind::kHost, {}));
  ASSIGN_OR_RETURN(const std::vector<std::string> names, attest::ParsePollHosts(request.body));
  std::vector<attest::OatHost> hosts;
  hosts.reserve(names.size());
  for (const std::string& name : names) {
    hosts.push_back(OatHostOf(name, FindHost(context, name).get(), context.controller.view(),
                              context.controller.resources().clock().Now()));
  }
  return Response::Json(200, attest::FormatPollHosts(hosts));
}

Result<Response> HostTrust(const RestContext& context, const Request& request,
                           const Principal& principal) {
  RETURN_IF_ERROR(Authorize(principal, Verb::kRead, Kind::kHost, {}));
  const std::string name = request.Query("hostName").value_or("");
  const auto host = FindHost(context, name);
  if (host == nullptr) return NotFound("there is no such host").WithFix("give ?hostName=");
  return Response::Json(
      200, attest::FormatOatHostTrust(OatHostOf(name, host.get(), context.controller.view(),
                                                context.controller.resources().clock().Now())));
}

struct StoredList {
  OatWhitelist list;
  store::Revision revision = 0;  // 0: there is none
};

Result<StoredList> ReadList(RestContext& context) {
  auto policy = context.controller.resources().Get<v1::AttestationPolicy>(kWhitelist);
  if (!policy.has_value()) {
    if (policy.error().code() == ErrorCode::kNotFound) return StoredList{};
    return policy.error();
  }
  StoredList out{.list = {}, .revision = policy->metadata().revision()};
  ASSIGN_OR_RETURN(out.list, attest::ParseOatDocument(policy->spec().document(), kWhitelist));
  return out;
}

// Drafts that a later one has replaced: they would fill the policy up.
void RetireOldDrafts(RestContext& context, const v1::AttestationPolicy& policy) {
  const auto& versions = policy.status().versions();
  for (int i = 0; i + 1 < versions.size(); ++i) {
    if (versions[i].state() != v1::POLICY_DRAFT) continue;
    // What stays will be tried again with the next edit.
    (void)context.controller.policies().Retire(kWhitelist, versions[i].version());
  }
}

using Edit = std::function<Result<OatWhitelist>(OatWhitelist)>;

Result<void> TryChange(RestContext& context, const Principal& principal, const StoredList& from,
                       const OatWhitelist& list) {
  v1::AttestationPolicy policy;
  policy.mutable_metadata()->set_name(kWhitelist);
  policy.mutable_spec()->set_description("The whitelist of /WLMService");
  ASSIGN_OR_RETURN(*policy.mutable_spec()->mutable_document(),
                   attest::FormatOatDocument(list, kWhitelist));
  AttestationPolicies& policies = context.controller.policies();
  RETURN_IF_ERROR(from.revision == 0 ? policies.Create(policy, principal.name)
                                     : policies.Update(policy, from.revision, principal.name));
  RetireOldDrafts(context, policy);
  return Ok();
}

Result<Response> Change(RestContext& context, const Principal& principal, const Edit& edit) {
  RETURN_IF_ERROR(Authorize(principal, Verb::kUpdate, Kind::kAttestationPolicy, {}));
  for (int attempt = 1;; ++attempt) {
    ASSIGN_OR_RETURN(StoredList stored, ReadList(context));
    ASSIGN_OR_RETURN(const OatWhitelist list, edit(stored.list));
    const Result<void> done = TryChange(context, principal, stored, list);
    if (done.has_value()) break;
    // Somebody else changed the list meanwhile.
    if (done.error().code() != ErrorCode::kConflict || attempt == kAttempts) return done.error();
  }
  (void)context.controller.events().Append({.kind = "attestationpolicy.updated",
                                            .severity = "info",
                                            .object = "attestationpolicies/" + kWhitelist,
                                            .user = principal.name,
                                            .message = "the whitelist was changed: a new draft",
                                            .tenant = {}});
  return Response::Text(200, "True");
}

Result<Response> ListEntries(RestContext& context, OatCollection collection, const Request& request,
                             const Principal& principal) {
  RETURN_IF_ERROR(Authorize(principal, Verb::kRead, Kind::kAttestationPolicy, {}));
  ASSIGN_OR_RETURN(const StoredList stored, ReadList(context));
  return Response::Json(
      200, attest::ListOat(stored.list, collection, request.Query("searchCriteria").value_or("")));
}

ApiHandler Editing(RestContext& context, OatCollection collection, OatEdit edit) {
  return [&context, collection, edit](const Request& request, const Principal& principal) {
    return Change(context, principal, [&](OatWhitelist list) {
      return attest::ChangeOat(std::move(list), collection, edit, request.body);
    });
  };
}

ApiHandler Removing(RestContext& context, OatCollection collection) {
  return [&context, collection](const Request& request, const Principal& principal) {
    return Change(context, principal, [&](OatWhitelist list) {
      return attest::RemoveOat(std::move(list), collection, request.query);
    });
  };
}

void AddRoute(std::vector<ApiRoute>& routes, Method method, const std::string& pattern,
              const std::string& summary, ApiHandler handler) {
  routes.push_back({method, pattern, "OpenAttestation: " + summary, nullptr, nullptr, 200,
                    WithFaults(std::move(handler))});
}

void AddCollection(RestContext& context, OatCollection collection, const std::string& path,
                   std::vector<ApiRoute>& routes) {
  const std::string pattern = "/WLMService/resources/" + path;
  AddRoute(routes, Method::kGet, pattern, "list of the whitelist: ?searchCriteria=",
           [&context, collection](const Request& request, const Principal& principal) {
             return ListEntries(context, collection, request, principal);
           });
  AddRoute(routes, Method::kPost, pattern, "add to the whitelist",
           Editing(context, collection, OatEdit::kAdd));
  AddRoute(routes, Method::kPut, pattern, "edit the whitelist",
           Editing(context, collection, OatEdit::kReplace));
  AddRoute(routes, Method::kDelete, pattern, "delete from the whitelist",
           Removing(context, collection));
}

}  // namespace

std::vector<ApiRoute> OatRoutes(RestContext& context) {
  std::vector<ApiRoute> routes;
  AddRoute(routes, Method::kPost, "/AttestationService/resources/PollHosts",
           "which of these hosts are trusted",
           [&context](const Request& request, const Principal& principal) {
             return PollHosts(context, request, principal);
           });
  AddRoute(routes, Method::kGet, "/AttestationService/resources/hosts/trust",
           "whether a host is trusted: ?hostName=",
           [&context](const Request& request, const Principal& principal) {
             return HostTrust(context, request, principal);
           });
  AddCollection(context, OatCollection::kOem, "oem", routes);
  AddCollection(context, OatCollection::kOs, "os", routes);
  AddCollection(context, OatCollection::kMle, "mles", routes);
  AddCollection(context, OatCollection::kPcr, "mles/whitelist/pcr", routes);
  return routes;
}

}  // namespace vallum::controller
