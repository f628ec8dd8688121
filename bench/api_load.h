// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "http/client.h"

namespace vallum::bench {

using NewClient = std::function<Result<std::unique_ptr<http::Client>>()>;

struct Latency {
  size_t requests = 0;
  size_t failed = 0;
  double p50_ms = 0;
  double p99_ms = 0;
  double max_ms = 0;
};

// GETs of one target at a steady rate over one connection with TLS, on a thread of its own. A
// request that is due while the one before still waits counts from when it was due, so that a stall
// is not hidden; while the server is away nothing is due.
class ApiLoad {
 public:
  ApiLoad(const NewClient& new_client, std::string target, int per_second);
  ~ApiLoad();
  ApiLoad(const ApiLoad&) = delete;
  ApiLoad& operator=(const ApiLoad&) = delete;

  Latency Stop();

 private:
  void Run();

  const NewClient new_client_;
  const std::string target_;
  const int per_second_;
  std::vector<double> milliseconds_;
  size_t failed_ = 0;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// Asks for a pool ten times a second and keeps the least number of its hosts that were UP.
class PoolWatch {
 public:
  PoolWatch(const NewClient& new_client, std::string pool);
  ~PoolWatch();
  PoolWatch(const PoolWatch&) = delete;
  PoolWatch& operator=(const PoolWatch&) = delete;

  int least_up() const { return least_up_; }  // -1: never seen
  int up() const { return up_; }

 private:
  void Run();

  const NewClient new_client_;
  const std::string pool_;
  std::atomic<int> least_up_{-1};
  std::atomic<int> up_{-1};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace vallum::bench
