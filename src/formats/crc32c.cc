// SPDX-License-Identifier: Apache-2.0
#include "formats/crc32c.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

#include "base/bytes.h"

namespace vallum::formats {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;  // 0x1edc6f41, reflected

constexpr std::array<uint32_t, 256> kTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < table.size(); ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1U ^ ((crc & 1U) != 0 ? kPolynomial : 0);
    table[i] = crc;
  }
  return table;
}();

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t ByInstruction(ByteView data, uint32_t crc) {
  uint64_t state = ~crc;
  size_t at = 0;
  for (; at + 8 <= data.size(); at += 8) {
    uint64_t word = 0;
    std::memcpy(&word, data.data() + at, sizeof word);
    state = _mm_crc32_u64(state, word);
  }
  auto last = static_cast<uint32_t>(state);
  for (; at < data.size(); ++at) last = _mm_crc32_u8(last, std::to_integer<uint8_t>(data[at]));
  return ~last;
}
#endif

}  // namespace

uint32_t Crc32cByTable(ByteView data, uint32_t crc) {
  crc = ~crc;
  for (const std::byte b : data) {
    crc = crc >> 8U ^ kTable[(crc ^ std::to_integer<uint32_t>(b)) & 0xffU];
  }
  return ~crc;
}

uint32_t Crc32c(ByteView data, uint32_t crc) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("sse4.2") != 0) return ByInstruction(data, crc);
#endif
  return Crc32cByTable(data, crc);
}

}  // namespace vallum::formats
