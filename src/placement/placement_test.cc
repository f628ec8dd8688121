// SPDX-License-Identifier: Apache-2.0
#include "placement/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "base/units.h"
#include "placement/trait_set.h"

namespace vallum::placement {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

HostView MakeValidHost(const std::string& name) {
  HostView host;
  host.name = name;
  host.pool = "default";
  host.state = HostState::kUp;
  host.traits = TraitSet({std::string(kTraitSmm), std::string(kTraitSecureBoot),
                          std::string(kTraitTpm20), "CUSTOM_RACK_A"});
  host.accelerator = "tcg";
  host.hypervisor_type = "QEMU";
  host.hypervisor_version = "7.2.22";
  host.cpus = 4;
  host.memory = ByteCount::GiB(8);
  host.disk_free = ByteCount::GiB(100);
  return host;
}

Request MakeValidRequest() {
  Request request;
  request.pool = "default";
  request.required_traits = TraitSet({std::string(kTraitSmm), std::string(kTraitSecureBoot)});
  request.vcpus = 2;
  request.memory = ByteCount::GiB(1);
  request.disk = ByteCount::GiB(10);
  return request;
}

HostVerdict VerdictOn(const HostView& host, const Request& request) {
  const std::vector<HostView> hosts = {host};
  return Place(hosts, request).hosts.at(0);
}

TEST(PlacementTest, HostThatMeetsEverythingIsChosen) {
  const std::vector<HostView> hosts = {MakeValidHost("node1")};
  const Decision decision = Place(hosts, MakeValidRequest());
  EXPECT_EQ(decision.chosen, "node1");
  EXPECT_TRUE(decision.hosts.at(0).fits());
  EXPECT_GT(decision.hosts.at(0).score, 0);
}

TEST(PlacementTest, HostWithoutSmmIsNotChosenAndTheProbeSaysWhy) {
  HostView host = MakeValidHost("node1");
  host.traits = TraitSet({std::string(kTraitSecureBoot)});
  host.probes = {{.name = "smm:tcg", .ok = false, .detail = "the guest with smm=on did not start"}};
  const HostVerdict verdict = VerdictOn(host, MakeValidRequest());
  EXPECT_EQ(verdict.failed, Requirement::kTrait);
  EXPECT_EQ(verdict.requirement, "trait VALLUM_SMM");
  EXPECT_EQ(verdict.detail, "smm:tcg: the guest with smm=on did not start");
}

TEST(PlacementTest, HostWithoutSecureFirmwareIsNotChosenAndTheProbeSaysWhy) {
  HostView host = MakeValidHost("node1");
  host.traits = TraitSet({std::string(kTraitSmm)});
  host.probes = {{.name = "smm:tcg", .ok = true, .detail = "works"},
                 {.name = "firmware-secure-boot", .ok = false, .detail = "no descriptor"}};
  const HostVerdict verdict = VerdictOn(host, MakeValidRequest());
  EXPECT_EQ(verdict.requirement, "trait COMPUTE_SECURITY_UEFI_SECURE_BOOT");
  EXPECT_EQ(verdict.detail, "firmware-secure-boot: no descriptor");
}

TEST(PlacementTest, TrustedPoolTakesAttestedHostsOnly) {
  HostView host = MakeValidHost("node1");
  Request request = MakeValidRequest();
  request.needs_trusted_host = true;
  const HostVerdict verdict = VerdictOn(host, request);
  EXPECT_EQ(verdict.failed, Requirement::kTrust);
  EXPECT_THAT(verdict.detail, HasSubstr("not attested"));
  host.trusted = true;
  EXPECT_TRUE(VerdictOn(host, request).fits());
}

TEST(PlacementTest, HypervisorThatMeetsTypeAndVersionsIsChosen) {
  Request request = MakeValidRequest();
  request.hypervisor_type = "qemu";
  request.hypervisor_versions = *VersionRange::Parse(">=7.2,<9");
  request.forbidden_traits.Insert("CUSTOM_RACK_B");
  EXPECT_TRUE(VerdictOn(MakeValidHost("node1"), request).fits());
}

TEST(PlacementTest, HostOfTheInstanceToBeNearFitsAndThoseOfOthersToBeApartFromDoNotMatter) {
  Request request = MakeValidRequest();
  request.near = {{.instance = "db1", .host = "node1"}};
  request.apart_from = {{.instance = "db0", .host = "node0"}, {.instance = "db2", .host = "node2"}};
  EXPECT_TRUE(VerdictOn(MakeValidHost("node1"), request).fits());
}

TEST(PlacementTest, UnknownTraitThatIsRequiredIsReportedByName) {
  Request request = MakeValidRequest();
  request.required_traits.Insert("CUSTOM_RACK_B");
  const HostVerdict verdict = VerdictOn(MakeValidHost("node1"), request);
  EXPECT_EQ(verdict.requirement, "trait CUSTOM_RACK_B");
  EXPECT_THAT(verdict.detail, HasSubstr("did not report it"));
}

struct Broken {
  const char* what;
  void (*change)(HostView&, Request&);
  Requirement failed;
  const char* requirement;
  const char* detail;
};

class BrokenHostTest : public testing::TestWithParam<Broken> {};

TEST_P(BrokenHostTest, FirstFailingRequirementIsNamedWithBothValues) {
  HostView host = MakeValidHost("node1");
  Request request = MakeValidRequest();
  GetParam().change(host, request);
  const HostVerdict verdict = VerdictOn(host, request);
  EXPECT_EQ(verdict.failed, GetParam().failed);
  EXPECT_EQ(verdict.requirement, GetParam().requirement);
  EXPECT_THAT(verdict.detail, HasSubstr(GetParam().detail));
  EXPECT_EQ(verdict.score, 0);
}

INSTANTIATE_TEST_SUITE_P(
    Table, BrokenHostTest,
    testing::Values(
        Broken{"pool", [](HostView& h, Request&) { h.pool = "gold"; }, Requirement::kPool, "pool",
               "pool gold, not in default"},
        Broken{"pinned", [](HostView&, Request& r) { r.pinned_host = "node9"; },
               Requirement::kPinnedHost, "host", "asks for host node9"},
        Broken{"down",
               [](HostView& h, Request&) {
                 h.state = HostState::kDown;
                 h.state_reason = "no heartbeat for 31 s";
               },
               Requirement::kState, "state", "down: no heartbeat for 31 s"},
        Broken{"joining", [](HostView& h, Request&) { h.state = HostState::kJoining; },
               Requirement::kState, "state", "joining"},
        Broken{"maintenance", [](HostView& h, Request&) { h.state = HostState::kMaintenance; },
               Requirement::kMaintenance, "maintenance", "in maintenance"},
        Broken{"accelerator", [](HostView&, Request& r) { r.accelerator = "kvm"; },
               Requirement::kAccelerator, "accelerator", "has tcg, kvm is required"},
        Broken{"no accelerator",
               [](HostView& h, Request&) {
                 h.accelerator.clear();
                 h.probes = {{.name = "accel:tcg", .ok = false, .detail = "qemu is not installed"}};
               },
               Requirement::kAccelerator, "accelerator", "tcg: qemu is not installed"},
        Broken{"forbidden trait",
               [](HostView&, Request& r) { r.forbidden_traits.Insert("CUSTOM_RACK_A"); },
               Requirement::kForbiddenTrait, "trait CUSTOM_RACK_A forbidden", "the host has it"},
        Broken{"hypervisor type", [](HostView&, Request& r) { r.hypervisor_type = "xen"; },
               Requirement::kHypervisorType, "hypervisor type", "has QEMU, xen is required"},
        Broken{"hypervisor version",
               [](HostView&, Request& r) {
                 r.hypervisor_versions = *VersionRange::Parse(">=8.0,<10");
               },
               Requirement::kHypervisorVersion, "hypervisor version",
               "has 7.2.22, >=8.0,<10 is required"},
        Broken{"unknown hypervisor version",
               [](HostView& h, Request& r) {
                 h.hypervisor_version.clear();
                 r.hypervisor_versions = *VersionRange::Parse("!=8.0");
               },
               Requirement::kHypervisorVersion, "hypervisor version",
               "has an unknown one, !=8.0 is required"},
        Broken{"near",
               [](HostView&, Request& r) {
                 r.near = {{.instance = "db1", .host = "node1"},
                           {.instance = "db2", .host = "node2"}};
               },
               Requirement::kAffinity, "affinity", "near instance db2, which is on host node2"},
        Broken{"near nothing yet",
               [](HostView&, Request& r) { r.near = {{.instance = "db1", .host = ""}}; },
               Requirement::kAffinity, "affinity", "near instance db1, which is on no host yet"},
        Broken{"apart",
               [](HostView&, Request& r) {
                 r.apart_from = {{.instance = "db0", .host = "node0"},
                                 {.instance = "db1", .host = "node1"}};
               },
               Requirement::kAntiAffinity, "anti-affinity", "apart from instance db1"},
        Broken{"vcpus", [](HostView& h, Request&) { h.allocated_vcpus = 15; }, Requirement::kVcpus,
               "vcpus", "2 asked for, 1 free of 4 CPUs"},
        Broken{"memory", [](HostView& h, Request&) { h.allocated_memory = ByteCount::GiB(7); },
               Requirement::kMemory, "memory", "1 GiB asked for, 512 MiB free of 8 GiB"},
        Broken{"memory with overcommit",
               [](HostView& h, Request&) {
                 h.memory_overcommit = 1.5;
                 h.allocated_memory = ByteCount::MiB(7680 / 2 * 3 - 512);
               },
               Requirement::kMemory, "memory",
               "1 GiB asked for, 512 MiB free of 8 GiB (512 MiB kept for the host, the rest "
               "promised 1.50 times)"},
        Broken{"disk", [](HostView& h, Request&) { h.disk_free = ByteCount::GiB(9); },
               Requirement::kDisk, "disk", "10 GiB asked for, 9 GiB free"}),
    [](const auto& param_info) {
      std::string name = param_info.param.what;
      std::replace(name.begin(), name.end(), ' ', '_');
      return name;
    });

TEST(PlacementTest, ReserveIsASixteenthWithinLimits) {
  EXPECT_EQ(HostMemoryReserve(ByteCount::GiB(1)), ByteCount::MiB(256));
  EXPECT_EQ(HostMemoryReserve(ByteCount::GiB(16)), ByteCount::GiB(1));
  EXPECT_EQ(HostMemoryReserve(ByteCount::GiB(1024)), ByteCount::GiB(4));
}

TEST(PlacementTest, OvercommitMultipliesWhatIsNotKeptForTheHostAndZeroMeansOne) {
  HostView host = MakeValidHost("node1");
  EXPECT_EQ(FreeMemory(host), ByteCount::MiB(7680));
  host.memory_overcommit = 1;
  EXPECT_EQ(FreeMemory(host), ByteCount::MiB(7680));
  host.memory_overcommit = 2;
  EXPECT_EQ(FreeMemory(host), ByteCount::MiB(15360));
  host.allocated_memory = ByteCount::GiB(16);
  EXPECT_EQ(FreeMemory(host), ByteCount::Bytes(0));
}

TEST(PlacementTest, HostSmallerThanTheReserveHasNoFreeMemory) {
  HostView host = MakeValidHost("node1");
  host.memory = ByteCount::MiB(128);
  EXPECT_EQ(VerdictOn(host, MakeValidRequest()).failed, Requirement::kMemory);
}

TEST(PlacementTest, RefusalSaysWhatTheHostsFailByOnlyWhenNotAllAreShown) {
  Refusal refusal;
  refusal.hosts = 1;
  refusal.counts = {{"state", 1}};
  refusal.shown = {{.host = "node1", .requirement = "state", .detail = "the host is down"}};
  EXPECT_EQ(DescribeRefusal(refusal), "no host fits: node1: state: the host is down");
  refusal.hosts = 1000;
  refusal.counts = {{std::string(Refusal::kRoom), 900}, {"state", 100}};
  refusal.most_vcpus = 3;
  refusal.most_memory = ByteCount::MiB(512);
  refusal.most_disk = ByteCount::GiB(9);
  EXPECT_EQ(DescribeRefusal(refusal),
            "no host fits: node1: state: the host is down; and 999 more. Failing of 1000 hosts: "
            "900 by room (the most that one has free: 3 vcpus, 512 MiB memory, 9 GiB disk), 100 "
            "by state");
  EXPECT_THAT(DescribeRefusal(Refusal{}), HasSubstr("no host has joined"));
}

TEST(TraitSetTest, KeepsWellKnownAndOtherNames) {
  TraitSet traits({"ZZZ", "AAA", std::string(kTraitSmm), "AAA"});
  EXPECT_EQ(traits.Names(), (std::vector<std::string>{"VALLUM_SMM", "AAA", "ZZZ"}));
  EXPECT_TRUE(traits.Contains("ZZZ"));
  EXPECT_FALSE(traits.Contains("MMM"));
  EXPECT_EQ(traits.FirstMissing(TraitSet({"BBB"})), "BBB");
  EXPECT_EQ(traits.FirstMissing(TraitSet({"AAA"})), std::nullopt);
}

// ---- properties, over random clusters with a fixed seed ----

class PlacementPropertyTest : public testing::Test {
 protected:
  int64_t Pick(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random_);
  }
  HostView RandomHost(int64_t number) {
    HostView host = MakeValidHost("node" + std::to_string(number));
    host.pool = Pick(0, 3) == 0 ? "gold" : "default";
    host.state = static_cast<HostState>(Pick(0, 9) < 7 ? 1 : Pick(0, 3));
    host.traits = TraitSet();
    for (const std::string_view trait : {kTraitSmm, kTraitSecureBoot, kTraitTpm20}) {
      if (Pick(0, 4) != 0) {
        host.traits.Insert(trait);
      }
    }
    host.accelerator = Pick(0, 5) == 0 ? "kvm" : "tcg";
    host.cpus = Pick(0, 8);
    host.allocated_vcpus = Pick(0, 32);
    host.memory = ByteCount::MiB(static_cast<uint64_t>(Pick(0, 16) * 1024));
    host.allocated_memory = ByteCount::MiB(static_cast<uint64_t>(Pick(0, 8) * 1024));
    host.disk_free = ByteCount::GiB(static_cast<uint64_t>(Pick(0, 40)));
    return host;
  }
  std::vector<HostView> RandomCluster() {
    std::vector<HostView> hosts;
    const int64_t count = Pick(0, 12);
    for (int64_t i = 0; i < count; ++i) {
      hosts.push_back(RandomHost(i));
    }
    return hosts;
  }
  Request RandomRequest() {
    Request request = MakeValidRequest();
    request.vcpus = Pick(1, 4);
    request.memory = ByteCount::MiB(static_cast<uint64_t>(Pick(1, 4096)));
    if (Pick(0, 5) == 0) {
      request.pinned_host = "node" + std::to_string(Pick(0, 12));
    }
    return request;
  }
  std::mt19937_64 random_{20261121};
};

