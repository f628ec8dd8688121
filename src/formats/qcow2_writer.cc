// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow2_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/byte_sink.h"
#include "formats/qcow2.h"
#include "formats/qcow2_entries.h"
#include "formats/reader.h"

namespace vallum::formats {
namespace {

constexpr uint64_t kCluster = kQcow2WriterCluster;
constexpr uint64_t kCoveredByL1Entry = kCluster * kQcow2WriterL2Entries;
constexpr uint32_t kHeaderLength = 112;
constexpr uint32_t kRefcountOrder = 4;  // 16 bits
constexpr uint64_t kRefcountsPerBlock = kCluster / 2;
constexpr uint64_t kReadAtOnce = 4;  // clusters
// Enough to tell most clusters with data from zeroes.
constexpr size_t kProbe = 4096;

uint64_t Divide(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit; }

// Clusters, in the order of the file.
struct Layout {
  uint64_t refcount_blocks = 0;
  uint64_t l1_clusters = 0;
  uint64_t l2_tables = 0;
  uint64_t data_clusters = 0;

  static constexpr uint64_t refcount_table() { return 1; }  // after the header
  static constexpr uint64_t first_refcount_block() { return refcount_table() + 1; }
  uint64_t l1() const { return first_refcount_block() + refcount_blocks; }
  uint64_t first_l2() const { return l1() + l1_clusters; }
  uint64_t first_data() const { return first_l2() + l2_tables; }
  uint64_t end() const { return first_data() + data_clusters; }
};

uint64_t L1Entries(uint64_t virtual_size) { return Divide(virtual_size, kCoveredByL1Entry); }

Layout MakeLayout(uint64_t virtual_size, uint64_t l2_tables, uint64_t data_clusters) {
  Layout layout{.l1_clusters = Divide(L1Entries(virtual_size) * 8, kCluster),
                .l2_tables = l2_tables,
                .data_clusters = data_clusters};
  // The blocks count themselves too.
  while (layout.refcount_blocks * kRefcountsPerBlock < layout.end()) ++layout.refcount_blocks;
  return layout;
}

// One cluster of refcount table has room for the blocks of any file that is written.
static_assert((kQcow2WriterMaxL2Tables * (kQcow2WriterL2Entries + 1) + kRefcountsPerBlock) /
                  kRefcountsPerBlock <
              kCluster / 8);

Bytes HeaderCluster(uint64_t virtual_size, const Layout& layout) {
  ByteWriter out;
  out.U32Be(kQcow2Magic).U32Be(3);
  out.U64Be(0).U32Be(0);  // no backing file
  out.U32Be(kQcow2WriterClusterBits).U64Be(virtual_size).U32Be(0);
  out.U32Be(static_cast<uint32_t>(L1Entries(virtual_size))).U64Be(layout.l1() * kCluster);
  out.U64Be(Layout::refcount_table() * kCluster).U32Be(1);
  out.U32Be(0).U64Be(0);           // no snapshots
  out.U64Be(0).U64Be(0).U64Be(0);  // no features
  out.U32Be(kRefcountOrder).U32Be(kHeaderLength);
  out.U8(0).Zeros(7);  // deflate
  out.U64Be(0);        // end of the extensions
  out.Zeros(kCluster - out.size());
  return std::move(out).Take();
}

Result<void> WriteRefcounts(const Layout& layout, ByteSink& out) {
  ByteWriter table;
  for (uint64_t i = 0; i < layout.refcount_blocks; ++i) {
    table.U64Be((Layout::first_refcount_block() + i) * kCluster);
  }
  table.Zeros(kCluster - table.size());
  RETURN_IF_ERROR(out.Write(table.bytes()));
  for (uint64_t i = 0; i < layout.refcount_blocks; ++i) {
    ByteWriter block;
    for (uint64_t j = 0; j < kRefcountsPerBlock; ++j) {
      block.U16Be(i * kRefcountsPerBlock + j < layout.end() ? 1 : 0);
    }
    RETURN_IF_ERROR(out.Write(block.bytes()));
  }
  return Ok();
}

bool AllZero(ByteView bytes) {
  static constexpr std::array<std::byte, kCluster> kZeroes{};
  return std::memcmp(bytes.data(), kZeroes.data(), bytes.size()) == 0;
}

// Whether a cluster is all zeroes, reading no more of it than it takes to know. A cluster with data
// costs its first bytes here and is read whole when it is written; one of zeroes is read whole here
// and never again: so in all a disk is read about once, though its tables stand before its data.
Result<bool> ReadsAsZeroes(const RandomAccessReader& disk, uint64_t offset,
                           std::span<std::byte> buffer) {
  const auto count = static_cast<size_t>(std::min<uint64_t>(kCluster, disk.size() - offset));
  const size_t probe = std::min(kProbe, count);
  RETURN_IF_ERROR(disk.ReadAt(offset, buffer.first(probe)));
  if (!AllZero(buffer.first(probe))) return false;
  RETURN_IF_ERROR(disk.ReadAt(offset + probe, buffer.first(count - probe)));
  return AllZero(buffer.first(count - probe));
}

}  // namespace

Result<Qcow2Plan> Qcow2Plan::Make(const RandomAccessReader& disk, ZeroClusters zeroes) {
  const uint64_t size = disk.size();
  if (size == 0 || size % 512 != 0 || size > kQcow2MaxVirtualSize) {
    return InvalidInput(fmt::format("a disk of {} bytes cannot be a qcow2: whole sectors of 512 "
                                    "bytes up to {} TiB are possible",
                                    size, kQcow2MaxVirtualSize >> 40U))
        .WithFix("make the disk a multiple of 512 bytes where it came from: qemu-img resize");
  }
  Qcow2Plan plan(size);
  Bytes buffer(kCluster);
  for (uint64_t offset = 0; offset < size;) {
    ASSIGN_OR_RETURN(const std::optional<uint64_t> data, disk.NextData(offset));
    if (!data.has_value() || *data >= size) break;
    const uint64_t cluster = *data / kCluster;
    offset = (cluster + 1) * kCluster;
    if (zeroes == ZeroClusters::kFind) {
      ASSIGN_OR_RETURN(const bool zero, ReadsAsZeroes(disk, cluster * kCluster, buffer));
      if (zero) continue;
    }
    RETURN_IF_ERROR(plan.Store(cluster));
  }
  return plan;
}

Result<void> Qcow2Plan::Store(uint64_t cluster) {
  const uint64_t l1_index = cluster / kQcow2WriterL2Entries;
  if (tables_.empty() || tables_.back().l1_index != l1_index) {
    if (tables_.size() == kQcow2WriterMaxL2Tables) {
      return InvalidInput(fmt::format("the disk has data in more than {} pieces of {} MiB, which "
                                      "is the most that a qcow2 here may have",
                                      kQcow2WriterMaxL2Tables, kCoveredByL1Entry >> 20U))
          .WithFix("make a smaller disk, or store it as raw");
    }
    tables_.push_back({.l1_index = l1_index, .stored = {}});
  }
  tables_.back().stored.set(static_cast<size_t>(cluster % kQcow2WriterL2Entries));
  ++data_clusters_;
  return Ok();
}

uint64_t Qcow2Plan::file_size() const {
  return MakeLayout(virtual_size_, tables_.size(), data_clusters_).end() * kCluster;
}

Result<void> Qcow2Plan::Write(const RandomAccessReader& disk, ByteSink& out) const {
  CHECK(disk.size() == virtual_size_);
  RETURN_IF_ERROR(WriteTables(out));
  return WriteData(disk, out);
}

Result<void> Qcow2Plan::WriteTables(ByteSink& out) const {
  const Layout layout = MakeLayout(virtual_size_, tables_.size(), data_clusters_);
  RETURN_IF_ERROR(out.Write(HeaderCluster(virtual_size_, layout)));
  RETURN_IF_ERROR(WriteRefcounts(layout, out));

  ByteWriter l1;
  for (size_t i = 0; i < tables_.size(); ++i) {
    l1.Zeros(static_cast<size_t>(tables_[i].l1_index) * 8 - l1.size());
    l1.U64Be((layout.first_l2() + i) * kCluster | kQcow2Copied);
  }
  l1.Zeros(static_cast<size_t>(layout.l1_clusters * kCluster) - l1.size());
  RETURN_IF_ERROR(out.Write(l1.bytes()));

  uint64_t next = layout.first_data();
  for (const Table& table : tables_) {
    ByteWriter l2;
    for (size_t i = 0; i < kQcow2WriterL2Entries; ++i) {
      l2.U64Be(table.stored[i] ? next++ * kCluster | kQcow2Copied : 0);
    }
    RETURN_IF_ERROR(out.Write(l2.bytes()));
  }
  CHECK(next == layout.end());
  return Ok();
}

Result<void> Qcow2Plan::WriteData(const RandomAccessReader& disk, ByteSink& out) const {
  Bytes buffer(static_cast<size_t>(kReadAtOnce * kCluster));
  uint64_t first = 0;
  uint64_t count = 0;  // clusters from `first` that were not written yet
  const auto flush = [&]() -> Result<void> {
    const auto piece = std::span(buffer).first(static_cast<size_t>(count * kCluster));
    const uint64_t there = std::min<uint64_t>(piece.size(), virtual_size_ - first * kCluster);
    RETURN_IF_ERROR(disk.ReadAt(first * kCluster, piece.first(static_cast<size_t>(there))));
    // The disk may end inside its last cluster.
    std::ranges::fill(piece.subspan(static_cast<size_t>(there)), std::byte{0});
    return out.Write(piece);
  };
  for (const Table& table : tables_) {
    for (size_t i = 0; i < kQcow2WriterL2Entries; ++i) {
      if (!table.stored[i]) continue;
      const uint64_t cluster = table.l1_index * kQcow2WriterL2Entries + i;
      if (count == kReadAtOnce || cluster != first + count) {
        if (count != 0) {
          RETURN_IF_ERROR(flush());
        }
        first = cluster;
        count = 0;
      }
      ++count;
    }
  }
  return count == 0 ? Ok() : flush();
}

uint64_t MaxQcow2FileSize(uint64_t virtual_size) {
  const uint64_t tables = std::min(L1Entries(virtual_size), kQcow2WriterMaxL2Tables);
  const uint64_t clusters =
      std::min(Divide(virtual_size, kCluster), tables * kQcow2WriterL2Entries);
  return MakeLayout(virtual_size, tables, clusters).end() * kCluster;
}

}  // namespace vallum::formats
