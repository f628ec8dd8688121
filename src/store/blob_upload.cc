// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "base/units.h"
#include "store/blob_paths.h"
#include "store/blob_store.h"
#include "store/blob_upload_state.h"
#include "store/file.h"

namespace vallum::store {
namespace {

constexpr size_t kReadSize = size_t{1} << 20U;
// How much is written before the kernel is asked to begin writing it to the disk, so that the sync
// at the end has little left to do.
constexpr uint64_t kWritebackSize = uint64_t{32} << 20U;

Error EndedUpload(const std::string& id) {
  return InvalidInput("upload " + id + " has ended").WithFix("begin a new upload");
}

bool IsFileOfSize(const std::filesystem::path& path, ByteCount size) {
  struct stat found{};
  return ::lstat(path.c_str(), &found) == 0 && S_ISREG(found.st_mode) &&
         static_cast<uint64_t>(found.st_size) == size.bytes();
}

// Two uploads of one content may race to one name; either file is right.
Result<void> MoveIntoPlace(const HeldUpload& held, const std::string& digest, ByteCount size) {
  const std::filesystem::path target = held.paths().blobs / digest;
  if (IsFileOfSize(target, size)) {
    if (::unlink(held.path().c_str()) != 0) {
      return ErrnoError(errno, "unlink " + held.path().string());
    }
  } else if (::rename(held.path().c_str(), target.c_str()) != 0) {
    return ErrnoError(errno, "rename " + held.path().string() + " to " + target.string());
  }
  return SyncDirectory(held.paths().blobs);
}

}  // namespace

Result<std::unique_ptr<BlobUpload::State>> BlobUpload::State::Open(std::unique_ptr<HeldUpload> held,
                                                                   int create_flags) {
  // A commit that was killed half-way has made the file read-only.
  static_cast<void>(::chmod(held->path().c_str(), 0600));
  auto opened = OpenFile(held->path(), O_RDWR | O_NOFOLLOW | create_flags);
  if (!opened) {
    const ErrorCode code = opened.error().code();
    if (code == ErrorCode::kNotFound) return NotFound("there is no upload " + held->id());
    if (code == ErrorCode::kConflict) {
      return Conflict("there is an upload " + held->id() + " already")
          .WithFix("resume or abort it");
    }
    return opened.error();
  }
  auto state = std::make_unique<State>();
  state->held = std::move(held);
  state->file = *std::move(opened);
  return state;
}

// A write that was under way when the process was killed may have left any part of its bytes, all
// of them the caller's, in order: so what is there is what was received.
Result<void> BlobUpload::State::HashWhatIsThere() {
  Bytes buffer(kReadSize);
  while (true) {
    const ssize_t n =
        ::pread(file.get(), buffer.data(), buffer.size(), static_cast<off_t>(received));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError(errno, "read " + held->path().string());
    if (n == 0) break;
    hasher.Start(ByteView(buffer).first(static_cast<size_t>(n)));
    hasher.Wait();
    received += static_cast<uint64_t>(n);
  }
  writeback_begun = received;
  return Ok();
}

Result<void> BlobUpload::State::WriteAndHash(ByteView bytes) {
  hasher.Start(bytes);
  Result<void> written = WriteAt(file.get(), bytes, received);
  hasher.Wait();
  if (!written) {
    // The hash has gone past what is written; it cannot go back.
    hash_is_stale = true;
    return written;
  }
  received += bytes.size();
  if (received - writeback_begun >= kWritebackSize) {
    // Only a hint: the sync in Commit is what counts.
    static_cast<void>(::sync_file_range(file.get(), static_cast<off_t>(writeback_begun),
                                        static_cast<off_t>(received - writeback_begun),
                                        SYNC_FILE_RANGE_WRITE));
    writeback_begun = received;
  }
  return Ok();
}

Result<void> BlobUpload::State::Recover() {
  if (!hash_is_stale) return Ok();
  if (::ftruncate(file.get(), static_cast<off_t>(received)) != 0) {
    return ErrnoError(errno, "truncate " + held->path().string());
  }
  received = 0;
  hasher.Restart();
  RETURN_IF_ERROR(HashWhatIsThere());
  hash_is_stale = false;
  return Ok();
}

std::string BlobUpload::State::TakeDigest() {
  hash_is_stale = true;
  return ToHex(hasher.Finish());
}

BlobUpload::BlobUpload(std::unique_ptr<State> state)
    : id_(state->held->id()), state_(std::move(state)) {}
BlobUpload::~BlobUpload() = default;

ByteCount BlobUpload::received() const { return ByteCount::Bytes(state_ ? state_->received : 0); }

Result<void> BlobUpload::Append(ByteCount offset, ByteView bytes) {
  if (!state_) return EndedUpload(id_);
  RETURN_IF_ERROR(state_->Recover()).context("upload " + id_);
  if (offset != received()) {
    return Conflict("upload " + id_ + " got bytes for offset " + std::to_string(offset.bytes()) +
                    " but has " + std::to_string(state_->received) + " bytes")
        .WithFix("go on at offset " + std::to_string(state_->received));
  }
  const ByteCount limit = state_->held->paths().max_blob_size;
  if (state_->received > limit.bytes() || bytes.size() > limit.bytes() - state_->received) {
    return Exhausted("upload " + id_ + " would be larger than " + FormatByteCount(limit))
        .WithFix("raise the limit of the blob store, or use a smaller file");
  }
  RETURN_IF_ERROR(state_->WriteAndHash(bytes)).context("upload " + id_);
  return Ok();
}

Result<BlobInfo> BlobUpload::Commit() {
  if (!state_) return EndedUpload(id_);
  RETURN_IF_ERROR(state_->Recover()).context("upload " + id_);
  return Publish(state_->TakeDigest());
}

Result<BlobInfo> BlobUpload::CommitExpecting(std::string_view digest) {
  if (!state_) return EndedUpload(id_);
  const std::string expected = ToLower(digest);
  RETURN_IF_ERROR(CheckBlobDigest(expected));
  RETURN_IF_ERROR(state_->Recover()).context("upload " + id_);
  const std::string actual = state_->TakeDigest();
  if (actual == expected) return Publish(actual);
  Error mismatch = Corrupt("the content of upload " + id_ + " has SHA-256 " + actual +
                           " but should have " + expected)
                       .WithFix("send the file again, or correct the expected digest");
  RETURN_IF_ERROR(Abort());
  return mismatch;
}

Result<BlobInfo> BlobUpload::Publish(const std::string& digest) {
  const BlobInfo info{digest, received()};
  const int fd = state_->file.get();
  if (::fchmod(fd, 0400) != 0) return ErrnoError(errno, "chmod upload " + id_);
  if (::fsync(fd) != 0) return ErrnoError(errno, "fsync upload " + id_);
  RETURN_IF_ERROR(MoveIntoPlace(*state_->held, digest, info.size)).context("upload " + id_);
  state_.reset();
  return info;
}

Result<void> BlobUpload::Abort() {
  if (!state_) return EndedUpload(id_);
  const std::filesystem::path path = state_->held->path();
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return ErrnoError(errno, "unlink " + path.string());
  }
  state_.reset();
  return Ok();
}

}  // namespace vallum::store
