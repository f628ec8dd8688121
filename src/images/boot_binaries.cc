// SPDX-License-Identifier: Apache-2.0
#include "images/boot_binaries.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <iterator>
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
#include "formats/fat.h"
#include "formats/gpt.h"
#include "formats/pe.h"
#include "formats/reader.h"
#include "images/inspection.h"
#include "images/signer.h"

namespace vallum::images {
namespace {

using formats::FatEntry;
using formats::FatEntryKind;
using formats::FatVolume;

constexpr std::string_view kDefaultLoader = "\\efi\\boot\\bootx64.efi";

// Faults of the content are reported, faults of the source end the inspection.
bool IsAboutContent(const Error& error) {
  return error.code() == ErrorCode::kInvalidInput || error.code() == ErrorCode::kNotFound ||
         error.code() == ErrorCode::kExhausted;
}

class EspWalker {
 public:
  EspWalker(const FatVolume& volume, BootBinaryReport& report) : volume_(volume), report_(report) {}

  Result<void> Walk() {
    const Result<FatEntry> efi = volume_.Find("\\EFI");
    if (!efi.has_value()) return Note("\\EFI", efi.error());
    return WalkDirectory(*efi, "\\" + efi->name, 1);
  }

 private:
  Result<void> Note(const std::string& path, const Error& error) {
    if (!IsAboutContent(error)) return error;
    report_.facts.push_back(Printable(path) + " is not read: " + error.Describe());
    return Ok();
  }

  // Says once that a limit left something out.
  Result<void> NoteLimit(std::string_view what) {
    const std::string fact =
        fmt::format("the EFI system partition has more {} than are read", what);
    if (std::ranges::find(report_.facts, fact) == report_.facts.end()) {
      report_.facts.push_back(fact);
    }
    return Ok();
  }

  Result<void> WalkDirectory(const FatEntry& directory, const std::string& path, size_t depth) {
    if (depth > kMaxEspDepth || ++directories_ > kMaxEspDirectories) {
      return NoteLimit("directories");
    }
    const Result<std::vector<FatEntry>> entries = volume_.List(directory);
    if (!entries.has_value()) return Note(path, entries.error());
    for (const FatEntry& entry : *entries) {
      const std::string entry_path = path + "\\" + entry.name;
      if (entry.kind == FatEntryKind::kDirectory) {
        RETURN_IF_ERROR(WalkDirectory(entry, entry_path, depth + 1));
      } else if (ToLower(entry.name).ends_with(".efi")) {
        RETURN_IF_ERROR(AddFile(entry, entry_path));
      }
    }
    return Ok();
  }

  Result<void> AddFile(const FatEntry& file, const std::string& path) {
    if (report_.binaries.size() >= kMaxBootBinaries ||
        bytes_read_ + file.size > kMaxBootBytesRead) {
      return NoteLimit("programs");
    }
    const Result<Bytes> content = volume_.Read(file, kMaxBootBinaryBytes);
    if (!content.has_value()) return Note(path, content.error());
    bytes_read_ += content->size();
    Result<DescribedBinary> binary = DescribeBootBinary(path, *content);
    if (!binary.has_value()) return Note(path, binary.error());
    std::ranges::move(binary->facts, std::back_inserter(report_.facts));
    report_.binaries.push_back(std::move(binary->binary));
    return Ok();
  }

