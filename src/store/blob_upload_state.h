// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "store/blob_paths.h"
#include "store/blob_store.h"
#include "store/file.h"
#include "store/parallel_hasher.h"

namespace vallum::store {

// An open upload: the file and the hash of what is in it.
struct BlobUpload::State {
  // Errors: kNotFound or kConflict, as the flags ask for an old or a new file; as ErrnoError.
  static Result<std::unique_ptr<State>> Open(std::unique_ptr<HeldUpload> held, int create_flags);

  Result<void> HashWhatIsThere();
  Result<void> WriteAndHash(ByteView bytes);
  // Brings hash and file together again; nothing to do if they are.
  Result<void> Recover();
  // Uses the hash up; Recover makes it anew.
  std::string TakeDigest();

  std::unique_ptr<HeldUpload> held;
  UniqueFd file;
  ParallelHasher hasher;
  uint64_t received = 0;
  uint64_t writeback_begun = 0;
  bool hash_is_stale = false;
};

}  // namespace vallum::store
