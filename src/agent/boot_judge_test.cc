// SPDX-License-Identifier: Apache-2.0
#include "agent/boot_judge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string_view>
#include <vector>

#include "base/digest.h"
#include "firmware/key_store.h"
#include "firmware/signature_list.h"
#include "firmware/variable_store_editor.h"
#include "measure/event_digest.h"
#include "measure/pcr.h"
#include "measure/secure_boot_pcr.h"

namespace vallum::agent {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;
constexpr PcrIndex kImages = PcrIndex::Of<4>();
constexpr PcrIndex kTable = PcrIndex::Of<5>();
constexpr PcrIndex kPolicy = PcrIndex::Of<7>();
constexpr PcrIndex kFiles = PcrIndex::Of<9>();

Bytes DigestOf(std::string_view text) { return Digest(kBank, AsBytes(text)); }

std::vector<firmware::Signature> Entries(firmware::SignatureType type,
                                         std::initializer_list<int> seeds) {
  std::vector<firmware::Signature> entries;
  for (const int seed : seeds) {
    entries.push_back(firmware::MakeSignature(type, firmware::kGlobalVariableGuid,
                                              Bytes(32, static_cast<std::byte>(seed))));
  }
  return entries;
}

firmware::KeySet Keys() {
  using firmware::SignatureType;
  firmware::KeySet keys;
  keys.name = "prod";
  keys.pk = Entries(SignatureType::kSha256, {1});
  keys.kek = Entries(SignatureType::kSha256, {2});
  keys.db = Entries(SignatureType::kSha256, {3});
  keys.dbx = Entries(SignatureType::kSha256, {4, 5});
  return keys;
}

firmware::VariableStore StoreOf(const firmware::KeySet& keys) {
  const auto image = firmware::MakeKeyStore(keys, firmware::OvmfBuild::k4M,
                                            firmware::VariableTime{2024, 1, 1, 0, 0, 0});
  EXPECT_TRUE(image.has_value());
  auto store = firmware::VariableStore::Parse(*image);
  EXPECT_TRUE(store.has_value());
  return *std::move(store);
}

v1::BootBinary Program(const std::string& path, std::string_view content) {
  v1::BootBinary binary;
  binary.set_path(path);
  binary.set_authenticode_sha256(ToHex(DigestOf(content)));
  binary.set_signer("CN=Acme");
  return binary;
}

images::LinkReport Link(const v1::BootBinary& binary, images::LinkRole role, const char* by) {
  images::LinkReport link;
  link.path = binary.path();
  link.role = role;
  link.authenticode_sha256 = binary.authenticode_sha256();
  link.signer = binary.signer();
  link.verified_by = by;
  link.allowed = true;
  return link;
}

// A boot of shim, GRUB and a kernel with everything as predicted, which tests change one thing of.
class Boot {
 public:
  Boot() : assigned_{"key set prod version 2", Keys()}, store_(StoreOf(Keys())) {
    measure::PredictionBuilder builder(kBank, std::vector{kImages, kTable, kPolicy, kFiles});
    for (const auto& each : measure::ExpectedPcr7Configuration(kBank, store_)) {
      builder.Extend(kPolicy, each.digest, each.explanation);
    }
    builder.Extend(kPolicy, DigestOf("authority"), "db entry");
    builder.Extend(kImages, DigestOf("shim"), "EFI/BOOT/BOOTX64.EFI (by firmware)");
    builder.Extend(kImages, DigestOf("grub"), "EFI/BOOT/grubx64.efi (by shim)");
    builder.Extend(kImages, DigestOf("kernel"), "vmlinuz (by shim)");
    builder.Extend(kFiles, DigestOf("initrd"), "file /initrd");
    builder.Extend(kTable, measure::ActionDigest(kBank, "Exit Boot Services Invocation"), "exit");
    builder.Extend(kTable, Succeeded(), "exited");
    BootForecast forecast;
    forecast.prediction = std::move(builder).Finish();
    const auto shim = Program("\\EFI\\BOOT\\BOOTX64.EFI", "shim");
    const auto grub = Program("\\EFI\\BOOT\\grubx64.efi", "grub");
    const auto kernel = Program("\\vmlinuz", "kernel");
    const auto other = Program("\\EFI\\old\\grubx64.efi", "old grub");
    for (const auto& binary : {shim, grub, kernel, other}) {
      *forecast.binaries.Add() = binary;
    }
    images::KeySetReport report;
    report.chain = {Link(shim, images::LinkRole::kShim, "firmware"),
                    Link(grub, images::LinkRole::kGrub, "shim"),
                    Link(kernel, images::LinkRole::kKernel, "shim")};
    forecast.preflight = report;
    forecast_ = std::move(forecast);
    for (const auto& pcr : {kPolicy, kImages, kFiles, kTable}) {
      for (const auto& event : forecast_->prediction->Find(pcr)->events) {
        events.push_back({pcr, event.digest, WallTime()});
      }
    }
  }

