// SPDX-License-Identifier: Apache-2.0
#include "firmware/guid.h"

#include <algorithm>

namespace vallum::firmware {
namespace {

// The order in which the text form shows the stored bytes.
constexpr std::array<size_t, 16> kTextOrder = {3, 2, 1,  0,  5,  4,  7,  6,
                                               8, 9, 10, 11, 12, 13, 14, 15};
constexpr size_t kTextSize = 36;

bool HyphenBefore(size_t byte) { return byte == 4 || byte == 6 || byte == 8 || byte == 10; }

}  // namespace

std::string Guid::ToString() const {
  std::string text;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (HyphenBefore(i)) {
      text += '-';
    }
    text += ToHex(ByteView(&bytes[kTextOrder[i]], 1));
  }
  return text;
}

Result<Guid> Guid::Read(ByteCursor& cursor) {
  Guid guid;
  ASSIGN_OR_RETURN(const ByteView view, cursor.ReadBytes(guid.bytes.size()));
  std::copy(view.begin(), view.end(), guid.bytes.begin());
  return guid;
}

Result<Guid> Guid::Parse(std::string_view text) {
  const auto refuse = [] {
    return InvalidInput("not a GUID").WithFix("write 8-4-4-4-12 hexadecimal digits");
  };
  if (text.size() != kTextSize) {
    return refuse();
  }
  Guid guid;
  size_t at = 0;
  for (size_t i = 0; i < guid.bytes.size(); ++i) {
    if (HyphenBefore(i) && text[at++] != '-') {
      return refuse();
    }
    const Result<Bytes> byte = FromHex(text.substr(at, 2));
    if (!byte.has_value()) {
      return refuse();
    }
    guid.bytes[kTextOrder[i]] = byte->front();
    at += 2;
  }
  return guid;
}

}  // namespace vallum::firmware
