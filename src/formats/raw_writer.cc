// SPDX-License-Identifier: Apache-2.0
#include "formats/raw_writer.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/byte_sink.h"
#include "formats/reader.h"

namespace vallum::formats {
namespace {

constexpr uint64_t kPiece = uint64_t{1} << 20U;

}  // namespace

Result<void> WriteRaw(const RandomAccessReader& disk, ByteSink& out) {
  const Bytes zeroes(kPiece);
  Bytes buffer(kPiece);
  uint64_t offset = 0;
  while (offset < disk.size()) {
    ASSIGN_OR_RETURN(const std::optional<uint64_t> next, disk.NextData(offset));
    const uint64_t data = std::min(next.value_or(disk.size()), disk.size());
    for (; offset < data; offset += std::min(kPiece, data - offset)) {
      const auto count = static_cast<size_t>(std::min(kPiece, data - offset));
      RETURN_IF_ERROR(out.Write(ByteView(zeroes).first(count)));
    }
    const auto piece =
        std::span(buffer).first(static_cast<size_t>(std::min(kPiece, disk.size() - data)));
    if (piece.empty()) break;
    RETURN_IF_ERROR(disk.ReadAt(data, piece));
    RETURN_IF_ERROR(out.Write(piece));
    offset = data + piece.size();
  }
  return Ok();
}

}  // namespace vallum::formats
