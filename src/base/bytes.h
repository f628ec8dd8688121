// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace vallum {

using Bytes = std::vector<std::byte>;
using ByteView = std::span<const std::byte>;

ByteView AsBytes(std::string_view text);
std::string_view AsText(ByteView bytes);
Bytes ToBytes(ByteView bytes);

// Lower-case hexadecimal, two digits a byte.
std::string ToHex(ByteView bytes);
// Errors: kInvalidInput (odd length, a character that is no hexadecimal digit).
Result<Bytes> FromHex(std::string_view hex);
// RFC 4648 section 4, padded, one line.
std::string ToBase64(ByteView bytes);
// RFC 4648 section 5, no padding: safe in URLs, file names and headers.
std::string ToBase64Url(ByteView bytes);
// Accepts either alphabet, with or without padding. Errors: kInvalidInput.
Result<Bytes> FromBase64(std::string_view text);

// Reads untrusted bytes from front to back: each read succeeds whole, or fails and leaves the
// cursor where it was. Does not own the bytes. Not thread-safe.
class ByteCursor {
 public:
  explicit ByteCursor(ByteView data) : data_(data) {}

  size_t offset() const { return offset_; }
  size_t remaining() const { return data_.size() - offset_; }
  bool AtEnd() const { return remaining() == 0; }
  ByteView Rest() const { return data_.subspan(offset_); }

  // Errors of all reads: kInvalidInput "truncated", naming the offset and how many bytes were
  // wanted.
  Result<uint8_t> ReadU8();
  Result<uint16_t> ReadU16Le();
  Result<uint32_t> ReadU32Le();
  Result<uint64_t> ReadU64Le();
  Result<uint16_t> ReadU16Be();
  Result<uint32_t> ReadU32Be();
  Result<uint64_t> ReadU64Be();
  // A view into the input; valid as long as the input.
  Result<ByteView> ReadBytes(size_t count);
  Result<void> Skip(size_t count);
  // Moves to an absolute offset. Errors: kInvalidInput (past the end).
  Result<void> Seek(size_t offset);

 private:
  template <typename T>
  Result<T> ReadInteger(bool big_endian);

  ByteView data_;
  size_t offset_ = 0;
};

// Appends integers and bytes to a buffer, in the byte order named.
class ByteWriter {
 public:
  ByteWriter& U8(uint8_t value);
  ByteWriter& U16Le(uint16_t value);
  ByteWriter& U32Le(uint32_t value);
  ByteWriter& U64Le(uint64_t value);
  ByteWriter& U16Be(uint16_t value);
  ByteWriter& U32Be(uint32_t value);
  ByteWriter& U64Be(uint64_t value);
  ByteWriter& Raw(ByteView bytes);
  ByteWriter& Zeros(size_t count);

  size_t size() const { return out_.size(); }
  const Bytes& bytes() const { return out_; }
  Bytes Take() && { return std::move(out_); }

 private:
  template <typename T>
  ByteWriter& Integer(T value, bool big_endian);
  Bytes out_;
};

}  // namespace vallum
