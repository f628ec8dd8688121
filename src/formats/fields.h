// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"

// Integers at fixed offsets of a structure that was read whole. An offset past the end is a bug of
// the caller, not of the input.
namespace vallum::formats {

namespace internal {
template <typename T>
constexpr T LoadBe(ByteView data, size_t offset) {
  CHECK(offset <= data.size() && sizeof(T) <= data.size() - offset);
  uint64_t value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value = value << 8U | std::to_integer<uint64_t>(data.data()[offset + i]);
  }
  return static_cast<T>(value);
}
template <typename T>
constexpr T LoadLe(ByteView data, size_t offset) {
  CHECK(offset <= data.size() && sizeof(T) <= data.size() - offset);
  uint64_t value = 0;
  for (size_t i = sizeof(T); i-- > 0;) {
    value = value << 8U | std::to_integer<uint64_t>(data.data()[offset + i]);
  }
  return static_cast<T>(value);
}
}  // namespace internal

constexpr uint8_t U8(ByteView data, size_t offset) {
  return internal::LoadLe<uint8_t>(data, offset);
}
constexpr uint16_t U16Le(ByteView data, size_t offset) {
  return internal::LoadLe<uint16_t>(data, offset);
}
constexpr uint32_t U32Le(ByteView data, size_t offset) {
  return internal::LoadLe<uint32_t>(data, offset);
}
constexpr uint64_t U64Le(ByteView data, size_t offset) {
  return internal::LoadLe<uint64_t>(data, offset);
}
constexpr uint16_t U16Be(ByteView data, size_t offset) {
  return internal::LoadBe<uint16_t>(data, offset);
}
constexpr uint32_t U32Be(ByteView data, size_t offset) {
  return internal::LoadBe<uint32_t>(data, offset);
}
constexpr uint64_t U64Be(ByteView data, size_t offset) {
  return internal::LoadBe<uint64_t>(data, offset);
}

// Whether the bytes at the offset are this text; false when they are not all there.
inline bool HasText(ByteView data, size_t offset, std::string_view text) {
  return offset <= data.size() && text.size() <= data.size() - offset &&
         AsText(data.subspan(offset, text.size())) == text;
}

}  // namespace vallum::formats
