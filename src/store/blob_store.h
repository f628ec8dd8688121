// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/result.h"
#include "base/units.h"
#include "store/file.h"

namespace vallum::store {

struct BlobPaths;

// A blob's name is the SHA-256 of its content, 64 lower-case hexadecimal digits.
struct BlobInfo {
  std::string digest;
  ByteCount size;
};

struct OpenBlob {
  UniqueFd fd;  // read-only
  std::filesystem::path path;
  ByteCount size;
};

struct UploadInfo {
  std::string id;
  ByteCount received;
};

struct BlobStoreOptions {
  // Made, with mode 0700, if it does not exist; its parent must.
  std::filesystem::path directory;
  ByteCount max_blob_size = ByteCount::GiB(2048);
  // Uploads not written to for so long are removed when the store is opened.
  std::chrono::hours max_upload_age{24};
};

// One upload that is under way. Destroying it keeps what was received, for ResumeUpload. Used by
// one thread at a time; may outlive the store.
class BlobUpload {
 public:
  ~BlobUpload();
  BlobUpload(const BlobUpload&) = delete;
  BlobUpload& operator=(const BlobUpload&) = delete;

  const std::string& id() const { return id_; }
  // The bytes received so far: where Append goes on. 0 after the end.
  ByteCount received() const;

  // Writes and hashes the next bytes. Pieces of 1 MiB or more are fastest.
  //   offset: must be received().
  // Errors: kConflict (another offset; the message says which is wanted), kExhausted (larger than
  // the store allows; disk full: may be tried again), kInvalidInput (committed or aborted already).
  Result<void> Append(ByteCount offset, ByteView bytes);

  // Makes the content durable and visible under its digest, with mode 0400, and ends the upload.
  // Errors: as ErrnoError; the upload stays and may be committed again.
  Result<BlobInfo> Commit();
  // The same, but ends the upload and keeps nothing if the content has another digest.
  //   digest: 64 hexadecimal digits.
  // Errors: kCorrupt (another digest), kInvalidInput (not a digest), as Commit.
  Result<BlobInfo> CommitExpecting(std::string_view digest);

  // Ends the upload and removes what was received.
  Result<void> Abort();

 private:
  friend class BlobStore;
  struct State;
  explicit BlobUpload(std::unique_ptr<State> state);
  Result<BlobInfo> Publish(const std::string& digest);
  const std::string id_;
  std::unique_ptr<State> state_;  // null after the end
};

// Content-addressed files in a directory: a file appears under its digest whole and durable, or not
// at all, and never changes. Thread-safe. One process at a time.
class BlobStore {
 public:
  // Opens or creates the store, and removes abandoned uploads: old ones, and those that were under
  // way when the machine went down, whose bytes may never have reached the disk.
  //   clock: wall time decides the age of uploads; outlives the store.
  // Errors: kConflict (another process has it open; names its pid), as ErrnoError.
  static Result<std::unique_ptr<BlobStore>> Open(const BlobStoreOptions& options,
                                                 const Clock& clock);
  ~BlobStore();
  BlobStore(const BlobStore&) = delete;
  BlobStore& operator=(const BlobStore&) = delete;

  // Begins an upload.
  //   id: the caller's choice, a resource name or uid (see ValidateName); names it after a restart.
  // Errors: kConflict (there is one with this id), kInvalidInput (id), as ErrnoError.
  Result<std::unique_ptr<BlobUpload>> BeginUpload(std::string_view id);
  // Goes on with an upload of this process or an earlier one; reads and hashes what is there.
  // Errors: kNotFound, kConflict (somebody holds it), kInvalidInput (id), as ErrnoError.
  Result<std::unique_ptr<BlobUpload>> ResumeUpload(std::string_view id);
  Result<std::vector<UploadInfo>> ListUploads() const;

  //   digest: of all three: 64 lower-case hexadecimal digits; anything else is kInvalidInput.
  // Errors of all three: kNotFound, as ErrnoError.
  Result<OpenBlob> Open(std::string_view digest) const;
  // Descriptors that are open stay readable.
  Result<void> Remove(std::string_view digest);
  // Reads the whole content again. Errors: kCorrupt (it no longer has its digest).
  Result<void> VerifyDigest(std::string_view digest) const;

  // All blobs, by digest.
  Result<std::vector<BlobInfo>> List() const;

 private:
  explicit BlobStore(std::shared_ptr<BlobPaths> paths);
  Result<std::unique_ptr<BlobUpload>> OpenUpload(std::string_view id, int create_flags);
  const std::shared_ptr<BlobPaths> paths_;  // shared with uploads
};

}  // namespace vallum::store
