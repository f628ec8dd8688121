// SPDX-License-Identifier: Apache-2.0
// Placing an instance and claiming its room, among 1,000 and among 100,000 hosts, beside looking at
// each of 1,000 hosts.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "base/check.h"
#include "placement/host_index.h"

namespace {

using vallum::ByteCount;
using vallum::placement::HostIndex;
using vallum::placement::HostView;
using vallum::placement::Request;

constexpr int kPlacements = 2000;
constexpr int kRounds = 5;
constexpr double kTargetMs = 0.010;

HostView MakeHost(uint32_t number, std::mt19937& random) {
  HostView host;
  host.name = "node" + std::to_string(number);
  host.pool = "default";
  host.state = vallum::placement::HostState::kUp;
  for (const auto trait : {vallum::placement::kTraitSmm, vallum::placement::kTraitSecureBoot,
                           vallum::placement::kTraitTpm20, vallum::placement::kTraitUefi}) {
    if (random() % 10 != 0) host.traits.Insert(trait);
  }
  host.accelerator = random() % 8 == 0 ? "tcg" : "kvm";
  host.cpus = 16 << (random() % 4);
  host.memory = ByteCount::GiB(uint64_t{64} << (random() % 4));
  host.allocated_vcpus = static_cast<int64_t>(random() % static_cast<uint32_t>(host.cpus * 3));
  host.allocated_memory = ByteCount::GiB(random() % 60);
  host.disk_free = ByteCount::GiB(100 + random() % 4000);
  return host;
}

std::vector<HostView> MakeHosts(uint32_t count) {
  std::mt19937 random(42);
  std::vector<HostView> hosts;
  for (uint32_t i = 0; i < count; ++i) hosts.push_back(MakeHost(i, random));
  return hosts;
}

Request MakeRequest() {
  Request request;
  request.pool = "default";
  request.required_traits.Insert(vallum::placement::kTraitSmm);
  request.required_traits.Insert(vallum::placement::kTraitSecureBoot);
  request.vcpus = 4;
  request.memory = ByteCount::GiB(8);
  request.disk = ByteCount::GiB(40);
  return request;
}

template <typename Work>
double MedianMsEach(int count, Work work) {
  std::vector<double> times;
  for (int round = 0; round < kRounds; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
    times.push_back(took.count() / count);
  }
  std::ranges::nth_element(times, times.begin() + kRounds / 2);
  return times[kRounds / 2];
}

double PlaceWithIndex(const std::vector<HostView>& hosts) {
  HostIndex index;
  for (const HostView& host : hosts) index.Put(host);
  const Request request = MakeRequest();
  return MedianMsEach(kPlacements, [&] {
    for (int i = 0; i < kPlacements; ++i) {
      const HostView* chosen = index.Choose(request);
      CHECK(chosen != nullptr);
      index.SetAllocated(
          chosen->name, chosen->allocated_vcpus + request.vcpus,
          ByteCount::Bytes(chosen->allocated_memory.bytes() + request.memory.bytes()));
    }
  });
}

double PlaceByLookingAtEach(std::vector<HostView> hosts) {
  constexpr int kFew = 50;
  const Request request = MakeRequest();
  return MedianMsEach(kFew, [&] {
    for (int i = 0; i < kFew; ++i) {
      const size_t best = vallum::placement::Choose(hosts, request);
      CHECK(best < hosts.size());
      hosts[best].allocated_vcpus += request.vcpus;
    }
  });
}

}  // namespace

int main() {
  const std::vector<HostView> thousand = MakeHosts(1000);
  const double scan = PlaceByLookingAtEach(thousand);
  const double small = PlaceWithIndex(thousand);
  const double large = PlaceWithIndex(MakeHosts(100'000));
  std::printf("place and claim, 1,000 hosts:   %.5f ms (target <= %.3f; looking at each: %.5f ms)\n",
              small, kTargetMs, scan);
  std::printf("place and claim, 100,000 hosts: %.5f ms, %.2f x (target <= 2 x)\n", large,
              large / small);
  return 0;
}
