// SPDX-License-Identifier: Apache-2.0
#include "formats/udf.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "base/units.h"
#include "formats/fields.h"
#include "formats/reader.h"
#include "formats/text16.h"

namespace vallum::formats {
namespace {

constexpr uint64_t kRecognitionOffset = 32768;
constexpr std::array<uint32_t, 4> kSectorSizes = {2048, 512, 1024, 4096};
constexpr size_t kTagBytes = 16;
constexpr size_t kMinDescriptorBytes = 512;

// ECMA-167 3/7.2.1.
constexpr uint16_t kTagPrimary = 1;
constexpr uint16_t kTagAnchor = 2;
constexpr uint16_t kTagImplementationUse = 4;
constexpr uint16_t kTagPartition = 5;
constexpr uint16_t kTagLogicalVolume = 6;
constexpr uint16_t kTagUnallocated = 7;
constexpr uint16_t kTagTerminating = 8;

constexpr std::string_view kDomain = "*OSTA UDF Compliant";
constexpr size_t kMapsOffset = 440;

Error Wrong(std::string message) {
  return InvalidInput("udf: " + std::move(message)).WithFix("fetch it again, or write it anew");
}

// CRC-ITU-T of ECMA-167 1/7.2.6: polynomial 0x1021, from 0.
uint16_t Crc(ByteView data) {
  uint32_t crc = 0;
  for (const std::byte b : data) {
    crc ^= std::to_integer<uint32_t>(b) << 8U;
    for (int bit = 0; bit < 8; ++bit) crc = (crc << 1U) ^ ((crc & 0x8000U) != 0 ? 0x1021U : 0U);
  }
  return static_cast<uint16_t>(crc);
}

// 3/7.2: checksum of the tag, CRC of what follows, and its own place.
Result<void> CheckTag(ByteView raw, uint64_t sector) {
  uint32_t sum = 0;
  for (size_t i = 0; i < kTagBytes; ++i) {
    if (i != 4) sum += U8(raw, i);
  }
  if ((sum & 0xffU) != U8(raw, 4)) {
    return Wrong(fmt::format("the descriptor at sector {} has a wrong tag checksum", sector));
  }
  const uint16_t version = U16Le(raw, 2);
  if (version != 2 && version != 3) {
    return Wrong(fmt::format("the descriptor at sector {} has version {}", sector, version));
  }
  const uint16_t length = U16Le(raw, 10);
  if (!IsInside(kTagBytes, length, raw.size()) ||
      Crc(raw.subspan(kTagBytes, length)) != U16Le(raw, 8)) {
    return Wrong(fmt::format("the descriptor at sector {} has a wrong CRC", sector));
  }
  if (U32Le(raw, 12) != sector) {
    return Wrong(fmt::format("the descriptor at sector {} says that it is at sector {}", sector,
                             U32Le(raw, 12)));
  }
  return Ok();
}

// 1/7.2.12 and UDF 2.1.3: a compression id, text, and in the last byte how much of it is used.
std::string DString(ByteView field) {
  const size_t used = std::min<size_t>(U8(field, field.size() - 1), field.size() - 1);
  if (used == 0) return "";
  std::u16string text;
  if (U8(field, 0) == 16) {
    for (size_t i = 1; i + 1 < used; i += 2) text += static_cast<char16_t>(U16Be(field, i));
  } else {
    for (size_t i = 1; i < used; ++i) text += static_cast<char16_t>(U8(field, i));
  }
  return Printable(Utf16ToUtf8(text));
}

class UdfParser {
 public:
  explicit UdfParser(const RandomAccessReader& image) : image_(image) {}

  Result<UdfVolume> Parse() {
    RETURN_IF_ERROR(ReadRecognition());
    ASSIGN_OR_RETURN(const Bytes anchor, FindAnchor());
    ASSIGN_OR_RETURN(const Extent main, SequenceExtent(anchor, 16, "main"));
    RETURN_IF_ERROR(SequenceExtent(anchor, 24, "reserve"));
    RETURN_IF_ERROR(ReadSequence(main));
    RETURN_IF_ERROR(Conclude());
    return std::move(out_);
  }

 private:
  struct Extent {
    uint64_t sector = 0;
    uint64_t sectors = 0;
  };
  // 3/8.4.3: of several descriptors of a kind the one of the highest number prevails.
  struct Prevailing {
    uint32_t number = 0;
    Bytes raw;
  };

