// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "agent/gateway.h"
#include "base/result.h"
#include "vallum/v1/agent.pb.h"

namespace vallum::agent {

// A vTPM whose guest runs.
struct RunningVtpm {
  std::string control_socket;
  std::string ek_certificate;  // PEM; empty: none yet
};

// Has vTPMs of this host sign PCR values when the controller asks for it, one after the other, and
// sends it what they said. Owns a thread. Thread-safe.
class QuoteDesk {
 public:
  static constexpr size_t kMaxWaiting = 64;
  // Finds an instance's vTPM. Errors: kNotFound, kConflict (in words).
  using Locate = std::function<Result<RunningVtpm>(const std::string& uid)>;

  //   channel: outlives the desk, as what `locate` refers to.
  QuoteDesk(const ChannelSlot& channel, Locate locate);
  ~QuoteDesk();
  QuoteDesk(const QuoteDesk&) = delete;
  QuoteDesk& operator=(const QuoteDesk&) = delete;

  // Returns at once. One that finds too many waiting before it is dropped: the controller's own
  // wait ends then.
  void Ask(const v1::MakeQuote& wanted);

 private:
  void Run(const std::stop_token& stop);
  Result<v1::InstanceQuote> Make(const v1::MakeQuote& wanted) const;

  const ChannelSlot& channel_;
  const Locate locate_;
  std::mutex mutex_;
  std::condition_variable_any asked_;
  std::deque<v1::MakeQuote> waiting_;  // guarded by mutex_
  std::jthread thread_;
};

}  // namespace vallum::agent
