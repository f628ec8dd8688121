// SPDX-License-Identifier: Apache-2.0
#include "vtpm/record_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>
#include <variant>

#include "base/bytes.h"

namespace vallum::vtpm {
namespace {

// kMaxRecords lines of extends, twice over.
constexpr size_t kMaxFileSize = size_t{64} << 20U;

Result<UniqueFd> OpenLocked(const std::string& path, int flags) {
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_APPEND | flags,
                   S_IRUSR | S_IWUSR));
  if (!fd.valid()) {
    return ErrnoError(errno, "open " + path);
  }
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) {
      return Conflict("another process writes " + path)
          .WithFix("end the vallum-vtpm that already serves this TPM");
    }
    return ErrnoError(errno, "lock " + path);
  }
  return fd;
}

Result<Bytes> ReadAll(int fd, const std::string& path) {
  struct stat info{};
  if (fstat(fd, &info) != 0) {
    return ErrnoError(errno, "stat " + path);
  }
  if (!S_ISREG(info.st_mode) || static_cast<uint64_t>(info.st_size) > kMaxFileSize) {
    return Corrupt(path + " is no record file: no regular file, or too large");
  }
  Bytes content(static_cast<size_t>(info.st_size));
  size_t done = 0;
  while (done < content.size()) {
    const ssize_t count =
        pread(fd, content.data() + done, content.size() - done, static_cast<off_t>(done));
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count <= 0) {
      return ErrnoError(count == 0 ? EIO : errno, "read " + path);
    }
    done += static_cast<size_t>(count);
  }
  return content;
}

Result<void> WriteAll(int fd, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t count = write(fd, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      return ErrnoError(errno, "write " + path);
    }
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  return Ok();
}

}  // namespace

Result<std::unique_ptr<RecordFile>> RecordFile::Open(const std::string& path, const Clock& clock) {
  std::unique_ptr<RecordFile> file(new RecordFile(path, clock));
  ASSIGN_OR_RETURN(file->fd_, OpenLocked(path, 0));
  RETURN_IF_ERROR(file->Load());
  return file;
}

Result<void> RecordFile::Load() {
  ASSIGN_OR_RETURN(const Bytes content, ReadAll(fd_.get(), path_));
  auto log = measure::ParseExtendLog(content);
  if (!log.has_value()) {
    return Corrupt(path_ + ": " + log.error().Describe())
        .WithFix("move the file away to begin a new record; keep it as evidence");
  }
  log_ = *std::move(log);
  if (ftruncate(fd_.get(), static_cast<off_t>(measure::CompleteSize(content))) != 0) {
    return ErrnoError(errno, "truncate " + path_);
  }
  return Ok();
}

void RecordFile::Append(measure::RecordBody body) {
  const bool boot = std::holds_alternative<measure::TpmStartup>(body);
  if (log_.records().size() >= kMaxRecords) {
    log_.DropAll();
    log_.Append(clock_.Now(), measure::OpaqueChange{"too many records: older ones were given up"});
    log_.Append(clock_.Now(), std::move(body));
    Rewrite();
    return;
  }
  const measure::ExtendRecord& record = log_.Append(clock_.Now(), std::move(body));
  if (error_.empty()) {
    // A file with a hole would be a damaged one, so the first failure ends the writing.
    if (const auto written = WriteAll(fd_.get(), measure::FormatRecord(record), path_);
        !written.has_value()) {
      error_ = written.error().Describe();
    }
  }
  if (boot) {
    Compact();
  }
}

void RecordFile::Compact() {
  // Copies so that a log with few old records is not rewritten at every boot.
  measure::ExtendLog compacted = log_;
  if (compacted.DropOldBoots() > kKeptOfOldBoots || !error_.empty()) {
    log_ = std::move(compacted);
    Rewrite();
  }
}

void RecordFile::Rewrite() {
  const std::string temporary = path_ + ".new";
  std::string text;
  for (const measure::ExtendRecord& record : log_.records()) {
    text += measure::FormatRecord(record);
  }
  auto fd = OpenLocked(temporary, O_TRUNC);
  auto done = fd.has_value() ? WriteAll(fd->get(), text, temporary) : Result<void>(fd.error());
  if (done.has_value() && rename(temporary.c_str(), path_.c_str()) != 0) {
    done = ErrnoError(errno, "rename " + temporary);
  }
  if (!done.has_value()) {
    error_ = done.error().Describe();
    return;
  }
  fd_ = *std::move(fd);
  error_.clear();
}

}  // namespace vallum::vtpm
