// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <utility>

#include "base/bytes.h"
#include "base/result.h"

namespace vallum::store {

// Owns one file descriptor; -1 is none.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  ~UniqueFd() { Reset(); }
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept;
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;

  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }
  void Reset();

 private:
  int fd_ = -1;
};

// open(2) with O_CLOEXEC. Errors: as ErrnoError, naming the path.
Result<UniqueFd> OpenFile(const std::filesystem::path& path, int flags, unsigned mode = 0600);
// Writes all of the bytes at the offset. Errors: as ErrnoError; a part may have been written.
Result<void> WriteAt(int fd, ByteView bytes, uint64_t offset);
// Makes the names in a directory durable. Errors: as ErrnoError.
Result<void> SyncDirectory(const std::filesystem::path& path);

// Holds a lock file as long as it lives, so that two processes (or two objects of one) cannot use
// the same files. The kernel releases the lock when the process ends, however it ends.
class FileLock {
 public:
  // Errors: kConflict (held; names the pid of the holder if it can be read), as ErrnoError.
  static Result<FileLock> Acquire(const std::filesystem::path& path);

 private:
  explicit FileLock(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace vallum::store
