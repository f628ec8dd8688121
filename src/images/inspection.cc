// SPDX-License-Identifier: Apache-2.0
#include "images/inspection.h"

#include <fmt/format.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "base/units.h"
#include "formats/detect.h"
#include "formats/gpt.h"
#include "formats/qcow2.h"
#include "formats/qcow2_disk.h"
#include "formats/reader.h"
#include "images/boot_binaries.h"

namespace vallum::images {
namespace {

using formats::Detection;
using formats::Format;
using formats::RandomAccessReader;

constexpr std::string_view kAccepted =
    "accepted formats are qcow2, gpt (a bootable raw disk) and raw (a blob that nothing starts "
    "from)";
constexpr std::string_view kConvert =
    "convert it where it came from: qemu-img convert -O qcow2 <this image> <new image>, then "
    "declare "
    "qcow2";
// How much data of a raw blob is looked at for a byte that is not zero.
constexpr uint64_t kEmptyScanBytes = uint64_t{64} << 20U;
constexpr size_t kScanChunk = 64 * 1024;

std::string Where(const Detection& d) {
  return fmt::format("{} (signature at offset {})", formats::FormatName(d.format), d.offset);
}

// The format by which this detection may be declared, if it may at all.
std::optional<DeclaredFormat> AcceptedAs(Format format) {
  if (format == Format::kQcow2) return DeclaredFormat::kQcow2;
  if (format == Format::kGpt) return DeclaredFormat::kGpt;
  return std::nullopt;
}

Error NothingDetected(DeclaredFormat declared) {
  if (declared == DeclaredFormat::kQcow2) {
    return InvalidInput(
               "declared qcow2, but there is no qcow2 magic at offset 0, nor any other "
               "known format")
        .WithFix(std::string(kAccepted));
  }
  return InvalidInput("declared gpt, but there is no GPT header at offset 512 or 4096")
      .WithFix("declare raw if nothing is to start from it; " + std::string(kAccepted));
}

std::string_view FixFor(Format format) {
  switch (format) {
    case Format::kGzip:
    case Format::kXz:
    case Format::kZstd:
    case Format::kBzip2:
    case Format::kLz4:
    case Format::kTar:
      return "unpack it and import the disk inside";
    case Format::kJson:
    case Format::kCpio:
    case Format::kElf:
    case Format::kBzImage:
    case Format::kPe:
      return kAccepted;
    case Format::kQcow2:
    case Format::kVmdk:
    case Format::kVhd:
    case Format::kVhdx:
    case Format::kVdi:
    case Format::kQed:
    case Format::kParallels:
    case Format::kCloop:
    case Format::kDmg:
    case Format::kBochs:
    case Format::kIso9660:
    case Format::kUdf:
    case Format::kLuks:
    case Format::kGpt:
    case Format::kMbr:
    case Format::kBootSector:
      return kConvert;
  }
  return kAccepted;
}

// Declared must equal detected, and only one format may be there at all: two readers of an
// ambiguous file could disagree on what it is.
Result<void> CheckDeclared(const std::vector<Detection>& found, DeclaredFormat declared) {
  if (found.size() > 1) {
    std::vector<std::string> names;
    for (const Detection& d : found) names.push_back(Where(d));
    return InvalidInput("ambiguous: the content is several formats at once: " + Join(names, ", "))
        .WithFix("make a clean image of one format: qemu-img convert -f <format> -O qcow2");
  }
  if (found.empty()) {
    if (declared == DeclaredFormat::kRaw) return Ok();
    return NothingDetected(declared);
  }
  const std::optional<DeclaredFormat> accepted = AcceptedAs(found.front().format);
  if (accepted == declared) return Ok();
  Error error = InvalidInput(fmt::format("declared {}, but detected {}",
                                         DeclaredFormatName(declared), Where(found.front())));
  if (accepted.has_value()) {
    return std::move(error).WithFix(
        fmt::format("declare {}, if that is what it should be", DeclaredFormatName(*accepted)));
  }
  return std::move(error).WithFix(fmt::format("{} is not accepted: {}",
                                              formats::FormatName(found.front().format),
                                              FixFor(found.front().format)));
}

// Holes are skipped, so the work does not grow with them.
Result<void> CheckNotEmpty(const RandomAccessReader& image) {
  uint64_t offset = 0;
  uint64_t scanned = 0;
  while (scanned < kEmptyScanBytes) {
    ASSIGN_OR_RETURN(const std::optional<uint64_t> data, image.NextData(offset));
    if (!data.has_value()) break;
    ASSIGN_OR_RETURN(const Bytes chunk, formats::ReadUpTo(image, *data, kScanChunk));
    for (const std::byte b : chunk) {
      if (b != std::byte{0}) return Ok();
    }
    offset = *data + chunk.size();
    scanned += chunk.size();
  }
  return InvalidInput(fmt::format("empty: {} bytes of zeroes", image.size()))
      .WithFix("an empty disk needs no image; " + std::string(kAccepted));
}

std::string GptFact(const formats::GptTable& table) {
  std::string fact = fmt::format("GPT with sectors of {} bytes, {} partitions", table.sector_size,
                                 table.partitions.size());
  if (table.backup_lba != table.last_lba) {
    fact += "; its backup is not at the end of the disk (the disk was enlarged)";
  }
  return fact;
}

Result<void> InspectGpt(const RandomAccessReader& disk, uint32_t sector_size, Inspection& out) {
  ASSIGN_OR_RETURN(const formats::GptTable table, formats::ParseGpt(disk, sector_size));
  out.content = ContentFormat::kGpt;
  out.bootable = true;
  out.facts.push_back(GptFact(table));
  ASSIGN_OR_RETURN(BootBinaryReport report, CollectBootBinaries(disk, table));
  out.boot_binaries = std::move(report.binaries);
  for (std::string& fact : report.facts) out.facts.push_back(std::move(fact));
  return Ok();
}

// What is inside is the guest's business, with two exceptions: a table that contradicts itself, and
// a container, which would be read as one if the disk were ever exported as raw.
Result<void> InspectContent(const RandomAccessReader& disk, Inspection& out) {
  ASSIGN_OR_RETURN(const std::vector<Detection> found, formats::DetectFormats(disk));
  for (const Detection& d : found) {
    if (formats::IsDiskContainer(d.format)) {
      return InvalidInput("nested: the guest's disk is itself " + Where(d))
          .WithFix("import the inner image instead");
    }
  }
  out.content = ContentFormat::kRaw;
  for (const Detection& d : found) {
    if (d.format == Format::kGpt) {
      return InspectGpt(disk, static_cast<uint32_t>(d.offset), out);
    }
    if (d.format == Format::kMbr) {
      out.content = ContentFormat::kMbr;
      out.bootable = true;
      out.facts.emplace_back("MBR partition table: starts under BIOS only");
    } else if (d.format == Format::kBootSector) {
      out.bootable = true;
      out.facts.emplace_back("boot sector without a partition table: starts under BIOS only");
    } else {
      out.facts.push_back("the guest's disk holds " + Where(d));
    }
  }
  return Ok();
}

Result<void> InspectQcow2(const RandomAccessReader& image, Inspection& out) {
  ASSIGN_OR_RETURN(const formats::Qcow2Header header, formats::ParseQcow2Header(image));
  RETURN_IF_ERROR(formats::ValidateQcow2(header, image.size()));
  ASSIGN_OR_RETURN(const formats::Qcow2Usage usage, formats::CheckQcow2Tables(image, header));
  out.virtual_size = header.virtual_size;
  out.facts.push_back(fmt::format("qcow2 version {}, clusters of {}, {} data and {} compressed",
                                  header.version,
                                  FormatByteCount(ByteCount::Bytes(header.cluster_size())),
                                  usage.data_clusters, usage.compressed_clusters));
  if (usage.data_clusters + usage.compressed_clusters == 0) {
    out.facts.emplace_back("nothing is written on the guest's disk");
    return Ok();
  }
  const formats::Qcow2Disk disk(image, header);
  RETURN_IF_ERROR(InspectContent(disk, out)).context("in the guest's disk inside the qcow2");
  return Ok();
}

}  // namespace

std::string_view DeclaredFormatName(DeclaredFormat format) {
  switch (format) {
    case DeclaredFormat::kQcow2:
      return "qcow2";
    case DeclaredFormat::kGpt:
      return "gpt";
    case DeclaredFormat::kRaw:
      return "raw";
  }
  return "unknown";
}

std::string_view ContentFormatName(ContentFormat format) {
  switch (format) {
    case ContentFormat::kGpt:
      return "gpt";
    case ContentFormat::kMbr:
      return "mbr";
    case ContentFormat::kRaw:
      return "raw";
  }
  return "unknown";
}

Result<DeclaredFormat> ParseDeclaredFormat(std::string_view name) {
  constexpr std::array kRetired = {"ami", "aki", "ari"};
  const std::string lower = ToLower(name);
  for (const DeclaredFormat format :
       {DeclaredFormat::kQcow2, DeclaredFormat::kGpt, DeclaredFormat::kRaw}) {
    if (lower == DeclaredFormatName(format)) return format;
  }
  for (const std::string_view retired : kRetired) {
    if (lower == retired) {
      return InvalidInput("disk format " + lower +
                          " is retired: Amazon's split machine images are "
                          "not accepted")
          .WithFix("make one bootable disk of it and declare qcow2 or gpt");
    }
  }
  return InvalidInput("disk format \"" + Printable(name, 40) + "\" is not accepted")
      .WithFix(std::string(kAccepted));
}

Result<Inspection> Inspect(const RandomAccessReader& image, DeclaredFormat declared) {
  Inspection out;
  out.format = declared;
  out.file_size = image.size();
  out.virtual_size = image.size();
  if (image.size() == 0) {
    return InvalidInput("empty: the file has no bytes").WithFix(std::string(kAccepted));
  }
  ASSIGN_OR_RETURN(const std::vector<Detection> found, formats::DetectFormats(image));
  RETURN_IF_ERROR(CheckDeclared(found, declared));
  switch (declared) {
    case DeclaredFormat::kQcow2:
      RETURN_IF_ERROR(InspectQcow2(image, out));
      break;
    case DeclaredFormat::kGpt:
      RETURN_IF_ERROR(InspectGpt(image, static_cast<uint32_t>(found.front().offset), out));
      break;
    case DeclaredFormat::kRaw:
      RETURN_IF_ERROR(CheckNotEmpty(image));
      out.facts.emplace_back("a blob of no known format: nothing starts from it");
      break;
  }
  return out;
}

Result<void> InspectedImage::CheckUnchanged(const Sha256Digest& digest, uint64_t size) const {
  if (digest == digest_ && size == inspection_.file_size) return Ok();
  return Corrupt(
             fmt::format("the image changed since it was inspected: it was {} ({} bytes), now it "
                         "is {} ({} bytes)",
                         ToHex(digest_), inspection_.file_size, ToHex(digest), size))
      .WithFix("import the image again");
}

Result<InspectedImage> InspectBound(const RandomAccessReader& image, DeclaredFormat declared,
                                    const Sha256Digest& digest) {
  ASSIGN_OR_RETURN(Inspection inspection, Inspect(image, declared));
  return InspectedImage(std::move(inspection), digest);
}

}  // namespace vallum::images
