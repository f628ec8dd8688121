// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>

#include "base/bytes.h"
#include "base/result.h"

namespace vallum::agent {

// Which entries of the kernel's list are wanted: [from, until).
struct ImaRange {
  int64_t from = 0;
  int64_t until = std::numeric_limits<int64_t>::max();
};
struct ImaExtent {
  int64_t entries = 0;        // of the list, as far as it was walked
  uint64_t wanted_bytes = 0;  // of those that are wanted
};
// Takes bytes of the list, in order, at most kImaPiece of them.
inline constexpr size_t kImaPiece = size_t{1} << 20U;
using ImaSink = std::function<Result<void>(ByteView)>;

// Walks the kernel's list of measured files from its first entry, in bounded memory, and hands over
// the wanted entries. The kernel only ever appends to it, so two walks up to the same entry see the
// same bytes.
//   path: binary_runtime_measurements; integers in the host's order, which is little-endian.
// Errors: kNotFound (no such file); kDenied; kCorrupt (ends in the middle of an entry); kExhausted
// (an entry over a limit); those of the sink.
// Source: Linux, security/integrity/ima/ima_fs.c, ima_measurements_show.
Result<ImaExtent> WalkImaList(const std::filesystem::path& path, const ImaRange& range,
                              const ImaSink& sink);

}  // namespace vallum::agent
