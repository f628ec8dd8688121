// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "formats/reader.h"

// docs/formats/qed.md mirrors these constants.
namespace vallum::formats {

inline constexpr uint32_t kQedMagic = 0x00444551;  // "QED\0"
inline constexpr uint32_t kQedMinClusterSize = 4096;
inline constexpr uint32_t kQedMaxClusterSize = uint32_t{64} << 20U;
inline constexpr uint32_t kQedMaxTableClusters = 16;
inline constexpr uint64_t kQedMaxVirtualSize = uint64_t{64} << 40U;
inline constexpr uint32_t kQedMaxBackingName = 1023;

struct QedImage {
  std::string_view subformat = "sparse";    // the only one
  uint64_t virtual_size = 0;                // bytes
  uint64_t cluster_size = 0;                // bytes
  uint64_t table_size = 0;                  // of L1 and of each L2, bytes
  bool needs_check = false;                 // not closed
  std::optional<std::string> backing_file;  // untrusted text
};

// Reads the header of a QED image, to say what it is; its tables are not looked at.
// Errors: kInvalidInput, naming what was found at which offset (truncated, magic, unknown features,
// sizes and offsets that contradict each other or the file).
// Source: QEMU, docs/interop/qed_spec, "Header". Pure; thread-safe.
Result<QedImage> ParseQed(const RandomAccessReader& image);

}  // namespace vallum::formats
