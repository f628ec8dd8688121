// SPDX-License-Identifier: Apache-2.0
#include "controller/minute_pace.h"

#include <chrono>
#include <mutex>

namespace vallum::controller {

bool MinutePace::Take(const std::string& key) {
  const int64_t now = clock_.Monotonic().time_since_epoch() / std::chrono::minutes(1);
  const std::lock_guard lock(mutex_);
  if (now != minute_) taken_.clear();
  minute_ = now;
  return taken_.insert(key).second;
}

}  // namespace vallum::controller
