// SPDX-License-Identifier: Apache-2.0
// Pure decisions of the agent: reconcile, refusal scanner, traits, launch plan, join token,
// backoff.
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "agent/backoff.h"
#include "agent/boot_judge.h"
#include "agent/capabilities.h"
#include "agent/join_token.h"
#include "agent/launch_plan.h"
#include "agent/reconcile.h"
#include "agent/refusal_scanner.h"
#include "agent/report_board.h"
#include "agent/test_support.h"
#include "firmware/signature_list.h"
#include "measure/event_digest.h"

namespace vallum::agent {
namespace {

v1::DesiredInstance Desired(v1::PowerState power, int64_t generation = 1) {
  v1::DesiredInstance desired;
  desired.set_uid(kUid);
  desired.set_generation(generation);
  desired.mutable_spec()->set_power(power);
  return desired;
}
v1::InstanceStatus Status(v1::InstancePhase phase, int64_t observed = 1) {
  v1::InstanceStatus status;
  status.set_phase(phase);
  status.set_observed_generation(observed);
  return status;
}

TEST(Reconcile, NewInstanceIsStartedAndStoppedOneIsLeft) {
  EXPECT_EQ(DecideStep(Desired(v1::POWER_RUNNING), {}, Presence::kAbsent), Step::kStart);
  EXPECT_EQ(DecideStep(Desired(v1::POWER_STOPPED), {}, Presence::kAbsent), Step::kNothing);
}

TEST(Reconcile, EndedGuestIsStartedOnlyWhenAskedAnew) {
  for (const auto phase : {v1::INSTANCE_CRASHED, v1::INSTANCE_FAILED, v1::INSTANCE_STOPPED}) {
    EXPECT_EQ(DecideStep(Desired(v1::POWER_RUNNING, 1), Status(phase), Presence::kAbsent),
              Step::kNothing);
    EXPECT_EQ(DecideStep(Desired(v1::POWER_RUNNING, 2), Status(phase), Presence::kAbsent),
              Step::kStart);
  }
}

TEST(Reconcile, GuestThatEndedByItselfIsNotStartedForOtherKeys) {
  for (const auto phase : {v1::INSTANCE_STOPPED, v1::INSTANCE_CRASHED}) {
    auto ended = Status(phase);
    ended.set_ended_by_itself(true);
    auto desired = Desired(v1::POWER_RUNNING, 2);
    EXPECT_EQ(DecideStep(desired, ended, Presence::kAbsent), Step::kNothing);
    desired.mutable_spec()->set_reboot_count(1);
    EXPECT_EQ(DecideStep(desired, ended, Presence::kAbsent), Step::kStart) << "asked for";
  }
}

TEST(Reconcile, StopWaitsForTheGuestUnlessForcedOrUnableToFollow) {
  const auto running = Status(v1::INSTANCE_RUNNING);
  auto stop = Desired(v1::POWER_STOPPED, 2);
  EXPECT_EQ(DecideStep(stop, running, Presence::kRunning), Step::kStop);
  EXPECT_EQ(DecideStep(stop, running, Presence::kPaused), Step::kForceStop);
  EXPECT_EQ(DecideStep(stop, running, Presence::kPanicked), Step::kForceStop);
  stop.mutable_spec()->set_force_stop(true);
  EXPECT_EQ(DecideStep(stop, running, Presence::kRunning), Step::kForceStop);
  EXPECT_TRUE(WantsForcedEnd(stop));
}

TEST(Reconcile, RebootCountAndPauseAreFollowed) {
  auto reboot = Desired(v1::POWER_RUNNING, 2);
  reboot.mutable_spec()->set_reboot_count(1);
  EXPECT_EQ(DecideStep(reboot, Status(v1::INSTANCE_RUNNING), Presence::kRunning), Step::kReboot);
  EXPECT_EQ(DecideStep(Desired(v1::POWER_PAUSED), Status(v1::INSTANCE_RUNNING), Presence::kRunning),
            Step::kPause);
  EXPECT_EQ(DecideStep(Desired(v1::POWER_RUNNING), Status(v1::INSTANCE_PAUSED), Presence::kPaused),
            Step::kResume);
}

TEST(Reconcile, GuestThatResetItselfIsStartedAnew) {
  EXPECT_TRUE(RestartsAfterReset(Desired(v1::POWER_RUNNING), Step::kNothing, Presence::kRunning));
}

TEST(Reconcile, GuestThatEndedAfterItsResetIsNotStartedAnew) {
  EXPECT_FALSE(RestartsAfterReset(Desired(v1::POWER_RUNNING), Step::kNothing, Presence::kAbsent));
}

TEST(Reconcile, GuestThatStandsStillAfterItsResetIsNotStartedAnew) {
  for (const auto presence : {Presence::kPaused, Presence::kPanicked, Presence::kIoError}) {
    EXPECT_FALSE(RestartsAfterReset(Desired(v1::POWER_RUNNING), Step::kNothing, presence));
  }
}

TEST(Reconcile, GuestThatIsToStopIsNotStartedAnewAfterItsReset) {
  EXPECT_FALSE(RestartsAfterReset(Desired(v1::POWER_STOPPED), Step::kNothing, Presence::kRunning));
  EXPECT_FALSE(RestartsAfterReset(Desired(v1::POWER_RUNNING), Step::kReboot, Presence::kRunning));
}

TEST(Reconcile, RemovalComesBeforeEverything) {
  auto desired = Desired(v1::POWER_RUNNING);
  desired.set_remove(true);
  for (const auto presence : {Presence::kAbsent, Presence::kRunning, Presence::kPanicked}) {
    EXPECT_EQ(DecideStep(desired, Status(v1::INSTANCE_FAILED), presence), Step::kRemove);
  }
  EXPECT_TRUE(WantsForcedEnd(desired));
}

constexpr std::string_view kRefusal =
    "BdsDxe: failed to load Boot0001 \"UEFI Misc Device\" from PciRoot(0x0)/Pci(0x3,0x0): Access "
    "Denied\r\n";

TEST(RefusalScanner, FindsTheLineInAnyPiecesAndThroughEscapes) {
  for (size_t piece = 1; piece < kRefusal.size(); ++piece) {
    RefusalScanner scanner;
    std::optional<FirmwareRefusal> found;
    const std::string text = "\x1b[2J\x1b[01;01H\x1b[=3h" + std::string(kRefusal);
    for (size_t at = 0; at < text.size(); at += piece) {
      if (auto now = scanner.Feed(AsBytes(text.substr(at, piece))); now) {
        found = now;
      }
    }
    ASSERT_TRUE(found) << piece;
    EXPECT_EQ(found->cause, "Access Denied");
    EXPECT_EQ(found->boot_option, "Boot0001 \"UEFI Misc Device\" from PciRoot(0x0)/Pci(0x3,0x0)");
  }
}

TEST(RefusalScanner, OtherFailuresAndOtherSpeakersAreNoRefusal) {
  for (const char* line :
       {"BdsDxe: failed to load Boot0001 \"x\" from PciRoot(0x0): Not Found\r\n",
        "BdsDxe: loading Boot0001 \"Access Denied\" from PciRoot(0x0)\r\n",
        "BdsDxe: failed to load Boot0001 \"Access Denied\" from Pci: Time out\r\n",
        "login: Access Denied\r\n", "Access Denied\r\n"}) {
    RefusalScanner scanner;
    EXPECT_FALSE(scanner.Feed(AsBytes(line))) << line;
  }
}

// What shim 16.1 draws when GRUB does not verify.
constexpr std::string_view kShimBox =
    "\x1b[44m\x1b[01;01H\xda\xc4\xc4\xbf\x1b[02;01H\xb3   ERROR   \xb3\x1b[03;01H\xb3  \xb3"
    "\x1b[04;01H\xb3   Verification failed: (0x1A) Security Violation   \xb3\x1b[05;01H";

TEST(RefusalScanner, FindsShimsBoxInAnyPieces) {
  for (size_t piece = 1; piece < kShimBox.size(); ++piece) {
    RefusalScanner scanner;
    std::optional<FirmwareRefusal> found;
    for (size_t at = 0; at < kShimBox.size(); at += piece) {
      if (auto refusal = scanner.Feed(AsBytes(kShimBox.substr(at, piece))); refusal) {
        found = refusal;
      }
    }
    ASSERT_TRUE(found) << piece;
    EXPECT_EQ(found->by, RefusedBy::kShim);
    EXPECT_EQ(found->cause, "Security Violation");
  }
}

TEST(RefusalScanner, TheFirstRefusalIsTheOneThatCounts) {
  // The firmware goes on to its own shell, which is not signed either.
  RefusalScanner scanner;
  const std::string text = std::string(kRefusal) +
                           "BdsDxe: failed to start Boot0002 \"EFI Internal Shell\" from Fv(7CB8): "
                           "Security Violation\r\n";
  const auto found = scanner.Feed(AsBytes(text));
  ASSERT_TRUE(found);
  EXPECT_NE(found->boot_option.find("Boot0001"), std::string::npos);
}

TEST(RefusalScanner, SaysNothingOnceTheGuestSpeaksForItself) {
  RefusalScanner scanner;
  scanner.Disarm();
  EXPECT_FALSE(scanner.Feed(AsBytes(kRefusal)));
  scanner.Reset();
  EXPECT_TRUE(scanner.Feed(AsBytes(kRefusal)));
}

TEST(RefusalScanner, ShimThatRefusesItselfIsFound) {
  for (const char* line :
       {"Something has gone seriously wrong: SBAT self-check failed: Security Policy Violation\n",
        "Verifying shim SBAT data failed: Security Policy Violation\r\n"}) {
    RefusalScanner scanner;
    const auto found = scanner.Feed(AsBytes(line));
    ASSERT_TRUE(found) << line;
    EXPECT_EQ(found->by, RefusedBy::kShimOfItself);
  }
}

TEST(RefusalScanner, GrubsWordOfAKernelThatShimRefusesIsFound) {
  RefusalScanner scanner;
  const auto found = scanner.Feed(AsBytes("error: bad shim signature.\n"));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->by, RefusedBy::kShim);
}

TEST(RefusalScanner, EndlessLineIsBounded) {
  RefusalScanner scanner;
  const std::string megabyte(size_t{1} << 20U, 'x');
  EXPECT_FALSE(scanner.Feed(AsBytes(megabyte)));
  EXPECT_FALSE(scanner.Feed(AsBytes("\n")));
  EXPECT_TRUE(scanner.Feed(AsBytes(kRefusal)));
}

firmware::FirmwareDescriptor UefiDescriptor(const std::string& source, bool secure) {
  firmware::FirmwareDescriptor descriptor;
  descriptor.source = source;
  descriptor.interfaces = {firmware::FirmwareInterface::kUefi};
  descriptor.mapping.executable = {"/fw/" + source, "raw"};
  descriptor.mapping.nvram_template = {"/fw/vars-" + source, "raw"};
  descriptor.targets = {{"x86_64", {"pc-q35-*"}}};
  if (secure) {
    descriptor.features = {"secure-boot", "requires-smm", "enrolled-keys"};
  }
  return descriptor;
}

// A host that can do everything.
HostFacts FullHost() {
  HostFacts facts;
  facts.probes.qemu_version = "7.2.22";
  for (const auto name : {vm::kProbeQemu, vm::kProbeTcg, vm::kProbeTcgSmm, vm::kProbeSwtpm}) {
    facts.probes.probes.push_back(vm::Probe{std::string(name), true, "works"});
  }
  for (const char* name : {"object:tpm-emulator", "device:tpm-crb", "device:tpm-tis"}) {
    facts.probes.probes.push_back(vm::Probe{name, true, ""});
  }
  facts.firmware = {{UefiDescriptor("secure", true), "aa"},
                    {UefiDescriptor("plain", false), "bb"},
                    {firmware::BuiltinBios(), ""}};
  facts.bridges = {"br0"};
  facts.may_make_taps = true;
  return facts;
}

void Fail(HostFacts& facts, std::string_view name) {
  for (vm::Probe& probe : facts.probes.probes) {
    if (probe.name == name) {
      probe.ok = false;
      probe.detail = "does not work";
    }
  }
}

std::set<std::string> Traits(const HostFacts& facts) {
  const v1::HostCapabilities capabilities = MakeCapabilities(facts);
  return {capabilities.traits().begin(), capabilities.traits().end()};
}

TEST(Capabilities, FullHostHasEveryTraitButKvm) {
  EXPECT_EQ(
      Traits(FullHost()),
      (std::set<std::string>{kTraitSecureBoot, kTraitTpm20, kTraitTpmTis, kTraitTpmCrb, kTraitTcg,
                             kTraitSmm, kTraitUefi, kTraitBios, kTraitNetUser, kTraitNetBridge}));
}

TEST(Capabilities, WithoutSmmThereIsNoSecureBoot) {
  HostFacts facts = FullHost();
  Fail(facts, vm::kProbeTcgSmm);
  const auto traits = Traits(facts);
  EXPECT_FALSE(traits.contains(kTraitSmm));
  EXPECT_FALSE(traits.contains(kTraitSecureBoot));
  EXPECT_TRUE(traits.contains(kTraitUefi));
}

TEST(Capabilities, WithoutSecureFirmwareAProbeSaysWhy) {
  HostFacts facts = FullHost();
  facts.firmware.erase(facts.firmware.begin());
  const v1::HostCapabilities capabilities = MakeCapabilities(facts);
  EXPECT_FALSE(Traits(facts).contains(kTraitSecureBoot));
  bool said = false;
  for (const v1::Probe& probe : capabilities.probes()) {
    said |= probe.name() == "firmware-secure-boot" && !probe.ok() && !probe.detail().empty();
  }
  EXPECT_TRUE(said);
}

TEST(Capabilities, WithoutSwtpmThereIsNoTpm) {
  HostFacts facts = FullHost();
  Fail(facts, vm::kProbeSwtpm);
  const auto traits = Traits(facts);
  EXPECT_FALSE(traits.contains(kTraitTpm20));
  EXPECT_FALSE(traits.contains(kTraitTpmCrb));
}

v1::DesiredInstance Bootable(v1::BootType type, v1::BootMode mode) {
  v1::DesiredInstance desired = Desired(v1::POWER_RUNNING);
  desired.set_name("web1");
  desired.mutable_spec()->set_vcpus(1);
  desired.mutable_spec()->set_memory_bytes(int64_t{256} << 20);
  desired.mutable_boot()->set_type(type);
  desired.mutable_boot()->set_mode(mode);
  desired.set_image_format("raw");
  desired.set_image_virtual_size_bytes(1 << 20);
  return desired;
}

TEST(LaunchPlan, SecureGetsSecureFirmwareWithSmm) {
  const auto plan = PlanLaunch(Bootable(v1::BOOT_TYPE_UEFI, v1::BOOT_MODE_SECURE), FullHost());
  ASSERT_TRUE(plan) << plan.error().Describe();
  EXPECT_EQ(plan->effective.firmware(), "/fw/secure");
  EXPECT_EQ(plan->effective.firmware_sha256(), "aa");
  EXPECT_TRUE(plan->effective.smm());
  EXPECT_EQ(plan->effective.key_set(), "microsoft");
  EXPECT_EQ(plan->effective.machine(), "pc-q35-7.2");
  EXPECT_EQ(plan->variable_template, "/fw/vars-secure");
}

TEST(LaunchPlan, SecureIsNeverDowngraded) {
  const auto secure = Bootable(v1::BOOT_TYPE_UEFI, v1::BOOT_MODE_SECURE);
  HostFacts no_smm = FullHost();
  Fail(no_smm, vm::kProbeTcgSmm);
  HostFacts no_firmware = FullHost();
  no_firmware.firmware.erase(no_firmware.firmware.begin());
  HostFacts no_tpm = FullHost();
  Fail(no_tpm, vm::kProbeSwtpm);
  for (const HostFacts& facts : {no_smm, no_firmware, no_tpm}) {
    const auto plan = PlanLaunch(secure, facts);
    ASSERT_FALSE(plan);
    EXPECT_FALSE(plan.error().Describe().empty());
  }
  EXPECT_FALSE(PlanLaunch(Bootable(v1::BOOT_TYPE_BIOS, v1::BOOT_MODE_SECURE), FullHost()));
  auto without_tpm = secure;
  without_tpm.mutable_spec()->set_tpm_model("none");
  EXPECT_FALSE(PlanLaunch(without_tpm, FullHost()));
}

v1::DesiredInstance WithKeySet(v1::BootMode mode, int version) {
  v1::DesiredInstance desired = Bootable(v1::BOOT_TYPE_UEFI, mode);
  desired.mutable_key_set();
  desired.set_key_set_name("prod");
  desired.set_key_set_version(version);
  return desired;
}

TEST(LaunchPlan, KeysOfTheControllersNeedNoEnrolledTemplate) {
  HostFacts facts = FullHost();
  facts.firmware[0].descriptor.features = {"secure-boot", "requires-smm"};
  const auto with_keys = PlanLaunch(WithKeySet(v1::BOOT_MODE_SECURE, 2), facts);
  ASSERT_TRUE(with_keys) << with_keys.error().Describe();
  EXPECT_TRUE(with_keys->effective.smm());
  EXPECT_EQ(with_keys->effective.key_set(), "prod");
  EXPECT_EQ(with_keys->effective.key_set_version(), 2);
  EXPECT_EQ(with_keys->effective.key_set_sha256().size(), 64U);
  EXPECT_FALSE(PlanLaunch(Bootable(v1::BOOT_TYPE_UEFI, v1::BOOT_MODE_SECURE), facts));
}

TEST(LaunchPlan, EachVersionModeAndContentAsksForAnotherVariableStore) {
  const auto plan = PlanLaunch(WithKeySet(v1::BOOT_MODE_SECURE, 1), FullHost());
  ASSERT_TRUE(plan);
  EXPECT_FALSE(VariablesOutdated(WithKeySet(v1::BOOT_MODE_SECURE, 1), plan->effective));
  EXPECT_TRUE(VariablesOutdated(WithKeySet(v1::BOOT_MODE_SECURE, 2), plan->effective));
  auto other = WithKeySet(v1::BOOT_MODE_SECURE, 1);
  other.mutable_key_set()->set_dbx(
      std::string(AsText(firmware::EncodeSignatureLists({firmware::MakeSignature(
          firmware::SignatureType::kSha256, firmware::kGlobalVariableGuid, Bytes(32))}))));
  EXPECT_TRUE(VariablesOutdated(other, plan->effective));
  const auto other_plan = PlanLaunch(other, FullHost());
  const auto legacy = PlanLaunch(WithKeySet(v1::BOOT_MODE_LEGACY, 1), FullHost());
  ASSERT_TRUE(other_plan && legacy);
  EXPECT_NE(VariableOrigin(*plan), VariableOrigin(*other_plan));
  EXPECT_NE(VariableOrigin(*plan), VariableOrigin(*legacy));
}

TEST(LaunchPlan, KeySetThatTheControllerLostIsRefused) {
  auto desired = WithKeySet(v1::BOOT_MODE_SECURE, 1);
  desired.clear_key_set();
  const auto plan = PlanLaunch(desired, FullHost());
  ASSERT_FALSE(plan);
  EXPECT_NE(plan.error().Describe().find("key set prod version 1"), std::string::npos);
}

TEST(LaunchPlan, IsolatedInstanceStartsWithItsLinksDown) {
  auto desired = Bootable(v1::BOOT_TYPE_BIOS, v1::BOOT_MODE_LEGACY);
  const auto plan = PlanLaunch(desired, FullHost());
  ASSERT_TRUE(plan);
  const AgentConfig config = MakeConfig("/tmp/x");
  desired.set_isolate(true);
  const auto spec = MakeVmSpec(config, desired, plan->effective, {"/blob", std::nullopt});
  ASSERT_TRUE(spec) << spec.error().Describe();
  EXPECT_EQ(spec->links, vm::LinkState::kDown);
}

TEST(LaunchPlan, ChangedModeAsksForAnotherVariableStore) {
  const auto secure = PlanLaunch(Bootable(v1::BOOT_TYPE_UEFI, v1::BOOT_MODE_SECURE), FullHost());
  const auto legacy = PlanLaunch(Bootable(v1::BOOT_TYPE_UEFI, v1::BOOT_MODE_LEGACY), FullHost());
  ASSERT_TRUE(secure && legacy);
  EXPECT_NE(VariableOrigin(*secure), VariableOrigin(*legacy));
  EXPECT_EQ(legacy->effective.firmware(), "/fw/plain");
}

TEST(LaunchPlan, UnknownNetworkAndTooSmallDiskAreRefused) {
  auto desired = Bootable(v1::BOOT_TYPE_BIOS, v1::BOOT_MODE_LEGACY);
  const auto plan = PlanLaunch(desired, FullHost());
  ASSERT_TRUE(plan);
  const AgentConfig config = MakeConfig("/tmp/x");
  desired.mutable_spec()->add_networks()->set_type("carrier-pigeon");
  EXPECT_FALSE(MakeVmSpec(config, desired, plan->effective, {"/blob", std::nullopt}));
  desired.mutable_spec()->set_disk_bytes(4096);
  EXPECT_FALSE(RootDiskSize(desired));
}

TEST(LaunchPlan, MacIsStableLocalAndDifferentForEachNetwork) {
  EXPECT_EQ(DeriveMac(kUid, 0), DeriveMac(kUid, 0));
  EXPECT_NE(DeriveMac(kUid, 0), DeriveMac(kUid, 1));
  EXPECT_EQ(DeriveMac(kUid, 0).substr(0, 9), "52:54:00:");
  EXPECT_EQ(DeriveMac(kUid, 0).size(), 17U);
}

TEST(JoinToken, WellFormedOneParses) {
  const std::string json =
      R"({"endpoint":"127.0.0.1:7444","secret":"s3cret","ca":"-----BEGIN CERTIFICATE-----\nx\n"})";
  const auto token = ParseJoinToken("  vallum-join-v1." + ToBase64Url(AsBytes(json)) + "\n");
  ASSERT_TRUE(token) << token.error().Describe();
  EXPECT_EQ(token->endpoint, "127.0.0.1:7444");
  EXPECT_EQ(AsText(token->secret.Reveal(SecretAccess("test"))), "s3cret");
}

TEST(JoinToken, DamagedOneIsRefusedWithoutQuotingTheSecret) {
  const std::string json =
      R"({"endpoint":"no port","secret":"s3cret","ca":"-----BEGIN CERTIFICATE-----"})";
  for (const std::string& text :
       {std::string(), std::string("vallum-join-v2.abc"), std::string("vallum-join-v1.!!"),
        std::string("vallum-join-v1.") + ToBase64Url(AsBytes("{}")),
        std::string("vallum-join-v1.") + ToBase64Url(AsBytes(json))}) {
    const auto token = ParseJoinToken(text);
    ASSERT_FALSE(token) << text;
    EXPECT_EQ(token.error().code(), ErrorCode::kInvalidInput);
    EXPECT_EQ(token.error().DebugString().find("s3cret"), std::string::npos);
  }
}

TEST(Backoff, GrowsIsBoundedAndIsSpread) {
  for (int failures = 1; failures < 100; ++failures) {
    for (const uint32_t random : {0U, 12345U, 0xffffffffU}) {
      const auto delay = ReconnectDelay(failures, random);
      EXPECT_GE(delay.count(), 500);
      EXPECT_LE(delay.count(), 30000);
    }
  }
  EXPECT_GT(ReconnectDelay(5, 0), ReconnectDelay(1, 0));
  EXPECT_NE(ReconnectDelay(3, 1), ReconnectDelay(3, 2));
}

v1::InstanceReport Report(const std::string& uid, v1::InstancePhase phase) {
  v1::InstanceReport report;
  report.set_uid(uid);
  report.mutable_status()->set_phase(phase);
  return report;
}

TEST(ReportBoard, OnlyTheLatestReportOfAnInstanceIsKept) {
  ReportBoard board;
  const auto past = std::chrono::steady_clock::now();
  for (int i = 0; i < 1000; ++i) {
    board.Put(Report("a", i % 2 == 0 ? v1::INSTANCE_STARTING : v1::INSTANCE_RUNNING));
  }
  const auto report = board.TakeNext(past);
  ASSERT_TRUE(report);
  EXPECT_EQ(report->report().status().phase(), v1::INSTANCE_RUNNING);
  EXPECT_FALSE(board.TakeNext(past));
  board.Put(Report("a", v1::INSTANCE_RUNNING));
  EXPECT_FALSE(board.TakeNext(past)) << "nothing changed";
  EXPECT_EQ(board.TakeAll().size(), 1U) << "Hello tells everything again";
}

TEST(ReportBoard, GoneInstanceIsToldOnceAndForgotten) {
  ReportBoard board;
  v1::InstanceReport gone;
  gone.set_uid("a");
  gone.set_gone(true);
  board.Put(gone);
  EXPECT_EQ(board.TakeAll().size(), 1U);
  EXPECT_TRUE(board.TakeAll().empty());
}

v1::BootEvidence Evidence(int events) {
  v1::BootEvidence evidence;
  for (int i = 0; i < events; ++i) {
    evidence.add_events()->set_pcr(4);
  }
  return evidence;
}

TEST(ReportBoard, EvidenceIsToldOnceASecondAndWholeWhenItGrew) {
  ReportBoard board;
  const auto past = std::chrono::steady_clock::now();
  board.PutEvidence("a", Evidence(1));
  const auto first = board.TakeNext(past);
  ASSERT_TRUE(first && first->has_evidence());
  EXPECT_EQ(first->evidence().uid(), "a");
  EXPECT_EQ(first->evidence().evidence().events_size(), 1);
  board.PutEvidence("a", Evidence(2));
  board.PutEvidence("a", Evidence(3));
  EXPECT_FALSE(board.TakeNext(past)) << "not twice within a second";
  const auto next = board.TakeNext(past + ReportBoard::kEvidenceInterval * 60);
  ASSERT_TRUE(next && next->has_evidence());
  EXPECT_EQ(next->evidence().evidence().events_size(), 3);
}

TEST(ReportBoard, UnchangedEvidenceIsNotToldAgainButAfterHello) {
  ReportBoard board;
  const auto past = std::chrono::steady_clock::now();
  board.PutEvidence("a", Evidence(1));
  ASSERT_TRUE(board.TakeNext(past));
  board.PutEvidence("a", Evidence(1));
  board.PutEvidence("b", Evidence(1));
  const auto other = board.TakeNext(past);
  ASSERT_TRUE(other);
  EXPECT_EQ(other->evidence().uid(), "b");
  EXPECT_TRUE(board.TakeAll().empty());
  const auto again = board.TakeNext(past + ReportBoard::kEvidenceInterval * 60);
  ASSERT_TRUE(again && again->has_evidence());
}

TEST(ReportBoard, EvidenceOfAnInstanceThatIsGoneIsForgotten) {
  ReportBoard board;
  board.PutEvidence("a", Evidence(1));
  v1::InstanceReport gone;
  gone.set_uid("a");
  gone.set_gone(true);
  board.Put(gone);
  EXPECT_EQ(board.TakeAll().size(), 1U);
  EXPECT_FALSE(board.TakeNext(std::chrono::steady_clock::now()));
}

}  // namespace
}  // namespace vallum::agent
