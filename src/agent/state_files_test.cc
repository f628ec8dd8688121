// SPDX-License-Identifier: Apache-2.0
#include "agent/state_files.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "agent/instance_files.h"
#include "agent/test_support.h"

namespace vallum::agent {
namespace {

TEST(StateFiles, ContentComesBackAndTheFileIsPrivate) {
  const TempDir dir;
  const auto path = dir.path() / "x.pb";
  ASSERT_TRUE(WriteStateFile(path, "status", std::string("a\0b\n", 4)));
  const auto back = ReadStateFile(path, "status");
  ASSERT_TRUE(back) << back.error().Describe();
  EXPECT_EQ(*back, std::string("a\0b\n", 4));
  struct stat info{};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
}

TEST(StateFiles, EveryCutAndEveryFlippedByteIsCorrupt) {
  const TempDir dir;
  const auto path = dir.path() / "x.pb";
  ASSERT_TRUE(WriteStateFile(path, "status", "payload"));
  const Bytes whole = *ReadWholeFile(path, ByteCount::KiB(4));
  for (size_t i = 0; i < whole.size(); ++i) {
    const ByteView cut = ByteView(whole).first(i);
    ASSERT_TRUE(WriteFileAtomically(path, cut, 0600));
    const auto shorter = ReadStateFile(path, "status");
    ASSERT_FALSE(shorter) << "cut at " << i;
    EXPECT_EQ(shorter.error().code(), ErrorCode::kCorrupt);
    EXPECT_FALSE(shorter.error().fix().empty());
    Bytes flipped = whole;
    flipped[i] ^= std::byte{1};
    ASSERT_TRUE(WriteFileAtomically(path, flipped, 0600));
    EXPECT_FALSE(ReadStateFile(path, "status")) << "flipped at " << i;
  }
}

TEST(StateFiles, AnotherKindIsNotTaken) {
  const TempDir dir;
  ASSERT_TRUE(WriteStateFile(dir.path() / "x", "status", "payload"));
  EXPECT_EQ(ReadStateFile(dir.path() / "x", "instance").error().code(), ErrorCode::kCorrupt);
  EXPECT_EQ(ReadStateFile(dir.path() / "y", "instance").error().code(), ErrorCode::kNotFound);
}

TEST(StateFiles, SymbolicLinkIsNotFollowed) {
  const TempDir dir;
  ASSERT_TRUE(WriteStateFile(dir.path() / "x", "status", "payload"));
  std::filesystem::create_symlink(dir.path() / "x", dir.path() / "link");
  EXPECT_FALSE(ReadStateFile(dir.path() / "link", "status"));
}

TEST(StateFiles, WhatACrashedWriteLeftIsRemovedAndNothingElse) {
  const TempDir dir;
  const auto state = dir.path() / "tpm2-00.permall";
  const auto kept = dir.path() / "tpm2-00.permall.new-1";
  for (const auto& path :
       {state, std::filesystem::path(state.string() + ".new-0a1b2c3d4e5f"), kept}) {
    ASSERT_TRUE(WriteFileAtomically(path, AsBytes("secret"), 0600));
  }
  RemoveLeftovers(dir.path());
  EXPECT_TRUE(std::filesystem::exists(state));
  EXPECT_TRUE(std::filesystem::exists(kept));
  EXPECT_FALSE(std::filesystem::exists(state.string() + ".new-0a1b2c3d4e5f"));
  RemoveLeftovers(dir.path() / "not there");
}

TEST(InstanceFiles, FileOfAnotherInstanceIsAProblemInWords) {
  const TempDir dir;
  const AgentConfig config = MakeConfig(dir.path());
  const InstancePaths paths = MakeInstancePaths(config, kUid);
  v1::DesiredInstance desired;
  desired.set_uid("11111111-2222-4333-8444-555555555555");
  ASSERT_TRUE(StoreDesired(paths, desired));
  const StoredInstance stored = LoadInstance(paths, kUid);
  EXPECT_FALSE(stored.desired);
  EXPECT_NE(stored.problem.find("another instance"), std::string::npos);
}

TEST(UserAllocator, InstancesNeverShareAndKeepTheirsOverRestarts) {
  const TempDir dir;
  AgentConfig config = MakeConfig(dir.path());
  config.user_count = 3;
  const std::string other = "11111111-2222-4333-8444-555555555555";
  uid_t first = 0;
  {
    auto users = UserAllocator::Open(config);
    ASSERT_TRUE(users) << users.error().Describe();
    first = *(*users)->Allocate(kUid);
    EXPECT_EQ(*(*users)->Allocate(kUid), first);
    EXPECT_NE(first, (*users)->image_group());
  }
  auto users = UserAllocator::Open(config);
  ASSERT_TRUE(users);
  EXPECT_NE(*(*users)->Allocate(other), first);
  EXPECT_EQ(*(*users)->Allocate(kUid), first);
  const auto third = (*users)->Allocate("99999999-2222-4333-8444-555555555555");
  ASSERT_FALSE(third);
  EXPECT_EQ(third.error().code(), ErrorCode::kExhausted);
  ASSERT_TRUE((*users)->Release(kUid));
  EXPECT_EQ(*(*users)->Allocate("99999999-2222-4333-8444-555555555555"), first);
}

TEST(UserAllocator, DamagedFileIsRefusedAndNotGuessed) {
  const TempDir dir;
  const AgentConfig config = MakeConfig(dir.path());
  ASSERT_TRUE(WriteFileAtomically(dir.path() / "users", AsBytes("rubbish\n"), 0600));
  const auto users = UserAllocator::Open(config);
  ASSERT_FALSE(users);
  EXPECT_EQ(users.error().code(), ErrorCode::kCorrupt);
}

TEST(Config, RunDirectoryThatMakesSocketPathsTooLongIsRefused) {
  AgentConfig config = MakeConfig("/tmp/x");
  config.run_dir = "/" + std::string(60, 'r');
  const auto checked = ValidateConfig(config);
  ASSERT_FALSE(checked);
  EXPECT_NE(checked.error().message().find("--run-dir"), std::string::npos);
  EXPECT_FALSE(checked.error().fix().empty());
}

}  // namespace
}  // namespace vallum::agent
