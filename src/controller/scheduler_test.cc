// SPDX-License-Identifier: Apache-2.0
// Schedulers on stores, without agents.
#include "controller/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "controller/placement_book.h"
#include "placement/placement.h"
#include "store/memory_store.h"
#include "store/sqlite_store.h"
#include "store/test_support.h"

namespace vallum::controller {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kGiB = int64_t{1} << 30;

v1::Host MakeValidHost(const std::string& name, int64_t gib = 16) {
  v1::Host host;
  host.mutable_metadata()->set_name(name);
  host.mutable_spec()->set_pool("default");
  host.mutable_status()->set_state(v1::HOST_UP);
  v1::HostCapabilities& capabilities = *host.mutable_status()->mutable_capabilities();
  for (const char* trait :
       {"VALLUM_FIRMWARE_UEFI", "VALLUM_SMM", "COMPUTE_SECURITY_UEFI_SECURE_BOOT",
        "COMPUTE_SECURITY_TPM_2_0", "COMPUTE_SECURITY_TPM_CRB"}) {
    capabilities.add_traits(trait);
  }
  capabilities.set_cpus(64);
  capabilities.set_memory_bytes(gib * kGiB);
  capabilities.set_disk_free_bytes(int64_t{1} << 40);
  capabilities.set_accelerator("tcg");
  capabilities.set_hypervisor_type("QEMU");
  capabilities.set_hypervisor_version("7.2.22");
  return host;
}

v1::Instance MakeValidInstance(const std::string& name) {
  v1::Instance instance;
  instance.mutable_metadata()->set_name(name);
  instance.mutable_spec()->set_pool("default");
  instance.mutable_spec()->set_vcpus(1);
  instance.mutable_spec()->set_memory_bytes(kGiB);
  v1::BootRequested& boot = *instance.mutable_status()->mutable_boot()->mutable_requested();
  boot.set_type(v1::BOOT_TYPE_UEFI);
  boot.set_mode(v1::BOOT_MODE_SECURE);
  return instance;
}

// Real time, plus what the test has added.
class AdvancedClock final : public Clock {
 public:
  WallTime Now() const override { return real_.Now() + added_; }
  MonotonicTime Monotonic() const override { return real_.Monotonic() + added_; }
  void Advance(std::chrono::seconds by) { added_ += by; }

 private:
  SystemClock real_;
  std::chrono::seconds added_{0};
};

// By version 1 of policy "gold".
void SetTrust(v1::HostStatus& status, WallTime lease_end) {
  v1::HostTrust& trust = *status.mutable_trust();
  trust.set_level(v1::TRUST_TRUSTED);
  trust.set_policy("gold");
  trust.set_policy_version(1);
  *trust.mutable_lease_expire_time() = ToTimestamp(lease_end);
}

v1::AttestationPolicy Policy(int active_version) {
  v1::AttestationPolicy policy;
  policy.mutable_metadata()->set_name("gold");
  policy.mutable_status()->set_active_version(active_version);
  return policy;
}

// One controller's share of a store.
struct Controller {
  explicit Controller(store::Store& store, const Clock& clock) : resources(store, clock) {
    auto created = View::Create(store);
    CHECK(created.has_value());
    view = *std::move(created);
    scheduler = std::make_unique<Scheduler>(resources, *view, metrics);
  }
  ResourceStore resources;
  std::unique_ptr<View> view;
  Metrics metrics;
  std::unique_ptr<Scheduler> scheduler;
};

enum class Keeps { kInMemory, kInSqlite };

class SchedulerOnStoreTest : public testing::TestWithParam<Keeps> {
 protected:
  SchedulerOnStoreTest() {
    if (GetParam() == Keeps::kInMemory) {
      store_ = std::make_unique<store::MemoryStore>(clock_);
    } else {
      auto opened = store::SqliteStore::Open({.path = dir_.path() / "store.db"}, clock_);
      CHECK(opened.has_value());
      store_ = *std::move(opened);
    }
    v1::Pool pool;
    pool.mutable_metadata()->set_name("default");
    Add(pool);
  }
  template <typename T>
  void Add(const T& resource) {
    ResourceStore resources(*store_, clock_);
    const auto created = resources.Create(resource);
    CHECK(created.has_value());
  }
  std::unique_ptr<Controller> MakeController() {
    return std::make_unique<Controller>(*store_, clock_);
  }

