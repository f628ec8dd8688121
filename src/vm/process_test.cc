// SPDX-License-Identifier: Apache-2.0
#include "vm/process.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <csignal>

#include "vm/process_files.h"
#include "vm/test_guest.h"

namespace vallum::vm {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr milliseconds kLong{20000};

class ProcessTest : public testing::Test {
 protected:
  SpawnSpec Shell(const std::string& script) const {
    return {.command = {.argv = {"/bin/sh", "-c", script}},
            .descriptors = {},
            .run_as = {},
            .output_path = dir_.path() + "/log",
            .identity_path = dir_.path() + "/identity",
            .cgroup_dir = ""};
  }
  std::vector<std::string> Output() const { return ReadLastLines(dir_.path() + "/log", 50); }

  TestDir dir_;
};

TEST_F(ProcessTest, ExitStatusIsToldInWords) {
  auto process = Process::Spawn(Shell("echo bad >&2; exit 3"));
  ASSERT_TRUE(process.has_value()) << process.error().Describe();
  EXPECT_EQ((*process)->Wait(kLong), "exit status 3");
  EXPECT_THAT(Output(), ElementsAre("bad"));
}

TEST_F(ProcessTest, SignalIsToldInWords) {
  auto process = Process::Spawn(Shell("kill -TERM $$"));
  ASSERT_TRUE(process.has_value());
  EXPECT_EQ((*process)->Wait(kLong), "signal 15 (Terminated)");
}

TEST_F(ProcessTest, MissingProgramIsAnErrorOfSpawn) {
  SpawnSpec spec = Shell("");
  spec.command.argv = {"/no/such/program"};
  const auto process = Process::Spawn(spec);
  ASSERT_FALSE(process.has_value());
  EXPECT_EQ(process.error().code(), ErrorCode::kNotFound);
  EXPECT_THAT(process.error().Describe(), HasSubstr("execute /no/such/program"));
}

TEST_F(ProcessTest, OnlyGivenDescriptorsAreInherited) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe2(ends.data(), 0), 0);  // inheritable by mistake
  const UniqueFd read_end(ends[0]);
  const UniqueFd write_end(ends[1]);
  SpawnSpec spec = Shell(
      "for n in 0 1 2 3 4 5 6 7 8 9 10 64 512 513; do [ -e /proc/$$/fd/$n ] && echo $n; done; "
      "echo hello >&3");
  spec.descriptors = {write_end.get()};
  auto process = Process::Spawn(spec);
  ASSERT_TRUE(process.has_value());
  ASSERT_EQ((*process)->Wait(kLong), "exit status 0");
  EXPECT_THAT(Output(), ElementsAre("0", "1", "2", "3"));
  std::array<char, 16> buffer{};
  EXPECT_EQ(read(read_end.get(), buffer.data(), buffer.size()), 6);
}

TEST_F(ProcessTest, ProcessHasNoPrivilegesToGainAndLeavesNoCore) {
  auto process = Process::Spawn(
      Shell("grep NoNewPrivs /proc/$$/status; ulimit -c; umask; pwd; echo ${HOME-none}"));
  ASSERT_TRUE(process.has_value());
  ASSERT_EQ((*process)->Wait(kLong), "exit status 0");
  EXPECT_THAT(Output(), ElementsAre("NoNewPrivs:\\x091", "0", "0077", "/", "none"));
}

TEST_F(ProcessTest, IdentityFindsARunningProcess) {
  auto process = Process::Spawn(Shell("read line"));
  ASSERT_TRUE(process.has_value());
  ASSERT_EQ((*process)->Wait(kLong), "exit status 1");  // stdin is /dev/null

  process = Process::Spawn(Shell("kill -STOP $$"));
  ASSERT_TRUE(process.has_value());
  auto found = Process::Open(dir_.path() + "/identity", {});
  ASSERT_TRUE(found.has_value()) << found.error().Describe();
  EXPECT_EQ((*found)->pid(), (*process)->pid());
  EXPECT_FALSE((*found)->HasEnded());
  ASSERT_TRUE((*found)->Signal(SIGKILL).has_value());
  EXPECT_EQ((*process)->Wait(kLong), "signal 9 (Killed)");
  const auto gone = Process::Open(dir_.path() + "/identity", {});
  ASSERT_FALSE(gone.has_value());
  EXPECT_EQ(gone.error().code(), ErrorCode::kNotFound);
}

