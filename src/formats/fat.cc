// SPDX-License-Identifier: Apache-2.0
#include "formats/fat.h"

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
#include "base/text.h"
#include "formats/fat_directory.h"
#include "formats/fields.h"
#include "formats/reader.h"

namespace vallum::formats {
namespace {

constexpr size_t kBootSectorSize = 512;
constexpr size_t kFatPiece = 4096;
constexpr uint32_t kFirstDataCluster = 2;

Error Wrong(std::string message) { return InvalidInput("FAT: " + std::move(message)); }

bool IsPowerOfTwo(uint32_t value) { return std::has_single_bit(value); }

}  // namespace

Result<FatVolume> FatVolume::Open(const RandomAccessReader& volume) {
  FatVolume fat(volume);
  RETURN_IF_ERROR(fat.ParseBootSector());
  return fat;
}

Result<void> FatVolume::ParseBootSector() {
  ASSIGN_OR_RETURN(const Bytes boot, ReadBytesAt(*volume_, 0, kBootSectorSize));
  if (U16Le(boot, 510) != 0xaa55) return Wrong("no signature 55 AA at offset 510");
  const uint32_t sector = U16Le(boot, 11);
  const uint32_t sectors_per_cluster = U8(boot, 13);
  if (sector < 512 || sector > 4096 || !IsPowerOfTwo(sector)) {
    return Wrong(fmt::format("sectors of {} bytes (offset 11)", sector));
  }
  if (!IsPowerOfTwo(sectors_per_cluster)) {
    return Wrong(fmt::format("clusters of {} sectors (offset 13)", sectors_per_cluster));
  }
  cluster_size_ = sector * sectors_per_cluster;
  return ParseSizes(boot);
}

// Microsoft FAT specification 1.03: the kind follows from the count of clusters alone.
Result<void> FatVolume::ParseSizes(ByteView boot) {
  const uint64_t sector = U16Le(boot, 11);
  const uint64_t reserved = U16Le(boot, 14);
  const uint64_t fats = U8(boot, 16);
  root_entries_ = U16Le(boot, 17);
  const uint64_t total = U16Le(boot, 19) != 0 ? U16Le(boot, 19) : U32Le(boot, 32);
  const uint64_t fat_sectors = U16Le(boot, 22) != 0 ? U16Le(boot, 22) : U32Le(boot, 36);
  const uint64_t root_sectors = (uint64_t{root_entries_} * 32 + sector - 1) / sector;
  const uint64_t before_data = reserved + fats * fat_sectors + root_sectors;
  if (reserved == 0 || fats == 0 || fats > 2 || fat_sectors == 0 || before_data >= total) {
    return Wrong(fmt::format("inconsistent: {} reserved sectors, {} tables of {}, {} in all",
                             reserved, fats, fat_sectors, total));
  }
  if (!IsInside(0, total * sector, volume_->size())) {
    return Wrong(fmt::format("truncated: {} sectors of {} in a volume of {} bytes", total, sector,
                             volume_->size()));
  }
  const uint64_t clusters = (total - before_data) * sector / cluster_size_;
  if (clusters == 0 || clusters > 0x0ffffff4) {
    return Wrong(fmt::format("{} clusters", clusters));
  }
  cluster_count_ = static_cast<uint32_t>(clusters);
  kind_ = cluster_count_ <= kFat12MaxClusters   ? FatKind::kFat12
          : cluster_count_ <= kFat16MaxClusters ? FatKind::kFat16
                                                : FatKind::kFat32;
  // mkfs.fat and the firmware's own driver take a zero 16-bit table size as FAT32 however small.
  if (U16Le(boot, 22) == 0) kind_ = FatKind::kFat32;
  fat_offset_ = reserved * sector;
  fat_bytes_ = fat_sectors * sector;
  root_offset_ = (reserved + fats * fat_sectors) * sector;
  data_offset_ = before_data * sector;
  const uint64_t entries = uint64_t{cluster_count_} + kFirstDataCluster;
  const uint64_t needed = kind_ == FatKind::kFat12   ? (entries * 3 + 1) / 2
                          : kind_ == FatKind::kFat16 ? entries * 2
                                                     : entries * 4;
  if (needed > fat_bytes_) {
    return Wrong(
        fmt::format("a table of {} bytes cannot hold {} clusters", fat_bytes_, cluster_count_));
  }
  // The extended boot signature says that a serial number follows it.
  const size_t extended = kind_ == FatKind::kFat32 ? 66 : 38;
  if (U8(boot, extended) == 0x29 || U8(boot, extended) == 0x28) {
    const uint32_t serial = U32Le(boot, extended + 1);
    serial_ = fmt::format("{:04X}-{:04X}", serial >> 16U, serial & 0xffffU);
  }
  if (kind_ == FatKind::kFat32) {
    if (root_entries_ != 0) return Wrong("FAT32 with a fixed root directory (offset 17)");
    root_cluster_ = U32Le(boot, 44);
    return CheckCluster(root_cluster_);
  }
  return root_entries_ != 0 ? Ok() : Result<void>(Wrong("no root directory (offset 17)"));
}

Result<void> FatVolume::CheckCluster(uint32_t cluster) const {
  if (cluster < kFirstDataCluster || cluster - kFirstDataCluster >= cluster_count_) {
    return Wrong(fmt::format("cluster {} is not one of the volume's {}", cluster, cluster_count_));
  }
  return Ok();
}

uint64_t FatVolume::ClusterOffset(uint32_t cluster) const {
  return data_offset_ + uint64_t{cluster - kFirstDataCluster} * cluster_size_;
}

Result<uint32_t> FatVolume::ReadFatEntry(uint64_t byte, size_t width) const {
  uint32_t value = 0;
  for (size_t i = 0; i < width; ++i) {
    const uint64_t piece = (byte + i) / kFatPiece * kFatPiece;
    if (cached_at_ != piece) {
      cached_at_ = ~uint64_t{0};
      const uint64_t count = std::min<uint64_t>(kFatPiece, fat_bytes_ - piece);
      ASSIGN_OR_RETURN(cached_,
                       ReadBytesAt(*volume_, fat_offset_ + piece, static_cast<size_t>(count)));
      cached_at_ = piece;
    }
    value |= uint32_t{U8(cached_, static_cast<size_t>(byte + i - piece))} << (8 * i);
  }
  return value;
}

Result<uint32_t> FatVolume::Next(uint32_t cluster) const {
  switch (kind_) {
    case FatKind::kFat12: {
      ASSIGN_OR_RETURN(const uint32_t pair, ReadFatEntry(uint64_t{cluster} * 3 / 2, 2));
      return cluster % 2 == 0 ? pair & 0xfffU : pair >> 4U;
    }
    case FatKind::kFat16:
      return ReadFatEntry(uint64_t{cluster} * 2, 2);
    case FatKind::kFat32: {
      ASSIGN_OR_RETURN(const uint32_t value, ReadFatEntry(uint64_t{cluster} * 4, 4));
      return value & 0x0fffffffU;
    }
  }
  return Internal("FAT kind");
}

bool FatVolume::IsEnd(uint32_t value) const {
  switch (kind_) {
    case FatKind::kFat12:
      return value >= 0xff8;
    case FatKind::kFat16:
      return value >= 0xfff8;
    case FatKind::kFat32:
      return value >= 0x0ffffff8;
  }
  return true;
}

FatEntry FatVolume::Root() const {
  return {.name = "", .kind = FatEntryKind::kDirectory, .size = 0, .first_cluster = root_cluster_};
}

Result<Bytes> FatVolume::ReadDirectory(const FatEntry& directory) const {
  // A chain cannot be longer than the largest directory, so a loop ends there.
  const uint64_t max_bytes = kFatMaxDirectoryEntries * kFatDirectoryEntrySize;
  if (directory.first_cluster == 0) {
    // Only the root is called nothing; a directory that is the root again would be a loop.
    if (kind_ == FatKind::kFat32 || !directory.name.empty()) {
      return Wrong("a directory without a cluster");
    }
    return ReadBytesAt(*volume_, root_offset_, size_t{root_entries_} * kFatDirectoryEntrySize);
  }
  Bytes out;
  for (uint32_t cluster = directory.first_cluster; !IsEnd(cluster);) {
    RETURN_IF_ERROR(CheckCluster(cluster));
    if (out.size() + cluster_size_ > max_bytes || out.size() / cluster_size_ >= cluster_count_) {
      return Wrong(fmt::format("the directory at cluster {} loops or has more than {} entries",
                               directory.first_cluster, kFatMaxDirectoryEntries));
    }
    ASSIGN_OR_RETURN(const Bytes piece,
                     ReadBytesAt(*volume_, ClusterOffset(cluster), cluster_size_));
    out.insert(out.end(), piece.begin(), piece.end());
    // "0x00: this and all following entries are free": what follows need not be read.
    if (DirectoryEnds(piece)) break;
    ASSIGN_OR_RETURN(cluster, Next(cluster));
  }
  return out;
}

Result<std::vector<FatEntry>> FatVolume::List(const FatEntry& directory) const {
  if (directory.kind != FatEntryKind::kDirectory) {
    return Wrong("\"" + Printable(directory.name) + "\" is no directory");
  }
  ASSIGN_OR_RETURN(const Bytes raw, ReadDirectory(directory));
  std::vector<FatEntry> entries = ParseFatDirectory(raw);
  // The upper half of the first cluster has another use before FAT32.
  if (kind_ != FatKind::kFat32) {
    for (FatEntry& entry : entries) entry.first_cluster &= 0xffffU;
  }
  return entries;
}

Result<FatEntry> FatVolume::Find(std::string_view path) const {
  std::string unified(path);
  std::ranges::replace(unified, '/', '\\');
  FatEntry at = Root();
  for (const std::string& part : Split(unified, '\\')) {
    if (part.empty()) continue;
    ASSIGN_OR_RETURN(const std::vector<FatEntry> entries, List(at));
    const auto it = std::ranges::find_if(
        entries, [&](const FatEntry& e) { return ToLower(e.name) == ToLower(part); });
    if (it == entries.end()) return NotFound("FAT: no \"" + Printable(path) + "\"");
    at = *it;
  }
  return at;
}

Result<Bytes> FatVolume::Read(const FatEntry& file, size_t max_size) const {
  if (file.kind != FatEntryKind::kFile) {
    return Wrong("\"" + Printable(file.name) + "\" is no file");
  }
  if (file.size > max_size) {
    return Exhausted(fmt::format("FAT: \"{}\" has {} bytes, more than {} are not read",
                                 Printable(file.name), file.size, max_size));
  }
  if (uint64_t{cluster_count_} * cluster_size_ < file.size) {
    return Wrong(fmt::format("\"{}\" is larger than the volume", Printable(file.name)));
  }
  Bytes out(file.size);
  uint32_t cluster = file.first_cluster;
  for (size_t done = 0; done < out.size();) {
    RETURN_IF_ERROR(CheckCluster(cluster)).context("reading \"" + Printable(file.name) + "\"");
    const uint64_t begin = ClusterOffset(cluster);
    size_t count = 0;
    // Clusters in a row are read at once.
    for (uint32_t expected = cluster; cluster == expected && done + count < out.size();) {
      if (cluster - kFirstDataCluster >= cluster_count_) break;
      count += std::min<size_t>(cluster_size_, out.size() - done - count);
      expected = cluster + 1;
      ASSIGN_OR_RETURN(cluster, Next(cluster));
    }
    RETURN_IF_ERROR(volume_->ReadAt(begin, std::span(out).subspan(done, count)));
    done += count;
  }
  // A chain that goes on is a loop or two files in one: firmware and kernel could differ on it.
  if (!out.empty() && !IsEnd(cluster)) {
    return Wrong(fmt::format("the chain of \"{}\" is longer than its {} bytes (a loop?)",
                             Printable(file.name), file.size));
  }
  return out;
}

}  // namespace vallum::formats
