// SPDX-License-Identifier: Apache-2.0
#include "formats/fat_directory.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/text.h"
#include "formats/fat.h"
#include "formats/fields.h"
#include "formats/text16.h"

namespace vallum::formats {
namespace {

constexpr uint8_t kEndMark = 0x00;
constexpr uint8_t kDeletedMark = 0xe5;
constexpr uint8_t kE5Substitute = 0x05;
constexpr uint8_t kAttributeVolume = 0x08;
constexpr uint8_t kAttributeDirectory = 0x10;
constexpr uint8_t kAttributeLongName = 0x0f;
constexpr uint8_t kLastLongEntry = 0x40;
constexpr uint8_t kLowerCaseBase = 0x08;
constexpr uint8_t kLowerCaseExtension = 0x10;
constexpr size_t kUnitsPerLongEntry = 13;
constexpr std::array<size_t, kUnitsPerLongEntry> kUnitOffsets = {1,  3,  5,  7,  9,  14, 16,
                                                                 18, 20, 22, 24, 28, 30};

uint8_t ShortNameChecksum(ByteView name) {
  uint8_t sum = 0;
  for (const std::byte b : name) {
    sum = static_cast<uint8_t>((sum >> 1U | sum << 7U) + std::to_integer<uint8_t>(b));
  }
  return sum;
}

// The long name gathered so far: entries come last part first, numbered down to 1.
struct LongName {
  std::u16string text;
  uint8_t next = 0;  // number expected; 0: none under way or complete
  uint8_t checksum = 0;
  bool complete = false;

  void Add(ByteView raw) {
    const uint8_t order = U8(raw, 0);
    const auto number = static_cast<uint8_t>(order & 0x3fU);
    if ((order & kLastLongEntry) != 0) {
      *this = LongName();
      checksum = U8(raw, 13);
    } else if (number != next || U8(raw, 13) != checksum) {
      *this = LongName();
      return;
    }
    if (number == 0 || number * kUnitsPerLongEntry > kFatMaxNameUnits + kUnitsPerLongEntry) {
      *this = LongName();
      return;
    }
    std::u16string part;
    for (const size_t offset : kUnitOffsets) part += static_cast<char16_t>(U16Le(raw, offset));
    text.insert(0, part);
    next = static_cast<uint8_t>(number - 1);
    complete = next == 0;
  }

  bool Fits(ByteView short_name) const {
    return complete && ShortNameChecksum(short_name) == checksum;
  }
};

std::string ShortName(ByteView raw) {
  std::string name(AsText(raw.first(11)));
  if (U8(raw, 0) == kE5Substitute) name[0] = static_cast<char>(kDeletedMark);
  std::string base(Trim(name.substr(0, 8)));
  std::string extension(Trim(name.substr(8)));
  const uint8_t lower = U8(raw, 12);
  if ((lower & kLowerCaseBase) != 0) base = ToLower(base);
  if ((lower & kLowerCaseExtension) != 0) extension = ToLower(extension);
  return extension.empty() ? base : base + "." + extension;
}

}  // namespace

bool DirectoryEnds(ByteView raw) {
  for (size_t at = 0; at + kFatDirectoryEntrySize <= raw.size(); at += kFatDirectoryEntrySize) {
    if (U8(raw, at) == kEndMark) return true;
  }
  return false;
}

std::vector<FatEntry> ParseFatDirectory(ByteView raw) {
  std::vector<FatEntry> out;
  LongName long_name;
  for (; raw.size() >= kFatDirectoryEntrySize; raw = raw.subspan(kFatDirectoryEntrySize)) {
    const uint8_t first = U8(raw, 0);
    const uint8_t attributes = U8(raw, 11);
    if (first == kEndMark) break;
    if (first == kDeletedMark) {
      long_name = LongName();
      continue;
    }
    if ((attributes & 0x3fU) == kAttributeLongName) {
      long_name.Add(raw);
      continue;
    }
    const LongName name = std::exchange(long_name, LongName());
    if ((attributes & kAttributeVolume) != 0 || U8(raw, 0) == '.') continue;
    FatEntry entry;
    entry.name = name.Fits(raw.first(11)) ? Utf16ToUtf8(name.text) : ShortName(raw);
    entry.kind =
        (attributes & kAttributeDirectory) != 0 ? FatEntryKind::kDirectory : FatEntryKind::kFile;
    entry.first_cluster = uint32_t{U16Le(raw, 20)} << 16U | U16Le(raw, 26);
    if (entry.kind == FatEntryKind::kFile) entry.size = U32Le(raw, 28);
    out.push_back(std::move(entry));
  }
  return out;
}

}  // namespace vallum::formats
