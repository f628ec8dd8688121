// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

// What OpenSSL has no types for, such as attribute certificates, is read here.
namespace vallum::attest {

// Tags of X.690, as their one byte.
namespace der {
inline constexpr uint8_t kBoolean = 0x01;
inline constexpr uint8_t kInteger = 0x02;
inline constexpr uint8_t kBitString = 0x03;
inline constexpr uint8_t kOctetString = 0x04;
inline constexpr uint8_t kOid = 0x06;
inline constexpr uint8_t kEnumerated = 0x0A;
inline constexpr uint8_t kUtf8String = 0x0C;
inline constexpr uint8_t kPrintableString = 0x13;
inline constexpr uint8_t kIa5String = 0x16;
inline constexpr uint8_t kGeneralizedTime = 0x18;
inline constexpr uint8_t kSequence = 0x30;
inline constexpr uint8_t kSet = 0x31;
constexpr uint8_t Context(uint8_t number) { return 0x80U | number; }    // of a primitive
constexpr uint8_t ContextOf(uint8_t number) { return 0xA0U | number; }  // of something made up
}  // namespace der

// Longer ones are refused, before anything is made of them.
inline constexpr size_t kMaxOidBytes = 64;

struct DerElement {
  uint8_t tag = 0;
  ByteView content;
  ByteView whole;  // with tag and length
};

// Reads elements of DER from front to back: each read succeeds whole, or fails and leaves the
// reader where it was. Views are into the bytes, which it does not own. Not thread-safe.
//   Errors of all reads: kInvalidInput (truncated, another tag, a length that is not the shortest
//   or is indefinite, a tag of more than a byte).
// Source: ITU-T X.690, sections 8 and 10.1.
class DerReader {
 public:
  explicit DerReader(ByteView bytes) : rest_(bytes) {}

  bool AtEnd() const { return rest_.empty(); }
  // Whether the next element has the tag.
  bool Sees(uint8_t tag) const;
  Result<DerElement> Read();
  Result<DerElement> Read(uint8_t tag);
  // A reader of what the next element holds.
  Result<DerReader> Enter(uint8_t tag);
  // Errors: kInvalidInput (something is left).
  Result<void> ExpectEnd() const;

 private:
  ByteView rest_;
};

// "2.23.133.8.1". Errors: kInvalidInput (no object identifier); kExhausted (above kMaxOidBytes, or
// an arc of more than 63 bits).
Result<std::string> OidFromDer(ByteView content);
// Of an INTEGER or ENUMERATED from 0 to 2^63 - 1. Errors: kInvalidInput.
Result<uint64_t> UnsignedFromDer(ByteView content);
// Errors: kInvalidInput (neither 0x00 nor 0xFF).
Result<bool> BooleanFromDer(ByteView content);

}  // namespace vallum::attest
