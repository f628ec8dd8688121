// SPDX-License-Identifier: Apache-2.0
#include "formats/vmdk_tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/fields.h"
#include "formats/reader.h"
#include "formats/vmdk.h"
#include "formats/vmdk_descriptor.h"

namespace vallum::formats {
namespace {

constexpr size_t kTableBytes = size_t{kVmdkTableEntries} * 4;
constexpr uint64_t kTableSectors = kTableBytes / kVmdkSector;
constexpr uint32_t kZeroedGrain = 1;

// Sectors that hold something else than grains.
struct Area {
  uint64_t first;
  uint64_t sectors;
};

class TableWalker {
 public:
  TableWalker(const RandomAccessReader& image, VmdkImage& out)
      : image_(image), out_(out), h_(out.header), sectors_(image.size() / kVmdkSector) {}

  Result<void> Walk() {
    RETURN_IF_ERROR(Take("header", 0, 1));
    RETURN_IF_ERROR(Take("descriptor", h_.descriptor_offset, h_.descriptor_sectors));
    if (out_.has_footer) {
      RETURN_IF_ERROR(Take("footer", sectors_ - kVmdkFooterSectors, kVmdkFooterSectors));
    }
    ASSIGN_OR_RETURN(out_.tables, ReadDirectory("grain directory", h_.directory));
    if (h_.Has(VmdkFlag::kRedundantTables)) {
      ASSIGN_OR_RETURN(redundant_,
                       ReadDirectory("redundant grain directory", h_.redundant_directory));
    }
    RETURN_IF_ERROR(CheckOverlaps());
    for (size_t i = 0; i < out_.tables.size(); ++i) {
      RETURN_IF_ERROR(WalkTable(i));
    }
    // Each grain of a file without compression needs its own room; a small file cannot be a
    // large disk by naming the same grain again and again.
    if (!h_.Has(VmdkFlag::kCompressed) && out_.data_grains > sectors_ / h_.grain_sectors) {
      return VmdkRefused(
          fmt::format("inconsistent: {} grains of {} sectors in a file of {} sectors",
                      out_.data_grains, h_.grain_sectors, sectors_));
    }
    return Ok();
  }

 private:
  Result<void> Take(std::string_view what, uint64_t first, uint64_t sectors) {
    if (!IsInside(first, sectors, sectors_)) {
      return VmdkRefused(
          fmt::format("truncated or inconsistent: the {} ({} sectors at sector {}) is not inside "
                      "the file of {} sectors",
                      what, sectors, first, sectors_));
    }
    areas_.push_back({first, sectors});
    return Ok();
  }

  // A table or directory; in a stream whose directory is at the end a marker stands before it.
  Result<void> TakeTable(std::string_view what, uint64_t first, uint64_t sectors, uint32_t marker) {
    if (!out_.has_footer) return Take(what, first, sectors);
    RETURN_IF_ERROR(Take(what, first == 0 ? 0 : first - 1, sectors + 1));
    return CheckVmdkMarker(image_, first == 0 ? 0 : first - 1, marker, sectors);
  }

  Result<std::vector<uint32_t>> ReadDirectory(std::string_view what, uint64_t first) {
    const uint64_t entries = h_.grain_tables();
    const uint64_t sectors = (entries * 4 - 1) / kVmdkSector + 1;
    RETURN_IF_ERROR(TakeTable(what, first, sectors, kVmdkGrainDirectory));
    ASSIGN_OR_RETURN(const Bytes raw,
                     ReadBytesAt(image_, first * kVmdkSector, static_cast<size_t>(entries * 4)));
    std::vector<uint32_t> out(static_cast<size_t>(entries));
    for (size_t i = 0; i < out.size(); ++i) {
      out[i] = U32Le(raw, i * 4);
      if (out[i] == 0) continue;
      RETURN_IF_ERROR(TakeTable("grain table", out[i], kTableSectors, kVmdkGrainTable))
          .context(fmt::format("entry {} of the {}", i, what));
    }
    return out;
  }

  Result<void> CheckOverlaps() {
    std::ranges::sort(areas_, {}, &Area::first);
    for (size_t i = 1; i < areas_.size(); ++i) {
      if (areas_[i - 1].first + areas_[i - 1].sectors > areas_[i].first) {
        return VmdkRefused(fmt::format(
            "inconsistent: header, descriptor, directories or grain tables overlap at sector {}",
            areas_[i].first));
      }
    }
    return Ok();
  }

  Result<void> WalkTable(size_t index) {
    const uint32_t at = out_.tables[index];
    if (!redundant_.empty()) {
      RETURN_IF_ERROR(CompareTables(index));
    }
    if (at == 0) return Ok();
    RETURN_IF_ERROR(image_.ReadAt(at * kVmdkSector, table_));
    const uint64_t first_grain = uint64_t{index} * kVmdkTableEntries;
    const auto used =
        static_cast<size_t>(std::min<uint64_t>(kVmdkTableEntries, h_.grains() - first_grain));
    const uint64_t before = out_.data_grains;
    for (size_t i = 0; i < used; ++i) {
      const uint32_t entry = U32Le(table_, i * 4);
      if (entry == 0) continue;
      if (entry == kZeroedGrain && h_.Has(VmdkFlag::kZeroedGrains)) {
        ++out_.zero_grains;
        continue;
      }
      RETURN_IF_ERROR(CheckGrain(entry, first_grain + i));
      ++out_.data_grains;
    }
    if (out_.data_grains == before) out_.tables[index] = 0;
    return Ok();
  }

