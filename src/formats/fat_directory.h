// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include "base/bytes.h"
#include "formats/fat.h"

namespace vallum::formats {

inline constexpr size_t kFatDirectoryEntrySize = 32;

// Whether an end mark (first byte 0) stands among these entries.
bool DirectoryEnds(ByteView raw);

// Reads directory entries with their long names; damaged long names give way to the short ones, as
// in firmware.
std::vector<FatEntry> ParseFatDirectory(ByteView raw);

}  // namespace vallum::formats
