// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string>

#include "base/result.h"
#include "vm/process.h"

namespace vallum::vm {

// open(2) with O_CLOEXEC, O_NOFOLLOW when it may create, mode 0600.
Result<UniqueFd> OpenFile(const std::string& path, int flags);
// At most 64 KiB; for files of /proc, /sys and our own.
Result<std::string> ReadSmallFile(const std::string& path);
// The same, of a file that must be the caller's own. Errors: kDenied (another user's, or no file).
Result<std::string> ReadOwnFile(const std::string& path);
// Through a temporary file beside it, so that a reader sees the old or the new content.
Result<void> WriteFileAtomically(const std::string& path, std::string_view content);
// The kernel's random id of this boot.
Result<std::string> ReadBootId();
// Waits until a descriptor can be read, or has ended; false when the time is over.
bool WaitReadable(int fd, std::chrono::milliseconds limit);
// Makes a file, or keeps the one there, and gives it to its user.
Result<void> EnsureOwnedFile(const std::string& path, const std::optional<RunAs>& owner);

}  // namespace vallum::vm
