// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/qcow2.h"
#include "formats/reader.h"

namespace vallum::formats {

// The guest's disk inside a qcow2 that names no backing file: maps guest offsets through L1 and L2;
// unallocated clusters read as zeroes, or as those of the disk that it was laid over. Keeps a piece
// of the L1 table, one L2 table and one decompressed cluster. The image must outlive it. Not
// thread-safe.
class Qcow2Disk final : public RandomAccessReader {
 public:
  // Parses and validates the header (not all tables: see CheckQcow2Tables; offsets are checked
  // again as they are used).
  static Result<Qcow2Disk> Open(const RandomAccessReader& image);
  // For a header that was parsed and validated already.
  Qcow2Disk(const RandomAccessReader& image, const Qcow2Header& header)
      : image_(&image), header_(header) {}
  // The same for one that was laid over another disk, without naming it, as instances' disks are.
  //   base: the disk below; outlives this one. Past its end everything is zeroes.
  // Errors: kInvalidInput (extended L2 entries, which no overlay of ours has).
  static Result<Qcow2Disk> Over(const RandomAccessReader& base, const RandomAccessReader& image,
                                const Qcow2Header& header);

  uint64_t size() const override { return header_.virtual_size; }
  Result<void> ReadAt(uint64_t offset, std::span<std::byte> out) const override;
  // Skips clusters that are not allocated or marked as zeroes, whole; reads tables only, and no L2
  // table where the L1 table names none.
  Result<std::optional<uint64_t>> NextData(uint64_t offset) const override;

 private:
  static constexpr uint64_t kNothing = ~uint64_t{0};
  struct Entry {
    uint64_t descriptor = 0;
    uint64_t subclusters = 0;  // extended L2 only
  };
  Result<Entry> Lookup(uint64_t offset) const;
  bool HoldsData(const Entry& entry) const;
  // Whether the disk below is what the guest sees there.
  bool ShowsBase(const Entry& entry) const;
  Result<void> ReadBase(uint64_t offset, std::span<std::byte> out) const;
  // The first offset in [offset, end) where the disk below may hold data.
  Result<std::optional<uint64_t>> NextInBase(uint64_t offset, uint64_t end) const;
  // The offset of an L2 table, or 0.
  Result<uint64_t> L2Table(uint64_t l1_index) const;
  Result<void> LoadL2(uint64_t l1_index) const;
  Result<void> ReadCluster(uint64_t offset, std::span<std::byte> out) const;
  Result<void> ReadSubclusters(const Entry& entry, uint64_t in_cluster,
                               std::span<std::byte> out) const;
  Result<void> ReadCompressed(uint64_t descriptor, uint64_t in_cluster,
                              std::span<std::byte> out) const;

  const RandomAccessReader* image_;
  const RandomAccessReader* base_ = nullptr;  // nullptr: zeroes
  Qcow2Header header_;
  mutable uint64_t l1_loaded_ = kNothing;  // index of the first entry in l1_
  mutable Bytes l1_;
  mutable uint64_t l2_loaded_ = kNothing;  // L1 index
  mutable Bytes l2_;                       // empty: no table, all zeroes
  mutable uint64_t decompressed_ = kNothing;
  mutable Bytes cluster_;
};

}  // namespace vallum::formats
