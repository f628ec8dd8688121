// SPDX-License-Identifier: Apache-2.0
#include "base/bytes.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/result.h"

namespace vallum {
namespace {

constexpr std::string_view kHexDigits = "0123456789abcdef";
constexpr std::string_view kBase64 =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr std::string_view kBase64Url =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

int Base64Value(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+' || c == '-') return 62;
  if (c == '/' || c == '_') return 63;
  return -1;
}

std::string EncodeBase64(ByteView bytes, std::string_view alphabet, bool pad) {
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t n = std::min<size_t>(3, bytes.size() - i);
    uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k) {
      group = group << 8 | (k < n ? std::to_integer<uint32_t>(bytes[i + k]) : 0U);
    }
    for (size_t k = 0; k < 4; ++k) {
      if (k <= n) {
        out += alphabet[group >> (18 - 6 * k) & 63U];
      } else if (pad) {
        out += '=';
      }
    }
  }
  return out;
}

}  // namespace

ByteView AsBytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string_view AsText(ByteView bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Bytes ToBytes(ByteView bytes) { return {bytes.begin(), bytes.end()}; }

std::string ToHex(ByteView bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const std::byte b : bytes) {
    out += kHexDigits[std::to_integer<size_t>(b) >> 4U];
    out += kHexDigits[std::to_integer<size_t>(b) & 15U];
  }
  return out;
}

Result<Bytes> FromHex(std::string_view hex) {
  if (hex.size() % 2 != 0) {
    return InvalidInput("hexadecimal text has an odd number of digits (" +
                        std::to_string(hex.size()) + ")");
  }
  Bytes out;
  out.reserve(hex.size() / 2);
  for (size_t i = 0; i < hex.size(); i += 2) {
    const int high = HexValue(hex[i]);
    const int low = HexValue(hex[i + 1]);
    if (high < 0 || low < 0) {
      return InvalidInput("not a hexadecimal digit at position " +
                          std::to_string(high < 0 ? i : i + 1));
    }
    out.push_back(static_cast<std::byte>(high << 4 | low));
  }
  return out;
}

std::string ToBase64(ByteView bytes) { return EncodeBase64(bytes, kBase64, true); }
std::string ToBase64Url(ByteView bytes) { return EncodeBase64(bytes, kBase64Url, false); }

Result<Bytes> FromBase64(std::string_view text) {
  while (!text.empty() && text.back() == '=') text.remove_suffix(1);
  if (text.size() % 4 == 1) return InvalidInput("base64 text ends in the middle of a byte");
  Bytes out;
  out.reserve(text.size() * 3 / 4);
  uint32_t group = 0;
  unsigned bits = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const int value = Base64Value(text[i]);
    if (value < 0) return InvalidInput("not a base64 character at position " + std::to_string(i));
    group = group << 6 | static_cast<uint32_t>(value);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      out.push_back(static_cast<std::byte>(group >> bits & 0xffU));
    }
  }
  return out;
}

template <typename T>
Result<T> ByteCursor::ReadInteger(bool big_endian) {
  ASSIGN_OR_RETURN(const ByteView raw, ReadBytes(sizeof(T)));
  uint64_t value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    const size_t at = big_endian ? i : sizeof(T) - 1 - i;
    value = value << 8 | std::to_integer<uint64_t>(raw[at]);
  }
  return static_cast<T>(value);
}

Result<uint8_t> ByteCursor::ReadU8() { return ReadInteger<uint8_t>(false); }
Result<uint16_t> ByteCursor::ReadU16Le() { return ReadInteger<uint16_t>(false); }
Result<uint32_t> ByteCursor::ReadU32Le() { return ReadInteger<uint32_t>(false); }
Result<uint64_t> ByteCursor::ReadU64Le() { return ReadInteger<uint64_t>(false); }
Result<uint16_t> ByteCursor::ReadU16Be() { return ReadInteger<uint16_t>(true); }
Result<uint32_t> ByteCursor::ReadU32Be() { return ReadInteger<uint32_t>(true); }
Result<uint64_t> ByteCursor::ReadU64Be() { return ReadInteger<uint64_t>(true); }

Result<ByteView> ByteCursor::ReadBytes(size_t count) {
  if (count > remaining()) {
    return InvalidInput("truncated: " + std::to_string(count) + " bytes wanted at offset " +
                        std::to_string(offset_) + ", " + std::to_string(remaining()) + " left");
  }
  const ByteView view = data_.subspan(offset_, count);
  offset_ += count;
  return view;
}

Result<void> ByteCursor::Skip(size_t count) {
  RETURN_IF_ERROR(ReadBytes(count));
  return Ok();
}

Result<void> ByteCursor::Seek(size_t offset) {
  if (offset > data_.size()) {
    return InvalidInput("offset " + std::to_string(offset) + " is past the end at " +
                        std::to_string(data_.size()));
  }
  offset_ = offset;
  return Ok();
}

template <typename T>
ByteWriter& ByteWriter::Integer(T value, bool big_endian) {
  for (size_t i = 0; i < sizeof(T); ++i) {
    const size_t shift = 8 * (big_endian ? sizeof(T) - 1 - i : i);
    out_.push_back(static_cast<std::byte>(static_cast<uint64_t>(value) >> shift & 0xffU));
  }
  return *this;
}

ByteWriter& ByteWriter::U8(uint8_t value) { return Integer(value, false); }
ByteWriter& ByteWriter::U16Le(uint16_t value) { return Integer(value, false); }
ByteWriter& ByteWriter::U32Le(uint32_t value) { return Integer(value, false); }
ByteWriter& ByteWriter::U64Le(uint64_t value) { return Integer(value, false); }
ByteWriter& ByteWriter::U16Be(uint16_t value) { return Integer(value, true); }
ByteWriter& ByteWriter::U32Be(uint32_t value) { return Integer(value, true); }
ByteWriter& ByteWriter::U64Be(uint64_t value) { return Integer(value, true); }

ByteWriter& ByteWriter::Raw(ByteView bytes) {
  out_.insert(out_.end(), bytes.begin(), bytes.end());
  return *this;
}

ByteWriter& ByteWriter::Zeros(size_t count) {
  out_.resize(out_.size() + count);
  return *this;
}

}  // namespace vallum
