// SPDX-License-Identifier: Apache-2.0
#include "agent/state_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "base/digest.h"
#include "base/ids.h"
#include "base/text.h"
#include "store/file.h"

namespace vallum::agent {
namespace {

constexpr std::string_view kMagic = "vallum-state-v1";
constexpr ByteCount kStateLimit = ByteCount::MiB(8);
constexpr size_t kHeaderLimit = 200;
constexpr std::string_view kTemporaryMark = ".new-";
constexpr size_t kTemporaryBytes = 6;

Result<void> WriteAndSync(const std::filesystem::path& path, ByteView content, unsigned mode) {
  ASSIGN_OR_RETURN(const store::UniqueFd fd,
                   store::OpenFile(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW));
  if (fchmod(fd.get(), static_cast<mode_t>(mode)) != 0) {
    return ErrnoError(errno, "chmod " + path.string());
  }
  RETURN_IF_ERROR(store::WriteAt(fd.get(), content, 0)).context("writing " + path.string());
  if (fsync(fd.get()) != 0) {
    return ErrnoError(errno, "sync " + path.string());
  }
  return Ok();
}

Error DamagedState(const std::filesystem::path& path, const std::string& what) {
  return Corrupt("state file " + path.string() + " is damaged: " + what)
      .WithFix("restore it from a backup, or remove it if what it describes may be forgotten");
}

}  // namespace

Result<void> WriteFileAtomically(const std::filesystem::path& path, ByteView content,
                                 unsigned mode) {
  // The name is new each time, so that a file left over by a crash is never taken for ours.
  const std::filesystem::path temporary =
      path.string() + std::string(kTemporaryMark) + ToHex(RandomBytes(kTemporaryBytes));
  if (auto written = WriteAndSync(temporary, content, mode); !written) {
    unlink(temporary.c_str());
    return std::move(written).error();
  }
  if (rename(temporary.c_str(), path.c_str()) != 0) {
    const int saved = errno;
    unlink(temporary.c_str());
    return ErrnoError(saved, "rename " + temporary.string() + " to " + path.string());
  }
  return store::SyncDirectory(path.parent_path());
}

void RemoveLeftovers(const std::filesystem::path& directory) {
  std::error_code failure;
  for (std::filesystem::directory_iterator it(directory, failure), end; !failure && it != end;
       it.increment(failure)) {
    const std::string name = it->path().filename().string();
    const size_t mark = name.rfind(kTemporaryMark);
    if (mark == std::string::npos) {
      continue;
    }
    const auto random = FromHex(std::string_view(name).substr(mark + kTemporaryMark.size()));
    if (random && random->size() == kTemporaryBytes) {
      unlink(it->path().c_str());
    }
  }
}

Result<Bytes> ReadWholeFile(const std::filesystem::path& path, ByteCount limit) {
  // O_NONBLOCK: a FIFO put in the place of a file must not hold the agent.
  ASSIGN_OR_RETURN(const store::UniqueFd fd,
                   store::OpenFile(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
  struct stat info{};
  if (fstat(fd.get(), &info) != 0) {
    return ErrnoError(errno, "stat " + path.string());
  }
  if (!S_ISREG(info.st_mode)) {
    return InvalidInput(path.string() + " is not a regular file");
  }
  if (static_cast<uint64_t>(info.st_size) > limit.bytes()) {
    return InvalidInput(path.string() + " is larger than " + FormatByteCount(limit));
  }
  Bytes content(static_cast<size_t>(info.st_size));
  size_t done = 0;
  while (done < content.size()) {
    const ssize_t n = read(fd.get(), content.data() + done, content.size() - done);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      return ErrnoError(errno, "read " + path.string());
    }
    if (n == 0) {
      break;  // it shrank meanwhile
    }
    done += static_cast<size_t>(n);
  }
  content.resize(done);
  return content;
}

Result<void> MakeDirectory(const std::filesystem::path& path, unsigned mode) {
  std::error_code failure;
  std::filesystem::create_directories(path, failure);
  if (failure) {
    return ErrnoError(failure.value(), "make directory " + path.string());
  }
  if (chmod(path.c_str(), static_cast<mode_t>(mode)) != 0) {
    return ErrnoError(errno, "chmod " + path.string());
  }
  return Ok();
}

Result<void> RemoveTree(const std::filesystem::path& path) {
  std::error_code failure;
  std::filesystem::remove_all(path, failure);
  if (failure) {
    return ErrnoError(failure.value(), "remove " + path.string());
  }
  return Ok();
}

Result<void> WriteStateFile(const std::filesystem::path& path, std::string_view kind,
                            std::string_view payload) {
  const Sha256Digest digest = Sha256(AsBytes(payload));
  std::string content = std::string(kMagic) + " " + std::string(kind) + " " +
                        std::to_string(payload.size()) + " " + ToHex(digest) + "\n";
  content += payload;
  return WriteFileAtomically(path, AsBytes(content), 0600);
}

Result<std::string> ReadStateFile(const std::filesystem::path& path, std::string_view kind) {
  ASSIGN_OR_RETURN(const Bytes content, ReadWholeFile(path, kStateLimit));
  const std::string_view text = AsText(content);
  const size_t end = text.substr(0, kHeaderLimit).find('\n');
  if (end == std::string_view::npos) {
    return DamagedState(path, "it has no header line");
  }
  const std::vector<std::string> words = Split(text.substr(0, end), ' ');
  if (words.size() != 4 || words[0] != kMagic) {
    return DamagedState(path, "its first line is not that of a Vallum state file");
  }
  if (words[1] != kind) {
    return DamagedState(
        path, "it holds '" + Printable(words[1], 40) + "', not '" + std::string(kind) + "'");
  }
  const std::string_view payload = text.substr(end + 1);
  if (words[2] != std::to_string(payload.size())) {
    return DamagedState(path, "it has " + std::to_string(payload.size()) +
                                  " bytes of content, its header says " + Printable(words[2], 40));
  }
  if (words[3] != ToHex(Sha256(AsBytes(payload)))) {
    return DamagedState(path, "its SHA-256 is not the one in its header");
  }
  return std::string(payload);
}

}  // namespace vallum::agent
