// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"

namespace vallum::formats {

// The bytes of an image, a partition or a guest's disk, read at any offset. Untrusted content.
// Implementations need not be thread-safe.
class RandomAccessReader {
 public:
  virtual ~RandomAccessReader() = default;

  virtual uint64_t size() const = 0;

  // Fills all of `out` from the offset.
  // Errors: kInvalidInput (any byte lies past the end: "truncated"), else what the source says.
  virtual Result<void> ReadAt(uint64_t offset, std::span<std::byte> out) const = 0;

  // The first offset >= `offset` that may hold something else than zeroes, or nothing when only a
  // hole follows. The base version knows of no holes.
  virtual Result<std::optional<uint64_t>> NextData(uint64_t offset) const;
};

// Reads from memory that somebody else keeps.
class MemoryReader final : public RandomAccessReader {
 public:
  explicit MemoryReader(ByteView data) : data_(data) {}
  uint64_t size() const override { return data_.size(); }
  Result<void> ReadAt(uint64_t offset, std::span<std::byte> out) const override;

 private:
  ByteView data_;
};

// A part of another reader, such as a partition. The other reader must outlive it.
class WindowReader final : public RandomAccessReader {
 public:
  // Errors: kInvalidInput (the part is not inside).
  static Result<WindowReader> Create(const RandomAccessReader& whole, uint64_t offset,
                                     uint64_t size);
  uint64_t size() const override { return size_; }
  Result<void> ReadAt(uint64_t offset, std::span<std::byte> out) const override;
  Result<std::optional<uint64_t>> NextData(uint64_t offset) const override;

 private:
  WindowReader(const RandomAccessReader& whole, uint64_t offset, uint64_t size)
      : whole_(&whole), offset_(offset), size_(size) {}
  const RandomAccessReader* whole_;
  uint64_t offset_;
  uint64_t size_;
};

// Whether [offset, offset + count) lies inside [0, size); never overflows.
constexpr bool IsInside(uint64_t offset, uint64_t count, uint64_t size) {
  return offset <= size && count <= size - offset;
}

// What a ReadAt says that goes past the end of `size` bytes.
Error PastTheEnd(uint64_t offset, uint64_t count, uint64_t size);

// Reads `count` bytes. The caller has bounded count by a constant of the format; it is compared
// with the reader's size before anything is allocated.
Result<Bytes> ReadBytesAt(const RandomAccessReader& reader, uint64_t offset, size_t count);

// Like ReadBytesAt, but gives what there is when the end comes first.
Result<Bytes> ReadUpTo(const RandomAccessReader& reader, uint64_t offset, size_t count);

}  // namespace vallum::formats