TEST_F(PlacementPropertyTest, ChosenHostAlwaysMeetsEveryRequirement) {
  int chosen = 0;
  for (int round = 0; round < 3000; ++round) {
    const std::vector<HostView> hosts = RandomCluster();
    const Request request = RandomRequest();
    const size_t index = Choose(hosts, request);
    if (index == hosts.size()) {
      continue;
    }
    ++chosen;
    const HostView& host = hosts[index];
    EXPECT_EQ(host.state, HostState::kUp);
    EXPECT_EQ(host.pool, request.pool);
    EXPECT_TRUE(host.traits.Contains(kTraitSmm));
    EXPECT_TRUE(host.traits.Contains(kTraitSecureBoot));
    EXPECT_LE(host.allocated_memory.bytes() + request.memory.bytes() +
                  HostMemoryReserve(host.memory).bytes(),
              host.memory.bytes());
    EXPECT_LE(host.allocated_vcpus + request.vcpus, host.cpus * 4);
  }
  EXPECT_GT(chosen, 300);
}

TEST_F(PlacementPropertyTest, NoneIsChosenOnlyWhenEveryHostFails) {
  for (int round = 0; round < 3000; ++round) {
    const std::vector<HostView> hosts = RandomCluster();
    const Decision decision = Place(hosts, RandomRequest());
    const bool any = std::any_of(decision.hosts.begin(), decision.hosts.end(),
                                 [](const HostVerdict& v) { return v.fits(); });
    EXPECT_EQ(decision.chosen.empty(), !any);
    for (const HostVerdict& verdict : decision.hosts) {
      EXPECT_EQ(verdict.fits(), verdict.requirement.empty());
      EXPECT_EQ(verdict.fits(), verdict.detail.empty());
    }
  }
}

TEST_F(PlacementPropertyTest, ChoiceDoesNotDependOnTheOrderOfHosts) {
  for (int round = 0; round < 1000; ++round) {
    std::vector<HostView> hosts = RandomCluster();
    const Request request = RandomRequest();
    const std::string chosen = Place(hosts, request).chosen;
    std::shuffle(hosts.begin(), hosts.end(), random_);
    EXPECT_EQ(Place(hosts, request).chosen, chosen);
  }
}

TEST_F(PlacementPropertyTest, ChosenHostHasTheMostFreeMemory) {
  for (int round = 0; round < 1000; ++round) {
    const std::vector<HostView> hosts = RandomCluster();
    const Decision decision = Place(hosts, RandomRequest());
    for (const HostVerdict& verdict : decision.hosts) {
      const auto best = std::find_if(decision.hosts.begin(), decision.hosts.end(),
                                     [&](const auto& v) { return v.host == decision.chosen; });
      if (verdict.fits()) {
        ASSERT_NE(best, decision.hosts.end());
        EXPECT_LE(verdict.score, best->score);
      }
    }
  }
}

}  // namespace
}  // namespace vallum::placement
