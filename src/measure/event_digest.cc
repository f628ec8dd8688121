// SPDX-License-Identifier: Apache-2.0
#include "measure/event_digest.h"

#include <utility>

namespace vallum::measure {

Bytes EncodeVariableData(std::string_view name, const firmware::Guid& vendor, ByteView data) {
  ByteWriter out;
  out.Raw(vendor.bytes).U64Le(name.size()).U64Le(data.size());
  for (const char c : name) {
    out.U8(static_cast<uint8_t>(c)).U8(0);
  }
  return std::move(out.Raw(data)).Take();
}

Bytes VariableEventDigest(HashAlgorithm bank, std::string_view name, const firmware::Guid& vendor,
                          ByteView data) {
  return Digest(bank, EncodeVariableData(name, vendor, data));
}

Bytes SeparatorDigest(HashAlgorithm bank) { return Digest(bank, Bytes(4)); }

Bytes ErrorSeparatorDigest(HashAlgorithm bank) {
  ByteWriter one;
  one.U32Le(1);
  return Digest(bank, one.bytes());
}

Bytes ActionDigest(HashAlgorithm bank, std::string_view text) {
  return Digest(bank, AsBytes(text));
}

}  // namespace vallum::measure
