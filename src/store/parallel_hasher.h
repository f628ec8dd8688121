// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/bytes.h"
#include "base/digest.h"

namespace vallum::store {

// A SHA-256 that runs beside the caller, so that hashing and writing the same bytes take the time
// of the slower, not of both. Used by one thread.
class ParallelHasher {
 public:
  ParallelHasher() = default;
  ~ParallelHasher();
  ParallelHasher(const ParallelHasher&) = delete;
  ParallelHasher& operator=(const ParallelHasher&) = delete;

  // Begins to hash the bytes, which must live and not change until Wait returns.
  void Start(ByteView bytes);
  void Wait();
  // Uses the hash up; Restart begins a new one.
  Bytes Finish();
  void Restart();

 private:
  void Run();

  Hasher hasher_{HashAlgorithm::kSha256};
  std::mutex mutex_;
  std::condition_variable changed_;
  ByteView work_;  // these three are guarded by mutex_
  bool busy_ = false;
  bool stop_ = false;
  std::thread thread_;  // made when the first large piece comes
};

}  // namespace vallum::store
