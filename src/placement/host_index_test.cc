// SPDX-License-Identifier: Apache-2.0
#include "placement/host_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace vallum::placement {
namespace {

// A generator of hosts and requests that are alike often enough to tie.
class Chance {
 public:
  explicit Chance(uint32_t seed) : random_(seed) {}
  int64_t UpTo(int64_t most) { return std::uniform_int_distribution<int64_t>(0, most)(random_); }
  bool OneIn(int64_t n) { return UpTo(n - 1) == 0; }

  HostView Host(int64_t number) {
    HostView host;
    host.name = "node" + std::to_string(number);
    host.pool = OneIn(4) ? "gold" : "default";
    host.state = OneIn(8) ? HostState::kDown : HostState::kUp;
    if (OneIn(12)) host.state = HostState::kNonOperational;
    host.trusted = OneIn(2);
    host.hypervisor_type = OneIn(9) ? "Xen" : "QEMU";
    host.hypervisor_version = OneIn(3) ? "7.2.22" : "10.0.8";
    if (!OneIn(3)) host.traits.Insert(kTraitSmm);
    if (OneIn(5)) host.traits.Insert("CUSTOM_RACK_A");
    host.accelerator = OneIn(10) ? "" : (OneIn(2) ? "kvm" : "tcg");
    host.cpus = 1 + UpTo(8);
    host.allocated_vcpus = UpTo(host.cpus * 5);
    host.memory = ByteCount::GiB(static_cast<uint64_t>(1 + UpTo(8)));
    if (OneIn(3)) host.memory_overcommit = 1 + static_cast<double>(UpTo(6)) / 4;
    host.allocated_memory = ByteCount::GiB(static_cast<uint64_t>(UpTo(4)));
    host.disk_free = ByteCount::GiB(static_cast<uint64_t>(UpTo(20)));
    return host;
  }

  Request Ask() {
    Request request;
    request.pool = OneIn(4) ? "gold" : "default";
    if (OneIn(2)) request.required_traits.Insert(kTraitSmm);
    if (OneIn(6)) request.accelerator = "kvm";
    request.vcpus = 1 + UpTo(12);
    request.memory = ByteCount::GiB(static_cast<uint64_t>(UpTo(6)));
    request.disk = ByteCount::GiB(static_cast<uint64_t>(UpTo(15)));
    if (OneIn(8)) request.pinned_host = "node" + std::to_string(UpTo(40));
    if (OneIn(3)) request.needs_trusted_host = true;
    if (OneIn(6)) request.forbidden_traits.Insert("CUSTOM_RACK_A");
    if (OneIn(6)) request.hypervisor_type = "qemu";
    if (OneIn(6)) request.hypervisor_versions = *VersionRange::Parse(">=10.0");
    if (OneIn(6)) request.apart_from = Neighbours(5);
    if (OneIn(8)) request.near = Neighbours(1);
    if (OneIn(40)) request.near = Neighbours(2);
    return request;
  }

 private:
  std::vector<Neighbour> Neighbours(int count) {
    std::vector<Neighbour> out;
    for (int i = 0; i < count; ++i) {
      out.push_back({.instance = "web", .host = "node" + std::to_string(UpTo(40))});
    }
    std::ranges::sort(out, {}, &Neighbour::host);
    return out;
  }

