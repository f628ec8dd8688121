// SPDX-License-Identifier: Apache-2.0
#include "agent/boot_trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <span>
#include <string_view>

#include "base/digest.h"
#include "measure/event_digest.h"

namespace vallum::agent {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using Change = BootTrace::Change;

constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;
constexpr PcrIndex kImages = PcrIndex::Of<4>();
constexpr PcrIndex kTable = PcrIndex::Of<5>();
constexpr PcrIndex kPolicy = PcrIndex::Of<7>();
constexpr PcrIndex kFiles = PcrIndex::Of<9>();

Bytes DigestOf(std::string_view text) { return Digest(kBank, AsBytes(text)); }
Bytes Action(std::string_view text) { return measure::ActionDigest(kBank, text); }

// A boot that tests go on with.
class Trace {
 public:
  Trace() { Reset(); }
  Change Take(measure::RecordBody body) {
    return trace_.Take(log_.Append(WallTime(), std::move(body)));
  }
  Change Extend(PcrIndex pcr, const Bytes& digest) {
    return Take(measure::PcrExtend{pcr, kBank, digest});
  }
  void Reset() {
    EXPECT_EQ(Take(measure::TpmReset{}), Change::kNewBoot);
    Take(measure::TpmStartup{measure::StartupType::kClear, 0});
  }
  void HandOver() {
    Extend(kTable, Action("Exit Boot Services Invocation"));
    Extend(kTable, Action("Exit Boot Services Returned with Success"));
  }
  BootFacts Facts() const {
    BootFacts facts;
    trace_.Describe(facts);
    return facts;
  }
  // Whether PCR 0 to 7 are what the whole record gives.
  bool IsReplayed() const {
    const auto whole = log_.Replay(kBank).values;
    const auto followed = Facts().replay.values;
    return std::ranges::equal(std::span(whole).first(8), std::span(followed).first(8));
  }

  BootTrace trace_;

 private:
  measure::ExtendLog log_;
};

TEST(BootTrace, NothingIsRecordedOnceTheOperatingSystemHasTakenOver) {
  Trace trace;
  trace.Extend(kPolicy, DigestOf("SecureBoot"));
  trace.HandOver();
  const size_t before = trace.Facts().events.size();
  trace.Extend(kFiles, DigestOf("the system's own"));
  trace.Extend(kImages, DigestOf("the system's own"));
  const BootFacts facts = trace.Facts();
  EXPECT_THAT(facts.events, SizeIs(before));
  EXPECT_TRUE(facts.progress.left_firmware);
  EXPECT_EQ(facts.progress.extends, 5);
}

TEST(BootTrace, ExtendOfPcr7AfterTheHandOverIsNotOfTheBoot) {
  Trace trace;
  trace.Extend(kPolicy, DigestOf("SecureBoot"));
  trace.HandOver();
  EXPECT_EQ(trace.Extend(kPolicy, DigestOf("the system's own")), Change::kValues);
  EXPECT_THAT(trace.Facts().progress.pcr7, ElementsAre(DigestOf("SecureBoot")));
  EXPECT_TRUE(trace.IsReplayed()) << "compared with the TPM still";
}

TEST(BootTrace, ExtendsOfOneBootTakeNoRoomOfTheNext) {
  Trace trace;
  trace.HandOver();
  for (int i = 0; i < 20'000; ++i) trace.Extend(kPolicy, DigestOf("the system's own"));
  EXPECT_THAT(trace.Facts().gaps, IsEmpty());
  EXPECT_TRUE(trace.IsReplayed());
  trace.Reset();
  EXPECT_EQ(trace.Extend(kImages, DigestOf("shim")), Change::kVerdict);
  const BootFacts facts = trace.Facts();
  ASSERT_THAT(facts.events, SizeIs(1));
  EXPECT_THAT(facts.gaps, IsEmpty());
  EXPECT_THAT(facts.replay.gaps, IsEmpty());
  EXPECT_TRUE(trace.IsReplayed());
}

TEST(BootTrace, MoreExtendsThanAreKeptAreAGap) {
  Trace trace;
  for (size_t i = 0; i < kMaxBootExtends; ++i)
    trace.Extend(i % 2 == 0 ? kFiles : kImages, Bytes(32));
  EXPECT_THAT(trace.Facts().gaps, IsEmpty());
  trace.Extend(kFiles, DigestOf("one more"));
  trace.Extend(kPolicy, DigestOf("and more"));
  EXPECT_THAT(trace.Facts().events, SizeIs(kMaxBootExtends));
  EXPECT_THAT(trace.Facts().gaps, ElementsAre(HasSubstr("more than 4096")));
  trace.HandOver();
  EXPECT_TRUE(trace.Facts().progress.left_firmware) << "no room, but it is seen";
  EXPECT_TRUE(trace.IsReplayed());
}

TEST(BootTrace, WhatCannotBeReadIsAGapOfTheBootUntilTheHandOver) {
  Trace trace;
  trace.Take(measure::OpaqueChange{"in a session"});
  EXPECT_THAT(trace.Facts().replay.gaps, ElementsAre("in a session"));
  trace.Reset();
  trace.HandOver();
  trace.Take(measure::OpaqueChange{"in a session"});
  EXPECT_THAT(trace.Facts().replay.gaps, IsEmpty());
  EXPECT_EQ(trace.Facts().later_gap, "in a session");
}

TEST(BootTrace, LostRecordsAreAGapAtAnyTime) {
  Trace trace;
  trace.HandOver();
  trace.trace_.NoteLoss();
  EXPECT_THAT(trace.Facts().gaps, SizeIs(1)) << "a reset may be among them";
  trace.Reset();
  EXPECT_THAT(trace.Facts().gaps, IsEmpty());
}

}  // namespace
}  // namespace vallum::agent
