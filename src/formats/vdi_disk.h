// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/reader.h"
#include "formats/vdi.h"

namespace vallum::formats {

// The guest's disk inside a VDI: blocks that the file does not hold read as zeroes. Keeps one piece
// of the block map. The file must outlive it. Not thread-safe.
class VdiDisk final : public RandomAccessReader {
 public:
  // Errors: those of ParseVdi.
  static Result<VdiDisk> Open(const RandomAccessReader& file);
  // For an image that ParseVdi accepted.
  VdiDisk(const RandomAccessReader& file, const VdiImage& image) : file_(&file), image_(image) {}

  uint64_t size() const override { return image_.virtual_size; }
  Result<void> ReadAt(uint64_t offset, std::span<std::byte> out) const override;
  Result<std::optional<uint64_t>> NextData(uint64_t offset) const override;

 private:
  static constexpr uint64_t kNothing = ~uint64_t{0};
  // Where a block stands in the file; nothing when it does not.
  Result<std::optional<uint64_t>> Lookup(uint64_t block) const;

  const RandomAccessReader* file_;
  VdiImage image_;
  mutable uint64_t piece_loaded_ = kNothing;
  mutable Bytes piece_;
};

}  // namespace vallum::formats
