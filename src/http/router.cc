// SPDX-License-Identifier: Apache-2.0
#include "http/router.h"

#include <utility>

#include "base/check.h"
#include "base/text.h"

namespace vallum::http {
namespace {

bool IsParameter(std::string_view segment) {
  return segment.size() > 2 && segment.front() == '{' && segment.back() == '}';
}

bool Matches(const std::vector<std::string>& pattern, const std::vector<std::string>& path) {
  if (pattern.size() != path.size()) return false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (IsParameter(pattern[i]) ? path[i].empty() : pattern[i] != path[i]) return false;
  }
  return true;
}

// True if `a` has a literal at the first place where one of the two has and the other has not.
bool MoreLiteral(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (IsParameter(a[i]) != IsParameter(b[i])) return IsParameter(b[i]);
  }
  return false;
}

bool Serves(const Route& route, Method method) {
  return route.method == method || (route.method == Method::kGet && method == Method::kHead);
}

}  // namespace

void Router::Insert(Route route) {
  CHECK(!route.pattern.empty() && route.pattern.front() == '/');
  for (const auto& other : routes_) {
    CHECK(other->method != route.method || other->pattern != route.pattern);
  }
  segments_.push_back(Split(route.pattern, '/'));
  routes_.push_back(std::make_unique<Route>(std::move(route)));
}

void Router::Add(Method method, std::string pattern, Handler handler, ByteCount body_limit) {
  Route route;
  route.method = method;
  route.pattern = std::move(pattern);
  route.body_limit = body_limit;
  route.handler = std::move(handler);
  Insert(std::move(route));
}

void Router::AddUpload(Method method, std::string pattern, UploadHandler handler) {
  Route route;
  route.method = method;
  route.pattern = std::move(pattern);
  route.upload = std::move(handler);
  Insert(std::move(route));
}

Result<Router::Match> Router::Find(Method method, std::string_view path,
                                   std::string* allowed) const {
  allowed->clear();
  // Split before decoding: an escaped '/' belongs to its segment.
  std::vector<std::string> parts = Split(path, '/');
  for (std::string& part : parts) {
    ASSIGN_OR_RETURN(part, PercentDecode(part));
  }
  size_t best = routes_.size();
  for (size_t i = 0; i < routes_.size(); ++i) {
    if (!Matches(segments_[i], parts)) continue;
    if (!Serves(*routes_[i], method)) {
      if (!allowed->empty()) *allowed += ", ";
      *allowed += MethodName(routes_[i]->method);
    } else if (best == routes_.size() || MoreLiteral(segments_[i], segments_[best])) {
      best = i;
    }
  }
  if (best == routes_.size()) {
    if (allowed->empty()) return NotFound("no such path: " + Printable(path));
    return Denied(std::string(MethodName(method)) + " is not possible on " + Printable(path))
        .WithFix("use " + *allowed);
  }
  allowed->clear();
  Match match{.route = routes_[best].get(), .params = {}};
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string& segment = segments_[best][i];
    if (IsParameter(segment)) match.params[segment.substr(1, segment.size() - 2)] = parts[i];
  }
  return match;
}

}  // namespace vallum::http
