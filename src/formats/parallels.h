// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"
#include "formats/reader.h"

// docs/formats/parallels.md mirrors these constants.
namespace vallum::formats {

inline constexpr uint32_t kParallelsVersion = 2;
// Clusters of 1 MiB are usual.
inline constexpr uint64_t kParallelsMaxClusterSize = uint64_t{64} << 20U;
inline constexpr uint64_t kParallelsMaxVirtualSize = uint64_t{64} << 40U;

struct ParallelsImage {
  std::string_view subformat;  // its magic: "WithoutFreeSpace" (old) or "WithouFreSpacExt"
  uint64_t virtual_size = 0;   // bytes
  uint64_t cluster_size = 0;   // bytes
  bool in_use = false;         // not closed
};

// Reads the header of a Parallels expandable image, to say what it is; its block allocation table
// is not looked at. The format knows of no backing file: a chain is described outside of it.
// Errors: kInvalidInput, naming what was found at which offset (truncated, magic, version, sizes
// and offsets that contradict each other or the file).
// Source: QEMU, docs/interop/parallels.txt, "Header". Pure; thread-safe.
Result<ParallelsImage> ParseParallels(const RandomAccessReader& image);

}  // namespace vallum::formats
