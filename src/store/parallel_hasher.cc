// SPDX-License-Identifier: Apache-2.0
#include "store/parallel_hasher.h"

#include <cstddef>
#include <mutex>
#include <thread>

#include "base/bytes.h"

namespace vallum::store {
namespace {

// Below this, waking the thread costs more than it saves.
constexpr size_t kSmallPiece = size_t{128} << 10U;

}  // namespace

ParallelHasher::~ParallelHasher() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void ParallelHasher::Start(ByteView bytes) {
  if (bytes.size() < kSmallPiece) {
    hasher_.Update(bytes);
    return;
  }
  if (!thread_.joinable()) thread_ = std::thread([this] { Run(); });
  const std::lock_guard lock(mutex_);
  work_ = bytes;
  busy_ = true;
  changed_.notify_all();
}

void ParallelHasher::Wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !busy_; });
}

Bytes ParallelHasher::Finish() {
  Wait();
  return hasher_.Finish();
}

void ParallelHasher::Restart() {
  Wait();
  hasher_ = Hasher(HashAlgorithm::kSha256);
}

void ParallelHasher::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stop_ || busy_; });
    if (!busy_) return;
    const ByteView bytes = work_;
    lock.unlock();
    hasher_.Update(bytes);
    lock.lock();
    busy_ = false;
    changed_.notify_all();
  }
}

}  // namespace vallum::store
