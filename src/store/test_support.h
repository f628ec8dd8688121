// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <string>

#include "base/check.h"
#include "base/clock.h"

namespace vallum::store {

// Time that moves only when told to. Thread-safe.
class FakeClock final : public Clock {
 public:
  WallTime Now() const override {
    const std::lock_guard lock(mutex_);
    return wall_;
  }
  MonotonicTime Monotonic() const override {
    const std::lock_guard lock(mutex_);
    return monotonic_;
  }
  void Advance(std::chrono::milliseconds by) {
    const std::lock_guard lock(mutex_);
    wall_ += by;
    monotonic_ += by;
  }

 private:
  mutable std::mutex mutex_;
  WallTime wall_ = std::chrono::system_clock::now();
  MonotonicTime monotonic_ = std::chrono::steady_clock::now();
};

// A directory that goes away with the object.
class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "vallum-store-XXXXXX").string();
    CHECK(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace vallum::store
