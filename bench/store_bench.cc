// SPDX-License-Identifier: Apache-2.0
// Durable commits and blob imports, each beside what the machine can do at best.
//   store_bench [directory]   on the file system to measure; default: the current directory
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/ids.h"
#include "base/units.h"
#include "store/blob_store.h"
#include "store/file.h"
#include "store/sqlite_db.h"
#include "store/sqlite_store.h"
#include "store/store.h"

namespace vallum::store {
namespace {

constexpr int kWriters = 16;
constexpr std::chrono::seconds kRunTime{3};
constexpr size_t kValueSize = 512;
constexpr size_t kRecordSize = kValueSize + 64;  // with its key and numbers
constexpr double kTargetCommits = 2000;
constexpr size_t kBlobSize = size_t{1} << 30U;
constexpr size_t kPieceSize = size_t{4} << 20U;
constexpr int kBlobRounds = 3;
constexpr double kTargetImport = 0.8;

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// How often a second the step could be done.
double RateOf(const std::function<void()>& step) {
  const auto start = std::chrono::steady_clock::now();
  int64_t count = 0;
  for (; SecondsSince(start) < std::chrono::duration<double>(kRunTime).count(); ++count) step();
  return static_cast<double>(count) / SecondsSince(start);
}

double SqliteStoreCommits(const std::filesystem::path& path) {
  const SystemClock clock;
  const auto store = SqliteStore::Open({.path = path}, clock).value();
  const auto start = std::chrono::steady_clock::now();
  std::vector<int64_t> counts(kWriters);
  std::vector<std::thread> writers;
  for (size_t w = 0; w < kWriters; ++w) {
    writers.emplace_back([&store, &counts, start, w] {
      const std::string value(kValueSize, 'v');
      int64_t count = 0;
      for (; std::chrono::steady_clock::now() - start < kRunTime; ++count) {
        const std::string key = "/bench/" + std::to_string(w) + "/" + std::to_string(count % 1000);
        CHECK(store->Commit({{}, {Write::Put(key, value)}}).value().succeeded);
      }
      counts[w] = count;
    });
  }
  for (std::thread& writer : writers) writer.join();
  const double seconds = SecondsSince(start);
  int64_t total = 0;
  for (const int64_t count : counts) total += count;
  return static_cast<double>(total) / seconds;
}

double SqliteOneByOne(const std::filesystem::path& path) {
  CHECK(OpenFile(path, O_RDWR | O_CREAT).has_value());
  SqliteDb db = SqliteDb::Open(path).value();
  CHECK(db.QueryText("PRAGMA journal_mode = WAL").value() == "wal");
  CHECK(db.Exec("PRAGMA synchronous = FULL").has_value());
  CHECK(db.Exec("CREATE TABLE t(row INTEGER PRIMARY KEY, value BLOB)").has_value());
  SqliteStatement insert = db.Prepare("INSERT INTO t(value) VALUES (?1)").value();
  const std::string value(kRecordSize, 'v');
  return RateOf([&] { CHECK(insert.BindBlob(1, value).Run().has_value()); });
}

// Appends of a group of records, each synced: what no database on this disk can beat.
double AppendAndSync(const std::filesystem::path& path, size_t group) {
  const UniqueFd fd = OpenFile(path, O_RDWR | O_CREAT | O_TRUNC).value();
  const Bytes bytes(group * kRecordSize, std::byte{1});
  uint64_t offset = 0;
  return RateOf([&] {
    CHECK(WriteAt(fd.get(), bytes, offset).has_value());
    CHECK(::fdatasync(fd.get()) == 0);
    offset += bytes.size();
  });
}

int BenchCommits(const std::filesystem::path& directory) {
  const double commits = SqliteStoreCommits(directory / "store.db");
  const double single = SqliteOneByOne(directory / "single.db");
  const double appends = kWriters * AppendAndSync(directory / "append", kWriters);
  std::printf("durable commits, %d writers, %zu-byte values\n", kWriters, kValueSize);
  std::printf("  SqliteStore                   %9.0f /s   target %.0f: %s\n", commits,
              kTargetCommits, commits >= kTargetCommits ? "met" : "MISSED");
  std::printf("  SQLite, one commit at a time  %9.0f /s   ratio %.2f\n", single, commits / single);
  std::printf("  fdatasync of %d records       %9.0f /s   ratio %.2f\n", kWriters, appends,
              commits / appends);
  return commits >= kTargetCommits ? 0 : 1;
}

double HashSeconds(ByteView piece) {
  const auto start = std::chrono::steady_clock::now();
  Hasher hasher(HashAlgorithm::kSha256);
  for (size_t at = 0; at < kBlobSize; at += piece.size()) hasher.Update(piece);
  CHECK(hasher.Finish().size() == 32);
  return SecondsSince(start);
}

double WriteSeconds(const std::filesystem::path& path, ByteView piece) {
  const auto start = std::chrono::steady_clock::now();
  const UniqueFd fd = OpenFile(path, O_RDWR | O_CREAT | O_TRUNC).value();
  for (size_t at = 0; at < kBlobSize; at += piece.size()) {
    CHECK(WriteAt(fd.get(), piece, at).has_value());
  }
  CHECK(::fsync(fd.get()) == 0);
  const double seconds = SecondsSince(start);
  std::filesystem::remove(path);
  return seconds;
}

double ImportSeconds(BlobStore& store, ByteView piece) {
  const auto start = std::chrono::steady_clock::now();
  const auto upload = store.BeginUpload("bench").value();
  for (size_t at = 0; at < kBlobSize; at += piece.size()) {
    CHECK(upload->Append(ByteCount::Bytes(at), piece).has_value());
  }
  const BlobInfo blob = upload->Commit().value();
  const double seconds = SecondsSince(start);
  CHECK(store.Remove(blob.digest).has_value());
  return seconds;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

int BenchImport(const std::filesystem::path& directory) {
  const SystemClock clock;
  const auto store = BlobStore::Open({.directory = directory / "blobs"}, clock).value();
  const Bytes piece = RandomBytes(kPieceSize);
  std::vector<double> hash;
  std::vector<double> write;
  std::vector<double> import;
  // In turns, so that a disk that grows slower meanwhile is the same for all.
  for (int round = 0; round < kBlobRounds; ++round) {
    hash.push_back(HashSeconds(piece));
    write.push_back(WriteSeconds(directory / "plain", piece));
    import.push_back(ImportSeconds(*store, piece));
  }
  const double ratio = std::max(Median(hash), Median(write)) / Median(import);
  std::printf("import of 1 GiB, medians of %d\n", kBlobRounds);
  std::printf("  SHA-256 alone      %6.2f GiB/s\n", 1 / Median(hash));
  std::printf("  write + fsync      %6.2f GiB/s\n", 1 / Median(write));
  std::printf("  BlobStore import   %6.2f GiB/s   of the slower: %.2f, target %.2f: %s\n",
              1 / Median(import), ratio, kTargetImport, ratio >= kTargetImport ? "met" : "MISSED");
  return ratio >= kTargetImport ? 0 : 1;
}

int Run(const std::filesystem::path& parent) {
  const std::filesystem::path directory = parent / ("store_bench-" + NewUid());
  std::filesystem::create_directory(directory);
  const int commits = BenchCommits(directory);
  const int import = BenchImport(directory);
  std::filesystem::remove_all(directory);
  return commits | import;
}

}  // namespace
}  // namespace vallum::store

int main(int argc, char** argv) { return vallum::store::Run(argc > 1 ? argv[1] : "."); }
