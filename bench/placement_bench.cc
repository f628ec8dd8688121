// SPDX-License-Identifier: Apache-2.0
// Placing an instance and claiming its room, among 1,000 and among 100,000 hosts, on any and on
// trusted ones only, beside looking at each of 1,000 hosts; and saying why one fits nowhere.

#include <algorithm>
#include <array>
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

constexpr int kPlacements = 100;
constexpr int kRounds = 41;
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
  host.trusted = random() % 10 != 0;
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

enum class Trust { kAny, kRequired };

Request MakeRequest(Trust trust) {
  Request request;
  request.pool = "default";
  request.required_traits.Insert(vallum::placement::kTraitSmm);
  request.required_traits.Insert(vallum::placement::kTraitSecureBoot);
  request.needs_trusted_host = trust == Trust::kRequired;
  request.vcpus = 4;
  request.memory = ByteCount::GiB(8);
  request.disk = ByteCount::GiB(40);
  return request;
}

double Median(std::vector<double> times) {
  std::ranges::nth_element(times, times.begin() + static_cast<long>(times.size() / 2));
  return times[times.size() / 2];
}

template <typename Work>
double MsEach(int count, Work work) {
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < count; ++i) work();
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
  return took.count() / count;
}

// Decides many times on one state, which a decision does not change.
double DecideMs(const HostIndex& index, const Request& request) {
  return MsEach(kPlacements, [&] { CHECK(index.Choose(request) != nullptr); });
}

void Claim(HostIndex& index, const Request& request) {
  const HostView* chosen = index.Choose(request);
  CHECK(chosen != nullptr);
  index.SetAllocated(chosen->name, chosen->allocated_vcpus + request.vcpus,
                     ByteCount::Bytes(chosen->allocated_memory.bytes() + request.memory.bytes()));
}

struct Figures {
  double any = 0;
  double trusted = 0;
  double ratio = 0;
  double claim = 0;
  double claim_trusted = 0;
  double claim_ratio = 0;
};

// With and without trust in turns, each kind on an index of its own, so that whatever else the
// machine does meets both, and the ratio is that of neighbours in time.
Figures PlaceWithIndex(const std::vector<HostView>& hosts) {
  HostIndex any;
  HostIndex trusted;
  for (const HostView& host : hosts) {
    any.Put(host);
    trusted.Put(host);
  }
  const Request anywhere = MakeRequest(Trust::kAny);
  const Request attested = MakeRequest(Trust::kRequired);
  std::array<std::vector<double>, 6> ms;
  for (int round = 0; round < kRounds; ++round) {
    ms[3].push_back(MsEach(kPlacements, [&] { Claim(any, anywhere); }));
    ms[4].push_back(MsEach(kPlacements, [&] { Claim(trusted, attested); }));
    ms[5].push_back(ms[4].back() / ms[3].back());
    ms[0].push_back(DecideMs(any, anywhere));
    ms[1].push_back(DecideMs(trusted, attested));
    ms[2].push_back(ms[1].back() / ms[0].back());
  }
  return {.any = Median(ms[0]),
          .trusted = Median(ms[1]),
          .ratio = Median(ms[2]),
          .claim = Median(ms[3]),
          .claim_trusted = Median(ms[4]),
          .claim_ratio = Median(ms[5])};
}

// What an instance that fits nowhere costs each time that it is tried.
double RefuseMs(const std::vector<HostView>& hosts) {
  HostIndex index;
  for (const HostView& host : hosts) index.Put(host);
  Request request = MakeRequest(Trust::kAny);
  request.memory = ByteCount::GiB(4096);
  std::vector<double> ms;
  for (int round = 0; round < kRounds; ++round) {
    ms.push_back(MsEach(kPlacements, [&] {
      CHECK(index.Choose(request) == nullptr);
      CHECK(!DescribeRefusal(index.Refuse(request)).empty());
    }));
  }
  return Median(std::move(ms));
}

double PlaceByLookingAtEach(std::vector<HostView> hosts) {
  constexpr int kFew = 50;
  const Request request = MakeRequest(Trust::kAny);
  return MsEach(kFew, [&] {
    const size_t best = vallum::placement::Choose(hosts, request);
    CHECK(best < hosts.size());
    hosts[best].allocated_vcpus += request.vcpus;
  });
}

void Print(const char* hosts, const Figures& figures) {
  std::printf(
      "%s hosts: decide %.5f ms, trusted %.5f ms, %.3f x; decide and claim %.5f ms, "
      "trusted %.5f ms, %.3f x\n",
      hosts, figures.any, figures.trusted, figures.ratio, figures.claim, figures.claim_trusted,
      figures.claim_ratio);
}

}  // namespace

int main() {
  const std::vector<HostView> thousand = MakeHosts(1000);
  const double scan = PlaceByLookingAtEach(thousand);
  const Figures small = PlaceWithIndex(thousand);
  const std::vector<HostView> many = MakeHosts(100'000);
  const Figures large = PlaceWithIndex(many);
  std::printf("1,000 hosts, looking at each: %.5f ms\n", scan);
  Print("1,000", small);
  Print("100,000", large);
  std::printf("100,000 beside 1,000 hosts: decide %.2f x, decide and claim %.2f x\n",
              large.any / small.any, large.claim / small.claim);
  const double refuse = RefuseMs(thousand);
  const double refuse_many = RefuseMs(many);
  std::printf("fits nowhere, with the reasons: 1,000 hosts %.5f ms, 100,000 %.5f ms, %.2f x\n",
              refuse, refuse_many, refuse_many / refuse);
  std::printf("targets: %.3f ms at 1,000; 100,000 <= 2 x that (%.2f x); trusted <= 1.02 x\n",
              kTargetMs, large.claim / kTargetMs);
  return 0;
}
