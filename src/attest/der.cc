// SPDX-License-Identifier: Apache-2.0
#include "attest/der.h"

#include <fmt/format.h>

namespace vallum::attest {
namespace {

constexpr uint8_t kLongTag = 0x1F;
constexpr uint8_t kLongLength = 0x80;
constexpr size_t kMaxLengthBytes = 4;

// Whether a number of several bytes has one that says nothing: X.690, section 8.3.2.
bool IsPadded(ByteView content) {
  if (content.size() < 2) return false;
  const auto first = std::to_integer<uint8_t>(content[0]);
  const bool negative = (std::to_integer<uint8_t>(content[1]) & 0x80U) != 0;
  return (first == 0x00 && !negative) || (first == 0xFF && negative);
}

Result<size_t> ReadLength(ByteCursor& cursor) {
  ASSIGN_OR_RETURN(const uint8_t first, cursor.ReadU8());
  if (first < kLongLength) return size_t{first};
  const size_t count = first & 0x7FU;
  if (count == 0) return InvalidInput("DER: a length that is indefinite");
  if (count > kMaxLengthBytes) return InvalidInput("DER: a length of more than four bytes");
  ASSIGN_OR_RETURN(const ByteView bytes, cursor.ReadBytes(count));
  size_t length = 0;
  for (const std::byte each : bytes) length = length << 8U | std::to_integer<size_t>(each);
  if (length < kLongLength || bytes[0] == std::byte{0}) {
    return InvalidInput("DER: a length that is not the shortest");
  }
  return length;
}

}  // namespace

bool DerReader::Sees(uint8_t tag) const { return !rest_.empty() && rest_[0] == std::byte{tag}; }

Result<DerElement> DerReader::Read() {
  ByteCursor cursor(rest_);
  ASSIGN_OR_RETURN_CONTEXT(const uint8_t tag, cursor.ReadU8(), "reading DER");
  if ((tag & kLongTag) == kLongTag) return InvalidInput("DER: a tag of more than a byte");
  ASSIGN_OR_RETURN_CONTEXT(const size_t length, ReadLength(cursor), "reading DER");
  ASSIGN_OR_RETURN_CONTEXT(const ByteView content, cursor.ReadBytes(length), "reading DER");
  const DerElement out{.tag = tag, .content = content, .whole = rest_.first(cursor.offset())};
  rest_ = cursor.Rest();
  return out;
}

Result<DerElement> DerReader::Read(uint8_t tag) {
  if (AtEnd())
    return InvalidInput(fmt::format("DER: tag {:#04x} is due, and nothing is left", tag));
  if (!Sees(tag)) {
    return InvalidInput(fmt::format("DER: tag {:#04x} is due, and {:#04x} is there", tag,
                                    std::to_integer<unsigned>(rest_[0])));
  }
  return Read();
}

Result<DerReader> DerReader::Enter(uint8_t tag) {
  ASSIGN_OR_RETURN(const DerElement element, Read(tag));
  return DerReader(element.content);
}

Result<void> DerReader::ExpectEnd() const {
  if (AtEnd()) return Ok();
  return InvalidInput(fmt::format("DER: {} bytes are left over", rest_.size()));
}

Result<std::string> OidFromDer(ByteView content) {
  if (content.size() > kMaxOidBytes) return Exhausted("DER: an object identifier is too long");
  std::string out;
  uint64_t arc = 0;
  bool inside = false;
  for (const std::byte each : content) {
    const auto value = std::to_integer<uint8_t>(each);
    if (!inside && value == 0x80) return InvalidInput("DER: an arc that is not the shortest");
    if (arc >> 56U != 0) return Exhausted("DER: an object identifier with too large an arc");
    arc = arc << 7U | (value & 0x7FU);
    inside = (value & 0x80U) != 0;
    if (inside) continue;
    if (out.empty()) {
      // X.690, section 8.19.4: the first two arcs are one number.
      const uint64_t first = arc < 80 ? arc / 40 : 2;
      out = fmt::format("{}.{}", first, arc - first * 40);
    } else {
      out += fmt::format(".{}", arc);
    }
    arc = 0;
  }
  if (out.empty() || inside) return InvalidInput("DER: no object identifier");
  return out;
}

Result<uint64_t> UnsignedFromDer(ByteView content) {
  if (content.empty() || IsPadded(content)) return InvalidInput("DER: no number");
  if ((std::to_integer<uint8_t>(content[0]) & 0x80U) != 0) {
    return InvalidInput("DER: a negative number");
  }
  if (content.size() > sizeof(uint64_t)) return InvalidInput("DER: a number that is too large");
  uint64_t out = 0;
  for (const std::byte each : content) out = out << 8U | std::to_integer<uint64_t>(each);
  return out;
}

Result<bool> BooleanFromDer(ByteView content) {
  if (content.size() != 1 || (content[0] != std::byte{0} && content[0] != std::byte{0xFF})) {
    return InvalidInput("DER: no boolean");
  }
  return content[0] != std::byte{0};
}

}  // namespace vallum::attest
