// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"
#include "formats/reader.h"

namespace vallum::images {

// Reads a regular file through a descriptor that stays the caller's; knows holes. The size is that
// of the time it was opened.
class FdReader final : public formats::RandomAccessReader {
 public:
  // Errors: kInvalidInput (not a regular file), those of fstat(2).
  static Result<FdReader> Open(int descriptor);

  uint64_t size() const override { return size_; }
  Result<void> ReadAt(uint64_t offset, std::span<std::byte> out) const override;
  Result<std::optional<uint64_t>> NextData(uint64_t offset) const override;

 private:
  FdReader(int descriptor, uint64_t size) : descriptor_(descriptor), size_(size) {}
  int descriptor_;
  uint64_t size_;
};

}  // namespace vallum::images
