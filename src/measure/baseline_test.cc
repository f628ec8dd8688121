// SPDX-License-Identifier: Apache-2.0
#include "measure/baseline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/digest.h"
#include "measure/event_digest.h"

namespace vallum::measure {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;

Bytes Of(const std::string& content) { return Digest(kBank, AsBytes(content)); }

BootEvent Event(uint32_t pcr, const std::string& content, const std::string& what = "") {
  return {*PcrIndex::Create(pcr), Of(content), what};
}
BootEvent Action(uint32_t pcr, const std::string& text) {
  return {*PcrIndex::Create(pcr), ActionDigest(kBank, text), ""};
}

// In the order in which Debian's signed chain extended them on a real boot (docs/boot-verdict.md).
std::vector<BootEvent> DebianBoot() {
  return {
      Event(0, "firmware"),
      Event(1, "boot order"),
      Action(4, "Calling EFI Application from Boot Option"),
      {PcrIndex::Of<4>(), SeparatorDigest(kBank), ""},
      {PcrIndex::Of<5>(), SeparatorDigest(kBank), ""},
      Event(7, "db"),
      Event(5, "table", "GPT of the disk that the loader is on"),
      Event(4, "shim", "EFI/BOOT/BOOTX64.EFI, by firmware"),
      Event(14, "mok list"),
      Event(4, "grub", "EFI/BOOT/grubx64.efi, by shim"),
      Event(8, "set root", "command: set root=hd0"),
      Event(9, "grub.cfg", "file /EFI/debian/grub.cfg"),
      Event(8, "linux /vmlinuz", "command: linux /vmlinuz"),
      Event(9, "vmlinuz", "file /vmlinuz"),
      Event(4, "kernel", "vmlinuz, by shim for GRUB's verifier"),
      Event(4, "kernel", "vmlinuz, by shim for GRUB's loader"),
      Event(8, "initrd /initrd.img", "command: initrd /initrd.img"),
      Event(9, "initrd", "file /initrd.img"),
      Action(5, "Exit Boot Services Invocation"),
      Action(5, "Exit Boot Services Returned with Success"),
  };
}

size_t Find(const std::vector<BootEvent>& events, const std::string& content) {
  const auto found = std::find_if(events.begin(), events.end(),
                                  [&](const auto& e) { return e.digest == Of(content); });
  return static_cast<size_t>(found - events.begin());
}

class BaselineTest : public testing::Test {
 protected:
  void Change(const std::string& from, const std::string& to) {
    for (BootEvent& event : measured_) {
      if (event.digest == Of(from)) event.digest = Of(to);
    }
  }
  BaselineJudgement Judge() {
    input_.baseline = baseline_;
    input_.measured = measured_;
    input_.programs = programs_;
    return JudgeByBaseline(input_);
  }

