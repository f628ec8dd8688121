// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/units.h"
#include "formats/reader.h"

// docs/formats/qcow2.md mirrors these constants.
namespace vallum::formats {

inline constexpr uint32_t kQcow2Magic = 0x514649fb;  // "QFI\xfb"
inline constexpr uint32_t kQcow2HeaderV2 = 72;
inline constexpr uint32_t kQcow2HeaderV3Min = 104;
inline constexpr uint32_t kQcow2MinClusterBits = 9;
inline constexpr uint32_t kQcow2MaxClusterBits = 21;
inline constexpr uint64_t kQcow2MaxVirtualSize = uint64_t{64} << 40U;
inline constexpr uint64_t kQcow2MaxL1Bytes = uint64_t{32} << 20U;
inline constexpr uint64_t kQcow2MaxRefcountTableBytes = uint64_t{8} << 20U;
// What CheckQcow2Tables reads at most: L2 tables of 4 TiB of data in 64 KiB clusters.
inline constexpr uint64_t kQcow2MaxL2BytesRead = uint64_t{512} << 20U;
// Bounds the map of clusters that CheckQcow2Tables keeps (one bit each).
inline constexpr uint64_t kQcow2MaxFileClusters = uint64_t{1} << 28U;

enum class Qcow2Incompatible : uint64_t {
  kDirty = 1U << 0U,
  kCorrupt = 1U << 1U,
  kDataFile = 1U << 2U,
  kCompressionType = 1U << 3U,
  kExtendedL2 = 1U << 4U,
};

enum class Qcow2Compression : uint8_t { kDeflate = 0, kZstd = 1 };

struct Qcow2Extension {
  uint32_t type = 0;
  uint64_t offset = 0;  // of its data, in the file
  uint32_t length = 0;
};

struct Qcow2Header {
  uint32_t version = 0;
  uint64_t backing_file_offset = 0;
  uint32_t backing_file_size = 0;
  uint32_t cluster_bits = 0;
  uint64_t virtual_size = 0;
  uint32_t crypt_method = 0;
  uint32_t l1_size = 0;  // entries
  uint64_t l1_table_offset = 0;
  uint64_t refcount_table_offset = 0;
  uint32_t refcount_table_clusters = 0;
  uint32_t snapshot_count = 0;
  uint64_t snapshots_offset = 0;
  uint64_t incompatible_features = 0;
  uint64_t compatible_features = 0;
  uint64_t autoclear_features = 0;
  uint32_t refcount_order = 4;
  uint32_t header_length = kQcow2HeaderV2;
  Qcow2Compression compression = Qcow2Compression::kDeflate;
  std::vector<Qcow2Extension> extensions;

  uint64_t cluster_size() const { return uint64_t{1} << cluster_bits; }
  bool Has(Qcow2Incompatible feature) const {
    return (incompatible_features & static_cast<uint64_t>(feature)) != 0;
  }
  uint64_t l2_entry_size() const { return Has(Qcow2Incompatible::kExtendedL2) ? 16 : 8; }
  uint64_t l2_entries() const { return cluster_size() / l2_entry_size(); }
};

// Reads the header and its extensions: layout only, nothing is trusted yet.
// Errors: kInvalidInput (truncated, magic, version, cluster_bits, header_length, an extension past
// the first cluster).
Result<Qcow2Header> ParseQcow2Header(const RandomAccessReader& image);

// Checks that the image is whole by itself and says nothing that this policy refuses: backing
// file, data file, encryption, dirty or corrupt, internal snapshots, bitmaps, unknown features,
// sizes and tables that do not fit the file.
// Errors: kInvalidInput, naming the offset of the field, with the fix.
Result<void> ValidateQcow2(const Qcow2Header& header, uint64_t file_size);

struct Qcow2Usage {
  uint64_t l2_tables = 0;
  uint64_t data_clusters = 0;
  uint64_t compressed_clusters = 0;
  uint64_t zero_clusters = 0;
};

// Walks the refcount table, the L1 table and every L2 table of a validated header: each offset is
// aligned and inside the file, no table shares a cluster with another table or with data.
// Time: reads at most kQcow2MaxL2BytesRead. Memory: a bit for each cluster of the file.
// Errors: kInvalidInput, naming the table and entry.
Result<Qcow2Usage> CheckQcow2Tables(const RandomAccessReader& image, const Qcow2Header& header);

// An empty v3 qcow2 with 64 KiB clusters, for use as an overlay over a node that the block graph
// names: no backing file name, no backing format.
//   virtual_size: rounded up to 512 bytes; at least 1, at most kQcow2MaxVirtualSize.
// Errors: kInvalidInput (size).
Result<Bytes> MakeQcow2Overlay(ByteCount virtual_size);

}  // namespace vallum::formats
