// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <filesystem>

#include "base/bytes.h"
#include "base/result.h"
#include "base/secret_bytes.h"

namespace vallum::tls {

// Replaces a file as a whole: after a crash there is the old content or the new, never a part. The
// file and its directory are synced.
//   mode: permission bits, in effect before the first byte is written.
// Errors: those of the file system. Blocking.
Result<void> WriteFileAtomically(const std::filesystem::path& path, ByteView content, mode_t mode);

// Reads a small file. Errors: kNotFound, kDenied, kExhausted (larger than limit). Blocking.
Result<Bytes> ReadSmallFile(const std::filesystem::path& path, size_t limit = 1 << 20);

// The same, refusing a file that group or others may read. Errors: also kDenied, with the fix.
Result<SecretBytes> ReadSecretFile(const std::filesystem::path& path, size_t limit = 1 << 20);

}  // namespace vallum::tls