  std::vector<BootEvent> baseline_ = DebianBoot();
  std::vector<BootEvent> measured_ = DebianBoot();
  std::vector<DiskProgram> programs_ = {{"\\vmlinuz", Of("kernel 2"), "CN=Debian", true},
                                        {"\\EFI\\BOOT\\grubx64.efi", Of("grub 2"), "", false}};
  BaselineInput input_;
};

TEST_F(BaselineTest, SameBootHasNoDifference) { EXPECT_THAT(Judge().differences, IsEmpty()); }

TEST_F(BaselineTest, ChangedConfigurationIsTheFirstDifferenceWithBothInWords) {
  Change("grub.cfg", "grub.cfg of somebody else");
  Change("linux /vmlinuz", "linux /vmlinuz init=/bin/sh");
  const BaselineJudgement judged = Judge();
  ASSERT_THAT(judged.differences, SizeIs(2));
  const BaselineDifference& first = *judged.First();
  EXPECT_EQ(first.pcr.value(), 9U);
  EXPECT_EQ(first.event, 1U);
  EXPECT_EQ(first.expected, Of("grub.cfg"));
  EXPECT_EQ(first.measured, Of("grub.cfg of somebody else"));
  EXPECT_EQ(first.expected_what, "file /EFI/debian/grub.cfg");
  EXPECT_FALSE(first.early);
  EXPECT_THAT(first.words, HasSubstr("PCR 9, extend 1: expected file /EFI/debian/grub.cfg"));
}

TEST_F(BaselineTest, ChangedLoaderIsEarly) {
  Change("grub", "another grub");
  EXPECT_TRUE(Judge().First()->early);
}

TEST_F(BaselineTest, WordsComeFromWhatIsKnownElsewhere) {
  Change("grub", "old grub");
  measured_[Find(measured_, "old grub")].what.clear();
  input_.describe = [](PcrIndex pcr, const Bytes& digest) {
    return pcr.value() == 4 && digest == Of("old grub") ? "\\grubx64.efi of image old" : "";
  };
  EXPECT_EQ(Judge().First()->measured_what, "\\grubx64.efi of image old");
}

TEST_F(BaselineTest, MissingEventIsOneDifferenceAtItsPlace) {
  measured_.erase(measured_.begin() + static_cast<std::ptrdiff_t>(Find(measured_, "grub.cfg")));
  const BaselineJudgement judged = Judge();
  ASSERT_THAT(judged.differences, SizeIs(1));
  EXPECT_THAT(judged.First()->measured, IsEmpty());
  EXPECT_EQ(judged.First()->event, 1U);
  EXPECT_THAT(judged.First()->words, HasSubstr("was not measured"));
}

TEST_F(BaselineTest, ExtraEventIsOneDifferenceAndItsPlaceIsCountedInThePcr) {
  measured_.insert(measured_.begin() + static_cast<std::ptrdiff_t>(Find(measured_, "grub")),
                   Event(4, "rootkit"));
  const BaselineJudgement judged = Judge();
  ASSERT_THAT(judged.differences, SizeIs(1));
  EXPECT_THAT(judged.First()->expected, IsEmpty());
  EXPECT_EQ(judged.First()->event, 4U);
  EXPECT_THAT(judged.First()->words, HasSubstr("was not expected"));
}

TEST_F(BaselineTest, DifferencesComeInTheOrderOfTheBoot) {
  Change("initrd", "initrd 2");
  Change("shim", "shim 2");
  measured_.erase(measured_.begin() + static_cast<std::ptrdiff_t>(Find(measured_, "set root")));
  std::vector<uint32_t> pcrs;
  for (const auto& each : Judge().differences) pcrs.push_back(each.pcr.value());
  EXPECT_THAT(pcrs, testing::ElementsAre(4, 8, 9));
}

TEST_F(BaselineTest, OrderBetweenPcrsIsNotCompared) {
  std::stable_sort(measured_.begin(), measured_.end(), [](const auto& a, const auto& b) {
    return a.pcr > b.pcr && a.pcr.value() != 5;
  });
  // The firmware's last word stays last.
  measured_ = [&] {
    std::vector<BootEvent> sorted;
    for (const BootEvent& e : measured_) {
      if (e.pcr.value() != 5) sorted.push_back(e);
    }
    for (const BootEvent& e : DebianBoot()) {
      if (e.pcr.value() == 5) sorted.push_back(e);
    }
    return sorted;
  }();
  EXPECT_THAT(Judge().differences, IsEmpty());
}

TEST_F(BaselineTest, OrderWithinAPcrIsCompared) {
  std::swap(measured_[Find(measured_, "set root")],
            measured_[Find(measured_, "initrd /initrd.img")]);
  EXPECT_NE(Judge().First(), nullptr);
}

TEST_F(BaselineTest, BootOptionThatFailedChangesNothing) {
  const auto at = measured_.begin() + static_cast<std::ptrdiff_t>(Find(measured_, "shim"));
  const auto next =
      measured_.insert(at, Action(4, "Returning from EFI Application from Boot Option"));
  measured_.insert(next + 1, Action(4, "Calling EFI Application from Boot Option"));
  EXPECT_THAT(Judge().differences, IsEmpty());
}

TEST_F(BaselineTest, LeavingTheFirmwareAtTheSecondAttemptChangesNothing) {
  for (const bool invoked : {true, false}) {
    measured_ = DebianBoot();
    const auto at = measured_.end() - 2;
    const auto failed = measured_.insert(at, Action(5, "Exit Boot Services Returned with Failure"));
    if (invoked) measured_.insert(failed, Action(5, "Exit Boot Services Invocation"));
    EXPECT_THAT(Judge().differences, IsEmpty());
  }
}

TEST_F(BaselineTest, BootIsOverWithTheFirmwaresWord) {
  EXPECT_EQ(CountBootEvents(measured_), measured_.size());
  measured_.push_back(Event(11, "enter-initrd"));
  EXPECT_EQ(CountBootEvents(measured_), measured_.size() - 1);
  measured_.erase(measured_.end() - 2, measured_.end());
  EXPECT_EQ(CountBootEvents(measured_), std::nullopt);
}

TEST_F(BaselineTest, ProgramThatRanAndReturnedIsADifference) {
  const auto at = measured_.begin() + static_cast<std::ptrdiff_t>(Find(measured_, "shim"));
  measured_.insert(at,
                   {Event(4, "tool"), Action(4, "Returning from EFI Application from Boot Option"),
                    Action(4, "Calling EFI Application from Boot Option")});
  ASSERT_THAT(Judge().differences, SizeIs(1));
  EXPECT_EQ(Judge().First()->measured, Of("tool"));
}

TEST_F(BaselineTest, WhatTheOperatingSystemExtendsIsNotOfTheBoot) {
  measured_.push_back(Event(11, "enter-initrd"));
  measured_.push_back(Event(4, "anything"));
  EXPECT_THAT(Judge().differences, IsEmpty());
}

TEST_F(BaselineTest, SectionsOfAUnifiedKernelAreCompared) {
  measured_.insert(measured_.begin() + 5, Event(11, ".cmdline"));
  EXPECT_EQ(Judge().First()->pcr.value(), 11U);
}

TEST_F(BaselineTest, PlatformIsComparedOnlyWhereAskedAndSettingsNever) {
  Change("firmware", "firmware 2");
  Change("boot order", "boot order 2");
  Change("db", "db 2");
  EXPECT_THAT(Judge().differences, IsEmpty());
  input_.platform_pcrs = {PcrIndex::Of<0>()};
  ASSERT_THAT(Judge().differences, SizeIs(1));
  EXPECT_EQ(Judge().First()->pcr.value(), 0U);
}

// ---- what is accepted ----

TEST_F(BaselineTest, SignedUpdateIsADivergenceUnlessThePolicyAcceptsIt) {
  Change("kernel", "kernel 2");
  EXPECT_NE(Judge().First(), nullptr);
}

TEST_F(BaselineTest, SignedUpdateIsAcceptedWithItsFile) {
  input_.accept_signed_updates = true;
  Change("kernel", "kernel 2");
  Change("vmlinuz", "vmlinuz 2");
  const BaselineJudgement judged = Judge();
  EXPECT_EQ(judged.First(), nullptr);
  ASSERT_THAT(judged.differences, SizeIs(3));
  EXPECT_THAT(judged.differences[1].words,
              testing::AllOf(HasSubstr("changed, signer accepted: \\vmlinuz (was "),
                             HasSubstr("signed by CN=Debian")));
}

TEST_F(BaselineTest, FileWithoutItsProgramIsNotAccepted) {
  input_.accept_signed_updates = true;
  Change("vmlinuz", "vmlinuz 2");
  EXPECT_EQ(Judge().First()->expected_what, "file /vmlinuz");
}

TEST_F(BaselineTest, FileOfAnotherPathIsNotAcceptedWithAProgram) {
  input_.accept_signed_updates = true;
  Change("kernel", "kernel 2");
  Change("initrd", "initrd 2");
  EXPECT_EQ(Judge().First()->expected_what, "file /initrd.img");
}

TEST_F(BaselineTest, ProgramWhoseSignerIsNotAcceptedIsADivergence) {
  input_.accept_signed_updates = true;
  Change("grub", "grub 2");
  EXPECT_NE(Judge().First(), nullptr);
}

TEST_F(BaselineTest, ProgramThatIsNotOnTheDiskIsADivergence) {
  input_.accept_signed_updates = true;
  Change("grub", "grub 3");
  EXPECT_NE(Judge().First(), nullptr);
}

TEST_F(BaselineTest, SignedProgramThatRanBesidesIsADivergence) {
  input_.accept_signed_updates = true;
  measured_.insert(measured_.begin() + static_cast<std::ptrdiff_t>(Find(measured_, "grub")),
                   Event(4, "kernel 2"));
  EXPECT_NE(Judge().First(), nullptr);
}

TEST_F(BaselineTest, UnsignedContentIsNeverAcceptedByPolicy) {
  input_.accept_signed_updates = true;
  for (const char* content : {"grub.cfg", "initrd", "linux /vmlinuz", "mok list"}) {
    measured_ = DebianBoot();
    Change(content, "changed");
    EXPECT_NE(Judge().First(), nullptr) << content;
  }
}

TEST_F(BaselineTest, GrownPartitionTableIsSaidAndNoDivergence) {
  Change("table", "table of a grown disk");
  const BaselineJudgement judged = Judge();
  EXPECT_EQ(judged.First(), nullptr);
  EXPECT_THAT(judged.differences.front().words, HasSubstr("changed: the partition table"));
}

TEST_F(BaselineTest, PinnedBaselineAcceptsNothing) {
  input_.accept_signed_updates = true;
  input_.pinned = true;
  for (const auto& [from, to] : {std::pair("kernel", "kernel 2"), std::pair("table", "grown")}) {
    measured_ = DebianBoot();
    Change(from, to);
    EXPECT_NE(Judge().First(), nullptr) << from;
  }
}

// ---- a boot under way ----

class BootUnderWayTest : public BaselineTest {
 protected:
  BootUnderWayTest() { input_.extent = BootExtent::kUnderWay; }
  // The boot up to and with the event of this content.
  void CutAfter(const std::string& content) {
    const auto next = measured_.begin() + static_cast<ptrdiff_t>(Find(measured_, content)) + 1;
    measured_.erase(next, measured_.end());
  }
};

TEST_F(BootUnderWayTest, NoBeginningOfTheSameBootIsADifference) {
  const std::vector<BootEvent> whole = DebianBoot();
  for (size_t count = 0; count <= whole.size(); ++count) {
    measured_.assign(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(count));
    EXPECT_THAT(Judge().differences, IsEmpty()) << count;
  }
}

TEST_F(BootUnderWayTest, NoBeginningOfABootWithAFailedOptionOrASecondLeaveIsADifference) {
  std::vector<BootEvent> whole = DebianBoot();
  const auto leave = whole.end() - 1;
  whole.insert(leave, {Action(5, "Exit Boot Services Returned with Failure"),
                       Action(5, "Exit Boot Services Invocation")});
  whole.insert(whole.begin() + 4, {Action(4, "Returning from EFI Application from Boot Option"),
                                   Action(4, "Calling EFI Application from Boot Option")});
  for (size_t count = 0; count <= whole.size(); ++count) {
    measured_.assign(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(count));
    EXPECT_THAT(Judge().differences, IsEmpty()) << count;
  }
}

TEST_F(BootUnderWayTest, ForeignLoaderIsADifferenceAsSoonAsItIsMeasured) {
  CutAfter("shim");
  Change("shim", "evil");
  const BaselineJudgement judged = Judge();
  ASSERT_THAT(judged.differences, SizeIs(1));
  EXPECT_EQ(judged.differences[0].measured, Of("evil"));
  EXPECT_EQ(judged.differences[0].expected, Of("shim"));
}

TEST_F(BootUnderWayTest, ProgramOfTheFirmwareIsNoDifferenceBeforeTheBootGoesOnPastIt) {
  measured_ = {Event(0, "firmware"), Action(4, "Calling EFI Application from Boot Option"),
               Action(4, "Returning from EFI Application from Boot Option"),
               Action(4, "Calling EFI Application from Boot Option"), Event(4, "firmware's shell")};
  EXPECT_THAT(Judge().differences, SizeIs(1));
  input_.firmware_programs = {Of("firmware's shell")};
  EXPECT_THAT(Judge().differences, IsEmpty());
  measured_.push_back(Event(4, "evil"));
  ASSERT_THAT(Judge().differences, SizeIs(1));
  EXPECT_EQ(Judge().differences[0].measured, Of("evil"));
}

TEST_F(BaselineTest, ProgramOfTheFirmwareThatABootWentThroughIsADifference) {
  input_.firmware_programs = {Of("firmware's shell")};
  const size_t calling = Find(measured_, "shim");
  measured_.insert(measured_.begin() + static_cast<ptrdiff_t>(calling),
                   Event(4, "firmware's shell"));
  ASSERT_NE(Judge().First(), nullptr);
  EXPECT_EQ(Judge().First()->measured, Of("firmware's shell"));
}

TEST_F(BootUnderWayTest, WhatCameTooMuchIsADifference) {
  CutAfter("grub");
  measured_.push_back(Event(4, "kernel"));
  measured_.push_back(Event(4, "kernel"));
  EXPECT_THAT(Judge().differences, IsEmpty());
  measured_.push_back(Event(4, "kernel"));
  EXPECT_THAT(Judge().differences, SizeIs(1));
}

TEST_F(BootUnderWayTest, WhatWasLeftOutBeforeSomethingThatCameIsADifference) {
  CutAfter("grub");
  measured_.erase(measured_.begin() + static_cast<ptrdiff_t>(Find(measured_, "shim")));
  const BaselineJudgement judged = Judge();
  ASSERT_THAT(judged.differences, SizeIs(1));
  EXPECT_EQ(judged.differences[0].expected, Of("shim"));
}

TEST_F(BootUnderWayTest, FileOfAProgramThatMayYetBeAcceptedWaits) {
  CutAfter("vmlinuz");
  Change("vmlinuz", "vmlinuz 2");
  EXPECT_THAT(Judge().differences, SizeIs(1));
  input_.accept_signed_updates = true;
  EXPECT_THAT(Judge().differences, IsEmpty());
  measured_ = DebianBoot();
  Change("vmlinuz", "vmlinuz 2");
  input_.extent = BootExtent::kWhole;
  EXPECT_NE(Judge().First(), nullptr);
}

TEST_F(BaselineTest, RecordsTooDifferentToAlignAreStillJudged) {
  baseline_.clear();
  measured_.clear();
  for (int i = 0; i < 3000; ++i) {
    baseline_.push_back(Event(8, "old " + std::to_string(i)));
    measured_.push_back(Event(8, "new " + std::to_string(i)));
  }
  EXPECT_THAT(Judge().differences, SizeIs(3000));
}

TEST_F(BaselineTest, EmptyRecordLacksEverything) {
  measured_.clear();
  EXPECT_THAT(Judge().First()->words, HasSubstr("was not measured"));
}

}  // namespace
}  // namespace vallum::measure
