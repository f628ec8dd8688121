// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "base/result.h"
#include "vallum/v1/resources.pb.h"

namespace vallum::controller {

// What is kept of each instance's boots: its last BootRecord and its Baseline, as files named by
// the instance's uid. Beside the store and not in it, because the store holds all of its values and
// their history in memory: tens of kilobytes for each of 25,000 instances do not belong there. A
// few hundred are kept in memory. Thread-safe; calls may block on the disk.
class BootBook {
 public:
  // Makes the directory with mode 0700 if it does not exist; its parent must.
  // Errors: those of the file system.
  static Result<std::unique_ptr<BootBook>> Open(const std::filesystem::path& directory);

  // The last boot; nullptr when none is kept. Never fails: a record that cannot be read is as good
  // as none, for the host sends it again.
  std::shared_ptr<const v1::BootRecord> Record(const std::string& uid);
  // kMemory: a crash loses it.
  enum class Keep { kMemory, kFile };
  // Errors: those of the file system; what is in memory is changed nevertheless.
  Result<void> SetRecord(const std::string& uid, v1::BootRecord record, Keep keep);

  // nullptr: the instance has none. Errors: kCorrupt (a file that cannot be read must not pass for
  // "none"), those of the file system.
  Result<std::shared_ptr<const v1::Baseline>> Baseline(const std::string& uid);
  // Replaces what is there if it is what the change was made from; durable when this returns.
  //   baseline: with spec.instance_uid; metadata.revision is counted up from that of `from`.
  //   from: revision of the baseline that was read, 0: there must be none.
  // Errors: kConflict (it was changed meanwhile), kExhausted (kMaxBaselineBytes), those of the file
  // system. Returns it as stored.
  Result<v1::Baseline> SetBaseline(v1::Baseline baseline, int64_t from);

  // Removes both, on disk too. Errors: those of the file system.
  Result<void> Remove(const std::string& uid);
  // Removes what belongs to no instance any more.
  Result<void> RemoveAllBut(const std::set<std::string>& uids);

 private:
  struct Entry {
    std::shared_ptr<const v1::BootRecord> record;
    bool record_read = false;
    bool record_dirty = false;
    std::shared_ptr<const v1::Baseline> baseline;
    bool baseline_read = false;
    uint64_t used = 0;
  };
  explicit BootBook(std::filesystem::path directory) : directory_(std::move(directory)) {}
  std::filesystem::path RecordPath(const std::string& uid) const;
  std::filesystem::path BaselinePath(const std::string& uid) const;
  Entry& Use(const std::string& uid);  // with mutex_ held
  Result<void> ReadBaseline(const std::string& uid, Entry& entry) const;

  const std::filesystem::path directory_;
  std::mutex mutex_;  // guards the members below and the files
  std::map<std::string, Entry> entries_;
  uint64_t uses_ = 0;
};

// Of one file. Evidence that is larger is not kept: see BootVerdicts.
inline constexpr size_t kMaxRecordBytes = size_t{1} << 20U;
inline constexpr size_t kMaxBaselineBytes = size_t{512} << 10U;

}  // namespace vallum::controller
