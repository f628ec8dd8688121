// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/fields.h"
#include "formats/qcow2.h"
#include "formats/qcow2_entries.h"
#include "formats/reader.h"

namespace vallum::formats {
namespace {

constexpr size_t kChunkBytes = 64 * 1024;

Error Inconsistent(std::string message) {
  return InvalidInput("qcow2: inconsistent: " + std::move(message))
      .WithFix("check it where it came from: qemu-img check <image>");
}

class TableWalker {
 public:
  TableWalker(const RandomAccessReader& image, const Qcow2Header& header)
      : image_(image), h_(header), file_size_(image.size()) {}

  Result<Qcow2Usage> Walk() {
    const uint64_t clusters = file_size_ / h_.cluster_size() + 1;
    if (clusters > kQcow2MaxFileClusters) {
      return Inconsistent(
          fmt::format("the file has {} clusters of {} bytes, more than {} are not "
                      "accepted",
                      clusters, h_.cluster_size(), kQcow2MaxFileClusters));
    }
    taken_.assign(static_cast<size_t>(clusters), false);
    RETURN_IF_ERROR(Take("header", 0, 1));
    RETURN_IF_ERROR(Take("L1 table", h_.l1_table_offset, uint64_t{h_.l1_size} * 8));
    RETURN_IF_ERROR(Take("refcount table", h_.refcount_table_offset,
                         h_.refcount_table_clusters * h_.cluster_size()));
    RETURN_IF_ERROR(WalkRefcountTable());
    RETURN_IF_ERROR(WalkL1());
    for (const auto& [index, offset] : l2_tables_) {
      RETURN_IF_ERROR(WalkL2(index, offset));
    }
    return usage_;
  }

 private:
  // Claims the clusters of a table.
  Result<void> Take(std::string_view what, uint64_t offset, uint64_t bytes) {
    if (offset % h_.cluster_size() != 0) {
      return Inconsistent(fmt::format("the {} at offset {} is not aligned to clusters of {}", what,
                                      offset, h_.cluster_size()));
    }
    if (!IsInside(offset, bytes, file_size_)) {
      return Inconsistent(
          fmt::format("truncated: the {} at offset {} is not inside the file of {} "
                      "bytes",
                      what, offset, file_size_));
    }
    for (uint64_t at = offset; at < offset + bytes; at += h_.cluster_size()) {
      const auto cluster = static_cast<size_t>(at >> h_.cluster_bits);
      if (taken_[cluster]) {
        return Inconsistent(fmt::format("the {} overlaps another table at offset {}", what, at));
      }
      taken_[cluster] = true;
    }
    return Ok();
  }

  // Calls visit(index, chunk) for the table's bytes, piece by piece.
  template <typename Visit>
  Result<void> ForEachChunk(uint64_t offset, uint64_t bytes, Visit visit) {
    for (uint64_t done = 0; done < bytes; done += kChunkBytes) {
      const auto count = static_cast<size_t>(std::min<uint64_t>(kChunkBytes, bytes - done));
      chunk_.resize(count);
      RETURN_IF_ERROR(image_.ReadAt(offset + done, chunk_));
      RETURN_IF_ERROR(visit(done, ByteView(chunk_)));
    }
    return Ok();
  }

  // Only the entries that cover the file: a reader of the image needs no others.
  Result<void> WalkRefcountTable() {
    const uint64_t refcounts_per_block = (h_.cluster_size() * 8) >> h_.refcount_order;
    const uint64_t blocks = (taken_.size() + refcounts_per_block - 1) / refcounts_per_block;
    const uint64_t bytes = std::min(blocks * 8, h_.refcount_table_clusters * h_.cluster_size());
    return ForEachChunk(h_.refcount_table_offset, bytes,
                        [&](uint64_t, ByteView chunk) -> Result<void> {
                          for (size_t i = 0; i + 8 <= chunk.size(); i += 8) {
                            const uint64_t block = U64Be(chunk, i);
                            if (block == 0) continue;
                            RETURN_IF_ERROR(Take("refcount block", block, h_.cluster_size()));
                          }
                          return Ok();
                        });
  }

  Result<void> WalkL1() {
    return ForEachChunk(h_.l1_table_offset, uint64_t{h_.l1_size} * 8,
                        [&](uint64_t done, ByteView chunk) -> Result<void> {
                          for (size_t i = 0; i + 8 <= chunk.size(); i += 8) {
                            const uint64_t entry = U64Be(chunk, i);
                            if (entry == 0) continue;
                            const uint64_t index = (done + i) / 8;
                            if ((entry & kL1Reserved) != 0) {
                              return Inconsistent(fmt::format(
                                  "L1 entry {} has reserved bits: {:#x}", index, entry));
                            }
                            const uint64_t offset = entry & kQcow2OffsetMask;
                            if (offset == 0) continue;
                            RETURN_IF_ERROR(Take("L2 table", offset, h_.cluster_size()));
                            l2_tables_.emplace_back(index, offset);
                          }
                          return Ok();
                        });
  }