  static Bytes Succeeded() {
    return measure::ActionDigest(kBank, "Exit Boot Services Returned with Success");
  }
  MeasuredExtend& Find(std::string_view content) {
    const auto found = std::ranges::find(events, DigestOf(content), &MeasuredExtend::digest);
    EXPECT_NE(found, events.end());
    return *found;
  }
  BootFacts Facts() {
    BootFacts facts;
    facts.events = events;
    facts.progress = ReadProgress(events);
    facts.progress.tpm_resets = 1;
    for (Bytes& value : facts.replay.values) value = Bytes(32);
    for (uint32_t i = 0; i < PcrIndex::kCount; ++i) {
      std::vector<Bytes> digests;
      for (const auto& event : events) {
        if (event.pcr.value() == i) digests.push_back(event.digest);
      }
      facts.replay.values[i] = *measure::ReplayPcr(kBank, digests);
      facts.tpm_values[*PcrIndex::Create(i)] = facts.replay.values[i];
    }
    facts.mode = v1::BOOT_MODE_SECURE;
    facts.store = &store_;
    facts.assigned = &assigned_;
    facts.forecast = forecast_ ? &*forecast_ : nullptr;
    return facts;
  }
  // With other keys in the store than were assigned, and a boot that measured these.
  void StoreHas(const firmware::KeySet& keys) {
    store_ = StoreOf(keys);
    forecast_->prediction.reset();
    forecast_->problem = "not predicted";
    std::erase_if(events, [](const MeasuredExtend& event) { return event.pcr == kPolicy; });
    for (const auto& each : measure::ExpectedPcr7Configuration(kBank, store_)) {
      events.insert(events.begin() + static_cast<std::ptrdiff_t>(inserted_++),
                    {kPolicy, each.digest, WallTime()});
    }
  }

  std::vector<MeasuredExtend> events;
  std::optional<BootForecast> forecast_;
  AssignedKeys assigned_;

