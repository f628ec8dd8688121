// SPDX-License-Identifier: Apache-2.0
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "controller/allow_list_use.h"
#include "controller/content_claims.h"
#include "controller/controller.h"
#include "controller/deletion.h"
#include "controller/principal.h"
#include "controller/resource_kind.h"
#include "controller/rest_context.h"
#include "controller/rest_json.h"
#include "controller/rest_query.h"
#include "controller/rest_watch.h"
#include "http/message.h"

namespace vallum::controller {
namespace {

using google::protobuf::Message;
using http::Request;
using http::Response;

// What people may do to resources of a kind through the generic handlers; instances have their own.
struct KindRules {
  Kind kind;
  bool create;
  bool update;
  bool remove;
};

constexpr KindRules kRules[] = {
    {Kind::kPool, true, true, true},         {Kind::kHost, false, true, true},
    {Kind::kImage, true, true, true},        {Kind::kFlavor, true, true, true},
    {Kind::kInstance, false, false, false},  {Kind::kOperation, false, false, false},
    {Kind::kEvent, false, false, false},     {Kind::kToken, false, false, true},
    {Kind::kKeySet, true, true, true},       {Kind::kSnapshot, false, false, true},
    {Kind::kRollout, false, false, true},    {Kind::kAttestationPolicy, true, true, true},
    {Kind::kTpmAuthority, true, true, true}, {Kind::kAllowList, true, true, true},
};

Result<Response> List(RestContext& context, Kind kind, const Request& request,
                      const Principal& principal) {
  RETURN_IF_ERROR(Authorize(principal, Verb::kRead, kind, principal.tenant));
  ASSIGN_OR_RETURN(const ListQuery query,
                   ParseListQuery(request.query, *NewResource(kind)->GetDescriptor()));
  if (query.watch.has_value()) return StartWatch(context, principal, kind, query);
  const View::Listing listing = context.controller.view().List(kind, query.after);
  std::string body = R"({"items":[)";
  std::string last;
  std::string next;
  size_t count = 0;
  for (const AnyResource& item : listing.items) {
    if (!Visible(principal, kind, MetadataOf(*item).tenant()) || !Matches(query.selector, *item))
      continue;
    if (count == query.limit) {
      next = PageToken(last);
      break;
    }
    ASSIGN_OR_RETURN(const std::string json, ToJson(*Shown(context, kind, *item)));
    body += count == 0 ? json : "," + json;
    last = MetadataOf(*item).name();
    ++count;
  }
  body += "]";
  if (!next.empty()) body += R"(,"nextPage":")" + next + "\"";
  body += R"(,"revision":")" + std::to_string(listing.revision) + "\"}";
  return Response::Json(200, std::move(body));
}

Result<Response> Get(RestContext& context, Kind kind, const Request& request,
                     const Principal& principal) {
  RETURN_IF_ERROR(Authorize(principal, Verb::kRead, kind, principal.tenant));
  ASSIGN_OR_RETURN(const AnyResource resource,
                   FindVisible(context, principal, kind, *request.Param("name")));
  return ResourceResponse(200, *Shown(context, kind, *resource));
}

void ClearStatus(Message& resource) {
  const auto* field = resource.GetDescriptor()->FindFieldByName("status");
  if (field != nullptr) resource.GetReflection()->ClearField(&resource, field);
}

void Audit(RestContext& context, const Principal& principal, Kind kind, const std::string& what,
           const std::string& name) {
  // The change is done and acknowledged; an event that cannot be written must not undo it.
  (void)context.controller.events().Append(
      {.kind = std::string(KindName(kind)) + "." + what,
       .severity = "info",
       .object = std::string(KindPlural(kind)) + "/" + name,
       .user = principal.name,
       .message = std::string(KindName(kind)) + " " + name + " " + what,
       .tenant = {}});
}