  Result<void> WalkL2(uint64_t l1_index, uint64_t table) {
    l2_bytes_read_ += h_.cluster_size();
    if (l2_bytes_read_ > kQcow2MaxL2BytesRead) {
      return InvalidInput(fmt::format("qcow2: more than {} MiB of L2 tables are not accepted",
                                      kQcow2MaxL2BytesRead >> 20U))
          .WithFix("convert it with larger clusters: qemu-img convert -O qcow2 -o cluster_size=2M");
    }
    ++usage_.l2_tables;
    const uint64_t entry_size = h_.l2_entry_size();
    return ForEachChunk(
        table, h_.cluster_size(), [&](uint64_t done, ByteView chunk) -> Result<void> {
          for (size_t i = 0; i + entry_size <= chunk.size(); i += entry_size) {
            const uint64_t entry = U64Be(chunk, i);
            const uint64_t bitmap = entry_size == 16 ? U64Be(chunk, i + 8) : 0;
            if ((entry | bitmap) == 0) continue;
            const uint64_t guest = (l1_index * h_.l2_entries() + (done + i) / entry_size)
                                   << h_.cluster_bits;
            RETURN_IF_ERROR(CheckEntry(entry, bitmap, guest));
          }
          return Ok();
        });
  }

  Result<void> CheckEntry(uint64_t entry, uint64_t bitmap, uint64_t guest) {
    if ((entry & kL2Compressed) != 0) {
      ++usage_.compressed_clusters;
      return CheckCompressed(entry, bitmap, guest);
    }
    const bool zero_flag_known = h_.version == 3 && h_.l2_entry_size() == 8;
    const uint64_t reserved = kL2Reserved | (zero_flag_known ? 0 : kL2Zero);
    // Extended L2: a subcluster cannot be both allocated and zero.
    if ((entry & reserved) != 0 || (bitmap >> 32U & bitmap & 0xffffffffU) != 0) {
      return Inconsistent(
          fmt::format("the L2 entry for guest offset {} has reserved bits: {:#x}", guest, entry));
    }
    const uint64_t offset = entry & kQcow2OffsetMask;
    if (offset == 0) {
      if ((bitmap & 0xffffffffU) != 0) {
        return Inconsistent(fmt::format("subclusters without a cluster at guest offset {}", guest));
      }
      ++usage_.zero_clusters;
      return Ok();
    }
    ++usage_.data_clusters;
    return CheckData(offset, bitmap, guest);
  }

  // How much of a cluster must be in the file: up to its last allocated subcluster, and not past
  // the end of the disk; qemu writes no more than that at the end of a file.
  uint64_t WantedBytes(uint64_t bitmap, uint64_t guest) const {
    uint64_t wanted = h_.cluster_size();
    if (h_.l2_entry_size() == 16) {
      const auto used = static_cast<uint32_t>(bitmap);
      wanted = wanted / 32 * (32 - static_cast<uint64_t>(std::countl_zero(used)));
    }
    return guest < h_.virtual_size ? std::min(wanted, h_.virtual_size - guest) : 0;
  }

  Result<void> CheckData(uint64_t offset, uint64_t bitmap, uint64_t guest) const {
    const uint64_t wanted = std::max<uint64_t>(1, WantedBytes(bitmap, guest));
    if (offset % h_.cluster_size() != 0 || !IsInside(offset, wanted, file_size_)) {
      return Inconsistent(
          fmt::format("truncated or misplaced: guest offset {} is kept at offset {} "
                      "of a file of {} bytes",
                      guest, offset, file_size_));
    }
    if (taken_[static_cast<size_t>(offset >> h_.cluster_bits)]) {
      return Inconsistent(
          fmt::format("guest offset {} is kept in a table, at offset {}", guest, offset));
    }
    return Ok();
  }

  Result<void> CheckCompressed(uint64_t entry, uint64_t bitmap, uint64_t guest) const {
    const Qcow2CompressedRange range = CompressedRange(entry, h_.cluster_bits);
    // Written in sectors of 512, of which the last may be cut by the end of the file.
    const uint64_t readable = file_size_ + (512 - file_size_ % 512) % 512;
    if (bitmap != 0 || range.offset >= file_size_ ||
        !IsInside(range.offset, range.bytes, readable)) {
      return Inconsistent(
          fmt::format("truncated or misplaced: guest offset {} is kept compressed, "
                      "{} bytes at offset {} of a file of {} bytes",
                      guest, range.bytes, range.offset, file_size_));
    }
    const uint64_t last = std::min(range.offset + range.bytes, file_size_) - 1;
    for (uint64_t at = range.offset >> h_.cluster_bits; at <= last >> h_.cluster_bits; ++at) {
      if (taken_[static_cast<size_t>(at)]) {
        return Inconsistent(fmt::format("guest offset {} is kept compressed in a table", guest));
      }
    }
    return Ok();
  }

  const RandomAccessReader& image_;
  const Qcow2Header& h_;
  const uint64_t file_size_;
  Qcow2Usage usage_;
  uint64_t l2_bytes_read_ = 0;
  std::vector<bool> taken_;                               // clusters that hold tables
  std::vector<std::pair<uint64_t, uint64_t>> l2_tables_;  // L1 index, offset
  Bytes chunk_;
};

}  // namespace

Result<Qcow2Usage> CheckQcow2Tables(const RandomAccessReader& image, const Qcow2Header& header) {
  return TableWalker(image, header).Walk();
}

}  // namespace vallum::formats
