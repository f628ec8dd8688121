// SPDX-License-Identifier: Apache-2.0
// Kills a writer with SIGKILL and looks at what it left.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "base/digest.h"
#include "store/blob_store.h"
#include "store/crash_content.h"
#include "store/file.h"
#include "store/sqlite_store.h"
#include "store/test_support.h"

namespace vallum::store {
namespace {

// A crash_writer and the lines that it has said.
class Victim {
 public:
  explicit Victim(std::vector<std::string> arguments) {
    std::array<int, 2> ends{};
    CHECK(::pipe2(ends.data(), O_CLOEXEC) == 0);
    output_ = UniqueFd(ends[0]);
    const UniqueFd input(ends[1]);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, input.get(), STDOUT_FILENO);
    arguments.insert(arguments.begin(), std::string(VALLUM_BIN_DIR) + "/test/crash_writer");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    CHECK(posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ) == 0);
    posix_spawn_file_actions_destroy(&actions);
  }
  ~Victim() { Kill(); }
  Victim(const Victim&) = delete;
  Victim& operator=(const Victim&) = delete;

  pid_t pid() const { return pid_; }

  // False when it ended before it said so many.
  bool WaitForLines(size_t count) {
    while (lines_.size() < count) {
      if (!ReadMore()) return false;
    }
    return true;
  }
  // Kills it, and returns all that it had said by then.
  const std::vector<std::string>& Kill() {
    if (pid_ == 0) return lines_;
    ::kill(pid_, SIGKILL);
    CHECK(::waitpid(pid_, nullptr, 0) == pid_);
    pid_ = 0;
    while (ReadMore()) {
    }
    return lines_;
  }

 private:
  bool ReadMore() {
    std::array<char, 4096> buffer{};
    const ssize_t n = ::read(output_.get(), buffer.data(), buffer.size());
    if (n <= 0) return false;
    for (const char c : std::string_view(buffer.data(), static_cast<size_t>(n))) {
      if (c != '\n') {
        partial_ += c;
      } else {
        lines_.push_back(std::exchange(partial_, {}));
      }
    }
    return true;
  }

  UniqueFd output_;
  pid_t pid_ = 0;
  std::string partial_;
  std::vector<std::string> lines_;
};

std::map<std::string, KeyValue> Contents(Store& store) {
  std::map<std::string, KeyValue> contents;
  const ReadResult all = store.Read({KeyRange::Prefix(""), 0, 0}).value();
  for (const KeyValue& kv : all.items) contents[kv.key] = kv;
  return contents;
}

// Every number up to the last is there with both halves, made by one revision.
void ExpectWholeTransactions(const std::map<std::string, KeyValue>& contents, size_t& expected) {
  for (int t = 0; t < kCrashThreads; ++t) {
    const auto last = contents.find(CrashLastKey(t));
    if (last == contents.end()) continue;
    const int count = std::stoi(last->second.value) + 1;
    for (int i = 0; i < count; ++i) {
      const auto a = contents.find(CrashKey('a', t, i));
      const auto b = contents.find(CrashKey('b', t, i));
      ASSERT_TRUE(a != contents.end() && b != contents.end()) << t << " " << i;
      ASSERT_EQ(a->second.mod_revision, b->second.mod_revision);
      const Txn txn = CrashTxn(t, i);
      ASSERT_EQ(a->second.value, txn.writes[0].value);
      ASSERT_EQ(b->second.value, txn.writes[1].value);
    }
    expected += 2 * static_cast<size_t>(count) + 1;
  }
}

TEST(CrashedStore, HasEveryAcknowledgedCommitAndNoHalfOfAny) {
  const TempDir dir;
  const SystemClock clock;
  std::mt19937 random(20260102);  // the same points each time; the threads add real chance
  for (int round = 0; round < 8; ++round) {
    Victim victim({"store", (dir.path() / "store.db").string()});
    ASSERT_TRUE(victim.WaitForLines(1 + random() % 150));
    const std::vector<std::string> acknowledged = victim.Kill();

    const auto store = SqliteStore::Open({.path = dir.path() / "store.db"}, clock);
    ASSERT_TRUE(store.has_value()) << store.error().DebugString();
    const auto contents = Contents(**store);
    size_t expected = 0;
    ASSERT_NO_FATAL_FAILURE(ExpectWholeTransactions(contents, expected));
    EXPECT_EQ(contents.size(), expected) << "keys that belong to no whole transaction";
    for (const std::string& line : acknowledged) {
      std::istringstream words(line);
      int thread = 0;
      int number = 0;
      words >> thread >> number;
      ASSERT_TRUE(contents.contains(CrashKey('a', thread, number))) << line;
    }
    // Its history is whole as well: one watch batch for each revision.
    const auto watch = (*store)->StartWatch(KeyRange::Prefix(""), 1);
    const Revision end = (*store)->Read({KeyRange::Single("none"), 0, 0})->revision;
    for (Revision revision = 2; revision <= end; ++revision) {
      const auto batch = (*watch)->Next(std::chrono::milliseconds(0));
      ASSERT_TRUE(batch.has_value() && batch->has_value());
      ASSERT_EQ((*batch)->revision, revision);
      ASSERT_EQ((*batch)->events.size(), 3U);
    }
  }
}

TEST(CrashedStore, IsLockedWhileItsWriterLivesAndFreeAfter) {
  const TempDir dir;
  const SystemClock clock;
  const SqliteStoreOptions options{.path = dir.path() / "store.db"};
  Victim victim({"store", options.path.string()});
  ASSERT_TRUE(victim.WaitForLines(1));
  const auto refused = SqliteStore::Open(options, clock);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code(), ErrorCode::kConflict);
  EXPECT_NE(refused.error().message().find("process " + std::to_string(victim.pid())),
            std::string::npos)
      << refused.error().message();
  victim.Kill();
  EXPECT_TRUE(SqliteStore::Open(options, clock).has_value());
}

TEST(CrashedUpload, IsResumedWhereItStopped) {
  const TempDir dir;
  const SystemClock clock;
  const BlobStoreOptions options{.directory = dir.path() / "blobs"};
  uint64_t received = 0;
  for (int round = 0; round < 4; ++round) {
    Victim victim({"blob", options.directory.string(), "upload-1"});
    ASSERT_TRUE(victim.WaitForLines(static_cast<size_t>(2 + round)));
    const uint64_t said = std::stoull(victim.Kill().back());
    const auto store = BlobStore::Open(options, clock);
    ASSERT_TRUE(store.has_value()) << store.error().DebugString();
    EXPECT_TRUE((*store)->List()->empty()) << "nothing partial is visible";
    const auto uploads = (*store)->ListUploads();
    ASSERT_EQ(uploads->size(), 1U);
    EXPECT_GE(uploads->front().received.bytes(), said);
    EXPECT_GT(said, received);
    received = said;
  }
  const auto store = BlobStore::Open(options, clock);
  const auto upload = (*store)->ResumeUpload("upload-1");
  ASSERT_TRUE(upload.has_value()) << upload.error().DebugString();
  ASSERT_TRUE((*upload)->Append((*upload)->received(), AsBytes("the end")).has_value());
  const size_t size = (*upload)->received().bytes();
  Bytes content = CrashBytes(0, size - 7);
  for (const std::byte byte : AsBytes("the end")) content.push_back(byte);
  const auto blob = (*upload)->CommitExpecting(ToHex(Sha256(content)));
  ASSERT_TRUE(blob.has_value()) << blob.error().DebugString();
  EXPECT_EQ(blob->size.bytes(), size);
}

}  // namespace
}  // namespace vallum::store
