// SPDX-License-Identifier: Apache-2.0
#include "measure/ima_log_ascii.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "base/text.h"

namespace vallum::measure {
namespace {

constexpr size_t kLengthSize = 4;
constexpr uint8_t kNoDigit = 0xff;

constexpr std::array<uint8_t, 256> kHexDigits = [] {
  std::array<uint8_t, 256> out{};
  out.fill(kNoDigit);
  for (uint8_t i = 0; i < 10; ++i) out[static_cast<size_t>('0' + i)] = i;
  for (uint8_t i = 0; i < 6; ++i) {
    out[static_cast<size_t>('a' + i)] = static_cast<uint8_t>(10 + i);
    out[static_cast<size_t>('A' + i)] = static_cast<uint8_t>(10 + i);
  }
  return out;
}();

uint8_t HexDigit(char c) { return kHexDigits[static_cast<uint8_t>(c)]; }

// The text before the first space; text becomes what comes after.
std::string_view NextToken(std::string_view& text) {
  const size_t space = std::min(text.find(' '), text.size());
  const std::string_view token = text.substr(0, space);
  text.remove_prefix(std::min(space + 1, text.size()));
  return token;
}

bool IsName(ImaField field) { return field == ImaField::kName || field == ImaField::kNameNg; }

// Divides the fields at spaces. Kernels write '_' for a space in a name; should there be spaces all
// the same, the first name takes what is more than the template has.
Result<std::vector<std::string_view>> SplitFields(const ImaFormat& format, std::string_view text,
                                                  ImaLineEnd end) {
  const size_t wanted = format.fields.size();
  const size_t have = static_cast<size_t>(std::ranges::count(text, ' ')) + 1;
  if (have < wanted && end == ImaLineEnd::kNewline) {
    return Corrupt(fmt::format("{} fields; the template {} has {}", have, format.name, wanted));
  }
  size_t surplus = have > wanted ? have - wanted : 0;
  std::vector<std::string_view> out;
  out.reserve(wanted);
  for (const ImaField field : format.fields) {
    std::string_view token = NextToken(text);
    if (IsName(field) && surplus > 0) {
      const char* const begin = token.data();
      for (; surplus > 0; --surplus) {
        token = NextToken(text);
      }
      token = {begin, static_cast<size_t>(token.data() + token.size() - begin)};
    }
    out.push_back(token);
  }
  if (surplus > 0) {
    return Corrupt(fmt::format("{} fields; the template {} has {}", have, format.name, wanted));
  }
  return out;
}

}  // namespace

Result<ImaTextLine> SplitImaLine(std::string_view line) {
  ImaTextLine out;
  std::string_view rest = line;
  if (rest.starts_with(' ')) {
    rest.remove_prefix(1);  // "%2d"
  }
  const std::string_view pcr = NextToken(rest);
  const auto [end, error] = std::from_chars(pcr.data(), pcr.data() + pcr.size(), out.pcr);
  if (error != std::errc() || end != pcr.data() + pcr.size()) {
    return Corrupt(fmt::format("'{}' is no PCR's number", Printable(pcr, 32)));
  }
  out.template_hash = NextToken(rest);
  const size_t space = rest.find(' ');
  if (space == std::string_view::npos || space == 0 || space > kMaxImaFormatName) {
    return Corrupt("no template's name and fields");
  }
  out.format = rest.substr(0, space);
  out.fields = rest.substr(space + 1);
  return out;
}

ImaTextEncoder::ImaTextEncoder(size_t text_size)
    // Hexadecimal takes twice what it says, which leaves room for the lengths of short fields.
    : piece_size_(text_size + kLengthSize) {}

void ImaTextEncoder::Reserve(size_t size) {
  if (pieces_.empty() || piece_size_ - used_ < size) {
    piece_size_ = std::max(piece_size_, size);
    pieces_.push_back(std::make_unique_for_overwrite<std::byte[]>(piece_size_));
    used_ = 0;
  }
}

void ImaTextEncoder::Put(ByteView bytes) {
  CHECK(piece_size_ - used_ >= bytes.size());
  std::ranges::copy(bytes, pieces_.back().get() + used_);
  used_ += bytes.size();
}

void ImaTextEncoder::PutLength(size_t at, size_t size) {
  for (size_t i = 0; i < kLengthSize; ++i) {
    pieces_.back()[at + i] = static_cast<std::byte>(size >> (8 * i));
  }
}

Result<void> ImaTextEncoder::PutHex(std::string_view hex) {
  if (hex.size() % 2 != 0) {
    return Corrupt("an odd number of hexadecimal digits");
  }
  CHECK(piece_size_ - used_ >= hex.size() / 2);
  std::byte* out = pieces_.back().get() + used_;
  uint8_t wrong = 0;
  for (size_t i = 0; i < hex.size(); i += 2) {
    const uint8_t high = HexDigit(hex[i]);
    const uint8_t low = HexDigit(hex[i + 1]);
    wrong = static_cast<uint8_t>(wrong | high | low);
    *out++ = static_cast<std::byte>((high << 4U) | (low & 0xfU));
  }
  if (wrong > 0xf) {
    return Corrupt(fmt::format("'{}' is not hexadecimal", Printable(hex, 32)));
  }
  used_ += hex.size() / 2;
  return Ok();
}

Result<void> ImaTextEncoder::PutNumber(std::string_view decimal, size_t size) {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(decimal.data(), decimal.data() + decimal.size(), value);
  if (error != std::errc() || end != decimal.data() + decimal.size() ||
      (size < sizeof value && (value >> (8 * size)) != 0)) {
    return Corrupt(fmt::format("'{}' is no number of {} bytes", Printable(decimal, 32), size));
  }
  for (size_t i = 0; i < size; ++i) {
    const auto byte = static_cast<std::byte>(value >> (8 * i));
    Put({&byte, 1});
  }
  return Ok();
}

// One field without its length.
Result<void> ImaTextEncoder::PutField(ImaField field, std::string_view token) {
  constexpr std::byte kZero{0};
  constexpr size_t kIdSize = 4;
  constexpr size_t kModeSize = 2;
  switch (field) {
    case ImaField::kDigest:
    case ImaField::kSignature:
    case ImaField::kBuffer:
    case ImaField::kModsig:
    case ImaField::kEvmSignature:
    case ImaField::kXattrLengths:
    case ImaField::kXattrValues:
      return PutHex(token);
    case ImaField::kDigestNg:
    case ImaField::kDigestNgv2:
    case ImaField::kModsigDigest: {
      if (token.empty()) {
        return Ok();
      }
      const size_t colon = token.rfind(':');
      if (colon == std::string_view::npos) {
        return Corrupt("a digest without the name of its algorithm");
      }
      Put(AsBytes(token.substr(0, colon + 1)));
      Put({&kZero, 1});
      return PutHex(token.substr(colon + 1));
    }
    case ImaField::kXattrNames:
      if (token.empty()) {
        return Ok();
      }
      [[fallthrough]];
    case ImaField::kName:
    case ImaField::kNameNg:
      Put(AsBytes(token));
      Put({&kZero, 1});
      return Ok();
    case ImaField::kUid:
    case ImaField::kGid:
      return PutNumber(token, kIdSize);
    case ImaField::kMode:
      return PutNumber(token, kModeSize);
  }
  return Internal("a field that is none");
}

Result<ByteView> ImaTextEncoder::EncodeHash(std::string_view hex) {
  Reserve(hex.size());
  const size_t begin = used_;
  RETURN_IF_ERROR(PutHex(hex));
  return ByteView(pieces_.back().get() + begin, used_ - begin);
}

Result<ByteView> ImaTextEncoder::EncodeData(const ImaFormat& format, std::string_view fields,
                                            ImaLineEnd end) {
  ASSIGN_OR_RETURN(const auto tokens, SplitFields(format, fields, end));
  // Each field grows by its length and a zero; a number takes at most four bytes.
  constexpr size_t kGrowth = kLengthSize + 1 + sizeof(uint32_t);
  Reserve(fields.size() + kGrowth * tokens.size());
  const size_t begin = used_;
  if (format.is_ima) {
    // No length before the digest, no zero after the name.
    RETURN_IF_ERROR(PutHex(tokens[0]));
    used_ += kLengthSize;
    PutLength(used_ - kLengthSize, tokens[1].size());
    Put(AsBytes(tokens[1]));
    return ByteView(pieces_.back().get() + begin, used_ - begin);
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    const size_t at = used_;
    used_ += kLengthSize;
    RETURN_IF_ERROR(PutField(format.fields[i], tokens[i]));
    PutLength(at, used_ - at - kLengthSize);
  }
  return ByteView(pieces_.back().get() + begin, used_ - begin);
}

}  // namespace vallum::measure
