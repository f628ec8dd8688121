// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "formats/fields.h"
#include "formats/luks.h"
#include "formats/luks2_json.h"
#include "formats/luks_checks.h"
#include "formats/reader.h"

namespace vallum::formats {
namespace {

constexpr size_t kHeaderOffsetField = 256;
constexpr size_t kChecksumOffset = 448;
constexpr size_t kChecksumFieldBytes = 64;

struct HeaderCopy {
  uint64_t size = 0;
  uint64_t sequence = 0;
  std::string label;
  std::string subsystem;
  std::string uuid;
  std::string json;
};

Result<void> CheckChecksum(Bytes& whole, uint64_t at) {
  ASSIGN_OR_RETURN(const std::string algorithm, LuksText(whole, 72, 32, "the checksum algorithm"));
  if (algorithm != "sha256") {
    return LuksRefused(fmt::format("the header at offset {} has the unknown checksum \"{}\"", at,
                                   Printable(algorithm, 40)));
  }
  Sha256Digest stored{};
  const auto field = whole.begin() + static_cast<std::ptrdiff_t>(kChecksumOffset);
  std::copy_n(field, stored.size(), stored.begin());
  std::fill_n(field, kChecksumFieldBytes, std::byte{0});  // counts as zero
  if (Sha256(whole) != stored) {
    return LuksRefused(fmt::format("the header at offset {} has a wrong checksum", at));
  }
  return Ok();
}

// "The JSON area ... The unused remainder must be filled with zeroes."
Result<std::string> JsonText(ByteView area) {
  const std::string_view text = AsText(area);
  const size_t end = text.find('\0');
  if (end == std::string_view::npos) return LuksRefused("the JSON area does not end in a NUL");
  if (text.find_first_not_of('\0', end) != std::string_view::npos) {
    return LuksRefused("the JSON area holds something after its JSON");
  }
  return std::string(text.substr(0, end));
}

// Where a copy stands is checked twice: by its own word and, of the second, by its size.
Result<void> CheckBinaryPart(ByteView head, uint64_t at) {
  const uint16_t version = U16Be(head, 6);
  if (version != 2) {
    return LuksRefused(fmt::format("the header at offset {} has version {}", at, version));
  }
  const uint64_t size = U64Be(head, 8);
  if (std::ranges::find(kLuks2HeaderSizes, size) == kLuks2HeaderSizes.end() ||
      (at != 0 && size != at)) {
    return LuksRefused(
        fmt::format("the header at offset {} has a size that is not allowed: {}", at, size));
  }
  const uint64_t offset = U64Be(head, kHeaderOffsetField);
  if (offset != at) {
    return LuksRefused(
        fmt::format("the header at offset {} says that it is at offset {}", at, offset));
  }
  return Ok();
}

Result<HeaderCopy> ReadCopy(const RandomAccessReader& image, uint64_t at, std::string_view magic) {
  if (!IsInside(at, kLuks2BinaryHeaderBytes, image.size())) {
    return LuksRefused(fmt::format("truncated: no header at offset {}", at));
  }
  ASSIGN_OR_RETURN(const Bytes head,
                   ReadBytesAt(image, at, static_cast<size_t>(kLuks2BinaryHeaderBytes)));
  if (!HasText(head, 0, magic)) {
    return LuksRefused(fmt::format("the header at offset {} has no magic", at));
  }
  RETURN_IF_ERROR(CheckBinaryPart(head, at));
  HeaderCopy copy;
  copy.size = U64Be(head, 8);
  if (!IsInside(at, copy.size, image.size())) {
    return LuksRefused(fmt::format("truncated: the header at offset {} has {} bytes, the file {}",
                                   at, copy.size, image.size()));
  }
  ASSIGN_OR_RETURN(Bytes whole, ReadBytesAt(image, at, static_cast<size_t>(copy.size)));
  RETURN_IF_ERROR(CheckChecksum(whole, at));
  copy.sequence = U64Be(head, 16);
  ASSIGN_OR_RETURN(copy.label, LuksText(head, 24, 48, "the label"));
  ASSIGN_OR_RETURN(copy.uuid, LuksText(head, 168, 40, "the UUID"));
  ASSIGN_OR_RETURN(copy.subsystem, LuksText(head, 208, 48, "the subsystem"));
  ASSIGN_OR_RETURN(copy.json,
                   JsonText(ByteView(whole).subspan(static_cast<size_t>(kLuks2BinaryHeaderBytes))));
  return copy;
}

// Without the "LUKS: " that the whole message starts with anyway.
std::string Reason(const Error& error) {
  constexpr std::string_view kPrefix = "LUKS: ";
  return error.message().starts_with(kPrefix) ? error.message().substr(kPrefix.size())
                                              : error.message();
}

struct Chosen {
  HeaderCopy copy;
  LuksHeaderCopy used = LuksHeaderCopy::kPrimary;
  std::string fact;  // empty when both copies are good and equal
};

Result<Chosen> ChooseWithPrimary(const RandomAccessReader& image, HeaderCopy primary) {
  Result<HeaderCopy> secondary = ReadCopy(image, primary.size, kLuks2SecondaryMagic);
  if (!secondary.has_value()) {
    if (secondary.error().code() != ErrorCode::kInvalidInput) return std::move(secondary).error();
    std::string fact =
        "the secondary header is damaged, the primary is used: " + Reason(secondary.error());
    return Chosen{std::move(primary), LuksHeaderCopy::kPrimary, std::move(fact)};
  }
  if (secondary->sequence > primary.sequence) {
    std::string fact = fmt::format("the secondary header is newer ({} after {}) and used",
                                   secondary->sequence, primary.sequence);
    return Chosen{*std::move(secondary), LuksHeaderCopy::kSecondary, std::move(fact)};
  }
  if (secondary->sequence < primary.sequence) {
    std::string fact = fmt::format("the primary header is newer ({} after {}) and used",
                                   primary.sequence, secondary->sequence);
    return Chosen{std::move(primary), LuksHeaderCopy::kPrimary, std::move(fact)};
  }
  if (secondary->json != primary.json || secondary->uuid != primary.uuid) {
    return LuksRefused(fmt::format("both headers have sequence {} and a good checksum, but differ",
                                   primary.sequence));
  }
  return Chosen{std::move(primary), LuksHeaderCopy::kPrimary, ""};
}

Result<Chosen> ChooseSecondary(const RandomAccessReader& image, const Error& primary) {
  ASSIGN_OR_RETURN(const std::optional<uint64_t> at, FindLuks2Secondary(image));
  if (!at.has_value()) {
    return LuksRefused(Reason(primary) + "; and there is no secondary header");
  }
  Result<HeaderCopy> secondary = ReadCopy(image, *at, kLuks2SecondaryMagic);
  if (!secondary.has_value()) {
    if (secondary.error().code() != ErrorCode::kInvalidInput) return std::move(secondary).error();
    return LuksRefused("both headers are damaged: " + Reason(primary) + "; " +
                       Reason(secondary.error()));
  }
  std::string fact = fmt::format(
      "the primary header is damaged, the secondary at offset {} is "
      "used: {}",
      *at, Reason(primary));
  return Chosen{*std::move(secondary), LuksHeaderCopy::kSecondary, std::move(fact)};
}

Result<Chosen> Choose(const RandomAccessReader& image) {
  Result<HeaderCopy> primary = ReadCopy(image, 0, kLuksMagic);
  if (primary.has_value()) return ChooseWithPrimary(image, *std::move(primary));
  if (primary.error().code() != ErrorCode::kInvalidInput) return std::move(primary).error();
  return ChooseSecondary(image, primary.error());
}

}  // namespace

Result<std::optional<uint64_t>> FindLuks2Secondary(const RandomAccessReader& image) {
  for (const uint64_t at : kLuks2HeaderSizes) {
    ASSIGN_OR_RETURN(const Bytes head, ReadUpTo(image, at, kLuks2ProbeBytes));
    if (head.size() == kLuks2ProbeBytes && HasText(head, 0, kLuks2SecondaryMagic) &&
        U64Be(head, kHeaderOffsetField) == at) {
      return std::optional<uint64_t>(at);
    }
  }
  return std::optional<uint64_t>();
}

Result<LuksHeader> ParseLuks2(const RandomAccessReader& image) {
  ASSIGN_OR_RETURN(const Chosen chosen, Choose(image));
  RETURN_IF_ERROR(CheckLuksUuid(chosen.copy.uuid));
  ASSIGN_OR_RETURN(Luks2Metadata metadata,
                   ParseLuks2Metadata(chosen.copy.json, chosen.copy.size, image.size()));
  LuksHeader h;
  h.version = 2;
  h.used = chosen.used;
  h.uuid = chosen.copy.uuid;
  h.label = chosen.copy.label;
  h.subsystem = chosen.copy.subsystem;
  h.cipher = std::move(metadata.cipher);
  h.key_bits = metadata.key_bits;
  h.sector_size = metadata.sector_size;
  h.payload_offset = metadata.payload_offset;
  h.payload_size = metadata.payload_size;
  h.key_slots = std::move(metadata.key_slots);
  if (!chosen.fact.empty()) h.facts.push_back(chosen.fact);
  DescribeLuks(h);
  for (std::string& fact : metadata.facts) h.facts.push_back(std::move(fact));
  return h;
}

}  // namespace vallum::formats