  // 2/8.3: BEA01, then NSR, then TEA01; those of ISO 9660 may come before. With sectors of 4096
  // bytes each stands in one of its own.
  Result<void> ReadRecognition() {
    for (const uint64_t step : {uint64_t{2048}, uint64_t{4096}}) {
      ASSIGN_OR_RETURN(const bool found, ReadRecognition(step));
      if (found) return Ok();
    }
    return Wrong(
        fmt::format("no recognition sequence (BEA01, NSR02 or NSR03, TEA01) from offset {}",
                    kRecognitionOffset));
  }

  Result<bool> ReadRecognition(uint64_t step) {
    bool begun = false;
    out_.nsr = 0;
    for (size_t i = 0; i < kUdfMaxRecognition; ++i) {
      ASSIGN_OR_RETURN(const Bytes raw, ReadUpTo(image_, kRecognitionOffset + i * step, 7));
      if (raw.size() < 7) return false;
      if (HasText(raw, 1, "BEA01")) {
        begun = true;
      } else if (begun && (HasText(raw, 1, "NSR02") || HasText(raw, 1, "NSR03"))) {
        out_.nsr = U8(raw, 5) - uint32_t{'0'};
      } else if (begun && HasText(raw, 1, "TEA01")) {
        return out_.nsr != 0;
      } else if (!HasText(raw, 1, "CD001") && !HasText(raw, 1, "BOOT2")) {
        return false;
      }
    }
    return false;
  }

  // 3/8.4.2.1: at sector 256, at the last one, or 256 before it.
  Result<Bytes> FindAnchor() {
    std::string reason;
    for (const uint32_t size : kSectorSizes) {
      const uint64_t sectors = image_.size() / size;
      if (sectors <= kUdfAnchorSector) continue;
      for (const uint64_t at : {kUdfAnchorSector, sectors - 1, sectors - 1 - kUdfAnchorSector}) {
        ASSIGN_OR_RETURN(Bytes raw, ReadBytesAt(image_, at * size, kMinDescriptorBytes));
        if (U16Le(raw, 0) != kTagAnchor) continue;
        const Result<void> good = CheckTag(raw, at);
        if (!good.has_value()) {
          reason = ": " + good.error().message();
          continue;
        }
        out_.block_size = size;
        if (at != kUdfAnchorSector) {
          out_.facts.push_back(
              fmt::format("the anchor at sector {} is missing or damaged: the one at {} is used",
                          kUdfAnchorSector, at));
        }
        return raw;
      }
    }
    return Wrong(fmt::format("no anchor at sector {}, nor at the end{}", kUdfAnchorSector, reason));
  }

  Result<Extent> SequenceExtent(ByteView anchor, size_t field, std::string_view which) const {
    const uint32_t bytes = U32Le(anchor, field);
    const Extent extent{.sector = U32Le(anchor, field + 4), .sectors = bytes / out_.block_size};
    if (extent.sectors < kUdfMinSequenceSectors || extent.sectors > kUdfMaxSequenceSectors ||
        bytes % out_.block_size != 0 ||
        !IsInside(extent.sector * out_.block_size, bytes, image_.size())) {
      return Wrong(
          fmt::format("the {} volume descriptor sequence ({} bytes from sector {}) is not {} to {} "
                      "sectors inside the file",
                      which, bytes, extent.sector, kUdfMinSequenceSectors, kUdfMaxSequenceSectors));
    }
    return extent;
  }

  Result<void> ReadSequence(const Extent& extent) {
    for (uint64_t sector = extent.sector; sector < extent.sector + extent.sectors; ++sector) {
      ASSIGN_OR_RETURN(Bytes raw, ReadBytesAt(image_, sector * out_.block_size, out_.block_size));
      RETURN_IF_ERROR(CheckTag(raw, sector));
      const uint16_t tag = U16Le(raw, 0);
      if (tag == kTagTerminating) return Ok();
      RETURN_IF_ERROR(Keep(tag, std::move(raw), sector));
    }
    return Wrong("the main volume descriptor sequence has no terminator");
  }

  Result<void> Keep(uint16_t tag, Bytes raw, uint64_t sector) {
    const uint32_t number = U32Le(raw, 16);
    if (tag == kTagPrimary) {
      Replace(primary_, number, std::move(raw));
    } else if (tag == kTagLogicalVolume) {
      Replace(logical_, number, std::move(raw));
    } else if (tag == kTagPartition) {
      Prevailing& partition = partitions_[U16Le(raw, 22)];
      Replace(partition, number, std::move(raw));
      if (partitions_.size() > kUdfMaxPartitions) {
        return Wrong(fmt::format("more than {} partitions", kUdfMaxPartitions));
      }
    } else if (tag != kTagImplementationUse && tag != kTagUnallocated) {
      return Wrong(fmt::format("a descriptor of the unknown type {} at sector {}", tag, sector));
    }
    return Ok();
  }