 private:
  firmware::VariableStore store_;
  size_t inserted_ = 0;
};

std::vector<std::string> StageNames(const v1::BootMeasured& measured) {
  std::vector<std::string> names;
  for (const auto& stage : measured.stages()) names.push_back(stage.name());
  return names;
}

TEST(BootJudge, BootAsPredictedIsVerifiedInBothHalves) {
  Boot boot;
  const v1::BootMeasured judged = JudgeBoot(boot.Facts());
  EXPECT_EQ(judged.verdict(), v1::BOOT_VERIFIED) << judged.DebugString();
  EXPECT_EQ(judged.early(), v1::BOOT_VERIFIED);
  EXPECT_EQ(judged.late(), v1::BOOT_VERIFIED);
  EXPECT_EQ(judged.secure_boot(), v1::SECURE_BOOT_ON);
  EXPECT_FALSE(judged.has_first_difference());
}

TEST(BootJudge, StagesAreNamedByWhatTheDiskHolds) {
  Boot boot;
  const v1::BootMeasured judged = JudgeBoot(boot.Facts());
  EXPECT_THAT(StageNames(judged),
              ElementsAre("firmware", "shim", "grub", "kernel", "operating system"));
  EXPECT_THAT(judged.stages(1).detail(), HasSubstr("BOOTX64.EFI, signed by CN=Acme"));
  EXPECT_TRUE(judged.stages(1).as_expected());
}

TEST(BootJudge, OtherLoaderDivergesEarlyAndIsNamedWhenTheDiskHoldsIt) {
  Boot boot;
  boot.Find("grub").digest = DigestOf("old grub");
  const v1::BootMeasured judged = JudgeBoot(boot.Facts());
  EXPECT_EQ(judged.verdict(), v1::BOOT_DIVERGED);
  EXPECT_EQ(judged.early(), v1::BOOT_DIVERGED);
  EXPECT_EQ(judged.late(), v1::BOOT_VERIFIED);
  const v1::BootDifference& first = judged.first_difference();
  EXPECT_EQ(first.pcr(), 4);
  EXPECT_EQ(first.event(), 2);
  EXPECT_EQ(first.measured(), ToHex(DigestOf("old grub")));
  EXPECT_EQ(first.expected(), ToHex(DigestOf("grub")));
  EXPECT_THAT(first.expected_what(), HasSubstr("grubx64.efi (by shim)"));
  EXPECT_THAT(first.measured_what(), HasSubstr("Authenticode digest of \\EFI\\old\\grubx64.efi"));
  EXPECT_EQ(first.expected_from(), "prediction");
  ASSERT_GT(judged.reasons_size(), 0);
  EXPECT_THAT(judged.reasons(0), HasSubstr("extend 2 of PCR 4"));
}

TEST(BootJudge, UnknownLoaderIsAStageThatIsNotAsExpected) {
  Boot boot;
  boot.Find("grub").digest = DigestOf("evil");
  const v1::BootMeasured judged = JudgeBoot(boot.Facts());
  EXPECT_THAT(StageNames(judged), Contains("unknown program"));
  EXPECT_EQ(judged.verdict(), v1::BOOT_DIVERGED);
}

TEST(BootJudge, ProgramOfTheFirmwareIsNamedAsOne) {
  Boot boot;
  boot.Find("grub").digest = DigestOf("shell");
  v1::BootBinary& shell = *boot.forecast_->binaries.Add();
  shell.set_path("Shell");
  shell.set_authenticode_sha256(ToHex(DigestOf("shell")));
  shell.set_of_firmware(true);
  const v1::BootMeasured judged = JudgeBoot(boot.Facts());
  EXPECT_THAT(StageNames(judged), Contains("firmware's own program"));
  EXPECT_THAT(judged.first_difference().measured_what(),
              HasSubstr("Shell, a program of the firmware itself"));
}

TEST(BootJudge, OtherInitrdDivergesLate) {
  Boot boot;
  boot.Find("initrd").digest = DigestOf("evil");
  const v1::BootMeasured judged = JudgeBoot(boot.Facts());
  EXPECT_EQ(judged.verdict(), v1::BOOT_DIVERGED);
  EXPECT_EQ(judged.early(), v1::BOOT_VERIFIED);
  EXPECT_EQ(judged.late(), v1::BOOT_DIVERGED);
  EXPECT_EQ(judged.first_difference().pcr(), 9);
}

TEST(BootJudge, DifferenceIsSaidBeforeTheBootIsOver) {
  Boot boot;
  boot.events = {{kImages, DigestOf("evil"), WallTime()}};
  const v1::BootMeasured judged = JudgeBoot(boot.Facts());
  EXPECT_EQ(judged.verdict(), v1::BOOT_DIVERGED);
  EXPECT_EQ(judged.late(), v1::BOOT_PENDING);
}

TEST(BootJudge, UnfinishedBootIsPending) {
  Boot boot;
  boot.events.erase(boot.events.end() - 2,
                    boot.events.end());  // the operating system has not begun
  const v1::BootMeasured judged = JudgeBoot(boot.Facts());
  EXPECT_EQ(judged.verdict(), v1::BOOT_PENDING) << judged.DebugString();
  EXPECT_EQ(judged.early(), v1::BOOT_VERIFIED) << "the kernel was started";
  EXPECT_EQ(judged.late(), v1::BOOT_PENDING);
}

TEST(BootJudge, MissingExtendDivergesWhenTheOperatingSystemRuns) {
  Boot boot;
  std::erase_if(boot.events,
                [](const MeasuredExtend& event) { return event.digest == DigestOf("initrd"); });
  const v1::BootMeasured judged = JudgeBoot(boot.Facts());
  EXPECT_EQ(judged.verdict(), v1::BOOT_DIVERGED);
  EXPECT_EQ(judged.first_difference().measured(), "");
}

TEST(BootJudge, WhatTheOperatingSystemExtendsIsNoDivergence) {
  Boot boot;
  boot.events.push_back({kFiles, DigestOf("its own"), WallTime()});
  EXPECT_EQ(JudgeBoot(boot.Facts()).verdict(), v1::BOOT_VERIFIED);
}

TEST(BootJudge, NothingIsVerifiedBeforeTheForecastIsThere) {
  Boot boot;
  boot.forecast_->prediction.reset();
  auto facts = boot.Facts();
  facts.forecast = nullptr;
  EXPECT_NE(JudgeBoot(facts).verdict(), v1::BOOT_VERIFIED);
}

TEST(BootJudge, WithoutAPredictionPcr7AndTheKeysDecide) {
  Boot boot;
  boot.StoreHas(Keys());
  const v1::BootMeasured judged = JudgeBoot(boot.Facts());
  EXPECT_EQ(judged.verdict(), v1::BOOT_VERIFIED) << judged.DebugString();
  boot.events.insert(boot.events.end() - 2, {kPolicy, DigestOf("evil"), WallTime()});
  const v1::BootMeasured diverged = JudgeBoot(boot.Facts());
  EXPECT_EQ(diverged.verdict(), v1::BOOT_DIVERGED);
  EXPECT_EQ(diverged.first_difference().pcr(), 7);
  EXPECT_EQ(diverged.first_difference().expected_from(), "key set prod version 2");
}

TEST(BootJudge, WhatWasNotComparedIsNotedWithTheReason) {
  Boot boot;
  EXPECT_EQ(JudgeBoot(boot.Facts()).reasons_size(), 0) << "all of it was";
  boot.forecast_->prediction =
      measure::KeepFirmwarePart(*boot.forecast_->prediction, "the guest has a boot option");
  std::erase_if(boot.events,
                [](const auto& event) { return event.digest == DigestOf("authority"); });
  boot.events.insert(boot.events.begin(), {PcrIndex::Of<0>(), DigestOf("firmware"), WallTime()});
  const v1::BootMeasured judged = JudgeBoot(boot.Facts());
  EXPECT_EQ(judged.verdict(), v1::BOOT_VERIFIED) << judged.DebugString();
  EXPECT_THAT(judged.reasons(),
              ElementsAre("not compared with a prediction: PCR 0: this host cannot predict it",
                          "not compared with a prediction: PCR 4, 5, 9: the guest has a boot "
                          "option"));
}

TEST(BootForecast, BootOptionOfTheGuestsOwnIsFoundAndWhatCannotBeReadIsOne) {
  const auto with = [](const char* hex) {
    auto editor = firmware::VariableStoreEditor::Open(
        *firmware::MakeKeyStore(Keys(), firmware::OvmfBuild::k4M, {2024, 1, 1, 0, 0, 0}));
    EXPECT_TRUE(editor->Set({.name = u"Boot0001",
                             .vendor = firmware::kGlobalVariableGuid,
                             .attributes = 7,
                             .data = *FromHex(hex),
                             .time = {},
                             .monotonic_count = 0,
                             .public_key_index = 0}));
    return FindOwnBootOption(*firmware::VariableStore::Parse(editor->image()));
  };
  // Active, a path of so many bytes, description "d"; media file path "\a", or PCI; end.
  EXPECT_THAT(with("01000000"
                   "0e00"
                   "64000000"
                   "04040a005c0061000000"
                   "7fff0400"),
              HasSubstr("Boot0001, for \\a"));
  EXPECT_EQ(with("01000000"
                 "0a00"
                 "64000000"
                 "010106000001"
                 "7fff0400"),
            "");
  EXPECT_THAT(with("01000000"
                   "ff00"
                   "64000000"),
              HasSubstr("Boot0001"));
}

TEST(BootJudge, GuestsOwnDbxUpdateIsANote) {
  Boot boot;
  firmware::KeySet keys = Keys();
  keys.dbx.push_back(Entries(firmware::SignatureType::kSha256, {9})[0]);
  boot.StoreHas(keys);
  const v1::BootMeasured judged = JudgeBoot(boot.Facts());
  EXPECT_EQ(judged.verdict(), v1::BOOT_VERIFIED) << judged.DebugString();
  ASSERT_EQ(judged.reasons_size(), 2);
  EXPECT_THAT(judged.reasons(0), HasSubstr("dbx of the variable store has entries"));
}

TEST(BootJudge, DbxThatLacksEntriesDiverges) {
  Boot boot;
  firmware::KeySet keys = Keys();
  keys.dbx.pop_back();
  boot.StoreHas(keys);
  const v1::BootMeasured judged = JudgeBoot(boot.Facts());
  EXPECT_EQ(judged.verdict(), v1::BOOT_DIVERGED);
  EXPECT_EQ(judged.early(), v1::BOOT_DIVERGED);
  EXPECT_THAT(judged.reasons(0), HasSubstr("dbx of the variable store lacks entries"));
  EXPECT_THAT(judged.reasons(0), HasSubstr("key set prod version 2"));
  // SecureBoot, PK, KEK, db, dbx.
  EXPECT_EQ(judged.first_difference().pcr(), 7);
  EXPECT_EQ(judged.first_difference().event(), 5);
  EXPECT_EQ(judged.first_difference().expected_what(), "variable dbx of key set prod version 2");
}

TEST(BootJudge, KeyThatTheSetHasNotDiverges) {
  const auto added = Entries(firmware::SignatureType::kSha256, {9})[0];
  for (std::vector<firmware::Signature> firmware::KeySet::* list :
       {&firmware::KeySet::kek, &firmware::KeySet::db}) {
    Boot boot;
    firmware::KeySet keys = Keys();
    (keys.*list).push_back(added);
    boot.StoreHas(keys);
    const v1::BootMeasured judged = JudgeBoot(boot.Facts());
    EXPECT_EQ(judged.verdict(), v1::BOOT_DIVERGED);
    EXPECT_THAT(judged.reasons(0), HasSubstr("has entries that key set prod version 2 has not"));
  }
}

TEST(BootJudge, WithoutSecureBootOtherKeysAreANote) {
  Boot boot;
  firmware::KeySet keys = Keys();
  keys.secure_boot = false;
  keys.db.push_back(Entries(firmware::SignatureType::kSha256, {9})[0]);
  boot.StoreHas(keys);
  auto facts = boot.Facts();
  facts.mode = v1::BOOT_MODE_LEGACY;
  const v1::BootMeasured judged = JudgeBoot(facts);
  EXPECT_EQ(judged.verdict(), v1::BOOT_VERIFIED) << judged.DebugString();
  EXPECT_THAT(judged.reasons(), Contains(HasSubstr("has entries")));
}

TEST(BootJudge, SecureBootThatIsOffDivergesWhenItWasAskedFor) {
  Boot boot;
  firmware::KeySet keys = Keys();
  keys.secure_boot = false;
  boot.StoreHas(keys);
  const v1::BootMeasured judged = JudgeBoot(boot.Facts());
  EXPECT_EQ(judged.verdict(), v1::BOOT_DIVERGED);
  EXPECT_EQ(judged.secure_boot(), v1::SECURE_BOOT_OFF);
}

TEST(BootJudge, TpmThatDisagreesWithTheRecordDiverges) {
  Boot boot;
  auto facts = boot.Facts();
  facts.tpm_values[kImages] = DigestOf("else");
  const v1::BootMeasured judged = JudgeBoot(facts);
  EXPECT_EQ(judged.verdict(), v1::BOOT_DIVERGED);
  EXPECT_THAT(judged.reasons(0), HasSubstr("PCR 4 of the vTPM"));
}

TEST(BootJudge, GapOfTheRecordDiverges) {
  Boot boot;
  auto facts = boot.Facts();
  facts.gaps = {"more than 4096 extends"};
  EXPECT_EQ(JudgeBoot(facts).verdict(), v1::BOOT_DIVERGED);
}

TEST(BootJudge, RefusalIsExplainedByThePreflight) {
  Boot boot;
  boot.events.erase(boot.events.begin() + 5, boot.events.end());
  images::LinkReport& shim = boot.forecast_->preflight->chain[0];
  shim.allowed = false;
  shim.reasons = {"its digest is in dbx"};
  auto facts = boot.Facts();
  facts.refusal = FirmwareRefusal{RefusedBy::kFirmware, "Boot0001", "Access Denied"};
  const v1::BootMeasured judged = JudgeBoot(facts);
  EXPECT_EQ(judged.verdict(), v1::BOOT_REFUSED);
  EXPECT_EQ(judged.early(), v1::BOOT_REFUSED);
  ASSERT_EQ(judged.reasons_size(), 2);
  EXPECT_THAT(judged.reasons(0), HasSubstr("Boot0001"));
  EXPECT_THAT(judged.reasons(1), HasSubstr("\\EFI\\BOOT\\BOOTX64.EFI"));
  EXPECT_THAT(judged.reasons(1), HasSubstr(ToHex(DigestOf("shim"))));
  EXPECT_THAT(judged.reasons(1), HasSubstr("signed by CN=Acme"));
  EXPECT_THAT(judged.reasons(1), HasSubstr("its digest is in dbx"));
}

TEST(BootJudge, ShimsRefusalIsNotExplainedByWhatTheFirmwareJudges) {
  Boot boot;
  boot.events.erase(boot.events.begin() + 5, boot.events.end());
  auto& chain = boot.forecast_->preflight->chain;
  chain[0].allowed = chain[1].allowed = false;
  chain[0].reasons = {"of the first"};
  chain[1].reasons = {"of the second"};
  auto facts = boot.Facts();
  facts.refusal = FirmwareRefusal{RefusedBy::kShim, "", "Security Violation"};
  const v1::BootMeasured by_shim = JudgeBoot(facts);
  EXPECT_THAT(by_shim.reasons(), Contains(HasSubstr("of the second")));
  EXPECT_THAT(by_shim.reasons(), Not(Contains(HasSubstr("of the first"))));
  facts.refusal = FirmwareRefusal{RefusedBy::kShimOfItself, "", "its SBAT self-check failed"};
  const v1::BootMeasured of_itself = JudgeBoot(facts);
  EXPECT_THAT(of_itself.reasons(), Contains(HasSubstr("of the first")));
  EXPECT_THAT(of_itself.reasons(), Not(Contains(HasSubstr("of the second"))));
}

TEST(BootJudge, RefusalCountsOnlyWhileTheFirmwareSpeaks) {
  Boot boot;
  auto facts = boot.Facts();
  facts.refusal = FirmwareRefusal{RefusedBy::kFirmware, "Boot0001", "Access Denied"};
  EXPECT_NE(JudgeBoot(facts).verdict(), v1::BOOT_REFUSED);
}

TEST(BootJudge, WithoutAReadableVariableStoreNothingIsVerified) {
  Boot boot;
  auto facts = boot.Facts();
  facts.store = nullptr;
  facts.store_problem = "vars.fd is damaged";
  const v1::BootMeasured judged = JudgeBoot(facts);
  EXPECT_EQ(judged.verdict(), v1::BOOT_DIVERGED);
  EXPECT_THAT(judged.reasons(), Contains(HasSubstr("vars.fd is damaged")));
}

TEST(BootJudge, ExtendOfPcr7AfterTheHandOverDoesNotDiverge) {
  Boot boot;
  boot.StoreHas(Keys());
  boot.events.push_back({kPolicy, DigestOf("the system's own"), WallTime()});
  const v1::BootMeasured judged = JudgeBoot(boot.Facts());
  EXPECT_EQ(judged.verdict(), v1::BOOT_VERIFIED) << judged.DebugString();
  EXPECT_EQ(judged.pcr7_measured(), judged.pcr7_computed());
}

TEST(BootJudge, ReasonsAreFewHoweverManyExtendsThereAre) {
  Boot boot;
  boot.StoreHas(Keys());
  for (int i = 0; i < 3000; ++i) {
    boot.events.insert(boot.events.end() - 2, {kPolicy, DigestOf(std::to_string(i)), WallTime()});
  }
  const v1::BootMeasured judged = JudgeBoot(boot.Facts());
  EXPECT_EQ(judged.verdict(), v1::BOOT_DIVERGED);
  EXPECT_EQ(judged.reasons_size(), static_cast<int>(kMaxReasons) + 1);
  EXPECT_THAT(judged.reasons(judged.reasons_size() - 1), testing::MatchesRegex("and [0-9]+ more"));
  EXPECT_LT(judged.ByteSizeLong(), size_t{16} << 10U);
}

TEST(BootJudge, StagesAreFewHoweverManyProgramsThereAre) {
  Boot boot;
  for (int i = 0; i < 3000; ++i) {
    boot.events.insert(boot.events.end() - 2, {kImages, DigestOf(std::to_string(i)), WallTime()});
  }
  const v1::BootMeasured judged = JudgeBoot(boot.Facts());
  EXPECT_LT(judged.stages_size(), 20);
  EXPECT_EQ(judged.stages(judged.stages_size() - 1).name(), "operating system");
}

TEST(BootJudge, WhatTheSystemDidUnreadablyToThePcrsIsANote) {
  Boot boot;
  auto facts = boot.Facts();
  facts.later_gap = "in a session";
  facts.tpm_values[kImages] = DigestOf("else");
  const v1::BootMeasured judged = JudgeBoot(facts);
  EXPECT_EQ(judged.verdict(), v1::BOOT_VERIFIED) << judged.DebugString();
  EXPECT_THAT(judged.reasons(), Contains(HasSubstr("in a session")));
}

TEST(BootJudge, NothingMeasuredYetIsPending) {
  EXPECT_EQ(JudgeBoot(BootFacts{}).verdict(), v1::BOOT_PENDING);
}

TEST(BootJudge, BiosAndMissingTpmAreUnmeasured) {
  v1::BootEffective effective;
  effective.set_type(v1::BOOT_TYPE_BIOS);
  EXPECT_EQ(UnmeasuredBoot(effective).verdict(), v1::BOOT_UNMEASURED);
  EXPECT_EQ(UnmeasuredBoot(effective).secure_boot(), v1::SECURE_BOOT_OFF);
  effective.set_type(v1::BOOT_TYPE_UEFI);
  EXPECT_EQ(UnmeasuredBoot(effective).secure_boot(), v1::SECURE_BOOT_UNKNOWN);
}

TEST(BootEvidence, HoldsEventsPredictionProgramsAndKeys) {
  Boot boot;
  const v1::BootEvidence evidence = MakeEvidence(boot.Facts());
  EXPECT_EQ(evidence.tpm_resets(), 1);
  EXPECT_TRUE(evidence.left_firmware());
  EXPECT_EQ(evidence.events_size(), static_cast<int>(boot.events.size()));
  EXPECT_EQ(evidence.boot_binaries_size(), 4);
  EXPECT_EQ(evidence.prediction_size(), 4);
  EXPECT_EQ(evidence.prediction(0).knowledge(), "exact");
  EXPECT_TRUE(evidence.prediction_problem().empty());
  EXPECT_EQ(evidence.keys().dbx(), std::string(AsText(firmware::EncodeSignatureLists(Keys().dbx))));
  EXPECT_THAT(evidence.events(0).what(), HasSubstr("SecureBoot"));
}

TEST(BootEvidence, EndsWhereTheOperatingSystemTookOver) {
  Boot boot;
  const auto before = static_cast<int>(boot.events.size());
  boot.events.push_back({kFiles, DigestOf("the system's own"), WallTime()});
  EXPECT_EQ(MakeEvidence(boot.Facts()).events_size(), before);
}

TEST(BootEvidence, LosesItsWordsBeforeItOutgrowsItsBound) {
  Boot boot;
  boot.forecast_->prediction->pcrs.back().reason = "not known";
  for (auto& pcr : boot.forecast_->prediction->pcrs) {
    for (auto& event : pcr.events) event.description = std::string(200, 'x');
  }
  boot.events.clear();
  for (size_t i = 0; i < kMaxBootExtends; ++i) {
    boot.events.push_back({kFiles, DigestOf("initrd"), WallTime()});
  }
  const v1::BootEvidence evidence = MakeEvidence(boot.Facts());
  EXPECT_LE(evidence.ByteSizeLong(), kMaxEvidenceBytes);
  EXPECT_EQ(evidence.events_size(), static_cast<int>(kMaxBootExtends));
  EXPECT_EQ(evidence.prediction_size(), 4);
}

TEST(BootEvidence, LosesThePredictionAndSaysSoBeforeItOutgrowsItsBound) {
  Boot boot;
  auto& events = boot.forecast_->prediction->pcrs.back().events;
  events.resize(20'000, events.front());
  const v1::BootEvidence evidence = MakeEvidence(boot.Facts());
  EXPECT_LE(evidence.ByteSizeLong(), kMaxEvidenceBytes);
  EXPECT_EQ(evidence.prediction_size(), 0);
  EXPECT_THAT(evidence.prediction_problem(), HasSubstr("too large"));
  EXPECT_EQ(evidence.boot_binaries_size(), 4);
}

TEST(BootEvidence, ForecastComesBackFromIt) {
  Boot boot;
  const BootForecast back = FromEvidence(MakeEvidence(boot.Facts()));
  ASSERT_TRUE(back.prediction.has_value());
  boot.forecast_ = back;
  EXPECT_EQ(JudgeBoot(boot.Facts()).verdict(), v1::BOOT_VERIFIED);
}

}  // namespace
}  // namespace vallum::agent
