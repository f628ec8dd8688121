// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace vallum::controller {

// Which evidence of a host is kept.
enum class EvidenceKind {
  kWhole,  // the last with the event log, if its host has one, and all that IMA measured by then
  // The last that was judged: often without what was known already; a whole one if that is newer.
  kLast,
  kUntrusted,  // the last that made the host UNTRUSTED, and some before it
};

// The raw evidence on hosts, as bundles that `vallum attest verify` reads: files named by host and
// content. Beside the store for its size; what is lost the hosts send again. Thread-safe; calls
// block on the disk.
class EvidenceBook {
 public:
  // Makes the directory with mode 0700 if it does not exist; its parent must.
  static Result<std::unique_ptr<EvidenceBook>> Open(const std::filesystem::path& directory);

  // Keeps a bundle as the newest of its kind; the oldest go, sooner where they are large. Returns
  // the SHA-256 of the bundle, hex. Errors: those of the file system.
  Result<std::string> Put(const std::string& host_uid, EvidenceKind kind, ByteView bundle);
  // The newest of the kind.
  // Errors: kNotFound (none is kept), kCorrupt (not what was put), those of the file system.
  Result<Bytes> Get(const std::string& host_uid, EvidenceKind kind);
  // The one with this SHA-256, hex. Errors: as Get.
  Result<Bytes> GetExactly(const std::string& host_uid, const std::string& sha256);
  // Removes what belongs to no host any more.
  Result<void> RemoveAllBut(const std::set<std::string>& host_uids);

 private:
  explicit EvidenceBook(std::filesystem::path directory) : directory_(std::move(directory)) {}
  // What is kept of a host whose file names begin so, newest first.
  std::vector<std::filesystem::path> List(const std::string& host_uid,
                                          const std::string& begin) const;
  static Result<Bytes> Read(const std::filesystem::path& path);

  const std::filesystem::path directory_;
  std::mutex mutex_;  // guards the files
};

// Of one file, compressed.
inline constexpr size_t kMaxBundleBytes = size_t{96} << 20U;

}  // namespace vallum::controller