  std::mt19937 random_;
};

std::string Chosen(const HostIndex& index, const Request& request) {
  const HostView* host = index.Choose(request);
  return host == nullptr ? "" : host->name;
}

std::string ChosenByLookingAtEach(const std::vector<HostView>& hosts, const Request& request) {
  const size_t best = Choose(hosts, request);
  return best == hosts.size() ? "" : hosts[best].name;
}

class HostIndexTest : public ::testing::TestWithParam<uint32_t> {};

TEST_P(HostIndexTest, ChoosesAsLookingAtEachHostWouldWhileHostsComeChangeAndGo) {
  Chance chance(GetParam());
  HostIndex index;
  std::vector<HostView> hosts;
  int found = 0;
  for (int step = 0; step < 400; ++step) {
    HostView host = chance.Host(chance.UpTo(40));
    std::erase_if(hosts, [&](const HostView& other) { return other.name == host.name; });
    if (chance.OneIn(5)) {
      index.Remove(host.name);
    } else {
      index.Put(host);
      hosts.push_back(std::move(host));
    }
    if (!hosts.empty()) {
      HostView& claimed =
          hosts[static_cast<size_t>(chance.UpTo(static_cast<int64_t>(hosts.size()) - 1))];
      claimed.allocated_vcpus = chance.UpTo(claimed.cpus * 5);
      claimed.allocated_memory = ByteCount::GiB(static_cast<uint64_t>(chance.UpTo(4)));
      index.SetAllocated(claimed.name, claimed.allocated_vcpus, claimed.allocated_memory);
    }
    ASSERT_EQ(index.size(), hosts.size());
    const Request request = chance.Ask();
    const std::string chosen = Chosen(index, request);
    ASSERT_EQ(chosen, ChosenByLookingAtEach(hosts, request)) << "step " << step;
    found += chosen.empty() ? 0 : 1;
  }
  EXPECT_GT(found, 40);
}

INSTANTIATE_TEST_SUITE_P(Seeds, HostIndexTest, ::testing::Range(uint32_t{1}, uint32_t{21}));

TEST(HostIndexExplainTest, SaysOfEachHostInTheOrderOfNamesWhatItIsChosenOrRefusedFor) {
  Chance chance(7);
  HostIndex index;
  for (int64_t i = 0; i < 40; ++i) index.Put(chance.Host(i));
  for (int i = 0; i < 50; ++i) {
    const Request request = chance.Ask();
    const Decision decision = index.Explain(request);
    ASSERT_EQ(decision.hosts.size(), 40U);
    EXPECT_TRUE(std::ranges::is_sorted(decision.hosts, {}, &HostVerdict::host));
    EXPECT_EQ(decision.chosen, Chosen(index, request));
    for (const HostVerdict& verdict : decision.hosts) {
      EXPECT_EQ(verdict.failed, FirstFailing(*index.Find(verdict.host), request));
    }
  }
}

// As Refuse() counts, by looking at each host.
std::map<std::string, size_t> CountByLookingAtEach(const std::vector<HostView>& hosts,
                                                   const Request& request) {
  std::map<std::string, size_t> out;
  for (const HostView& host : hosts) {
    const Requirement failed = FirstFailing(host, request);
    const bool room = failed == Requirement::kVcpus || failed == Requirement::kMemory ||
                      failed == Requirement::kDisk;
    ++out[room ? std::string(Refusal::kRoom) : NameRequirement(host, request, failed)];
  }
  return out;
}

TEST(HostIndexRefuseTest, CountsWhatHostsFailByAsLookingAtEachWould) {
  int refused = 0;
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    Chance chance(seed);
    HostIndex index;
    std::vector<HostView> hosts;
    for (int64_t i = 0; i < 40; ++i) hosts.push_back(chance.Host(i));
    for (const HostView& host : hosts) index.Put(host);
    for (int i = 0; i < 100; ++i) {
      Request request = chance.Ask();
      if (i % 2 == 0) request.memory = ByteCount::GiB(64);
      if (index.Choose(request) != nullptr) continue;
      ++refused;
      const Refusal refusal = index.Refuse(request);
      std::map<std::string, size_t> counts;
      for (const Refusal::Count& each : refusal.counts) counts[each.requirement] = each.hosts;
      ASSERT_EQ(counts, CountByLookingAtEach(hosts, request));
      EXPECT_EQ(refusal.hosts, 40U);
      ASSERT_EQ(refusal.shown.size(), kShownHosts);
      for (const HostVerdict& verdict : refusal.shown) {
        const HostVerdict judged = Judge(*index.Find(verdict.host), request);
        EXPECT_EQ(verdict.requirement, judged.requirement);
        EXPECT_EQ(verdict.detail, judged.detail);
      }
    }
  }
  EXPECT_GT(refused, 500);
}

HostView Plain(const std::string& name, const std::string& pool) {
  HostView host = Chance(1).Host(1);
  host.name = name;
  host.pool = pool;
  host.state = HostState::kUp;
  host.accelerator = "kvm";
  host.cpus = 2;
  host.allocated_vcpus = 0;
  host.memory = ByteCount::GiB(4);
  host.memory_overcommit = 0;
  host.allocated_memory = {};
  return host;
}

TEST(HostIndexRefuseTest, ShowsTheHostThatIsAskedForThenThoseOfThePoolThenOthers) {
  HostIndex index;
  for (const std::string name : {"a1", "a2", "a3"}) index.Put(Plain(name, "gold"));
  for (const std::string name : {"b1", "b2", "b3"}) index.Put(Plain(name, "default"));
  Request request;
  request.pool = "default";
  request.memory = ByteCount::GiB(64);
  const auto shown = [&] {
    std::string out;
    for (const HostVerdict& each : index.Refuse(request).shown) out += each.host + " ";
    return out;
  };
  EXPECT_EQ(shown(), "b1 b2 b3 a1 ");
  EXPECT_EQ(index.Refuse(request).most_memory, ByteCount::MiB(3840));
  EXPECT_EQ(index.Refuse(request).most_vcpus, 8);
  request.near = {{.instance = "db", .host = "a2"}};
  EXPECT_EQ(shown(), "a2 b1 b2 b3 ");
  request.pinned_host = "b3";
  EXPECT_EQ(shown(), "b3 a2 b1 b2 ");
  request.pool = "none";
  EXPECT_EQ(shown(), "b3 a2 a1 a3 ");
}

TEST(HostIndexTest, HostWhoseWordsLookLikeAnothersTraitsIsOfAClassOfItsOwn) {
  HostView host = Chance(1).Host(1);
  host.pool = "default";
  host.state = HostState::kUp;
  host.cpus = 100;
  host.memory = ByteCount::GiB(100);
  host.disk_free = ByteCount::GiB(100);
  host.hypervisor_version = "7.2.22";
  host.traits = {};
  HostView liar = host;
  host.traits.Insert("A");
  liar.name = "liar";
  Request request;
  request.pool = "default";
  request.vcpus = 1;
  request.required_traits.Insert("A");
  for (const char* version : {"7.2.22\nA", "7.2.221:A", "7.2.22A"}) {
    liar.hypervisor_version = version;
    HostIndex index;
    index.Put(liar);
    index.Put(host);
    const HostView* const chosen = index.Choose(request);
    ASSERT_NE(chosen, nullptr) << version;
    EXPECT_EQ(chosen->name, host.name);
  }
}

TEST(HostIndexTest, HostThatWasRemovedIsNotFound) {
  HostIndex index;
  HostView host = Chance(1).Host(1);
  index.Put(host);
  EXPECT_NE(index.Find("node1"), nullptr);
  index.Remove("node1");
  EXPECT_EQ(index.Find("node1"), nullptr);
  index.Remove("node1");
  EXPECT_EQ(index.size(), 0U);
}

}  // namespace
}  // namespace vallum::placement
