// SPDX-License-Identifier: Apache-2.0
#include "api_load.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

namespace vallum::bench {
namespace {

using Steady = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kPause{20};  // while the server is away
constexpr std::chrono::milliseconds kPoolEvery{100};

double Percentile(const std::vector<double>& sorted, double fraction) {
  if (sorted.empty()) return 0;
  return sorted[static_cast<size_t>(fraction * static_cast<double>(sorted.size() - 1))];
}

}  // namespace

ApiLoad::ApiLoad(const NewClient& new_client, std::string target, int per_second)
    : new_client_(new_client),
      target_(std::move(target)),
      per_second_(per_second),
      thread_([this] { Run(); }) {}

ApiLoad::~ApiLoad() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

Latency ApiLoad::Stop() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
  std::ranges::sort(milliseconds_);
  Latency out{.requests = milliseconds_.size(), .failed = failed_};
  if (milliseconds_.empty()) return out;
  out.p50_ms = Percentile(milliseconds_, 0.5);
  out.p99_ms = Percentile(milliseconds_, 0.99);
  out.max_ms = milliseconds_.back();
  return out;
}

void ApiLoad::Run() {
  std::unique_ptr<http::Client> client;
  Steady::time_point due = Steady::now();
  while (!stop_) {
    if (client == nullptr) {
      auto made = new_client_();
      if (made.has_value()) client = *std::move(made);
      due = Steady::now();
    }
    std::this_thread::sleep_until(due);
    http::ClientRequest request;
    request.target = target_;
    const bool good = client != nullptr && [&] {
      const auto answer = client->Send(request);
      return answer.has_value() && answer->status == 200;
    }();
    if (!good) {
      ++failed_;
      client.reset();
      std::this_thread::sleep_for(kPause);
      continue;
    }
    milliseconds_.push_back(std::chrono::duration<double, std::milli>(Steady::now() - due).count());
    due += std::chrono::nanoseconds(1'000'000'000LL / per_second_);
  }
}

PoolWatch::PoolWatch(const NewClient& new_client, std::string pool)
    : new_client_(new_client), pool_(std::move(pool)), thread_([this] { Run(); }) {}

PoolWatch::~PoolWatch() {
  stop_ = true;
  thread_.join();
}

void PoolWatch::Run() {
  while (!stop_) {
    const auto client = new_client_();
    http::ClientRequest request;
    request.target = "/v1/pools/" + pool_;
    while (client.has_value() && !stop_) {
      const auto answer = (*client)->Send(request);
      if (!answer.has_value() || answer->status != 200) break;
      const auto pool = nlohmann::json::parse(answer->body, nullptr, false);
      const int up = pool.value("/status/hostsUp"_json_pointer, 0);
      up_ = up;
      if (least_up_ < 0 || up < least_up_) least_up_ = up;
      std::this_thread::sleep_for(kPoolEvery);
    }
    std::this_thread::sleep_for(kPause);
  }
}

}  // namespace vallum::bench
