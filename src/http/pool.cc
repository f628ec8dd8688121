// SPDX-License-Identifier: Apache-2.0
#include "http/pool.h"

#include <limits>
#include <utility>

namespace vallum::http {

Pool::Pool(size_t threads, size_t waiting_limit) : waiting_limit_(waiting_limit) {
  for (size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { Work(); });
}

Pool::~Pool() { Stop(); }

bool Pool::Submit(std::function<void()> task) { return Push(std::move(task), waiting_limit_); }

bool Pool::SubmitNext(std::function<void()> task) {
  return Push(std::move(task), std::numeric_limits<size_t>::max());
}

bool Pool::Push(std::function<void()> task, size_t limit) {
  {
    const std::lock_guard lock(mutex_);
    if (stopped_ || tasks_.size() >= limit) return false;
    tasks_.push_back(std::move(task));
  }
  ready_.notify_one();
  return true;
}

void Pool::Stop() {
  std::deque<std::function<void()>> dropped;
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    dropped.swap(tasks_);
  }
  ready_.notify_all();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

void Pool::Work() {
  std::unique_lock lock(mutex_);
  while (true) {
    ready_.wait(lock, [this] { return stopped_ || !tasks_.empty(); });
    if (stopped_) return;
    std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    task = nullptr;
    lock.lock();
  }
}

}  // namespace vallum::http
