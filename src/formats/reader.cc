// SPDX-License-Identifier: Apache-2.0
#include "formats/reader.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"

namespace vallum::formats {

Error PastTheEnd(uint64_t offset, uint64_t count, uint64_t size) {
  return InvalidInput("truncated: " + std::to_string(count) + " bytes wanted at offset " +
                      std::to_string(offset) + ", but only " + std::to_string(size) +
                      " bytes are there");
}

Result<std::optional<uint64_t>> RandomAccessReader::NextData(uint64_t offset) const {
  if (offset >= size()) return std::optional<uint64_t>();
  return std::optional<uint64_t>(offset);
}

Result<void> MemoryReader::ReadAt(uint64_t offset, std::span<std::byte> out) const {
  if (!IsInside(offset, out.size(), data_.size())) {
    return PastTheEnd(offset, out.size(), data_.size());
  }
  if (!out.empty()) std::memcpy(out.data(), data_.data() + offset, out.size());
  return Ok();
}

Result<WindowReader> WindowReader::Create(const RandomAccessReader& whole, uint64_t offset,
                                          uint64_t size) {
  if (!IsInside(offset, size, whole.size())) return PastTheEnd(offset, size, whole.size());
  return WindowReader(whole, offset, size);
}

Result<void> WindowReader::ReadAt(uint64_t offset, std::span<std::byte> out) const {
  if (!IsInside(offset, out.size(), size_)) return PastTheEnd(offset, out.size(), size_);
  return whole_->ReadAt(offset_ + offset, out);
}

Result<std::optional<uint64_t>> WindowReader::NextData(uint64_t offset) const {
  if (offset >= size_) return std::optional<uint64_t>();
  ASSIGN_OR_RETURN(const std::optional<uint64_t> next, whole_->NextData(offset_ + offset));
  if (!next.has_value() || *next - offset_ >= size_) return std::optional<uint64_t>();
  return std::optional(*next - offset_);
}

Result<Bytes> ReadBytesAt(const RandomAccessReader& reader, uint64_t offset, size_t count) {
  if (!IsInside(offset, count, reader.size())) return PastTheEnd(offset, count, reader.size());
  Bytes out(count);
  RETURN_IF_ERROR(reader.ReadAt(offset, out));
  return out;
}

Result<Bytes> ReadUpTo(const RandomAccessReader& reader, uint64_t offset, size_t count) {
  if (offset >= reader.size()) return Bytes();
  return ReadBytesAt(reader, offset,
                     static_cast<size_t>(std::min<uint64_t>(count, reader.size() - offset)));
}

}  // namespace vallum::formats
