// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/reader.h"

// docs/formats/fat.md mirrors these constants.
namespace vallum::formats {

inline constexpr size_t kFatMaxDirectoryEntries = 65536;
inline constexpr size_t kFatMaxNameUnits = 255;
inline constexpr uint32_t kFat12MaxClusters = 4084;
inline constexpr uint32_t kFat16MaxClusters = 65524;

enum class FatKind { kFat12, kFat16, kFat32 };
enum class FatEntryKind { kFile, kDirectory };

struct FatEntry {
  std::string name;  // UTF-8; the long name if there is a valid one
  FatEntryKind kind = FatEntryKind::kFile;
  uint32_t size = 0;           // bytes; 0 for directories
  uint32_t first_cluster = 0;  // 0: empty file, or the root of FAT12/16
};

// A FAT file system, read only. The reader (of the partition) must outlive it. Not thread-safe.
class FatVolume {
 public:
  // Errors: kInvalidInput (no FAT boot sector, its sizes do not fit the reader).
  static Result<FatVolume> Open(const RandomAccessReader& volume);

  FatKind kind() const { return kind_; }
  uint32_t cluster_count() const { return cluster_count_; }
  uint32_t cluster_size() const { return cluster_size_; }
  // Of the boot sector: what GRUB and Linux call the file system's UUID, "5A11-0001"; "" if it has
  // none.
  const std::string& serial() const { return serial_; }

  FatEntry Root() const;
  // Entries in directory order without volume labels, deleted ones, "." and "..".
  // Errors: kInvalidInput (no directory; a cluster chain with a loop or out of the volume; more
  // than kFatMaxDirectoryEntries).
  Result<std::vector<FatEntry>> List(const FatEntry& directory) const;
  // Looks names up without regard to ASCII case; separators are '\' or '/'.
  // Errors: kNotFound, kInvalidInput (as List).
  Result<FatEntry> Find(std::string_view path) const;
  // Errors: kInvalidInput (no file; its chain is shorter or longer than its size, loops or leaves
  // the volume), kExhausted (larger than max_size).
  Result<Bytes> Read(const FatEntry& file, size_t max_size) const;

 private:
  explicit FatVolume(const RandomAccessReader& volume) : volume_(&volume) {}
  Result<void> ParseBootSector();
  Result<void> ParseSizes(ByteView boot);
  Result<void> CheckCluster(uint32_t cluster) const;
  Result<uint32_t> Next(uint32_t cluster) const;
  Result<uint32_t> ReadFatEntry(uint64_t byte, size_t width) const;
  bool IsEnd(uint32_t value) const;
  uint64_t ClusterOffset(uint32_t cluster) const;
  Result<Bytes> ReadDirectory(const FatEntry& directory) const;

  const RandomAccessReader* volume_;
  FatKind kind_ = FatKind::kFat12;
  uint32_t cluster_size_ = 0;
  uint32_t cluster_count_ = 0;
  std::string serial_;
  uint32_t root_cluster_ = 0;  // FAT32
  uint64_t root_offset_ = 0;   // FAT12/16
  uint32_t root_entries_ = 0;  // FAT12/16
  uint64_t fat_offset_ = 0;
  uint64_t fat_bytes_ = 0;
  uint64_t data_offset_ = 0;
  mutable uint64_t cached_at_ = ~uint64_t{0};  // a piece of the FAT
  mutable Bytes cached_;
};

}  // namespace vallum::formats
