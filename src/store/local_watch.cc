// SPDX-License-Identifier: Apache-2.0
#include "store/local_watch.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/result.h"

namespace vallum::store {
namespace {

// Revisions looked at before others get the mutex.
constexpr Revision kScanLength = 1024;

}  // namespace

LocalWatch::LocalWatch(std::shared_ptr<StoreState> state, KeyRange range, Revision next)
    : state_(std::move(state)), range_(std::move(range)), next_(next) {}

Result<std::optional<WatchBatch>> LocalWatch::Next(std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  std::unique_lock lock(state_->mutex);
  while (true) {
    RETURN_IF_ERROR(CheckUsable());
    if (auto batch = Scan()) return batch;
    if (next_ <= state_->visible) {
      lock.unlock();
      lock.lock();
    } else if (state_->published.wait_until(lock, deadline) == std::cv_status::timeout &&
               next_ > state_->visible && !cancelled_ && !state_->closing) {
      return std::optional<WatchBatch>();
    }
  }
}

void LocalWatch::Cancel() {
  const std::lock_guard lock(state_->mutex);
  cancelled_ = true;
  state_->published.notify_all();
}

Result<void> LocalWatch::CheckUsable() const {
  if (cancelled_) return Unavailable("the watch was cancelled");
  if (state_->closing) return Unavailable("the store is closing");
  if (next_ >= state_->index.first_logged()) return Ok();
  return Exhausted("the watch had read up to revision " + std::to_string(next_ - 1) +
                   " when history before revision " + std::to_string(state_->index.first_logged()) +
                   " was compacted")
      .WithFix("read the range again and watch from the revision after that read");
}

std::optional<WatchBatch> LocalWatch::Scan() {
  const Revision last = std::min(state_->visible, next_ + kScanLength);
  while (next_ <= last) {
    WatchBatch batch;
    batch.revision = next_;
    for (const VersionPtr& version : state_->index.Log(next_)) {
      if (!range_.Contains(version->kv.key)) continue;
      batch.events.push_back(
          {version->deleted() ? WatchEvent::Kind::kDelete : WatchEvent::Kind::kPut, version->kv});
    }
    ++next_;
    if (!batch.events.empty()) return batch;
  }
  return std::nullopt;
}

}  // namespace vallum::store
