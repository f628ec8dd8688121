// SPDX-License-Identifier: Apache-2.0
// A whole controller whose agent reports boots and their evidence. For tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>

#include "base/check.h"
#include "base/digest.h"
#include "controller/boot_verdicts.h"
#include "controller/test_rig.h"
#include "measure/event_digest.h"

namespace vallum::controller {

inline constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;

inline std::string DigestOf(const std::string& content) {
  return std::string(AsText(Digest(kBank, AsBytes(content))));
}

inline void Add(v1::BootEvidence& evidence, int pcr, const std::string& digest,
                const std::string& what = "") {
  v1::MeasuredEvent& event = *evidence.add_events();
  event.set_pcr(pcr);
  event.set_digest(digest);
  event.set_what(what);
  *event.mutable_time() = ToTimestamp(WallTime(std::chrono::seconds(1'000'000)));
}

// Of a boot that has reached its operating system.
inline v1::BootEvidence Evidence(const std::string& kernel = "kernel",
                                 const std::string& config = "cfg", int tpm_resets = 1) {
  v1::BootEvidence evidence;
  evidence.set_tpm_resets(tpm_resets);
  Add(evidence, 0, DigestOf("firmware"));
  Add(evidence, 4, DigestOf("grub"));
  Add(evidence, 8, DigestOf("command"), "command: linux /vmlinuz");
  Add(evidence, 9, DigestOf(config), "file /EFI/debian/grub.cfg");
  Add(evidence, 4, DigestOf(kernel));
  Add(evidence, 5,
      std::string(
          AsText(measure::ActionDigest(kBank, "Exit Boot Services Returned with Success"))));
  evidence.set_left_firmware(true);
  return evidence;
}

// A loader that the firmware has started and that never leaves it.
inline v1::BootEvidence BootTo(const std::string& loader, int tpm_resets) {
  v1::BootEvidence evidence;
  evidence.set_tpm_resets(tpm_resets);
  evidence.set_prediction_problem("the disk cannot be read");
  Add(evidence, 0, DigestOf("firmware"));
  Add(evidence, 4, DigestOf(loader));
  return evidence;
}

class BootVerdictsTest : public testing::Test {
 protected:
  BootVerdictsTest() {
    rig_.MakeReadyImage("debian12", "required");
    agent_ = rig_.ConnectedAgent("node1");
  }

  void Create(const std::string& name = "web1") {
    rig_.Create(name);
    const std::optional<v1::DesiredInstance> desired = agent_->NextInstance();
    CHECK(desired.has_value());
    desired_ = *desired;
    Report(v1::BOOT_PENDING);
  }
  v1::InstanceReport Word(v1::BootVerdict verdict, int tpm_resets) const {
    v1::InstanceReport report = FakeAgent::MakeReport(desired_, v1::INSTANCE_RUNNING);
    v1::BootStatus& boot = *report.mutable_status()->mutable_boot();
    boot.mutable_effective()->set_firmware_sha256("f1");
    v1::BootMeasured& measured = *boot.mutable_measured();
    measured.set_verdict(verdict);
    measured.set_early(verdict);
    measured.set_late(verdict);
    measured.set_secure_boot(v1::SECURE_BOOT_ON);
    measured.set_tpm_resets(tpm_resets);
    *measured.mutable_measured_at() = ToTimestamp(WallTime(std::chrono::seconds(2'000'000)));
    return report;
  }
  void Report(v1::BootVerdict verdict, int tpm_resets = 1) {
    agent_->Report(Word(verdict, tpm_resets));
  }
  void Send(const v1::BootEvidence& evidence) {
    v1::BootEvidenceReport report;
    report.set_uid(desired_.uid());
    *report.mutable_evidence() = evidence;
    agent_->SendEvidence(report);
  }
  // A boot from its power-on to the agent's VERIFIED, with its evidence.
  void Boot(const v1::BootEvidence& evidence) {
    Report(v1::BOOT_PENDING, evidence.tpm_resets());
    EXPECT_TRUE(Await(v1::BOOT_PENDING));
    Send(evidence);
    Report(v1::BOOT_VERIFIED, evidence.tpm_resets());
  }
  void Learn() {
    Boot(Evidence());
    EXPECT_TRUE(AwaitEvent("instance.baseline-learned"));
    EXPECT_TRUE(Await(v1::BOOT_VERIFIED));
  }
  std::shared_ptr<const v1::Instance> Show() {
    return rig_.controller().view().Get<v1::Instance>("web1");
  }
  v1::BootMeasured Measured() { return Show()->status().boot().measured(); }
  bool Await(v1::BootVerdict verdict) {
    return rig_.Await([&](const View& view) {
      const auto found = view.Get<v1::Instance>("web1");
      return found != nullptr && found->status().boot().measured().verdict() == verdict;
    });
  }
  bool AwaitReason(const std::string& part) {
    return rig_.Await([&](const View&) {
      const auto reasons = Measured().reasons();
      return std::any_of(reasons.begin(), reasons.end(), [&](const std::string& reason) {
        return reason.find(part) != std::string::npos;
      });
    });
  }
  bool AwaitEvent(const std::string& kind, int count = 1) {
    return rig_.Await([&](const View& view) {
      const auto events = view.All<v1::Event>();
      return std::count_if(events.begin(), events.end(),
                           [&](const auto& e) { return e->kind() == kind; }) >= count;
    });
  }
  std::string LastMessage(const std::string& kind) {
    std::string message;
    for (const auto& event : rig_.controller().view().All<v1::Event>()) {
      if (event->kind() == kind) message = event->message();
    }
    return message;
  }
  void SetPool(v1::OnDiverged action, bool accept_updates = false) {
    ASSERT_TRUE(rig_.controller()
                    .resources()
                    .Modify<v1::Pool>("default",
                                      [&](v1::Pool& pool) -> Result<ResourceStore::Change> {
                                        pool.mutable_spec()->set_on_diverged(action);
                                        pool.mutable_spec()->set_accept_signed_updates(
                                            accept_updates);
                                        return ResourceStore::Change::kWrite;
                                      })
                    .has_value());
  }
  BootVerdicts& verdicts() { return rig_.controller().verdicts(); }
  Result<v1::Baseline> Accept(const std::string& events = "") {
    Result<v1::Baseline> accepted = verdicts().Accept(*Show(), events, "alice");
    rig_.controller().reconciler().Rejudge("web1");
    return accepted;
  }
  size_t Files() const {
    const std::filesystem::directory_iterator all(rig_.dir() / "boots");
    return static_cast<size_t>(std::distance(begin(all), end(all)));
  }

  Rig rig_;
  std::unique_ptr<FakeAgent> agent_;
  v1::DesiredInstance desired_;
};

}  // namespace vallum::controller
