// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace vallum::http {

// Threads that run handlers, with a bounded line in front of them. Thread-safe.
class Pool {
 public:
  Pool(size_t threads, size_t waiting_limit);
  // Stops.
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // False when the line is full or the pool is stopped; the task is then not run.
  bool Submit(std::function<void()> task);
  // The same without the limit, for the next step of work that was let in before.
  bool SubmitNext(std::function<void()> task);
  // Drops waiting tasks and waits for running ones. Idempotent; not from a task.
  void Stop();

 private:
  bool Push(std::function<void()> task, size_t limit);
  void Work();

  const size_t waiting_limit_;
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::function<void()>> tasks_;
  bool stopped_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace vallum::http