// Kinds with versions have services that make them.
Result<void> StoreNew(Controller& controller, Kind kind, Message& resource,
                      const Principal& principal) {
  if (kind == Kind::kKeySet) {
    return controller.key_sets().Create(static_cast<v1::KeySet&>(resource), principal.name);
  }
  if (kind == Kind::kAttestationPolicy) {
    return controller.policies().Create(static_cast<v1::AttestationPolicy&>(resource),
                                        principal.name);
  }
  return controller.resources().CreateAny(kind, resource);
}

Result<void> StoreChanged(Controller& controller, Kind kind, Message& resource,
                          store::Revision compare, const Principal& principal) {
  if (kind == Kind::kKeySet) {
    return controller.key_sets().Update(static_cast<v1::KeySet&>(resource), compare,
                                        principal.name);
  }
  if (kind == Kind::kAttestationPolicy) {
    return controller.policies().Update(static_cast<v1::AttestationPolicy&>(resource), compare,
                                        principal.name);
  }
  return controller.resources().UpdateAny(kind, resource, compare);
}

Result<UntrustedAllowance> AllowanceOf(const Request& request) {
  ASSIGN_OR_RETURN(const bool said, ParseFlag(request, "allowUntrusted"));
  return said ? UntrustedAllowance::kSaid : UntrustedAllowance::kNotSaid;
}

void TellOverridden(RestContext& context, const Principal& principal, Kind kind,
                    const std::string& name) {
  (void)context.controller.events().Append(
      {.kind = std::string(KindName(kind)) + ".trust-overridden",
       .severity = "warning",
       .object = std::string(KindPlural(kind)) + "/" + name,
       .user = principal.name,
       .message = "trusted instances stay on hosts that need no longer be attested: "
                  "allow_untrusted was said",
       .tenant = {}});
}

// A trusted pool without a policy trusts nobody: allowed, as a step on the way, and said.
void WarnOfPool(RestContext& context, const Principal& principal, Kind kind,
                const Message& resource) {
  if (kind != Kind::kPool) return;
  const auto& pool = static_cast<const v1::Pool&>(resource);
  if (!pool.spec().trusted_service() || !pool.spec().attestation_policy().empty()) return;
  const std::string& name = pool.metadata().name();
  (void)context.controller.events().Append(
      {.kind = "pool.no-policy",
       .severity = "warning",
       .object = "pools/" + name,
       .user = principal.name,
       .message = "pool " + name +
                  " is trusted and names no attestation policy: until it does, no host of it is "
                  "trusted, and nothing starts there",
       .tenant = {}});
}

Result<Response> Create(RestContext& context, Kind kind, const Request& request,
                        const Principal& principal) {
  RETURN_IF_ERROR(Authorize(principal, Verb::kCreate, kind, {}));
  const std::unique_ptr<Message> resource = NewResource(kind);
  RETURN_IF_ERROR(FromJson(request.body, *resource));
  ClearStatus(*resource);
  RETURN_IF_ERROR(ValidateResource(kind, *resource));
  RETURN_IF_ERROR(CheckTrustAnchors(principal, kind, nullptr, *resource));
  if (kind == Kind::kImage)
    static_cast<v1::Image&>(*resource).mutable_status()->set_state(v1::IMAGE_PENDING);
  RETURN_IF_ERROR(CheckReferences(context.controller.view(), kind, *resource));
  RETURN_IF_ERROR(StoreNew(context.controller, kind, *resource, principal));
  RETURN_IF_ERROR(context.controller.view().WaitFor(MetadataOf(*resource).revision()));
  Audit(context, principal, kind, "created", MetadataOf(*resource).name());
  WarnOfPool(context, principal, kind, *resource);
  return ResourceResponse(201, *Shown(context, kind, *resource));
}

// What may not be changed once a resource exists.
Result<void> CheckImmutable(Kind kind, const Message& current, const Message& updated) {
  if (kind != Kind::kImage) return Ok();
  const auto& before = static_cast<const v1::Image&>(current).spec();
  const auto& after = static_cast<const v1::Image&>(updated).spec();
  if (before.disk_format() == after.disk_format() &&
      before.expected_sha256() == after.expected_sha256())
    return Ok();
  return InvalidInput("spec.diskFormat and spec.expectedSha256 of an image cannot be changed")
      .WithFix("import the content as another image");
}

