// SPDX-License-Identifier: Apache-2.0
#include "controller/principal.h"

#include <string>
#include <string_view>

#include "base/error.h"

namespace vallum::controller {
namespace {

std::string_view VerbWords(Verb verb) {
  switch (verb) {
    case Verb::kRead:
      return "read";
    case Verb::kCreate:
      return "create";
    case Verb::kUpdate:
      return "change";
    case Verb::kDelete:
      return "delete";
    case Verb::kOperate:
      return "operate";
    case Verb::kConsole:
      return "open the console of";
    case Verb::kExplain:
      return "explain the scheduling of";
  }
  return "use";
}

std::string_view RoleWords(v1::Role role) {
  switch (role) {
    case v1::ROLE_ADMIN:
      return "admin";
    case v1::ROLE_OPERATOR:
      return "operator";
    case v1::ROLE_AUDITOR:
      return "auditor";
    case v1::ROLE_TENANT:
      return "tenant";
    case v1::ROLE_JOIN:
      return "join";
    default:
      return "none";
  }
}

// Events and operations are written by the controller alone.
bool WritableKind(Kind kind) { return kind != Kind::kEvent && kind != Kind::kOperation; }

// Who writes these decides which hosts are trusted: that is nothing for who runs them.
bool AnchorsTrust(Kind kind) {
  return kind == Kind::kAttestationPolicy || kind == Kind::kTpmAuthority ||
         kind == Kind::kAllowList;
}

bool TenantMay(const Principal& principal, Verb verb, Kind kind, std::string_view tenant) {
  if (kind == Kind::kInstance || kind == Kind::kSnapshot) {
    return !principal.tenant.empty() && tenant == principal.tenant;
  }
  return verb == Verb::kRead && Visible(principal, kind, tenant);
}

bool May(const Principal& principal, Verb verb, Kind kind, std::string_view tenant) {
  if (verb != Verb::kRead && !WritableKind(kind)) {
    return false;
  }
  switch (principal.role) {
    case v1::ROLE_ADMIN:
      return true;
    case v1::ROLE_OPERATOR:
      return kind != Kind::kToken && (verb == Verb::kRead || !AnchorsTrust(kind));
    case v1::ROLE_AUDITOR:
      return verb == Verb::kRead || verb == Verb::kExplain;
    case v1::ROLE_TENANT:
      return TenantMay(principal, verb, kind, tenant);
    default:
      return false;
  }
}

std::string_view NeededRole(Verb verb, Kind kind) {
  if (verb != Verb::kRead && !WritableKind(kind)) {
    return "nobody may: the controller alone writes these";
  }
  if (kind == Kind::kToken) {
    return verb == Verb::kRead ? "it takes the role admin or auditor" : "it takes the role admin";
  }
  if (AnchorsTrust(kind) && verb != Verb::kRead) return "it takes the role admin";
  if (kind == Kind::kInstance || kind == Kind::kSnapshot) {
    return "it takes the role admin or operator, or the tenant that owns it";
  }
  return "it takes the role admin or operator";
}

}  // namespace

Result<void> Authorize(const Principal& principal, Verb verb, Kind kind, std::string_view tenant) {
  if (May(principal, verb, kind, tenant)) {
    return Ok();
  }
  return Denied("token \"" + principal.name + "\" with the role " +
                std::string(RoleWords(principal.role)) + " may not " +
                std::string(VerbWords(verb)) + " this " + std::string(KindName(kind)))
      .WithFix(std::string(NeededRole(verb, kind)));
}

bool Visible(const Principal& principal, Kind kind, std::string_view tenant) {
  if (principal.role == v1::ROLE_JOIN || principal.role == v1::ROLE_UNSPECIFIED) {
    return false;
  }
  if (principal.role != v1::ROLE_TENANT) {
    return kind != Kind::kToken || principal.role != v1::ROLE_OPERATOR;
  }
  switch (kind) {
    case Kind::kInstance:
    case Kind::kOperation:
    case Kind::kSnapshot:
      return !principal.tenant.empty() && tenant == principal.tenant;
    case Kind::kPool:
    case Kind::kImage:
    case Kind::kFlavor:
    case Kind::kKeySet:
      return tenant.empty() || tenant == principal.tenant;
    case Kind::kHost:
    case Kind::kEvent:
    case Kind::kToken:
    case Kind::kRollout:
    case Kind::kAttestationPolicy:
    case Kind::kTpmAuthority:
    case Kind::kAllowList:
      return false;
  }
  return false;
}

}  // namespace vallum::controller
