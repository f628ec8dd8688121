// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "measure/extend_log.h"
#include "vtpm/unique_fd.h"

namespace vallum::vtpm {

// The extend log of one TPM in memory and, line by line, in its file. Owns the file and holds a
// lock on it. A file that cannot be written never stops the TPM: error() says so. Not thread-safe.
class RecordFile {
 public:
  // With more records than this the older ones are given up, and the log says so.
  static constexpr size_t kMaxRecords = 100'000;
  // Boots before the current one are forgotten when they have more records than this.
  static constexpr size_t kKeptOfOldBoots = 4'000;

  // Opens or makes the file, 0600, and reads what is there. Half a record at its end is removed.
  //   clock: outlives the file.
  // Errors: kCorrupt (a damaged record: the file is left as it is); kConflict (another process
  // writes it); those of open(2).
  static Result<std::unique_ptr<RecordFile>> Open(const std::string& path, const Clock& clock);

  RecordFile(const RecordFile&) = delete;
  RecordFile& operator=(const RecordFile&) = delete;

  // Adds a record now. It is with the kernel when this returns, so that it outlives this process.
  void Append(measure::RecordBody body);

  const measure::ExtendLog& log() const { return log_; }
  // Why the file lacks records that log() has; empty: it lacks none.
  const std::string& error() const { return error_; }

 private:
  RecordFile(std::string path, const Clock& clock) : path_(std::move(path)), clock_(clock) {}
  Result<void> Load();
  void Compact();
  void Rewrite();

  std::string path_;
  const Clock& clock_;
  UniqueFd fd_;
  measure::ExtendLog log_;
  std::string error_;
};

}  // namespace vallum::vtpm