// A verdict is one by the policy of the host's pool: another pool begins with none.
void ForgetTrustOfAnotherPool(const Message& before, Message& after) {
  auto& host = static_cast<v1::Host&>(after);
  if (static_cast<const v1::Host&>(before).spec().pool() != host.spec().pool()) {
    host.mutable_status()->clear_trust();
  }
}

// PUT and PATCH: takes labels and spec from what `change` made of the current resource.
Result<Response> Update(RestContext& context, Kind kind, const Request& request,
                        const Principal& principal,
                        const std::function<Result<void>(Message&)>& change) {
  const std::string name = *request.Param("name");
  ASSIGN_OR_RETURN(const AnyResource current, FindVisible(context, principal, kind, name));
  RETURN_IF_ERROR(Authorize(principal, Verb::kUpdate, kind, MetadataOf(*current).tenant()));
  ASSIGN_OR_RETURN(const int64_t if_match, ParseIfMatch(request.headers));
  // What is kept of it, such as its status, is kept of exactly this revision.
  if (if_match != 0 && if_match != MetadataOf(*current).revision()) {
    return Conflict(std::string(KindName(kind)) + " \"" + name + "\" is at revision " +
                    std::to_string(MetadataOf(*current).revision()) + " here, and If-Match names " +
                    std::to_string(if_match))
        .WithFix("read it again and repeat the change on what you read");
  }
  const std::unique_ptr<Message> updated(current->New());
  updated->CopyFrom(*current);
  RETURN_IF_ERROR(change(*updated));
  if (MetadataOf(*updated).name() != name) {
    return InvalidInput("metadata.name \"" + Printable(MetadataOf(*updated).name(), 63) +
                        "\" is not the path's \"" + name + "\"; names cannot be changed");
  }
  RETURN_IF_ERROR(ValidateResource(kind, *updated));
  RETURN_IF_ERROR(CheckImmutable(kind, *current, *updated));
  const View& view = context.controller.view();
  RETURN_IF_ERROR(CheckReferences(view, kind, *updated));
  RETURN_IF_ERROR(CheckTrustAnchors(principal, kind, current.get(), *updated));
  ASSIGN_OR_RETURN(const UntrustedAllowance allowance, AllowanceOf(request));
  ASSIGN_OR_RETURN(const TrustCrossing crossing,
                   CheckTrustKept(view, kind, *current, *updated, allowance));
  // The status is ours, whatever was sent; without If-Match the change still applies to what was
  // read here.
  const auto* status = updated->GetDescriptor()->FindFieldByName("status");
  if (status != nullptr) {
    updated->GetReflection()->ClearField(updated.get(), status);
    if (current->GetReflection()->HasField(*current, status)) {
      updated->GetReflection()
          ->MutableMessage(updated.get(), status)
          ->CopyFrom(current->GetReflection()->GetMessage(*current, status));
    }
  }
  if (kind == Kind::kHost) ForgetTrustOfAnotherPool(*current, *updated);
  RETURN_IF_ERROR(
      StoreChanged(context.controller, kind, *updated, MetadataOf(*current).revision(), principal));
  RETURN_IF_ERROR(view.WaitFor(MetadataOf(*updated).revision()));
  Audit(context, principal, kind, "updated", name);
  if (crossing == TrustCrossing::kAllowed) TellOverridden(context, principal, kind, name);
  WarnOfPool(context, principal, kind, *updated);
  return ResourceResponse(200, *Shown(context, kind, *updated));
}

Result<Response> Put(RestContext& context, Kind kind, const Request& request,
                     const Principal& principal) {
  return Update(context, kind, request, principal, [&](Message& resource) -> Result<void> {
    const std::unique_ptr<Message> sent(resource.New());
    RETURN_IF_ERROR(FromJson(request.body, *sent));
    resource.CopyFrom(*sent);
    return Ok();
  });
}