  store::TempDir dir_;
  SystemClock clock_;
  std::unique_ptr<store::Store> store_;
};

INSTANTIATE_TEST_SUITE_P(Stores, SchedulerOnStoreTest,
                         testing::Values(Keeps::kInMemory, Keeps::kInSqlite), [](const auto& test) {
                           return test.param == Keeps::kInMemory ? "Memory" : "Sqlite";
                         });

std::string Describe(const placement::HostView& host) {
  std::string text = host.name + " " + host.pool + " " +
                     std::to_string(static_cast<int>(host.state)) +
                     (host.trusted ? " trusted" : "");
  text += " " + std::to_string(host.allocated_vcpus) + "+" +
          std::to_string(placement::FreeVcpus(host)) + " CPUs, " +
          std::to_string(host.allocated_memory.bytes()) + "+" +
          std::to_string(placement::FreeMemory(host).bytes()) + " bytes";
  for (const std::string& trait : host.traits.Names()) text += " " + trait;
  return text;
}

// What an index and the index made anew say of every host, and of what they would choose.
void ExpectSame(const PlacementBook& kept, const PlacementBook& made, const View& view) {
  ASSERT_EQ(kept.hosts().size(), made.hosts().size());
  for (const auto& host : view.All<v1::Host>()) {
    const std::string& name = host->metadata().name();
    const placement::HostView* one = kept.hosts().Find(name);
    const placement::HostView* other = made.hosts().Find(name);
    ASSERT_NE(one, nullptr) << name;
    ASSERT_NE(other, nullptr) << name;
    EXPECT_EQ(Describe(*one), Describe(*other));
    EXPECT_EQ(kept.ClaimsOn(name), made.ClaimsOn(name)) << name;
    EXPECT_EQ(kept.FindHost(name)->metadata().revision(), host->metadata().revision());
    // The host's own numbers are the same sum.
    EXPECT_EQ(host->status().instances(), made.ClaimsOn(name).instances) << name;
    EXPECT_EQ(host->status().allocated_vcpus(), made.ClaimsOn(name).vcpus) << name;
  }
  for (const auto& instance : view.All<v1::Instance>()) {
    BootPolicy policy;
    const auto one = kept.RequestOf(*instance, policy);
    const auto other = made.RequestOf(*instance, policy);
    ASSERT_TRUE(one.has_value() && other.has_value());
    EXPECT_EQ(one->apart_from.size(), other->apart_from.size());
    EXPECT_EQ(kept.hosts().Explain(*one).chosen, made.hosts().Explain(*other).chosen);
  }
}

// A random history of a small cluster.
class History {
 public:
  History(uint32_t seed, Controller& controller) : random_(seed), controller_(controller) {}

  void Step() {
    switch (UpTo(13)) {
      case 0:
        return AddHost();
      case 1:
      case 2:
        return ChangeHost();
      case 3:
        return DeleteHost();
      case 4:
        return ChangePool();
      case 5:
      case 6:
        return AddInstance();
      case 7:
        static_cast<void>(controller_.scheduler->Release(Instance()));
        return;
      case 8:
        return ReportInstance();
      case 9:
        return ChangePolicy();
      default:
        placed_ += controller_.scheduler->Place(Instance()).has_value() ? 1 : 0;
        return;
    }
  }
  int placed() const { return placed_; }

 private:
  using Change = ResourceStore::Change;

  int UpTo(int most) { return std::uniform_int_distribution<int>(0, most)(random_); }
  bool OneIn(int n) { return UpTo(n - 1) == 0; }
  std::string Host() { return "node" + std::to_string(UpTo(7)); }
  std::string Instance() { return "web" + std::to_string(UpTo(29)); }

