// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/result.h"
#include "formats/byte_sink.h"
#include "formats/qcow2.h"
#include "formats/reader.h"

// docs/formats/qcow2.md, "What is written", mirrors these constants.
namespace vallum::formats {

inline constexpr uint32_t kQcow2WriterClusterBits = 16;
inline constexpr uint64_t kQcow2WriterCluster = uint64_t{1} << kQcow2WriterClusterBits;
inline constexpr size_t kQcow2WriterL2Entries = kQcow2WriterCluster / 8;
// So that CheckQcow2Tables reads all of them.
inline constexpr uint64_t kQcow2WriterMaxL2Tables = kQcow2MaxL2BytesRead / kQcow2WriterCluster;

// Which clusters of zeroes are left out.
enum class ZeroClusters {
  kFind,         // those that NextData() skips, and those that were read and found to be zeroes
  kTrustSource,  // those that NextData() skips
};

// A qcow2 that can be written from front to back: version 3, clusters of 64 KiB, not compressed, no
// backing file. The tables stand before the data and name each cluster of it, so what is stored is
// decided before the first byte is written. Keeps a bit for each cluster, at most 8 MiB; not the
// disk.
class Qcow2Plan {
 public:
  // Decides what is stored.
  //   disk: its size is the virtual size.
  // Errors: kInvalidInput (a size that qcow2 cannot have: zero, no multiple of 512, more than
  // kQcow2MaxVirtualSize; data in more than kQcow2WriterMaxL2Tables pieces of 512 MiB), those of
  // the disk.
  static Result<Qcow2Plan> Make(const RandomAccessReader& disk, ZeroClusters zeroes);

  // Exactly what Write() writes, bytes.
  uint64_t file_size() const;

  // Writes the header, the refcounts, the L1 table, the L2 tables and the data in the order of the
  // guest's offsets. Reads what is stored once, nothing else.
  //   disk: the one that Make() saw, unchanged.
  // Errors: those of the disk and of the sink.
  Result<void> Write(const RandomAccessReader& disk, ByteSink& out) const;

 private:
  struct Table {
    uint64_t l1_index = 0;
    std::bitset<kQcow2WriterL2Entries> stored;
  };

  explicit Qcow2Plan(uint64_t virtual_size) : virtual_size_(virtual_size) {}
  Result<void> Store(uint64_t cluster);
  Result<void> WriteTables(ByteSink& out) const;
  Result<void> WriteData(const RandomAccessReader& disk, ByteSink& out) const;

  uint64_t virtual_size_;
  uint64_t data_clusters_ = 0;
  std::vector<Table> tables_;  // those with data, in order
};

// The most that a plan for a disk of this size can write, bytes.
//   virtual_size: at most kQcow2MaxVirtualSize.
uint64_t MaxQcow2FileSize(uint64_t virtual_size);

}  // namespace vallum::formats
