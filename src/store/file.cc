// SPDX-License-Identifier: Apache-2.0
#include "store/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"

namespace vallum::store {
namespace {

// " by process 123", or nothing if the file does not say.
std::string HolderOf(int fd) {
  std::array<char, 32> text{};
  const ssize_t size = ::pread(fd, text.data(), text.size(), 0);
  if (size <= 0) return "";
  const std::string_view pid = Trim(std::string_view(text.data(), static_cast<size_t>(size)));
  if (pid.empty() || pid.find_first_not_of("0123456789") != std::string_view::npos) return "";
  return " by process " + std::string(pid);
}

}  // namespace

UniqueFd& UniqueFd::operator=(UniqueFd&& other) noexcept {
  if (this != &other) {
    Reset();
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

void UniqueFd::Reset() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

Result<UniqueFd> OpenFile(const std::filesystem::path& path, int flags, unsigned mode) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  if (fd < 0) return ErrnoError(errno, "open " + path.string());
  return UniqueFd(fd);
}

Result<void> WriteAt(int fd, ByteView bytes, uint64_t offset) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError(errno, "write at offset " + std::to_string(offset));
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return Ok();
}

Result<void> SyncDirectory(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY | O_DIRECTORY));
  if (::fsync(fd.get()) != 0) return ErrnoError(errno, "fsync " + path.string());
  return Ok();
}

Result<FileLock> FileLock::Acquire(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDWR | O_CREAT));
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return ErrnoError(errno, "flock " + path.string());
    return Conflict(path.string() + " is held" + HolderOf(fd.get()))
        .WithFix("stop the process that uses these files, or choose another directory");
  }
  const std::string pid = std::to_string(::getpid()) + "\n";
  if (::ftruncate(fd.get(), 0) != 0) return ErrnoError(errno, "truncate " + path.string());
  RETURN_IF_ERROR(WriteAt(fd.get(), AsBytes(pid), 0)).context("writing " + path.string());
  return FileLock(std::move(fd));
}

}  // namespace vallum::store