  // What goes wrong, such as a name that is taken, is part of the history.
  void AddHost() { static_cast<void>(controller_.resources.Create(MakeValidHost(Host(), 8))); }
  void ChangeHost() {
    static_cast<void>(
        controller_.resources.Modify<v1::Host>(Host(), [&](v1::Host& host) -> Result<Change> {
          v1::HostStatus& status = *host.mutable_status();
          host.mutable_spec()->set_maintenance(OneIn(6));
          status.set_state(OneIn(6) ? v1::HOST_DOWN : v1::HOST_UP);
          SetTrust(status, controller_.resources.clock().Now() + std::chrono::hours(1));
          if (OneIn(2)) status.mutable_trust()->set_level(v1::TRUST_UNTRUSTED);
          if (OneIn(4)) status.mutable_trust()->clear_lease_expire_time();
          status.mutable_capabilities()->set_memory_bytes((4 + UpTo(12)) * kGiB);
          status.mutable_capabilities()->set_cpus(2 + UpTo(6));
          if (OneIn(4)) status.mutable_capabilities()->add_bridges("br" + std::to_string(UpTo(2)));
          return Change::kWrite;
        }));
  }
  void DeleteHost() {
    if (!OneIn(3)) return;
    const std::string name = Host();
    const auto host = controller_.resources.Get<v1::Host>(name);
    if (!host.has_value() || host->status().instances() != 0) return;
    static_cast<void>(controller_.resources.Delete(Kind::kHost, name, host->metadata().revision()));
  }
  void ChangePool() {
    static_cast<void>(
        controller_.resources.Modify<v1::Pool>("default", [&](v1::Pool& pool) -> Result<Change> {
          pool.mutable_spec()->set_cpu_overcommit(UpTo(4));
          pool.mutable_spec()->set_memory_overcommit(UpTo(2));
          pool.mutable_spec()->set_trusted_service(OneIn(3));
          pool.mutable_spec()->set_attestation_policy(OneIn(4) ? "" : "gold");
          return Change::kWrite;
        }));
  }
  void ChangePolicy() {
    if (OneIn(2)) static_cast<void>(controller_.resources.Create(Policy(1)));
    static_cast<void>(controller_.resources.Modify<v1::AttestationPolicy>(
        "gold", [&](v1::AttestationPolicy& policy) -> Result<Change> {
          policy.mutable_status()->set_active_version(OneIn(3) ? 2 : 1);
          return Change::kWrite;
        }));
    if (!OneIn(6)) return;
    static_cast<void>(controller_.resources.Delete(Kind::kAttestationPolicy, "gold", 0));
  }
  void AddInstance() {
    v1::Instance instance = MakeValidInstance(Instance());
    instance.mutable_spec()->set_vcpus(1 + UpTo(3));
    instance.mutable_spec()->set_memory_bytes((1 + UpTo(2)) * kGiB / 2);
    if (OneIn(3)) instance.mutable_spec()->add_apart_from(Instance());
    if (OneIn(6)) instance.mutable_spec()->add_near(Instance());
    static_cast<void>(controller_.resources.Create(instance));
  }
  void ReportInstance() {
    static_cast<void>(controller_.resources.Modify<v1::Instance>(
        Instance(), [&](v1::Instance& instance) -> Result<Change> {
          instance.mutable_status()->set_phase(v1::INSTANCE_RUNNING);
          return Change::kWrite;
        }));
  }