  const FatVolume& volume_;
  BootBinaryReport& report_;
  size_t directories_ = 0;
  size_t bytes_read_ = 0;
};

std::string DescribeSigner(const BootBinary& binary) {
  if (binary.signatures.empty()) return "unsigned";
  if (binary.signer.empty()) return "signed in a way that cannot be read";
  const std::string more = binary.signatures.size() > 1
                               ? fmt::format(" (and {} more)", binary.signatures.size() - 1)
                               : std::string();
  return "signed by " + binary.signer + more;
}

void AddLoaderFacts(BootBinaryReport& report) {
  const auto it = std::ranges::find_if(
      report.binaries, [](const BootBinary& b) { return ToLower(b.path) == kDefaultLoader; });
  if (it == report.binaries.end()) {
    report.facts.emplace_back(
        "no \\EFI\\BOOT\\BOOTX64.EFI: UEFI firmware finds nothing to start by itself");
    return;
  }
  report.facts.push_back(Printable(it->path) + " is " + DescribeSigner(*it));
}

Result<void> CollectFrom(const formats::RandomAccessReader& disk, const formats::GptTable& table,
                         const formats::GptPartition& partition, BootBinaryReport& report) {
  ASSIGN_OR_RETURN(const formats::WindowReader window,
                   formats::WindowReader::Create(disk, partition.first_lba * table.sector_size,
                                                 partition.sectors() * table.sector_size));
  const Result<FatVolume> volume = FatVolume::Open(window);
  if (!volume.has_value()) {
    if (!IsAboutContent(volume.error())) return volume.error();
    report.facts.push_back(fmt::format("the EFI system partition (number {}) is not read: {}",
                                       partition.number, volume.error().Describe()));
    return Ok();
  }
  return EspWalker(*volume, report).Walk();
}

// Kept as it is; what it means is up to those who recompute measurements.
void AddVendorCertSection(const formats::PeImage& pe, DescribedBinary& out) {
  const std::optional<ByteView> section = pe.Section(".vendor_cert");
  if (!section.has_value()) return;
  if (section->size() > kMaxVendorCertBytes) {
    out.facts.push_back(
        fmt::format("{}: its section .vendor_cert of {} bytes is left out, {} are kept at most",
                    Printable(out.binary.path), section->size(), kMaxVendorCertBytes));
    return;
  }
  out.binary.vendor_cert_section = ToBytes(*section);
}

}  // namespace

Result<DescribedBinary> DescribeBootBinary(std::string path, ByteView file) {
  ASSIGN_OR_RETURN(const formats::PeImage pe, formats::PeImage::Parse(file));
  ASSIGN_OR_RETURN(const Bytes digest, pe.AuthenticodeDigest(HashAlgorithm::kSha256));
  DescribedBinary described;
  BootBinary& out = described.binary;
  out.path = std::move(path);
  out.size = file.size();
  out.authenticode_sha256 = ToHex(digest);
  for (const formats::PeCertificate& certificate : pe.certificates()) {
    if (certificate.type != formats::kWinCertTypePkcs7) continue;
    out.signatures.push_back(ToBytes(certificate.data));
  }
  for (const Bytes& signature : out.signatures) {
    for (Bytes& certificate : ReadCertificates(signature)) {
      if (out.certificates.size() == kMaxBinaryCertificates) break;
      out.certificates.push_back(std::move(certificate));
    }
  }
  // A signature that cannot be read leaves the signer empty; the digest counts all the same.
  if (!out.signatures.empty()) {
    if (Result<Signer> signer = ReadSigner(out.signatures.front()); signer.has_value()) {
      out.signer = std::move(signer->subject);
      out.signer_certificate = std::move(signer->certificate);
    }
  }
  AddVendorCertSection(pe, described);
  if (const std::optional<ByteView> level = pe.Section(".sbatlevel");
      level.has_value() && level->size() <= kMaxSbatBytes) {
    out.sbat_level_section = ToBytes(*level);
  }
  if (const std::optional<ByteView> sbat = pe.Section(".sbat"); sbat.has_value()) {
    const std::string_view text = AsText(sbat->first(std::min(sbat->size(), kMaxSbatBytes)));
    out.sbat = text.substr(0, text.find('\0'));
  }
  return described;
}

Result<BootBinaryReport> CollectBootBinaries(const formats::RandomAccessReader& disk,
                                             const formats::GptTable& table) {
  BootBinaryReport report;
  bool found = false;
  for (const formats::GptPartition& partition : table.partitions) {
    if (formats::FormatGuid(partition.type) != formats::kEspTypeGuid) continue;
    // Firmware looks at each; an image has one. More than one is said, and the first is read.
    if (std::exchange(found, true)) {
      report.facts.push_back(fmt::format("partition {} is a further EFI system partition, not read",
                                         partition.number));
      continue;
    }
    RETURN_IF_ERROR(CollectFrom(disk, table, partition, report));
  }
  if (!found) {
    report.facts.emplace_back("no EFI system partition: starts under BIOS only");
    return report;
  }
  AddLoaderFacts(report);
  return report;
}

}  // namespace vallum::images
