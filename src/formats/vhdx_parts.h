// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/result.h"
#include "formats/reader.h"
#include "formats/vhdx.h"

// What the parts of the VHDX reader share; for vhdx*.cc only.
namespace vallum::formats {

inline constexpr std::string_view kVhdxConvert =
    "convert it where it came from: qemu-img convert -f vhdx -O qcow2 <this image> <new image>";

inline Error VhdxRefused(std::string message, std::string_view fix = kVhdxConvert) {
  return InvalidInput("VHDX: " + std::move(message)).WithFix(std::string(fix));
}

struct VhdxRegion {
  uint64_t offset = 0;
  uint32_t length = 0;
};

// Which MiB of the file something is kept in: the header section from the start.
class VhdxSpace {
 public:
  explicit VhdxSpace(uint64_t file_size)
      : taken_(static_cast<size_t>((file_size + kVhdxMiB - 1) / kVhdxMiB), false) {
    static_cast<void>(Take(0, kVhdxMiB));
  }

  // False when a part of it is taken already. The begin is a multiple of 1 MiB; what lies past the
  // end of the file does not count.
  [[nodiscard]] bool Take(uint64_t begin, uint64_t bytes) {
    const auto first = static_cast<size_t>(begin / kVhdxMiB);
    const auto end =
        static_cast<size_t>(std::min<uint64_t>((begin + bytes) / kVhdxMiB, taken_.size()));
    for (size_t i = first; i < end; ++i) {
      if (taken_[i]) return false;
      taken_[i] = true;
    }
    return true;
  }

 private:
  std::vector<bool> taken_;
};

// Reads the metadata table and the items that say how the disk is made; what they say is checked.
// Errors: kInvalidInput (a parent, unknown but required, missing, double, misplaced, out of
// limits). Source: [MS-VHDX] 2.6.
Result<VhdxImage> ReadVhdxMetadata(const RandomAccessReader& image, const VhdxRegion& region);

// Checks the table's entries for all blocks of the disk, takes the space of those that are present
// and completes `vhdx`.
// Errors: kInvalidInput (table too short, unknown or partial state, misplaced, overlap).
// Source: [MS-VHDX] 2.5.
Result<void> CheckVhdxBat(const RandomAccessReader& image, const VhdxRegion& region,
                          VhdxSpace& space, VhdxImage& vhdx);

}  // namespace vallum::formats
