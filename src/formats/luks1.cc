// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/fields.h"
#include "formats/luks.h"
#include "formats/luks_checks.h"
#include "formats/reader.h"

namespace vallum::formats {
namespace {

constexpr uint64_t kSector = 512;
constexpr size_t kHeaderBytes = 592;
constexpr size_t kSlotsOffset = 208;
constexpr size_t kSlotBytes = 48;
constexpr uint32_t kSlotActive = 0x00ac71f3;
constexpr uint32_t kSlotInactive = 0x0000dead;

struct Slot {
  size_t at = 0;  // in the header
  bool active = false;
  LuksKeySlot slot;
};

Result<Slot> ReadSlot(ByteView header, uint32_t number, const std::string& hash,
                      uint64_t key_bytes) {
  Slot s;
  s.at = kSlotsOffset + number * kSlotBytes;
  const uint32_t active = U32Be(header, s.at);
  if (active != kSlotActive && active != kSlotInactive) {
    return LuksRefused(fmt::format("key slot {} at offset {} is neither active nor inactive: {:#x}",
                                   number, s.at, active));
  }
  s.active = active == kSlotActive;
  const uint32_t stripes = U32Be(header, s.at + 44);
  if (stripes != kLuksStripes) {
    return LuksRefused(fmt::format("key slot {} has {} stripes at offset {}, not {}", number,
                                   stripes, s.at + 44, kLuksStripes));
  }
  s.slot.number = number;
  s.slot.cost = {.kdf = LuksKdf::kPbkdf2, .hash = hash, .iterations = U32Be(header, s.at + 4)};
  s.slot.area_offset = U32Be(header, s.at + 40) * kSector;
  s.slot.area_size = (key_bytes * kLuksStripes + kSector - 1) / kSector * kSector;
  if (s.active) {
    RETURN_IF_ERROR(CheckLuksCost(s.slot.cost, fmt::format("key slot {}", number)));
  }
  return s;
}

// All eight, active or not: whoever adds a key writes where an inactive one points to.
Result<void> CheckPlaces(const std::vector<Slot>& slots, const LuksHeader& h, uint64_t file_size) {
  for (const Slot& s : slots) {
    const uint64_t begin = s.slot.area_offset;
    const uint64_t end = begin + s.slot.area_size;
    const std::string what = fmt::format("the key material of slot {} (bytes {} to {}, offset {})",
                                         s.slot.number, begin, end, s.at + 40);
    if (!IsInside(begin, s.slot.area_size, file_size)) {
      return LuksRefused(fmt::format("{} is past the end of the file, {}", what, file_size));
    }
    if (begin < kHeaderBytes) return LuksRefused(what + " overlaps the header");
    if (end > h.payload_offset) {
      return LuksRefused(
          fmt::format("{} overlaps the payload from offset {}", what, h.payload_offset));
    }
    for (const Slot& other : slots) {
      if (other.slot.number < s.slot.number && begin < other.slot.area_offset + s.slot.area_size &&
          other.slot.area_offset < end) {
        return LuksRefused(fmt::format("{} overlaps that of slot {}", what, other.slot.number));
      }
    }
  }
  return Ok();
}

Result<void> ReadPayload(ByteView header, uint64_t file_size, LuksHeader& h) {
  h.sector_size = kSector;
  h.payload_offset = U32Be(header, 104) * kSector;
  if (h.payload_offset == 0) {
    return LuksRefused("the payload offset at 104 is 0: a header without its data (detached)");
  }
  if (!IsInside(h.payload_offset, kSector, file_size)) {
    return LuksRefused(
        fmt::format("the payload offset at 104 ({} bytes) is past the end of the file, {}",
                    h.payload_offset, file_size));
  }
  h.payload_size = file_size - h.payload_offset;
  if (h.payload_size % kSector != 0) {
    return LuksRefused(
        fmt::format("truncated: the payload of {} bytes is not whole sectors", h.payload_size));
  }
  return Ok();
}

Result<LuksHeader> ReadFixedPart(ByteView header, uint64_t file_size) {
  LuksHeader h;
  h.version = 1;
  ASSIGN_OR_RETURN(const std::string name, LuksText(header, 8, 32, "the cipher name"));
  ASSIGN_OR_RETURN(const std::string mode, LuksText(header, 40, 32, "the cipher mode"));
  h.cipher = name + "-" + mode;
  const uint32_t key_bytes = U32Be(header, 108);
  RETURN_IF_ERROR(CheckLuksCipher(h.cipher, key_bytes, "the cipher at offset 8"));
  h.key_bits = key_bytes * 8;
  ASSIGN_OR_RETURN(h.hash, LuksText(header, 72, 32, "the hash"));
  RETURN_IF_ERROR(CheckLuksHash(h.hash, "the hash at offset 72"));
  RETURN_IF_ERROR(CheckLuksDigestIterations(U32Be(header, 164), "the key's digest at offset 164"));
  ASSIGN_OR_RETURN(h.uuid, LuksText(header, 168, 40, "the UUID"));
  RETURN_IF_ERROR(CheckLuksUuid(h.uuid));
  RETURN_IF_ERROR(ReadPayload(header, file_size, h));
  return h;
}

}  // namespace

Result<LuksHeader> ParseLuks1(const RandomAccessReader& image) {
  if (image.size() < kHeaderBytes) {
    return LuksRefused(
        fmt::format("truncated: {} bytes, the header has {}", image.size(), kHeaderBytes));
  }
  ASSIGN_OR_RETURN(const Bytes header, ReadBytesAt(image, 0, kHeaderBytes));
  ASSIGN_OR_RETURN(const std::optional<uint64_t> secondary, FindLuks2Secondary(image));
  if (secondary.has_value()) {
    return LuksRefused(
        fmt::format("ambiguous: LUKS1, with a LUKS2 header at offset {}", *secondary));
  }
  ASSIGN_OR_RETURN(LuksHeader h, ReadFixedPart(header, image.size()));
  std::vector<Slot> slots;
  for (uint32_t i = 0; i < kLuks1KeySlots; ++i) {
    ASSIGN_OR_RETURN(Slot slot, ReadSlot(header, i, h.hash, h.key_bits / 8));
    if (slot.active) h.key_slots.push_back(slot.slot);
    slots.push_back(std::move(slot));
  }
  RETURN_IF_ERROR(CheckPlaces(slots, h, image.size()));
  if (h.key_slots.empty()) return LuksRefused("no key slot is active: nothing can open it");
  DescribeLuks(h);
  return h;
}

}  // namespace vallum::formats
