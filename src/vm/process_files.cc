// SPDX-License-Identifier: Apache-2.0
#include "vm/process_files.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>

#include "base/text.h"

namespace vallum::vm {
namespace {

constexpr size_t kSmallFileLimit = size_t{64} * 1024;
constexpr size_t kTailLimit = size_t{16} * 1024;

// Reads up to count bytes from an offset.
std::string ReadAt(int fd, off_t offset, size_t count) {
  std::string out(count, '\0');
  size_t used = 0;
  while (used < count) {
    const ssize_t got =
        pread(fd, out.data() + used, count - used, offset + static_cast<off_t>(used));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      break;
    }
    used += static_cast<size_t>(got);
  }
  out.resize(used);
  return out;
}

Result<void> WriteAll(int fd, std::string_view data, const std::string& path) {
  while (!data.empty()) {
    const ssize_t wrote = write(fd, data.data(), data.size());
    if (wrote < 0 && errno == EINTR) {
      continue;
    }
    if (wrote < 0) {
      return ErrnoError(errno, "write " + path);
    }
    data.remove_prefix(static_cast<size_t>(wrote));
  }
  return Ok();
}

}  // namespace

Result<UniqueFd> OpenFile(const std::string& path, int flags) {
  const int no_follow = (flags & O_CREAT) != 0 ? O_NOFOLLOW : 0;
  UniqueFd fd(open(path.c_str(), flags | O_CLOEXEC | no_follow, 0600));
  if (!fd.valid()) {
    return ErrnoError(errno, "open " + path);
  }
  return fd;
}

Result<std::string> ReadSmallFile(const std::string& path) {
  ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY));
  return ReadAt(fd.get(), 0, kSmallFileLimit);
}

Result<std::string> ReadOwnFile(const std::string& path) {
  ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
  struct stat info{};
  if (fstat(fd.get(), &info) != 0) {
    return ErrnoError(errno, "stat " + path);
  }
  if (info.st_uid != geteuid() || !S_ISREG(info.st_mode)) {
    return Denied(path + " is not a file of user " + std::to_string(geteuid()) + " but of user " +
                  std::to_string(info.st_uid))
        .WithFix("find out who wrote it, then remove it");
  }
  return ReadAt(fd.get(), 0, kSmallFileLimit);
}

Result<void> WriteFileAtomically(const std::string& path, std::string_view content) {
  const std::string temporary = path + ".new";
  {
    ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(temporary, O_WRONLY | O_CREAT | O_TRUNC));
    RETURN_IF_ERROR(WriteAll(fd.get(), content, temporary));
  }
  if (rename(temporary.c_str(), path.c_str()) != 0) {
    return ErrnoError(errno, "rename " + temporary + " to " + path);
  }
  return Ok();
}

Result<std::string> ReadBootId() {
  ASSIGN_OR_RETURN(const std::string text, ReadSmallFile("/proc/sys/kernel/random/boot_id"));
  return std::string(Trim(text));
}

bool WaitReadable(int fd, std::chrono::milliseconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
    const int count = static_cast<int>(std::clamp<int64_t>(left.count(), 0, 1'000'000'000));
    const int ready = poll(&entry, 1, count);
    if (ready >= 0 || errno != EINTR) {
      return ready == 1;
    }
  }
}

Result<void> EnsureOwnedFile(const std::string& path, const std::optional<RunAs>& owner) {
  ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_WRONLY | O_CREAT | O_APPEND));
  if (owner.has_value() && fchown(fd.get(), owner->uid, owner->gid) != 0) {
    return ErrnoError(errno, "give " + path + " to user " + std::to_string(owner->uid));
  }
  return Ok();
}

Result<ProcessIdentity> ParseProcessIdentity(std::string_view text) {
  const std::vector<std::string> fields = Split(Trim(text), ' ');
  ProcessIdentity identity;
  if (fields.size() == 3) {
    const char* end = fields[0].data() + fields[0].size();
    const auto [stop, error] = std::from_chars(fields[0].data(), end, identity.pid);
    identity.start_time = fields[1];
    identity.boot_id = fields[2];
    if (error == std::errc() && stop == end && identity.pid > 1 && !identity.start_time.empty() &&
        !identity.boot_id.empty()) {
      return identity;
    }
  }
  return Corrupt("\"" + Printable(text) + "\" does not name a process");
}

std::string_view StartTimeOfStat(std::string_view stat) {
  // "pid (name) state ppid ...": the name may hold anything, so count from the last ')'.
  const size_t close_paren = stat.rfind(')');
  if (close_paren == std::string_view::npos) {
    return {};
  }
  std::string_view rest = stat.substr(close_paren + 1);
  constexpr int kFieldsBefore = 20;  // spaces from the name to field 22
  for (int i = 0; i < kFieldsBefore; ++i) {
    const size_t space = rest.find(' ');
    if (space == std::string_view::npos) {
      return {};
    }
    rest.remove_prefix(space + 1);
  }
  return rest.substr(0, rest.find(' '));
}

std::vector<std::string> ReadLastLines(const std::string& path, size_t count) {
  auto fd = OpenFile(path, O_RDONLY);
  struct stat info{};
  if (!fd.has_value() || fstat(fd->get(), &info) != 0) {
    return {};
  }
  const auto tail = std::min<off_t>(info.st_size, kTailLimit);
  const std::string text = ReadAt(fd->get(), info.st_size - tail, static_cast<size_t>(tail));
  std::vector<std::string> lines;
  for (const std::string& line : Split(text, '\n')) {
    if (!Trim(line).empty()) {
      lines.push_back(Printable(Trim(line), 500));
    }
  }
  if (lines.size() > count) {
    lines.erase(lines.begin(), lines.end() - static_cast<ptrdiff_t>(count));
  }
  return lines;
}

Result<void> TrimLog(const std::string& path, ByteCount limit) {
  ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDWR | O_APPEND));
  struct stat info{};
  if (fstat(fd.get(), &info) != 0) {
    return ErrnoError(errno, "stat " + path);
  }
  if (info.st_size < 0 || static_cast<uint64_t>(info.st_size) <= limit.bytes()) {
    return Ok();
  }
  const auto keep = static_cast<size_t>(limit.bytes() / 4);
  const std::string tail = ReadAt(fd.get(), info.st_size - static_cast<off_t>(keep), keep);
  if (ftruncate(fd.get(), 0) != 0) {
    return ErrnoError(errno, "shorten " + path);
  }
  return WriteAll(fd.get(), tail, path);
}

Result<UniqueFd> ListenUnix(const std::string& path, const std::optional<RunAs>& owner) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return InvalidInput("socket path " + Printable(path) + " is too long");
  }
  memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  unlink(path.c_str());
  if (!fd.valid() ||
      bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      chmod(path.c_str(), 0600) != 0 || listen(fd.get(), 16) != 0) {
    return ErrnoError(errno, "listen on " + path);
  }
  if (owner.has_value() && lchown(path.c_str(), owner->uid, owner->gid) != 0) {
    return ErrnoError(errno, "give " + path + " to user " + std::to_string(owner->uid));
  }
  return fd;
}

}  // namespace vallum::vm