Result<Response> Patch(RestContext& context, Kind kind, const Request& request,
                       const Principal& principal) {
  return Update(context, kind, request, principal,
                [&](Message& resource) { return ApplyMergePatch(request.body, resource); });
}

// What a deleted resource alone has kept.
void RemoveContents(RestContext& context, Kind kind, const Message& resource) {
  if (kind == Kind::kImage) {
    context.contents.RemoveUnused(static_cast<const v1::Image&>(resource).status().sha256());
  }
  if (kind == Kind::kSnapshot) {
    const v1::SnapshotStatus& status = static_cast<const v1::Snapshot&>(resource).status();
    for (const auto* part : {&status.disk(), &status.variables(), &status.tpm()}) {
      context.contents.RemoveUnused(part->sha256());
    }
  }
  if (kind == Kind::kAllowList) {
    context.contents.RemoveUnused(static_cast<const v1::AllowList&>(resource).status().sha256());
  }
  if (kind == Kind::kAttestationPolicy) {
    const auto& policy = static_cast<const v1::AttestationPolicy&>(resource);
    for (const v1::AttestationPolicyVersion& version : policy.status().versions()) {
      context.contents.RemoveUnused(AllowListOf(version));
    }
  }
}

Result<Response> Delete(RestContext& context, Kind kind, const Request& request,
                        const Principal& principal) {
  const std::string name = *request.Param("name");
  ASSIGN_OR_RETURN(const AnyResource current, FindVisible(context, principal, kind, name));
  RETURN_IF_ERROR(Authorize(principal, Verb::kDelete, kind, MetadataOf(*current).tenant()));
  ASSIGN_OR_RETURN(const int64_t if_match, ParseIfMatch(request.headers));
  ASSIGN_OR_RETURN(const store::Revision revision,
                   DeleteUnused(context.controller.resources(), context.controller.view(), kind,
                                name, if_match));
  RETURN_IF_ERROR(context.controller.view().WaitFor(revision));
  RemoveContents(context, kind, *current);
  if (kind == Kind::kHost) context.controller.gateway().Disconnect(name);
  Audit(context, principal, kind, "deleted", name);
  Response response;
  response.status = 204;
  return response;
}

Result<Response> CreateToken(RestContext& context, const Request& request,
                             const Principal& principal) {
  RETURN_IF_ERROR(Authorize(principal, Verb::kCreate, Kind::kToken, {}));
  v1::Token wanted;
  RETURN_IF_ERROR(FromJson(request.body, wanted));
  const std::string& pool = wanted.spec().pool();
  if (wanted.spec().role() == v1::ROLE_JOIN && !pool.empty() &&
      context.controller.view().Get<v1::Pool>(pool) == nullptr) {
    return NotFound("spec.pool: there is no pool " + Printable(pool, 63));
  }
  ASSIGN_OR_RETURN(v1::Token token,
                   context.controller.tokens().Create(wanted.metadata().name(), wanted.spec()));
  if (token.spec().role() == v1::ROLE_JOIN) {
    token.mutable_status()->set_secret(context.controller.JoinStringFor(token.status().secret()));
  }
  Audit(context, principal, Kind::kToken, "created", token.metadata().name());
  const std::string secret = token.status().secret();
  token = Tokens::Redacted(std::move(token));
  token.mutable_status()->set_secret(secret);
  return ResourceResponse(201, token);
}

ApiHandler Bind(RestContext& context, Kind kind,
                Result<Response> (*handler)(RestContext&, Kind, const Request&, const Principal&)) {
  return [&context, kind, handler](const Request& request, const Principal& principal) {
    return handler(context, kind, request, principal);
  };
}