  static void Replace(Prevailing& old, uint32_t number, Bytes raw) {
    if (old.raw.empty() || number >= old.number) old = {.number = number, .raw = std::move(raw)};
  }

  Result<void> Conclude() {
    if (primary_.raw.empty() || logical_.raw.empty() || partitions_.empty()) {
      return Wrong("the main sequence lacks a primary volume, logical volume or partition");
    }
    out_.volume_id = DString(ByteView(primary_.raw).subspan(24, 32));
    RETURN_IF_ERROR(AddPartitions());
    RETURN_IF_ERROR(CheckLogicalVolume(logical_.raw));
    out_.facts.push_back(fmt::format(
        "UDF (NSR0{}) volume \"{}\", logical volume \"{}\", blocks of {} bytes, {} partitions",
        out_.nsr, out_.volume_id, out_.logical_volume_id, out_.block_size, out_.partitions.size()));
    return Ok();
  }

  // 3/10.5.
  Result<void> AddPartitions() {
    for (const auto& [number, descriptor] : partitions_) {
      const UdfPartition p{.number = number,
                           .offset = uint64_t{U32Le(descriptor.raw, 188)} * out_.block_size,
                           .size = uint64_t{U32Le(descriptor.raw, 192)} * out_.block_size};
      if (p.offset < kRecognitionOffset || p.size == 0 ||
          !IsInside(p.offset, p.size, image_.size())) {
        return Wrong(fmt::format(
            "truncated: partition {} ({} bytes from offset {}) is not inside the file of {}",
            number, p.size, p.offset, image_.size()));
      }
      for (const UdfPartition& other : out_.partitions) {
        if (p.offset < other.offset + other.size && other.offset < p.offset + p.size) {
          return Wrong(fmt::format("partitions {} and {} overlap", other.number, number));
        }
      }
      out_.partitions.push_back(p);
    }
    return Ok();
  }

  // 3/10.6.
  Result<void> CheckLogicalVolume(ByteView raw) {
    out_.logical_volume_id = DString(raw.subspan(84, 128));
    if (U32Le(raw, 212) != out_.block_size) {
      return Wrong(fmt::format("the logical volume has blocks of {} bytes, the sectors {}",
                               U32Le(raw, 212), out_.block_size));
    }
    if (!HasText(raw, 217, kDomain)) return Wrong("the logical volume is not of OSTA's domain");
    const uint32_t integrity = U32Le(raw, 432);
    if (integrity != 0 &&
        !IsInside(uint64_t{U32Le(raw, 436)} * out_.block_size, integrity, image_.size())) {
      return Wrong("the integrity sequence of the logical volume is not inside the file");
    }
    return CheckMaps(raw);
  }

  // 3/10.7: type 1 has 6 bytes, type 2 (virtual, sparable, metadata) 64; both name a partition.
  Result<void> CheckMaps(ByteView raw) const {
    const uint32_t bytes = U32Le(raw, 264);
    const uint32_t count = U32Le(raw, 268);
    if (!IsInside(kMapsOffset, bytes, raw.size()) || count == 0) {
      return Wrong(fmt::format("{} partition maps in {} bytes", count, bytes));
    }
    const ByteView maps = raw.subspan(kMapsOffset, bytes);
    size_t at = 0;
    for (uint32_t i = 0; i < count; ++i) {
      if (!IsInside(at, 2, maps.size())) return Wrong("the partition maps end early");
      const uint8_t type = U8(maps, at);
      const size_t length = U8(maps, at + 1);
      const bool known = (type == 1 && length == 6) || (type == 2 && length == 64);
      if (!known || !IsInside(at, length, maps.size())) {
        return Wrong(fmt::format("partition map {} has type {} and {} bytes", i, type, length));
      }
      const uint16_t partition = U16Le(maps, at + (type == 1 ? 4 : 38));
      if (!partitions_.contains(partition)) {
        return Wrong(
            fmt::format("partition map {} names partition {}, which is not there", i, partition));
      }
      at += length;
    }
    return Ok();
  }

  const RandomAccessReader& image_;
  UdfVolume out_;
  Prevailing primary_;
  Prevailing logical_;
  std::map<uint16_t, Prevailing> partitions_;
};

}  // namespace

Result<UdfVolume> ParseUdf(const RandomAccessReader& image) { return UdfParser(image).Parse(); }

}  // namespace vallum::formats
