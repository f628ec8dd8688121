// SPDX-License-Identifier: Apache-2.0
#include "tls/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "base/ids.h"

namespace vallum::tls {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }

 private:
  int fd_;
};

Result<void> WriteAll(int fd, ByteView content, const std::string& name) {
  while (!content.empty()) {
    const ssize_t written = ::write(fd, content.data(), content.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return ErrnoError(errno, "write " + name);
    }
    content = content.subspan(static_cast<size_t>(written));
  }
  return Ok();
}

Result<void> SyncDirectory(const std::filesystem::path& dir) {
  const Descriptor fd(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoError(errno, "open " + dir.string());
  if (::fsync(fd.get()) != 0) return ErrnoError(errno, "fsync " + dir.string());
  return Ok();
}

Result<void> WriteTemporary(const std::string& path, ByteView content, mode_t mode) {
  const Descriptor fd(
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode));
  if (!fd.valid()) return ErrnoError(errno, "create " + path);
  // The umask may have taken bits away.
  if (::fchmod(fd.get(), mode) != 0) return ErrnoError(errno, "chmod " + path);
  RETURN_IF_ERROR(WriteAll(fd.get(), content, path));
  if (::fsync(fd.get()) != 0) return ErrnoError(errno, "fsync " + path);
  return Ok();
}

Result<Bytes> ReadDescriptor(int fd, const std::string& name, size_t limit) {
  Bytes content;
  std::byte buffer[4096];
  while (true) {
    const ssize_t count = ::read(fd, buffer, sizeof buffer);
    if (count < 0) {
      if (errno == EINTR) continue;
      return ErrnoError(errno, "read " + name);
    }
    if (count == 0) break;
    if (content.size() + static_cast<size_t>(count) > limit) {
      Wipe(content);
      return Exhausted(name + " is larger than " + std::to_string(limit) + " bytes");
    }
    content.insert(content.end(), buffer, buffer + count);
  }
  Wipe(buffer);
  return content;
}

}  // namespace

Result<void> WriteFileAtomically(const std::filesystem::path& path, ByteView content, mode_t mode) {
  const std::filesystem::path dir = path.has_parent_path() ? path.parent_path() : ".";
  const std::string temporary =
      (dir / ("." + path.filename().string() + "." + ToHex(RandomBytes(6)))).string();
  Result<void> result = WriteTemporary(temporary, content, mode);
  if (result.has_value() && ::rename(temporary.c_str(), path.c_str()) != 0) {
    result = ErrnoError(errno, "rename to " + path.string());
  }
  if (!result.has_value()) {
    ::unlink(temporary.c_str());
    return result;
  }
  return SyncDirectory(dir);
}

Result<Bytes> ReadSmallFile(const std::filesystem::path& path, size_t limit) {
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoError(errno, "open " + path.string());
  return ReadDescriptor(fd.get(), path.string(), limit);
}

Result<SecretBytes> ReadSecretFile(const std::filesystem::path& path, size_t limit) {
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoError(errno, "open " + path.string());
  struct stat info = {};
  if (::fstat(fd.get(), &info) != 0) return ErrnoError(errno, "stat " + path.string());
  if (S_ISREG(info.st_mode) && (info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return Denied(path.string() + " holds a secret, but others than its owner have access to it")
        .WithFix("chmod 600 " + path.string());
  }
  ASSIGN_OR_RETURN(Bytes content, ReadDescriptor(fd.get(), path.string(), limit));
  return SecretBytes::TakeAndWipe(content);
}

}  // namespace vallum::tls
