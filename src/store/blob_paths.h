// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/units.h"
#include "store/file.h"

namespace vallum::store {

// What a BlobStore and its uploads share.
//   <directory>/lock              held while the store is open
//   <directory>/sha256/<digest>   the blobs
//   <directory>/uploads/<boot id>/<upload id>
// Uploads lie in a directory named after the machine's current run (the kernel's boot id): their
// bytes are not synced before the commit, so those of an earlier run cannot be trusted.
struct BlobPaths {
  std::filesystem::path blobs;
  std::filesystem::path uploads;  // of this run of the machine
  ByteCount max_blob_size;
  FileLock lock;

  std::mutex mutex;
  std::set<std::string, std::less<>> held_uploads;  // guarded by mutex: those with a BlobUpload
};

// A name among BlobPaths::held_uploads, given back at the end.
class HeldUpload {
 public:
  // Errors: kConflict (somebody holds it).
  static Result<std::unique_ptr<HeldUpload>> Take(std::shared_ptr<BlobPaths> paths,
                                                  std::string_view id);
  ~HeldUpload();
  HeldUpload(const HeldUpload&) = delete;
  HeldUpload& operator=(const HeldUpload&) = delete;

  const std::string& id() const { return id_; }
  BlobPaths& paths() const { return *paths_; }
  std::filesystem::path path() const { return paths_->uploads / id_; }

 private:
  HeldUpload(std::shared_ptr<BlobPaths> paths, std::string id);
  const std::shared_ptr<BlobPaths> paths_;
  const std::string id_;
};

// Errors: kInvalidInput (not 64 lower-case hexadecimal digits).
Result<void> CheckBlobDigest(std::string_view digest);

}  // namespace vallum::store
