// SPDX-License-Identifier: Apache-2.0
#include "vtpm/record_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>

#include "vtpm/test_support.h"

namespace vallum::vtpm {
namespace {

using measure::StartupType;
using testing::TempDir;

// Time moves by one microsecond for each question.
class FakeClock final : public Clock {
 public:
  WallTime Now() const override { return WallTime(std::chrono::microseconds(++now_)); }
  MonotonicTime Monotonic() const override { return MonotonicTime(); }

 private:
  mutable int64_t now_ = 0;
};

measure::PcrExtend MakeExtend() { return {PcrIndex::Of<10>(), HashAlgorithm::kSha256, Bytes(32)}; }

void Boot(RecordFile& file) {
  file.Append(measure::TpmReset{});
  file.Append(measure::TpmStartup{StartupType::kClear, 0});
}

TEST(RecordFile, GoesOnWhereItEnded) {
  const TempDir dir;
  const FakeClock clock;
  {
    const auto file = RecordFile::Open(dir / "record", clock);
    ASSERT_TRUE(file.has_value()) << file.error().Describe();
    Boot(**file);
  }
  const auto again = RecordFile::Open(dir / "record", clock);
  ASSERT_TRUE(again.has_value()) << again.error().Describe();
  (*again)->Append(MakeExtend());
  EXPECT_EQ((*again)->log().last_sequence(), 3U);
  const std::string text = testing::ReadFile(dir / "record");
  EXPECT_EQ(measure::ParseExtendLog(AsBytes(text))->last_sequence(), 3U);
}

TEST(RecordFile, HalfARecordOfACrashIsWrittenOver) {
  const TempDir dir;
  const FakeClock clock;
  Boot(**RecordFile::Open(dir / "record", clock));
  std::ofstream(dir / "record", std::ios::app) << "0123abcd 3 99 extend sha2";
  {
    const auto file = RecordFile::Open(dir / "record", clock);
    ASSERT_TRUE(file.has_value()) << file.error().Describe();
    (*file)->Append(MakeExtend());
  }
  const std::string text = testing::ReadFile(dir / "record");
  const auto log = measure::ParseExtendLog(AsBytes(text));
  ASSERT_TRUE(log.has_value()) << log.error().Describe();
  EXPECT_EQ(log->last_sequence(), 3U);
}

TEST(RecordFile, OldBootsAreForgottenOnceTheyAreMany) {
  const TempDir dir;
  const FakeClock clock;
  const auto file = RecordFile::Open(dir / "record", clock);
  ASSERT_TRUE(file.has_value()) << file.error().Describe();
  Boot(**file);
  for (size_t i = 0; i < RecordFile::kKeptOfOldBoots; ++i) {
    (*file)->Append(MakeExtend());
  }
  Boot(**file);
  EXPECT_EQ((*file)->log().records().size(), 2U);
  EXPECT_EQ((*file)->log().first_sequence(), RecordFile::kKeptOfOldBoots + 3);
  (*file)->Append(MakeExtend());
  const std::string text = testing::ReadFile(dir / "record");
  EXPECT_EQ(measure::ParseExtendLog(AsBytes(text))->records().size(), 3U);
  EXPECT_EQ(RecordFile::Open(dir / "record", clock).error().code(), ErrorCode::kConflict);
}

TEST(RecordFile, AGuestThatNeverStopsExtendingDoesNotFillTheDisk) {
  const TempDir dir;
  const FakeClock clock;
  const auto file = RecordFile::Open(dir / "record", clock);
  ASSERT_TRUE(file.has_value()) << file.error().Describe();
  Boot(**file);
  for (size_t i = 0; i < RecordFile::kMaxRecords; ++i) {
    (*file)->Append(MakeExtend());
  }
  EXPECT_LE((*file)->log().records().size(), 10U);
  EXPECT_EQ((*file)->log().Replay(HashAlgorithm::kSha256).gaps.size(), 1U);
  EXPECT_EQ((*file)->error(), "");
  EXPECT_LT(testing::ReadFile(dir / "record").size(), 4096U);
}

TEST(RecordFile, AFullDiskIsSaidAndMendedAtTheNextBoot) {
  const TempDir dir;
  const FakeClock clock;
  const auto file = RecordFile::Open(dir / "record", clock);
  ASSERT_TRUE(file.has_value()) << file.error().Describe();
  Boot(**file);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, SIG_IGN);
  const rlimit small{100, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  (*file)->Append(MakeExtend());
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_NE((*file)->error(), "");
  EXPECT_EQ((*file)->log().last_sequence(), 3U);
  Boot(**file);
  EXPECT_EQ((*file)->error(), "");
  const std::string text = testing::ReadFile(dir / "record");
  EXPECT_EQ(measure::ParseExtendLog(AsBytes(text))->last_sequence(), 5U);
}

}  // namespace
}  // namespace vallum::vtpm
