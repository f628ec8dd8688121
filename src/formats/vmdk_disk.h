// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/reader.h"
#include "formats/vmdk.h"

namespace vallum::formats {

// The guest's disk inside a VMDK that is one file: grains that hold nothing read as zeroes. Keeps
// one grain table and one decompressed grain. The file must outlive it. Not thread-safe.
class VmdkDisk final : public RandomAccessReader {
 public:
  // Errors: those of ParseVmdk.
  static Result<VmdkDisk> Open(const RandomAccessReader& file);
  // For an image that ParseVmdk accepted.
  VmdkDisk(const RandomAccessReader& file, VmdkImage image)
      : file_(&file), image_(std::move(image)) {}

  uint64_t size() const override { return image_.virtual_size; }
  Result<void> ReadAt(uint64_t offset, std::span<std::byte> out) const override;
  // Skips grains that hold nothing; a table without data costs no reading.
  Result<std::optional<uint64_t>> NextData(uint64_t offset) const override;

 private:
  static constexpr uint64_t kNothing = ~uint64_t{0};
  // The sector of a grain, or 0 when it holds nothing.
  Result<uint32_t> Lookup(uint64_t grain) const;
  Result<void> LoadCompressed(uint32_t sector, uint64_t grain) const;

  const RandomAccessReader* file_;
  VmdkImage image_;
  mutable uint64_t table_loaded_ = kNothing;
  mutable Bytes table_;
  mutable uint64_t decompressed_ = kNothing;  // number of the grain
  mutable Bytes grain_;
};

}  // namespace vallum::formats
