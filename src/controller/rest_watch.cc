// SPDX-License-Identifier: Apache-2.0
#include "controller/rest_watch.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/result.h"
#include "controller/principal.h"
#include "controller/rest_json.h"
#include "controller/rest_query.h"
#include "controller/view.h"
#include "http/message.h"
#include "http/stream.h"

namespace vallum::controller {

struct WatchSessions::Session {
  Filter filter;
  std::shared_ptr<http::EventStream> stream;
  std::atomic<bool> closed{false};
  View::SubscriptionId subscription = 0;
};

namespace {

// Sends one change if the filter lets it through. A resource that stops matching is sent as a
// deletion, so that a client that keeps a copy drops it.
bool SendChange(const RestContext& context, const WatchSessions::Filter& filter,
                const Change& change, http::EventStream& stream) {
  if (change.kind != filter.kind) return true;
  if (!Visible(filter.principal, change.kind, MetadataOf(*change.resource).tenant())) return true;
  const bool put = change.what == Change::What::kPut && Matches(filter.selector, *change.resource);
  Result<std::string> json = ToJson(*Shown(context, change.kind, *change.resource));
  if (!json.has_value()) return false;
  return stream.Send({.id = std::to_string(change.revision),
                      .event = put ? "put" : "delete",
                      .data = *std::move(json)});
}

}  // namespace

WatchSessions::~WatchSessions() {
  const std::lock_guard lock(mutex_);
  for (const auto& session : sessions_) view_.Unsubscribe(session->subscription);
}

Result<void> WatchSessions::Start(const RestContext& context, Filter filter, int64_t after,
                                  std::shared_ptr<http::EventStream> stream) {
  Reap();
  auto session = std::make_shared<Session>();
  session->filter = std::move(filter);
  session->stream = stream;
  stream->OnClosed([weak = std::weak_ptr<Session>(session)] {
    if (const auto closed = weak.lock()) closed->closed = true;
  });
  const auto listener = [context, session](const Change& change) {
    if (session->closed) return;
    // A token that was taken back ends what it opened.
    if (context.controller.view().Get<v1::Token>(session->filter.principal.name) == nullptr) {
      session->closed = true;
      session->stream->Close();
      return;
    }
    if (!SendChange(context, session->filter, change, *session->stream)) {
      session->closed = true;
      session->stream->Close();
    }
  };
  ASSIGN_OR_RETURN(session->subscription, view_.Subscribe(after + 1, listener));
  const std::lock_guard lock(mutex_);
  sessions_.push_back(std::move(session));
  return Ok();
}

void WatchSessions::Reap() {
  std::vector<std::shared_ptr<Session>> ended;
  {
    const std::lock_guard lock(mutex_);
    const auto first = std::partition(sessions_.begin(), sessions_.end(),
                                      [](const auto& s) { return !s->closed; });
    std::move(first, sessions_.end(), std::back_inserter(ended));
    sessions_.erase(first, sessions_.end());
  }
  for (const auto& session : ended) view_.Unsubscribe(session->subscription);
}

Result<http::Response> StartWatch(RestContext& context, const Principal& principal, Kind kind,
                                  const ListQuery& query) {
  WatchSessions::Filter filter{.principal = principal, .kind = kind, .selector = query.selector};
  const int64_t after = *query.watch == 0 ? context.controller.view().revision() : *query.watch;
  return http::Response::Events(
      [&context, filter, after](std::shared_ptr<http::EventStream> stream) {
        const Result<void> started = context.watches.Start(context, filter, after, stream);
        if (started.has_value()) return;
        const http::Response problem = http::ProblemResponse(started.error());
        stream->Send({.id = {}, .event = "error", .data = problem.body});
        stream->Close();
      });
}

}  // namespace vallum::controller