TEST_F(ProcessTest, StrangerWithTheSameNumberIsNotFound) {
  const auto boot_id = ReadBootId();
  ASSERT_TRUE(boot_id.has_value());
  const std::string path = dir_.path() + "/identity";
  ASSERT_TRUE(WriteFileAtomically(path, std::to_string(getpid()) + " 12345 " + *boot_id + "\n")
                  .has_value());
  const auto reused = Process::Open(path, {});
  ASSERT_FALSE(reused.has_value());
  EXPECT_EQ(reused.error().code(), ErrorCode::kNotFound);
  EXPECT_THAT(reused.error().Describe(), HasSubstr("another's"));
}

TEST_F(ProcessTest, IdentityOfAnEarlierBootIsNotFound) {
  const std::string path = dir_.path() + "/identity";
  ASSERT_TRUE(WriteFileAtomically(path, std::to_string(getpid()) + " 1 other-boot\n").has_value());
  const auto found = Process::Open(path, {});
  ASSERT_FALSE(found.has_value());
  EXPECT_EQ(found.error().code(), ErrorCode::kNotFound);
}

// Otherwise who can write the file could have any process signalled.
TEST_F(ProcessTest, IdentityWrittenByAnotherUserIsDenied) {
  if (getuid() != 0) {
    GTEST_SKIP() << "needs root to give a file away";
  }
  auto process = Process::Spawn(Shell("kill -STOP $$"));
  ASSERT_TRUE(process.has_value());
  const std::string path = dir_.path() + "/identity";
  ASSERT_EQ(chown(path.c_str(), 65534, 65534), 0);
  const auto found = Process::Open(path, {});
  ASSERT_FALSE(found.has_value());
  EXPECT_EQ(found.error().code(), ErrorCode::kDenied);
  ASSERT_TRUE((*process)->Signal(SIGKILL).has_value());
  EXPECT_EQ((*process)->Wait(kLong), "signal 9 (Killed)");
}

TEST_F(ProcessTest, ProcessOfAnotherUserThanTheInstancesIsDenied) {
  auto process = Process::Spawn(Shell("kill -STOP $$"));
  ASSERT_TRUE(process.has_value());
  const std::string path = dir_.path() + "/identity";
  const auto found = Process::Open(path, RunAs{.uid = getuid() + 1, .gid = 0, .groups = {}});
  ASSERT_FALSE(found.has_value());
  EXPECT_EQ(found.error().code(), ErrorCode::kDenied);
  EXPECT_TRUE(Process::Open(path, RunAs{.uid = getuid(), .gid = 0, .groups = {}}).has_value());
  ASSERT_TRUE((*process)->Signal(SIGKILL).has_value());
  EXPECT_EQ((*process)->Wait(kLong), "signal 9 (Killed)");
}

TEST(ProcessIdentityTest, DamagedIdentityIsCorrupt) {
  for (const char* text : {"", "12", "x 1 b", "1 2 b", "0 2 b", "-5 2 b", "12 2", "12  b"}) {
    const auto parsed = ParseProcessIdentity(text);
    ASSERT_FALSE(parsed.has_value()) << text;
    EXPECT_EQ(parsed.error().code(), ErrorCode::kCorrupt);
  }
}

TEST(ProcessIdentityTest, StartTimeIsReadBehindANameWithSpacesAndParentheses) {
  EXPECT_EQ(StartTimeOfStat("7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20"),
            "777");
  EXPECT_EQ(StartTimeOfStat("7 (a"), "");
  EXPECT_EQ(StartTimeOfStat("7 (a) S 1"), "");
}

TEST(TrimLogTest, LogAboveItsLimitKeepsItsEnd) {
  const TestDir dir;
  const std::string path = dir.path() + "/log";
  ASSERT_TRUE(WriteFileAtomically(path, std::string(1000, 'a') + "end").has_value());
  ASSERT_TRUE(TrimLog(path, ByteCount::Bytes(1003)).has_value());
  EXPECT_EQ(ReadSmallFile(path)->size(), 1003U);
  ASSERT_TRUE(TrimLog(path, ByteCount::Bytes(100)).has_value());
  EXPECT_EQ(*ReadSmallFile(path), std::string(22, 'a') + "end");
}

}  // namespace
}  // namespace vallum::vm
