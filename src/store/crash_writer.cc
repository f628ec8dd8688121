// SPDX-License-Identifier: Apache-2.0
// Run and killed by crash_test.cc. Says on stdout, one line each, what it may rely on.
//   crash_writer store <database>       four threads commit; "<thread> <number>" once acknowledged
//   crash_writer blob <directory> <id>  appends without end; "<bytes>" once received
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/error.h"
#include "store/blob_store.h"
#include "store/crash_content.h"
#include "store/sqlite_store.h"
#include "store/store.h"

namespace vallum::store {
namespace {

void Say(const std::string& line) {
  // One write, so that a kill never leaves half a line among others.
  CHECK(::write(STDOUT_FILENO, line.data(), line.size()) == static_cast<ssize_t>(line.size()));
}

int Fail(const Error& error) {
  std::fprintf(stderr, "crash_writer: %s\n", error.DebugString().c_str());
  return 1;
}

int NextNumber(Store& store, int thread) {
  const auto last = store.Read({KeyRange::Single(CrashLastKey(thread)), 0, 0});
  CHECK(last.has_value());
  return last->items.empty() ? 0 : std::stoi(last->items.front().value) + 1;
}

void CommitForever(Store& store, int thread) {
  for (int i = NextNumber(store, thread);; ++i) {
    const auto result = store.Commit(CrashTxn(thread, i));
    CHECK(result.has_value() && result->succeeded);
    Say(std::to_string(thread) + " " + std::to_string(i) + "\n");
  }
}

int WriteStore(const std::filesystem::path& path) {
  const SystemClock clock;
  const auto store = SqliteStore::Open({.path = path}, clock);
  if (!store) return Fail(store.error());
  std::vector<std::thread> threads;
  for (int t = 0; t < kCrashThreads; ++t) {
    threads.emplace_back([&store, t] { CommitForever(**store, t); });
  }
  for (std::thread& thread : threads) thread.join();
  return 0;
}

int WriteBlob(const std::filesystem::path& directory, std::string_view id) {
  const SystemClock clock;
  const auto store = BlobStore::Open({.directory = directory}, clock);
  if (!store) return Fail(store.error());
  auto upload = (*store)->ResumeUpload(id);
  if (!upload && upload.error().code() == ErrorCode::kNotFound) upload = (*store)->BeginUpload(id);
  if (!upload) return Fail(upload.error());
  while (true) {
    const Bytes piece = CrashBytes((*upload)->received().bytes(), 300'000);
    if (const auto result = (*upload)->Append((*upload)->received(), piece); !result) {
      return Fail(result.error());
    }
    Say(std::to_string((*upload)->received().bytes()) + "\n");
  }
}

}  // namespace
}  // namespace vallum::store

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() == 2 && arguments[0] == "store") {
    return vallum::store::WriteStore(arguments[1]);
  }
  if (arguments.size() == 3 && arguments[0] == "blob") {
    return vallum::store::WriteBlob(arguments[1], arguments[2]);
  }
  std::fprintf(stderr, "usage: crash_writer store <database> | blob <directory> <id>\n");
  return 2;
}