void AddKind(RestContext& context, const KindRules& rules, std::vector<ApiRoute>& routes) {
  const auto* type = NewResource(rules.kind)->GetDescriptor();
  const std::string name(KindName(rules.kind));
  const std::string all = "/v1/" + std::string(KindPlural(rules.kind));
  const std::string one = all + "/{name}";
  using http::Method;
  routes.push_back({Method::kGet, all,
                    "List " + std::string(KindPlural(rules.kind)) + ", or watch them with ?watch=",
                    nullptr, type, 200, Bind(context, rules.kind, List), true});
  routes.push_back(
      {Method::kGet, one, "Get one " + name, nullptr, type, 200, Bind(context, rules.kind, Get)});
  if (rules.create) {
    routes.push_back({Method::kPost, all, "Create a " + name, type, type, 201,
                      Bind(context, rules.kind, Create)});
  }
  if (rules.update) {
    routes.push_back({Method::kPut, one, "Replace labels and spec of a " + name, type, type, 200,
                      Bind(context, rules.kind, Put)});
    routes.push_back({Method::kPatch, one, "Merge-patch a " + name, type, type, 200,
                      Bind(context, rules.kind, Patch)});
  }
  if (rules.remove) {
    routes.push_back({Method::kDelete, one, "Delete a " + name, nullptr, nullptr, 204,
                      Bind(context, rules.kind, Delete)});
  }
}

}  // namespace

Result<Response> ResourceResponse(int status, const Message& resource) {
  ASSIGN_OR_RETURN(std::string body, ToJson(resource));
  Response response = Response::Json(status, std::move(body));
  response.headers.Set("ETag", "\"" + std::to_string(MetadataOf(resource).revision()) + "\"");
  return response;
}

Result<AnyResource> FindVisible(const RestContext& context, const Principal& principal, Kind kind,
                                const std::string& name) {
  AnyResource resource = context.controller.view().Find(kind, name);
  if (resource == nullptr || !Visible(principal, kind, MetadataOf(*resource).tenant())) {
    return NotFound("there is no " + std::string(KindName(kind)) + " " + Printable(name, 63))
        .WithFix("see GET /v1/" + std::string(KindPlural(kind)));
  }
  return resource;
}

std::unique_ptr<Message> Shown(const RestContext& context, Kind kind, const Message& resource) {
  std::unique_ptr<Message> shown(resource.New());
  shown->CopyFrom(resource);
  if (kind == Kind::kToken) {
    auto& token = static_cast<v1::Token&>(*shown);
    token = Tokens::Redacted(token);
  } else if (kind == Kind::kPool) {
    auto& pool = static_cast<v1::Pool&>(*shown);
    const View::Placement all = context.controller.view().ForPlacement();
    v1::PoolStatus status;
    for (const auto& host : all.hosts) {
      if (host->spec().pool() != pool.metadata().name()) continue;
      status.set_hosts(status.hosts() + 1);
      if (host->status().state() == v1::HOST_UP) status.set_hosts_up(status.hosts_up() + 1);
    }
    for (const auto& instance : all.instances) {
      const std::string& in = instance->spec().pool();
      if ((in.empty() ? "default" : in) == pool.metadata().name())
        status.set_instances(status.instances() + 1);
    }
    *pool.mutable_status() = status;
  } else if (kind == Kind::kKeySet) {
    ShowKeySet(context, static_cast<v1::KeySet&>(*shown));
  } else if (kind == Kind::kAttestationPolicy) {
    ShowPolicy(static_cast<v1::AttestationPolicy&>(*shown));
  }
  return shown;
}

std::vector<ApiRoute> ResourceRoutes(RestContext& context) {
  std::vector<ApiRoute> routes;
  for (const KindRules& rules : kRules) AddKind(context, rules, routes);
  routes.push_back({http::Method::kPost, "/v1/tokens",
                    "Create a token; status.secret of the answer is its only copy",
                    v1::Token::descriptor(), v1::Token::descriptor(), 201,
                    [&context](const Request& request, const Principal& principal) {
                      return CreateToken(context, request, principal);
                    }});
  return routes;
}

}  // namespace vallum::controller
