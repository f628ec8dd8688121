// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "formats/luks.h"

namespace vallum::formats {

inline constexpr size_t kLuks2JsonMaxDepth = 16;
inline constexpr size_t kLuks2JsonMaxValues = 16384;
inline constexpr uint64_t kLuks2BinaryHeaderBytes = 4096;
inline constexpr uint64_t kLuks2MaxKeySlotsArea = uint64_t{128} << 20U;

struct Luks2Metadata {
  std::string cipher;
  uint32_t key_bits = 0;
  uint32_t sector_size = 0;
  uint64_t payload_offset = 0;
  uint64_t payload_size = 0;
  std::vector<LuksKeySlot> key_slots;  // those that open the payload
  std::vector<std::string> facts;
};

// Checks the JSON area of a LUKS2 header: objects that refer to each other exist, areas and
// segments are inside the file and apart, names and costs known, nothing half re-encrypted.
//   json: without the padding; untrusted. header_size: of one copy, in bytes.
// Errors: kInvalidInput, naming the JSON member.
// Source: LUKS2 On-Disk Format 1.1.1, section 3.
Result<Luks2Metadata> ParseLuks2Metadata(std::string_view json, uint64_t header_size,
                                         uint64_t file_size);

}  // namespace vallum::formats
