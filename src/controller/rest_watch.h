// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "base/result.h"
#include "controller/principal.h"
#include "controller/resource_kind.h"
#include "controller/rest_context.h"
#include "controller/rest_query.h"
#include "controller/view.h"
#include "http/message.h"
#include "http/stream.h"

namespace vallum::controller {

// The open event streams and their subscriptions to the view. A stream may close inside a call of
// the view's own listener, where unsubscribing would wait for itself; so closed ones are only
// marked, and taken out here. Thread-safe. Destroyed after the HTTP server has stopped and before
// the view.
class WatchSessions {
 public:
  explicit WatchSessions(View& view) : view_(view) {}
  ~WatchSessions();
  WatchSessions(const WatchSessions&) = delete;
  WatchSessions& operator=(const WatchSessions&) = delete;

  struct Filter {
    Principal principal;
    Kind kind;
    Selector selector;
  };
  // Sends every change after a revision that passes the filter, until either side ends.
  // Errors: kNotFound (the revision is too old: list again).
  Result<void> Start(const RestContext& context, Filter filter, int64_t after,
                     std::shared_ptr<http::EventStream> stream);
  // Unsubscribes what has closed. Called now and then by any handler.
  void Reap();

 private:
  struct Session;
  View& view_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<Session>> sessions_;
};

// Answers ?watch= with an event stream.
Result<http::Response> StartWatch(RestContext& context, const Principal& principal, Kind kind,
                                  const ListQuery& query);

}  // namespace vallum::controller
