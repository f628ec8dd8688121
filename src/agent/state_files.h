// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "base/units.h"

namespace vallum::agent {

// Replaces a file whole: a reader sees the old or the new content, also after a power failure.
//   mode: permission bits of the new file, such as 0600; the umask is not applied.
// Errors: kDenied, kExhausted (disk full), kInternal, each naming the path. Blocks on fsync.
Result<void> WriteFileAtomically(const std::filesystem::path& path, ByteView content,
                                 unsigned mode);

// Removes what a crash in WriteFileAtomically left in a directory: it may hold secrets, such as the
// state of a vTPM. While nobody writes there; what cannot be removed stays.
void RemoveLeftovers(const std::filesystem::path& directory);

// Reads a regular file of at most `limit` bytes; symbolic links are not followed.
// Errors: kNotFound, kDenied, kInvalidInput (larger than the limit, no regular file), kInternal.
Result<Bytes> ReadWholeFile(const std::filesystem::path& path, ByteCount limit);

// Makes a directory, and its parents, if it is missing, and sets its permission bits.
Result<void> MakeDirectory(const std::filesystem::path& path, unsigned mode);

// Removes a file or a whole tree; nothing there is success. Symbolic links are removed, not
// followed.
Result<void> RemoveTree(const std::filesystem::path& path);

// Writes a state file: one header line with kind, length and SHA-256, then the payload, replaced
// atomically with mode 0600. Errors: as WriteFileAtomically.
Result<void> WriteStateFile(const std::filesystem::path& path, std::string_view kind,
                            std::string_view payload);

// Reads what WriteStateFile wrote.
// Errors: kNotFound; kCorrupt (not a state file of that kind, cut short, digest differs), with the
// fix; kDenied, kInternal.
Result<std::string> ReadStateFile(const std::filesystem::path& path, std::string_view kind);

}  // namespace vallum::agent