  std::mt19937 random_;
  Controller& controller_;
  int placed_ = 0;
};

TEST_P(SchedulerOnStoreTest, BookAfterAnyHistoryIsAsOneMadeFromTheViewAnew) {
  const bool quick = GetParam() == Keeps::kInMemory;
  const auto controller = MakeController();
  int placed = 0;
  for (uint32_t seed = 1; seed <= (quick ? 12U : 2U); ++seed) {
    History history(seed, *controller);
    for (int step = 0; step < (quick ? 250 : 120); ++step) history.Step();
    placed += history.placed();
    v1::Pool last;
    last.mutable_metadata()->set_name("last" + std::to_string(seed));
    const store::Revision end = controller->resources.Create(last)->metadata().revision();
    ASSERT_TRUE(controller->view->WaitUntilHeard(end).has_value());
    const PlacementBook made(controller->view->ForPlacement(),
                             controller->view->All<v1::AttestationPolicy>(), clock_.Now());
    controller->scheduler->WithBook(
        [&](const PlacementBook& kept) { ExpectSame(kept, made, *controller->view); });
    // A controller that starts now begins with the same book.
    const auto second = MakeController();
    second->scheduler->WithBook(
        [&](const PlacementBook& kept) { ExpectSame(kept, made, *second->view); });
  }
  EXPECT_GT(placed, 10);
}

TEST_P(SchedulerOnStoreTest, TwoControllersWithManyThreadsNeverPromiseMoreThanAHostHas) {
  constexpr int kHosts = 3;
  constexpr int kAsked = 60;
  constexpr int kThreads = 4;  // of each controller
  for (int i = 0; i < kHosts; ++i) Add(MakeValidHost("node" + std::to_string(i), 9));
  for (int i = 0; i < kAsked; ++i) Add(MakeValidInstance("web" + std::to_string(i)));
  const auto one = MakeController();
  const auto two = MakeController();
  std::atomic<int> next{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 2 * kThreads; ++i) {
    threads.emplace_back([&, i] {
      Scheduler& scheduler = *(i % 2 == 0 ? one : two)->scheduler;
      for (int n = next++; n < 2 * kAsked; n = next++) {
        // Each is asked for twice, mostly of both controllers at once.
        static_cast<void>(scheduler.Place("web" + std::to_string(n / 2)));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::map<std::string, int64_t> memory;
  std::map<std::string, int> instances;
  for (int i = 0; i < kAsked; ++i) {
    const auto instance = one->resources.Get<v1::Instance>("web" + std::to_string(i));
    memory[instance->status().host()] += instance->spec().memory_bytes();
    ++instances[instance->status().host()];
  }
  for (int i = 0; i < kHosts; ++i) {
    const auto host = one->resources.Get<v1::Host>("node" + std::to_string(i));
    const int64_t claimed = memory[host->metadata().name()];
    EXPECT_EQ(host->status().allocated_memory_bytes(), claimed);
    EXPECT_EQ(host->status().instances(), instances[host->metadata().name()]);
    // 9 GiB less the sixteenth that stays with the host.
    EXPECT_EQ(claimed, 8 * kGiB);
  }
}

TEST_P(SchedulerOnStoreTest, TwoControllersKeepInstancesApartThatAreToBe) {
  constexpr int kPairs = 12;
  for (int i = 0; i < 2; ++i) Add(MakeValidHost("node" + std::to_string(i), 64));
  for (int i = 0; i < kPairs; ++i) {
    v1::Instance first = MakeValidInstance("a" + std::to_string(i));
    first.mutable_spec()->add_apart_from("b" + std::to_string(i));
    Add(first);
    Add(MakeValidInstance("b" + std::to_string(i)));
  }
  const auto one = MakeController();
  const auto two = MakeController();
  std::thread other([&] {
    for (int i = 0; i < kPairs; ++i) {
      EXPECT_TRUE(two->scheduler->Place("b" + std::to_string(i)).has_value());
    }
  });
  for (int i = 0; i < kPairs; ++i) {
    EXPECT_TRUE(one->scheduler->Place("a" + std::to_string(i)).has_value());
  }
  other.join();
  for (int i = 0; i < kPairs; ++i) {
    EXPECT_NE(one->resources.Get<v1::Instance>("a" + std::to_string(i))->status().host(),
              one->resources.Get<v1::Instance>("b" + std::to_string(i))->status().host());
  }
}

class PlacingTest : public testing::Test {
 protected:
  PlacingTest() : controller_(store_, clock_) {
    v1::Pool pool;
    pool.mutable_metadata()->set_name("default");
    Add(pool);
  }
  template <typename T>
  void Add(const T& resource) {
    const auto created = controller_.resources.Create(resource);
    CHECK(created.has_value());
    CHECK(controller_.view->WaitFor(created->metadata().revision()).has_value());
  }
  Result<v1::Instance> Place(const v1::Instance& instance) {
    Add(instance);
    return controller_.scheduler->Place(instance.metadata().name());
  }
  std::string HostOf(const Result<v1::Instance>& placed) {
    return placed.has_value() ? placed->status().host() : placed.error().message();
  }
  AdvancedClock clock_;
  store::MemoryStore store_{clock_};
  Controller controller_;
};

TEST_F(PlacingTest, InstanceGoesToTheHostOfTheOneThatItIsToBeNear) {
  Add(MakeValidHost("large", 64));
  Add(MakeValidHost("small", 16));
  v1::Instance pinned = MakeValidInstance("db1");
  pinned.mutable_spec()->set_host("small");
  ASSERT_EQ(HostOf(Place(pinned)), "small");
  v1::Instance near = MakeValidInstance("web1");
  near.mutable_spec()->add_near("db1");
  EXPECT_EQ(HostOf(Place(near)), "small");
  EXPECT_EQ(HostOf(Place(MakeValidInstance("web2"))), "large");
}

TEST_F(PlacingTest, InstanceWaitsForTheOneThatItIsToBeNear) {
  Add(MakeValidHost("node1"));
  Add(MakeValidInstance("db1"));
  v1::Instance near = MakeValidInstance("web1");
  near.mutable_spec()->add_near("db1");
  const auto refused = Place(near);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code(), ErrorCode::kExhausted);
  EXPECT_THAT(refused.error().message(), HasSubstr("near instance db1, which is on no host yet"));
  ASSERT_TRUE(controller_.scheduler->Place("db1").has_value());
  EXPECT_EQ(HostOf(controller_.scheduler->Place("web1")), "node1");
}

TEST_F(PlacingTest, InstanceIsKeptFromTheHostOfOneThatNamesItWhicheverComesFirst) {
  Add(MakeValidHost("large", 64));
  Add(MakeValidHost("small", 16));
  v1::Instance first = MakeValidInstance("web1");
  first.mutable_spec()->add_apart_from("web2");
  ASSERT_EQ(HostOf(Place(first)), "large");
  EXPECT_EQ(HostOf(Place(MakeValidInstance("web2"))), "small");
  v1::Instance third = MakeValidInstance("web3");
  third.mutable_spec()->add_apart_from("web1");
  third.mutable_spec()->add_apart_from("web2");
  EXPECT_THAT(HostOf(Place(third)), HasSubstr("apart from instance web1"));
}

TEST_F(PlacingTest, InstanceThatIsGoneKeepsNobodyApart) {
  Add(MakeValidHost("node1"));
  v1::Instance first = MakeValidInstance("web1");
  first.mutable_spec()->add_apart_from("web2");
  ASSERT_EQ(HostOf(Place(first)), "node1");
  ASSERT_THAT(HostOf(Place(MakeValidInstance("web2"))), HasSubstr("apart from instance web1"));
  ASSERT_TRUE(controller_.scheduler->Release("web1").has_value());
  EXPECT_EQ(HostOf(controller_.scheduler->Place("web2")), "node1");
}

TEST_F(PlacingTest, TenantHasNoSayInWhereTheInstancesOfOthersAre) {
  Add(MakeValidHost("node1"));
  v1::Instance first = MakeValidInstance("web1");
  first.mutable_metadata()->set_tenant("red");
  first.mutable_spec()->add_apart_from("web2");
  ASSERT_EQ(HostOf(Place(first)), "node1");
  v1::Instance other = MakeValidInstance("web2");
  other.mutable_metadata()->set_tenant("blue");
  EXPECT_EQ(HostOf(Place(other)), "node1");
  v1::Instance near = MakeValidInstance("web3");
  near.mutable_metadata()->set_tenant("red");
  near.mutable_spec()->add_near("web2");
  EXPECT_THAT(HostOf(Place(near)), HasSubstr("web2, which is on no host yet"));
}

// A trusted pool with hosts that it trusts for an hour.
class TrustedPlacingTest : public PlacingTest {
 protected:
  using Change = ResourceStore::Change;
  TrustedPlacingTest() {
    v1::Pool pool;
    pool.mutable_metadata()->set_name("gold");
    pool.mutable_spec()->set_trusted_service(true);
    pool.mutable_spec()->set_attestation_policy("gold");
    Add(pool);
    Add(Policy(1));
  }
  void AddHost(const std::string& name, int64_t gib, std::chrono::seconds lease) {
    v1::Host host = MakeValidHost(name, gib);
    host.mutable_spec()->set_pool("gold");
    SetTrust(*host.mutable_status(), clock_.Now() + lease);
    Add(host);
  }
  template <typename T, typename F>
  void Modify(const std::string& name, F change) {
    const auto stored = controller_.resources.Modify<T>(name, [&](T& current) -> Result<Change> {
      change(current);
      return Change::kWrite;
    });
    ASSERT_TRUE(stored.has_value()) << stored.error().Describe();
    ASSERT_TRUE(controller_.view->WaitUntilHeard(stored->metadata().revision()).has_value());
  }
  std::string PlaceOne() {
    v1::Instance instance = MakeValidInstance("web" + std::to_string(++placed_));
    instance.mutable_spec()->set_pool("gold");
    return HostOf(Place(instance));
  }

 private:
  int placed_ = 0;
};

TEST_F(TrustedPlacingTest, HostThatLostItsTrustTakesNothing) {
  AddHost("node1", 16, std::chrono::hours(1));
  ASSERT_EQ(PlaceOne(), "node1");
  Modify<v1::Host>("node1", [](v1::Host& host) {
    host.mutable_status()->mutable_trust()->set_level(v1::TRUST_STALE);
    host.mutable_status()->mutable_trust()->set_detail("no answer");
  });
  EXPECT_THAT(PlaceOne(), HasSubstr("node1: trust: STALE: no answer: pool gold takes trusted"));
}

TEST_F(TrustedPlacingTest, LeaseThatEndsWithoutAChangeCountsAndTheNextHostIsTaken) {
  AddHost("large", 64, std::chrono::minutes(10));
  AddHost("small", 16, std::chrono::hours(1));
  ASSERT_EQ(PlaceOne(), "large");
  clock_.Advance(std::chrono::minutes(10));
  EXPECT_EQ(PlaceOne(), "small");
  clock_.Advance(std::chrono::hours(1));
  EXPECT_THAT(PlaceOne(), HasSubstr("large: trust: its lease is over"));
  Modify<v1::Host>("large", [&](v1::Host& host) {
    SetTrust(*host.mutable_status(), clock_.Now() + std::chrono::minutes(1));
  });
  EXPECT_EQ(PlaceOne(), "large");
}

TEST_F(TrustedPlacingTest, VerdictByAnotherPolicyThanThePoolsCountsForNothing) {
  AddHost("node1", 16, std::chrono::hours(1));
  ASSERT_EQ(PlaceOne(), "node1");
  Modify<v1::Pool>("gold",
                   [](v1::Pool& pool) { pool.mutable_spec()->set_attestation_policy("other"); });
  EXPECT_THAT(PlaceOne(), HasSubstr("by policy \"gold\", and that of its pool is \"other\""));
  Modify<v1::Pool>("gold", [](v1::Pool& pool) { pool.mutable_spec()->clear_attestation_policy(); });
  EXPECT_THAT(PlaceOne(), HasSubstr("its pool names no attestation policy"));
  Modify<v1::Pool>("gold",
                   [](v1::Pool& pool) { pool.mutable_spec()->set_attestation_policy("gold"); });
  EXPECT_EQ(PlaceOne(), "node1");
}

TEST_F(TrustedPlacingTest, VerdictByAVersionThatIsNotActiveCountsForNothing) {
  AddHost("node1", 16, std::chrono::hours(1));
  const auto activate = [&](int version) {
    Modify<v1::AttestationPolicy>("gold", [&](v1::AttestationPolicy& policy) {
      policy.mutable_status()->set_active_version(version);
    });
  };
  activate(2);
  EXPECT_THAT(PlaceOne(), HasSubstr("version 1 of policy \"gold\", and version 2 is active"));
  activate(0);
  EXPECT_THAT(PlaceOne(), HasSubstr("no version of policy \"gold\" is active"));
  activate(1);
  EXPECT_EQ(PlaceOne(), "node1");
}

TEST_F(TrustedPlacingTest, PoolThatBecomesTrustedTakesNoHostWithoutAVerdict) {
  Modify<v1::Pool>("gold", [](v1::Pool& pool) { pool.mutable_spec()->set_trusted_service(false); });
  AddHost("node1", 16, std::chrono::hours(1));
  Modify<v1::Host>("node1", [](v1::Host& host) { host.mutable_status()->clear_trust(); });
  ASSERT_EQ(PlaceOne(), "node1");
  Modify<v1::Pool>("gold", [](v1::Pool& pool) { pool.mutable_spec()->set_trusted_service(true); });
  EXPECT_THAT(PlaceOne(), HasSubstr("not attested yet"));
}

TEST_F(PlacingTest, PropertiesOfTheInstanceChooseAmongHypervisorsAndTraits) {
  v1::Host newer = MakeValidHost("newer");
  newer.mutable_status()->mutable_capabilities()->set_hypervisor_version("10.0.8");
  newer.mutable_status()->mutable_capabilities()->add_traits("CUSTOM_RACK_A");
  Add(newer);
  Add(MakeValidHost("older", 64));
  const auto place = [&](const std::string& name, const std::string& key,
                         const std::string& value) {
    v1::Instance instance = MakeValidInstance(name);
    (*instance.mutable_spec()->mutable_properties())[key] = value;
    return HostOf(Place(instance));
  };
  EXPECT_EQ(place("web1", "hypervisor_version_requires", ">=10.0"), "newer");
  EXPECT_EQ(place("web2", "hypervisor_version_requires", "<10.0"), "older");
  EXPECT_EQ(place("web3", "trait:CUSTOM_RACK_A", "required"), "newer");
  EXPECT_EQ(place("web4", "trait:CUSTOM_RACK_A", "forbidden"), "older");
  EXPECT_EQ(place("web5", "hypervisor_type", "QEMU"), "older");
  EXPECT_THAT(place("web6", "hypervisor_type", "xen"), HasSubstr("has QEMU, xen is required"));
  EXPECT_THAT(place("web7", "hypervisor_type", "kvm"), HasSubstr("has tcg, kvm is required"));
}

}  // namespace
}  // namespace vallum::controller
