// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <mutex>
#include <utility>

#include "base/error.h"

// What all calls of the gateway share; nobody but gateway*.cc includes it.
namespace vallum::controller {

grpc::Status ToGrpcStatus(const Error& error);
// The same for a host that is known and may not have what it asks for: kDenied is no question of
// who it is.
grpc::Status ToRefusal(const Error& error);

// Counts calls under way: the gateway goes away after the last of them.
class LiveCalls {
 public:
  void Add();
  void Remove();
  void WaitForNone();

 private:
  std::mutex mutex_;
  std::condition_variable none_;
  int live_ = 0;
};

// Ends a call at once.
template <typename Reactor>
class Refusal final : public Reactor {
 public:
  Refusal(LiveCalls& live, grpc::Status status) : live_(live) {
    live_.Add();
    this->Finish(std::move(status));
  }
  void OnDone() override {
    LiveCalls& live = live_;
    delete this;
    live.Remove();
  }

 private:
  LiveCalls& live_;
};

}  // namespace vallum::controller
