// SPDX-License-Identifier: Apache-2.0
#include "images/inspection.h"

#include <fmt/format.h>

#include <algorithm>
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
#include "formats/detect.h"
#include "formats/gpt.h"
#include "formats/mbr.h"
#include "formats/qcow2_disk.h"
#include "formats/reader.h"
#include "images/boot_chain.h"
#include "images/container.h"
#include "images/other_formats.h"

namespace vallum::images {
namespace {

using formats::Detection;
using formats::Format;
using formats::RandomAccessReader;

constexpr std::string_view kAccepted =
    "accepted formats are qcow2, vmdk, vhd, vhdx, vdi, iso, gpt and mbr (bootable raw disks), raw "
    "(a "
    "blob that nothing starts from), luks, ova, kernel and initrd";
constexpr std::string_view kConvert =
    "convert it where it came from: qemu-img convert -f <its format> -O qcow2, then declare qcow2";

struct FormatName {
  DeclaredFormat format;
  std::string_view name;
};
constexpr auto kNames = std::to_array<FormatName>({{DeclaredFormat::kQcow2, "qcow2"},
                                                   {DeclaredFormat::kVmdk, "vmdk"},
                                                   {DeclaredFormat::kVhd, "vhd"},
                                                   {DeclaredFormat::kVhd, "vpc"},
                                                   {DeclaredFormat::kVhdx, "vhdx"},
                                                   {DeclaredFormat::kVdi, "vdi"},
                                                   {DeclaredFormat::kIso, "iso"},
                                                   {DeclaredFormat::kGpt, "gpt"},
                                                   {DeclaredFormat::kMbr, "mbr"},
                                                   {DeclaredFormat::kRaw, "raw"},
                                                   {DeclaredFormat::kLuks, "luks"},
                                                   {DeclaredFormat::kKernel, "kernel"},
                                                   {DeclaredFormat::kInitrd, "initrd"},
                                                   {DeclaredFormat::kOva, "ova"}});
// How much data of a raw blob is looked at for a byte that is not zero.
constexpr uint64_t kEmptyScanBytes = uint64_t{64} << 20U;
constexpr size_t kScanChunk = 64 * 1024;

std::string Where(const Detection& d) {
  return fmt::format("{} (signature at offset {})", formats::FormatName(d.format), d.offset);
}

// The format by which this detection may be declared, if it may at all.
std::optional<DeclaredFormat> AcceptedAs(Format format) {
  switch (format) {
    case Format::kQcow2:
      return DeclaredFormat::kQcow2;
    case Format::kVmdk:
      return DeclaredFormat::kVmdk;
    case Format::kVhd:
      return DeclaredFormat::kVhd;
    case Format::kVhdx:
      return DeclaredFormat::kVhdx;
    case Format::kVdi:
      return DeclaredFormat::kVdi;
    case Format::kIso9660:
    case Format::kUdf:
      return DeclaredFormat::kIso;
    case Format::kGpt:
      return DeclaredFormat::kGpt;
    case Format::kMbr:
      return DeclaredFormat::kMbr;
    case Format::kLuks:
      return DeclaredFormat::kLuks;
    case Format::kTar:
      return DeclaredFormat::kOva;
    case Format::kBzImage:
    case Format::kPe:
      return DeclaredFormat::kKernel;
    case Format::kCpio:
    case Format::kGzip:
    case Format::kXz:
    case Format::kZstd:
    case Format::kBzip2:
    case Format::kLz4:
      return DeclaredFormat::kInitrd;
    case Format::kQed:
    case Format::kParallels:
    case Format::kCloop:
    case Format::kDmg:
    case Format::kBochs:
    case Format::kJson:
    case Format::kElf:
    case Format::kBootSector:
      return std::nullopt;
  }
  return std::nullopt;
}

Error NothingDetected(DeclaredFormat declared) {
  const std::string name(DeclaredFormatName(declared));
  if (declared == DeclaredFormat::kGpt) {
    return InvalidInput("declared gpt, but there is no GPT header at offset 512 or 4096")
        .WithFix("declare raw if nothing is to start from it; " + std::string(kAccepted));
  }
  return InvalidInput("declared " + name + ", but the content has no signature of " + name +
                      ", nor of any other known format")
      .WithFix(std::string(kAccepted));
}

bool IsPartitionedDisk(Format format) {
  return format == Format::kGpt || format == Format::kMbr || format == Format::kBootSector;
}

// Two readers of an ambiguous file could disagree on what it is. Two pairs are no contradiction
// when the outer one is declared: a medium that carries a GPT so that firmware starts it from a
// stick, and a fixed VHD, which is the guest's disk with a footer behind it.
bool IsAmbiguous(const std::vector<Detection>& found, DeclaredFormat declared) {
  if (found.size() < 2) return false;
  if (found.size() > 2) return true;
  const auto has = [&](auto predicate) {
    return std::ranges::any_of(found, [&](const Detection& d) { return predicate(d); });
  };
  if (declared == DeclaredFormat::kIso) {
    return !(has([](const Detection& d) { return d.format == Format::kGpt; }) &&
             has([](const Detection& d) { return AcceptedAs(d.format) == DeclaredFormat::kIso; }));
  }
  if (declared == DeclaredFormat::kVhd) {
    return !(has([](const Detection& d) { return IsPartitionedDisk(d.format); }) &&
             has([](const Detection& d) { return d.format == Format::kVhd && d.offset != 0; }));
  }
  return true;
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

Result<void> InspectGpt(const RandomAccessReader& disk, uint32_t sector_size,
                        const InspectionRequest& request, Inspection& out) {
  ASSIGN_OR_RETURN(const formats::GptTable table, formats::ParseGpt(disk, sector_size));
  out.content = ContentFormat::kGpt;
  out.bootable = true;
  out.facts.push_back(GptFact(table));
  ASSIGN_OR_RETURN(BootChainReport report, InspectBootChain(disk, table, request.key_sets));
  out.boot_binaries = std::move(report.binaries);
  out.reports = std::move(report.reports);
  for (std::string& fact : report.facts) out.facts.push_back(std::move(fact));
  if (!request.prediction.has_value()) return Ok();
  Result<measure::FirmwareMeasurements> firmware = MeasurePlatform(*request.prediction);
  Result<std::vector<measure::Prediction>> predicted = std::vector<measure::Prediction>();
  if (firmware.has_value()) {
    out.firmware_applications = firmware->applications;
    predicted = PredictFromDisk(disk, table, *request.prediction, *firmware);
  } else {
    predicted = std::move(firmware).error();
  }
  if (predicted.has_value()) {
    out.predictions = *std::move(predicted);
  } else {
    out.prediction_problem = predicted.error().Describe();
    out.facts.push_back("the boot cannot be predicted: " + out.prediction_problem);
  }
  return Ok();
}

// What is inside is the guest's business, with two exceptions: a table that contradicts itself, and
// a container, which would be read as one if the disk were ever exported as raw.
Result<void> InspectContent(const RandomAccessReader& disk, const InspectionRequest& request,
                            Inspection& out) {
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
      return InspectGpt(disk, static_cast<uint32_t>(d.offset), request, out);
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

Result<void> InspectDisk(const RandomAccessReader& image, const InspectionRequest& request,
                         Inspection& out) {
  ASSIGN_OR_RETURN(OpenedDisk opened, OpenDisk(image, out.format));
  out.virtual_size = opened.disk->size();
  out.cluster_size = opened.cluster_size;
  out.subformat = std::move(opened.subformat);
  out.facts = std::move(opened.facts);
  if (!opened.written) {
    out.facts.emplace_back("nothing is written on the guest's disk");
    return Ok();
  }
  RETURN_IF_ERROR(InspectContent(*opened.disk, request, out))
      .context(fmt::format("in the guest's disk inside the {}", DeclaredFormatName(out.format)));
  return Ok();
}

Result<void> InspectMbr(const RandomAccessReader& image, Inspection& out) {
  ASSIGN_OR_RETURN(const formats::MbrTable table, formats::ParseMbr(image));
  out.content = ContentFormat::kMbr;
  out.bootable = true;
  out.facts.push_back(
      fmt::format("MBR with {} partitions: starts under BIOS only", table.partitions.size()));
  return Ok();
}

Result<void> InspectIso(const RandomAccessReader& image, const std::vector<Detection>& found,
                        Inspection& out) {
  ASSIGN_OR_RETURN(out.facts, DescribeMedium(image));
  if (found.size() > 1) out.facts.emplace_back("a GPT beside it, so that it starts from a stick");
  return Ok();
}

Result<void> InspectOva(const RandomAccessReader& image, const InspectionRequest& request,
                        Inspection& out) {
  ASSIGN_OR_RETURN(const std::vector<OvaDisk> disks, ListOvaDisks(image, out.facts));
  for (const OvaDisk& disk : disks) {
    ASSIGN_OR_RETURN(const formats::WindowReader window,
                     formats::WindowReader::Create(image, disk.offset, disk.size));
    Result<Inspection> inspected = Inspect(window, disk.format, request);
    if (!inspected.has_value()) return std::move(inspected).error().Context("in " + disk.name);
    Inspection& inside = *inspected;
    for (const std::string& fact : inside.facts) out.facts.push_back(disk.name + ": " + fact);
    if (&disk != &disks.front()) continue;
    // What the machine starts from.
    out.virtual_size = inside.virtual_size;
    out.cluster_size = inside.cluster_size;
    out.subformat = inside.subformat;
    out.content = inside.content;
    out.bootable = inside.bootable;
    out.boot_binaries = std::move(inside.boot_binaries);
    out.reports = std::move(inside.reports);
    out.predictions = std::move(inside.predictions);
    out.prediction_problem = std::move(inside.prediction_problem);
    out.firmware_applications = std::move(inside.firmware_applications);
  }
  return Ok();
}

Result<void> InspectAs(const RandomAccessReader& image, const std::vector<Detection>& found,
                       const InspectionRequest& request, Inspection& out) {
  switch (out.format) {
    case DeclaredFormat::kQcow2:
    case DeclaredFormat::kVmdk:
    case DeclaredFormat::kVhd:
    case DeclaredFormat::kVhdx:
    case DeclaredFormat::kVdi:
      return InspectDisk(image, request, out);
    case DeclaredFormat::kIso:
      return InspectIso(image, found, out);
    case DeclaredFormat::kGpt:
      return InspectGpt(image, static_cast<uint32_t>(found.front().offset), request, out);
    case DeclaredFormat::kMbr:
      return InspectMbr(image, out);
    case DeclaredFormat::kRaw:
      RETURN_IF_ERROR(CheckNotEmpty(image));
      out.facts.emplace_back("a blob of no known format: nothing starts from it");
      return Ok();
    case DeclaredFormat::kLuks: {
      ASSIGN_OR_RETURN(out.facts, DescribeLuks(image));
      return Ok();
    }
    case DeclaredFormat::kKernel: {
      ASSIGN_OR_RETURN(out.facts, DescribeKernel(image));
      return Ok();
    }
    case DeclaredFormat::kInitrd: {
      ASSIGN_OR_RETURN(out.facts, DescribeInitrd(image));
      return Ok();
    }
    case DeclaredFormat::kOva:
      return InspectOva(image, request, out);
  }
  return Internal("no way to inspect this format");
}

// Layout that contradicts itself and limits that are passed are refusals as well: who gave the file
// is told to give another. Every refusal says what is accepted.
Error Refusal(Error error) {
  const bool other = error.code() == ErrorCode::kCorrupt || error.code() == ErrorCode::kExhausted ||
                     error.code() == ErrorCode::kNotFound;
  if (!other && error.code() != ErrorCode::kInvalidInput) return error;
  const std::string fix(error.fix().empty() ? kAccepted : std::string_view(error.fix()));
  if (other) error = InvalidInput(error.Describe());
  return std::move(error).WithFix(fix);
}

// Not all tables are checked first: only few are read, and offsets are checked as they are used.
Result<formats::Qcow2Disk> OpenInstanceDisk(const RandomAccessReader& overlay,
                                            const RandomAccessReader& below) {
  ASSIGN_OR_RETURN(const formats::Qcow2Header header, formats::ParseQcow2Header(overlay));
  RETURN_IF_ERROR(formats::ValidateQcow2(header, overlay.size()));
  return formats::Qcow2Disk::Over(below, overlay, header);
}

// What UEFI cannot start is said as well, not left out.
void ReportMissingChain(const InspectionRequest& request, Inspection& out) {
  constexpr std::string_view kNoTable =
      "the disk has no GPT, so that UEFI finds no boot loader on it";
  if (out.reports.empty()) {
    for (const firmware::KeySet& keys : request.key_sets) {
      out.reports.push_back(ReportWithoutChain(keys, std::string(kNoTable)));
    }
  }
  if (request.prediction.has_value() && out.predictions.empty() && out.prediction_problem.empty()) {
    out.prediction_problem = kNoTable;
  }
}

}  // namespace

std::string_view DeclaredFormatName(DeclaredFormat format) {
  const auto* const found = std::ranges::find(kNames, format, &FormatName::format);
  return found == kNames.end() ? "unknown" : found->name;
}

bool IsDiskFormat(DeclaredFormat format) {
  switch (format) {
    case DeclaredFormat::kQcow2:
    case DeclaredFormat::kVmdk:
    case DeclaredFormat::kVhd:
    case DeclaredFormat::kVhdx:
    case DeclaredFormat::kVdi:
    case DeclaredFormat::kGpt:
    case DeclaredFormat::kMbr:
    case DeclaredFormat::kRaw:
    case DeclaredFormat::kOva:
      return true;
    case DeclaredFormat::kIso:
    case DeclaredFormat::kLuks:
    case DeclaredFormat::kKernel:
    case DeclaredFormat::kInitrd:
      return false;
  }
  return false;
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
  const auto* const found = std::ranges::find(kNames, lower, &FormatName::name);
  if (found != kNames.end()) return found->format;
  for (const std::string_view retired : kRetired) {
    if (lower == retired) {
      return InvalidInput("disk format " + lower +
                          " is retired: Amazon's split machine images are "
                          "not accepted")
          .WithFix("make one bootable disk of it and declare qcow2 or gpt");
    }
  }
  const bool convertible = lower == "qed" || lower == "parallels" || lower == "bochs" ||
                           lower == "cloop" || lower == "dmg" || lower == "qcow";
  return InvalidInput("disk format \"" + Printable(name, 40) + "\" is not accepted")
      .WithFix(std::string(convertible ? kConvert : kAccepted));
}

Result<void> CheckDeclared(const std::vector<Detection>& found, DeclaredFormat declared) {
  if (IsAmbiguous(found, declared)) {
    std::vector<std::string> names;
    for (const Detection& d : found) names.push_back(Where(d));
    return InvalidInput("ambiguous: the content is several formats at once: " + Join(names, ", "))
        .WithFix("make a clean image of one format: qemu-img convert -f <format> -O qcow2");
  }
  if (found.empty()) {
    if (declared == DeclaredFormat::kRaw) return Ok();
    return NothingDetected(declared);
  }
  for (const Detection& d : found) {
    if (AcceptedAs(d.format) == declared) return Ok();
  }
  const Detection& first = found.front();
  Error error = InvalidInput(
      fmt::format("declared {}, but detected {}", DeclaredFormatName(declared), Where(first)));
  if (const std::optional<DeclaredFormat> accepted = AcceptedAs(first.format)) {
    return std::move(error).WithFix(
        fmt::format("declare {}, if that is what it should be", DeclaredFormatName(*accepted)));
  }
  const std::string_view fix =
      formats::IsDiskContainer(first.format) && first.format != Format::kJson ? kConvert
                                                                              : kAccepted;
  return std::move(error).WithFix(
      fmt::format("{} is not accepted: {}", formats::FormatName(first.format), fix));
}

Result<DeclaredFormat> DetectFormat(const RandomAccessReader& image) {
  if (image.size() == 0) {
    return InvalidInput("empty: the file has no bytes").WithFix(std::string(kAccepted));
  }
  ASSIGN_OR_RETURN(const std::vector<Detection> found, formats::DetectFormats(image));
  if (found.empty()) {
    return InvalidInput("the content has no signature of any known format")
        .WithFix("declare raw, if it is a blob that nothing starts from; " +
                 std::string(kAccepted));
  }
  const auto has = [&](DeclaredFormat format) {
    return std::ranges::any_of(found,
                               [&](const Detection& d) { return AcceptedAs(d.format) == format; });
  };
  // Of the pairs that are no contradiction, the outer one is what the file is.
  const DeclaredFormat declared =
      has(DeclaredFormat::kIso)   ? DeclaredFormat::kIso
      : has(DeclaredFormat::kVhd) ? DeclaredFormat::kVhd
                                  : AcceptedAs(found.front().format).value_or(DeclaredFormat::kRaw);
  RETURN_IF_ERROR(CheckDeclared(found, declared));
  return declared;
}

Result<Inspection> Inspect(const RandomAccessReader& image, DeclaredFormat declared,
                           const InspectionRequest& request) {
  Inspection out;
  out.format = declared;
  out.file_size = image.size();
  out.virtual_size = image.size();
  if (image.size() == 0) {
    return InvalidInput("empty: the file has no bytes").WithFix(std::string(kAccepted));
  }
  ASSIGN_OR_RETURN(const std::vector<Detection> found, formats::DetectFormats(image));
  RETURN_IF_ERROR(CheckDeclared(found, declared));
  Result<void> inspected = InspectAs(image, found, request, out);
  if (!inspected.has_value()) return Refusal(std::move(inspected).error());
  if (IsDiskFormat(declared)) ReportMissingChain(request, out);
  return out;
}

Result<Inspection> InspectInstanceDisk(const RandomAccessReader& overlay,
                                       const RandomAccessReader& base, DeclaredFormat base_format,
                                       const InspectionRequest& request) {
  ASSIGN_OR_RETURN(const OpenedDisk below, OpenDisk(base, base_format));
  const Result<formats::Qcow2Disk> disk = OpenInstanceDisk(overlay, *below.disk);
  if (!disk.has_value()) return Refusal(disk.error());
  Inspection out;
  out.format = DeclaredFormat::kQcow2;
  out.file_size = overlay.size();
  out.virtual_size = disk->size();
  Result<void> inspected = InspectContent(*disk, request, out);
  if (!inspected.has_value()) return Refusal(std::move(inspected).error());
  ReportMissingChain(request, out);
  return out;
}

Result<Sha256Digest> ParseSha256(std::string_view hex) {
  ASSIGN_OR_RETURN(const Bytes raw, FromHex(hex));
  Sha256Digest digest{};
  if (raw.size() != digest.size()) return InvalidInput("a SHA-256 has 64 hexadecimal digits");
  std::ranges::copy(raw, digest.begin());
  return digest;
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
