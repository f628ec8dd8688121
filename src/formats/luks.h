// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "formats/reader.h"

// docs/formats/luks.md mirrors these constants.
namespace vallum::formats {

inline constexpr std::string_view kLuksMagic = "LUKS\xba\xbe";
inline constexpr std::string_view kLuks2SecondaryMagic = "SKUL\xba\xbe";
inline constexpr uint32_t kLuksStripes = 4000;
inline constexpr uint32_t kLuks1KeySlots = 8;
inline constexpr uint32_t kLuks2MaxKeySlots = 32;

// "Possible LUKS2 secondary header offsets and JSON area size": the size of one copy is also the
// offset of the second. So many bytes tell a header there (FindLuks2Secondary).
inline constexpr std::array<uint64_t, 9> kLuks2HeaderSizes = {
    0x4000, 0x8000, 0x10000, 0x20000, 0x40000, 0x80000, 0x100000, 0x200000, 0x400000};
inline constexpr size_t kLuks2ProbeBytes = 264;

// The KDF budget: what one derivation of a key may cost whoever opens the image, some 10 s of a
// slow core. A header that asks for more is refused before anybody tries.
inline constexpr uint32_t kLuksMinPbkdf2Iterations = 1000;
inline constexpr uint32_t kLuksMaxPbkdf2Iterations = 20'000'000;
inline constexpr uint32_t kLuksMaxArgon2MemoryKib = 1U << 20U;          // 1 GiB
inline constexpr uint64_t kLuksMaxArgon2WorkKib = uint64_t{16} << 20U;  // passes x memory: 16 GiB
inline constexpr uint32_t kLuksMaxArgon2Cpus = 4;

enum class LuksKdf { kPbkdf2, kArgon2i, kArgon2id };
// "pbkdf2", "argon2i", "argon2id".
std::string_view LuksKdfName(LuksKdf kdf);

struct LuksKdfCost {
  LuksKdf kdf = LuksKdf::kPbkdf2;
  std::string hash;         // PBKDF2 only
  uint32_t iterations = 0;  // Argon2: passes over the memory
  uint32_t memory_kib = 0;  // Argon2 only
  uint32_t cpus = 0;        // Argon2 only
};

// An active slot that opens the payload.
struct LuksKeySlot {
  uint32_t number = 0;  // from 0
  LuksKdfCost cost;
  uint64_t area_offset = 0;  // of the key material, in bytes
  uint64_t area_size = 0;
};

enum class LuksHeaderCopy { kPrimary, kSecondary };

struct LuksHeader {
  uint32_t version = 0;  // 1 or 2
  LuksHeaderCopy used = LuksHeaderCopy::kPrimary;
  std::string uuid;
  std::string label;      // LUKS2, may be empty; untrusted text
  std::string subsystem;  // the same
  std::string cipher;     // "aes-xts-plain64"
  std::string hash;       // LUKS1 only
  uint32_t key_bits = 0;
  uint32_t sector_size = 0;
  uint64_t payload_offset = 0;
  uint64_t payload_size = 0;
  std::vector<LuksKeySlot> key_slots;  // at least one
  std::vector<std::string> facts;      // sentences for people, printable
};

// Reads and checks the header of a LUKS volume that is a whole image: names known and not null,
// areas inside the file and apart from each other, KDF costs within the budget. No key is derived.
//   image: from the volume's first byte; untrusted.
// Time and memory: two headers of LUKS2, 4 MiB each, are read and hashed at most.
// Errors: kInvalidInput, naming offset or JSON member, with the fix.
// Source: LUKS1 On-Disk Format 1.2.3; LUKS2 On-Disk Format 1.1.1. Pure.
Result<LuksHeader> ParseLuks(const RandomAccessReader& image);

// Refuses a LUKS2 where only version 1 can be used (QEMU's luks driver).
// Errors: kInvalidInput, with how to convert.
Result<void> RequireLuks1(const LuksHeader& header);

// The offset of a LUKS2 secondary header, by its magic and by its own word for where it is; nothing
// when there is none. Tells a LUKS2 whose first header is damaged. A fixed number of small reads.
// Errors: only those of the reader.
Result<std::optional<uint64_t>> FindLuks2Secondary(const RandomAccessReader& image);

}  // namespace vallum::formats
