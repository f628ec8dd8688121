// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "store/store.h"

namespace vallum::store {

// What crash_writer writes and crash_test expects.
inline constexpr int kCrashThreads = 4;

inline std::string CrashLastKey(int thread) { return "last/" + std::to_string(thread); }
inline std::string CrashKey(char half, int thread, int i) {
  return std::string(1, half) + "/" + std::to_string(thread) + "/" + std::to_string(i);
}

// Two keys and a counter; the values are long enough to fill more than one page.
inline Txn CrashTxn(int thread, int i) {
  const std::string value = std::to_string(i);
  return {{},
          {Write::Put(CrashKey('a', thread, i), value + std::string(3000, 'a')),
           Write::Put(CrashKey('b', thread, i), value + std::string(3000, 'b')),
           Write::Put(CrashLastKey(thread), value)}};
}

// The bytes of one endless content from an offset.
inline Bytes CrashBytes(uint64_t offset, size_t count) {
  Bytes bytes(count);
  for (size_t i = 0; i < count; ++i) {
    const uint64_t at = offset + i;
    bytes[i] = static_cast<std::byte>((at ^ (at >> 8U) ^ (at >> 16U)) & 0xffU);
  }
  return bytes;
}

}  // namespace vallum::store