  // Readers differ in which of both they believe.
  Result<void> CompareTables(size_t index) {
    const uint32_t at = out_.tables[index];
    const uint32_t other = redundant_[index];
    if ((at == 0) == (other == 0)) {
      if (at == 0) return Ok();
      RETURN_IF_ERROR(image_.ReadAt(at * kVmdkSector, table_));
      RETURN_IF_ERROR(image_.ReadAt(other * kVmdkSector, redundant_table_));
      if (table_ == redundant_table_) return Ok();
    }
    return VmdkRefused(
        fmt::format("inconsistent: grain table {} at sector {} and its redundant copy at sector {} "
                    "differ",
                    index, at, other));
  }

  Result<void> CheckGrain(uint64_t sector, uint64_t grain) const {
    const uint64_t guest = grain * h_.grain_sectors * kVmdkSector;
    if (sector < h_.overhead) {
      return VmdkRefused(
          fmt::format("inconsistent: guest offset {} is kept at sector {}, inside the metadata of "
                      "{} sectors",
                      guest, sector, h_.overhead));
    }
    uint64_t sectors = h_.grain_sectors;
    if (h_.Has(VmdkFlag::kCompressed)) {
      ASSIGN_OR_RETURN(const VmdkGrainMarker marker,
                       ReadVmdkGrainMarker(image_, h_, sector, grain));
      sectors = (kVmdkGrainMarkerBytes + marker.bytes - 1) / kVmdkSector + 1;
    }
    if (!IsInside(sector, sectors, sectors_)) {
      return VmdkRefused(
          fmt::format("truncated or inconsistent: guest offset {} is kept in {} sectors at sector "
                      "{} of a file of {}",
                      guest, sectors, sector, sectors_));
    }
    // The last area that starts before the end of the grain.
    const auto after = std::ranges::lower_bound(areas_, sector + sectors, {}, &Area::first);
    if (after != areas_.begin() && (after - 1)->first + (after - 1)->sectors > sector) {
      return VmdkRefused(fmt::format(
          "inconsistent: guest offset {} is kept at sector {}, inside a table", guest, sector));
    }
    return Ok();
  }

  const RandomAccessReader& image_;
  VmdkImage& out_;
  const VmdkHeader& h_;
  const uint64_t sectors_;  // of the file
  std::vector<uint32_t> redundant_;
  std::vector<Area> areas_;
  std::array<std::byte, kTableBytes> table_{};
  std::array<std::byte, kTableBytes> redundant_table_{};
};

}  // namespace

Result<VmdkGrainMarker> ReadVmdkGrainMarker(const RandomAccessReader& image,
                                            const VmdkHeader& header, uint64_t sector,
                                            uint64_t grain) {
  std::array<std::byte, kVmdkGrainMarkerBytes> raw{};
  const uint64_t at = sector * kVmdkSector;
  if (!IsInside(at, raw.size(), image.size())) {
    return VmdkRefused(fmt::format(
        "truncated or inconsistent: grain {} is kept at offset {} of a file of {} bytes", grain, at,
        image.size()));
  }
  RETURN_IF_ERROR(image.ReadAt(at, raw));
  const VmdkGrainMarker marker{.lba = U64Le(raw, 0), .bytes = U32Le(raw, 8)};
  if (marker.lba != grain * header.grain_sectors) {
    return VmdkRefused(fmt::format(
        "inconsistent: the marker at offset {} is that of disk sector {}, but the grain table "
        "says {}",
        at, marker.lba, grain * header.grain_sectors));
  }
  const uint64_t limit = 2 * header.grain_sectors * kVmdkSector;
  if (marker.bytes == 0 || marker.bytes > limit) {
    return VmdkRefused(
        fmt::format("inconsistent: {} compressed bytes at offset {}: 1 to {} are accepted",
                    marker.bytes, at + 8, limit));
  }
  if (!IsInside(at + kVmdkGrainMarkerBytes, marker.bytes, image.size())) {
    return VmdkRefused(
        fmt::format("truncated: {} compressed bytes at offset {} of a file of {} bytes",
                    marker.bytes, at + kVmdkGrainMarkerBytes, image.size()));
  }
  return marker;
}

Result<void> CheckVmdkMarker(const RandomAccessReader& image, uint64_t sector, uint32_t type,
                             uint64_t sectors) {
  std::array<std::byte, kVmdkSector> raw{};
  RETURN_IF_ERROR(image.ReadAt(sector * kVmdkSector, raw)).context("reading a marker of a VMDK");
  const bool padded = std::ranges::all_of(std::span(raw).subspan(16),
                                          [](std::byte b) { return b == std::byte{0}; });
  if (U64Le(raw, 0) != sectors || U32Le(raw, 8) != 0 || U32Le(raw, 12) != type || !padded) {
    return VmdkRefused(fmt::format(
        "inconsistent: no marker of type {} for {} sectors at offset {}, but value {}, size {}, "
        "type {}",
        type, sectors, sector * kVmdkSector, U64Le(raw, 0), U32Le(raw, 8), U32Le(raw, 12)));
  }
  return Ok();
}

Result<void> CheckVmdkTables(const RandomAccessReader& image, VmdkImage& out) {
  return TableWalker(image, out).Walk();
}

}  // namespace vallum::formats
