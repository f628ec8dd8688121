// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <mutex>
#include <set>
#include <string>

#include "base/clock.h"

namespace vallum::controller {

// Lets each key through once a minute, so that nobody fills what others read. Thread-safe.
class MinutePace {
 public:
  explicit MinutePace(const Clock& clock) : clock_(clock) {}
  // Whether it is the first of its key in this minute.
  //   key: one of few, such as the name of a host.
  [[nodiscard]] bool Take(const std::string& key);

 private:
  const Clock& clock_;
  std::mutex mutex_;
  int64_t minute_ = -1;
  std::set<std::string> taken_;  // in that minute
};

}  // namespace vallum::controller
