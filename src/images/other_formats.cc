// SPDX-License-Identifier: Apache-2.0
#include "images/other_formats.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "base/units.h"
#include "formats/cpio.h"
#include "formats/detect.h"
#include "formats/iso9660.h"
#include "formats/kernel_image.h"
#include "formats/luks.h"
#include "formats/ova.h"
#include "formats/udf.h"

namespace vallum::images {
namespace {

using formats::RandomAccessReader;

constexpr size_t kHashChunk = size_t{1} << 20U;

// The disk formats by what the URI of an OVF's disk says, as DSP0243 and its users write them.
Result<DeclaredFormat> FormatOfUri(const formats::OvfDisk& disk) {
  const std::string uri = ToLower(disk.format);
  if (uri.find("vmdk") != std::string::npos) return DeclaredFormat::kVmdk;
  // The second is how virt-v2v and others name it.
  if (uri.find("qcow2") != std::string::npos ||
      uri.find("qcow-image-format") != std::string::npos) {
    return DeclaredFormat::kQcow2;
  }
  if (uri.find("vhdx") != std::string::npos) return DeclaredFormat::kVhdx;
  if (uri.find("vhd") != std::string::npos) return DeclaredFormat::kVhd;
  if (uri.find("vdi") != std::string::npos) return DeclaredFormat::kVdi;
  return InvalidInput("disk " + Printable(disk.id) + " of the OVF has the format \"" +
                      Printable(disk.format) + "\", which is not known")
      .WithFix("export the machine with disks in VMDK");
}

// Compares a member with the manifest of its archive.
Result<void> CheckManifest(const RandomAccessReader& image, const formats::OvaImage& ova,
                           const formats::TarMember& member) {
  for (const formats::OvaDigest& entry : ova.manifest) {
    if (entry.file != member.name) continue;
    Hasher hasher(entry.algorithm);
    for (uint64_t done = 0; done < member.size; done += kHashChunk) {
      ASSIGN_OR_RETURN(const Bytes chunk,
                       formats::ReadBytesAt(image, member.offset + done,
                                            std::min<uint64_t>(kHashChunk, member.size - done)));
      hasher.Update(chunk);
    }
    if (hasher.Finish() != entry.digest) {
      return InvalidInput(Printable(member.name) + " has not the digest that the manifest says")
          .WithFix("download the OVA again");
    }
  }
  return Ok();
}

Result<OvaDisk> FindDisk(const RandomAccessReader& image, const formats::OvaImage& ova,
                         const formats::OvfDisk& disk) {
  for (const formats::OvfFile& file : ova.ovf.files) {
    if (file.id == disk.file_id && !file.compression.empty()) {
      return InvalidInput("disk " + Printable(disk.href) + " is compressed with " +
                          Printable(file.compression) + " inside the OVA")
          .WithFix("export the machine with disks that are streamOptimized VMDKs");
    }
  }
  const formats::TarMember* const member = ova.Find(disk.href);
  if (member == nullptr) {
    return InvalidInput("disk " + Printable(disk.href) + " is not in the OVA");
  }
  ASSIGN_OR_RETURN(const DeclaredFormat format, FormatOfUri(disk));
  RETURN_IF_ERROR(CheckManifest(image, ova, *member));
  return OvaDisk{
      .name = member->name, .offset = member->offset, .size = member->size, .format = format};
}

std::string Size(uint64_t bytes) { return FormatByteCount(ByteCount::Bytes(bytes)); }

}  // namespace

Result<Facts> DescribeLuks(const RandomAccessReader& image) {
  ASSIGN_OR_RETURN(formats::LuksHeader luks, formats::ParseLuks(image));
  Facts facts = {
      fmt::format("LUKS{} {}, key of {} bits, {} active key slots, payload at {}", luks.version,
                  luks.cipher, luks.key_bits, luks.key_slots.size(), luks.payload_offset),
      "an encrypted volume: what is inside cannot be inspected"};
  for (std::string& fact : luks.facts) facts.push_back(std::move(fact));
  return facts;
}

Result<Facts> DescribeKernel(const RandomAccessReader& image) {
  ASSIGN_OR_RETURN(const formats::KernelFacts kernel, formats::CheckKernel(image));
  Facts facts;
  switch (kernel.kind) {
    case formats::KernelKind::kBzImage:
      facts.emplace_back("a Linux kernel (bzImage)");
      break;
    case formats::KernelKind::kUki:
      facts.emplace_back(kernel.has_initrd ? "a unified kernel image with its own initrd"
                                           : "a unified kernel image without an initrd");
      break;
    case formats::KernelKind::kPe:
      facts.emplace_back("a PE program that is no Linux kernel");
      break;
  }
  if (kernel.bzimage.has_value() && !kernel.bzimage->version.empty()) {
    facts.push_back("Linux " + Printable(kernel.bzimage->version));
  }
  if (!kernel.command_line.empty()) facts.push_back("command line: " + kernel.command_line);
  return facts;
}

Result<Facts> DescribeInitrd(const RandomAccessReader& image) {
  ASSIGN_OR_RETURN(const formats::InitrdFacts initrd, formats::CheckInitrd(image));
  Facts facts;
  for (const formats::InitrdMember& member : initrd.members) {
    facts.push_back(fmt::format("cpio ({}, {}) at {}: {} entries, {} unpacked",
                                formats::CpioKindName(member.kind),
                                formats::CompressionName(member.compression), member.offset,
                                member.entries, Size(member.uncompressed_bytes)));
  }
  if (initrd.has_early_microcode) facts.emplace_back("brings early microcode");
  if (!initrd.has_init) facts.emplace_back("has no /init");
  return facts;
}

Result<std::vector<OvaDisk>> ListOvaDisks(const RandomAccessReader& image, Facts& facts) {
  ASSIGN_OR_RETURN(const formats::OvaImage ova, formats::ParseOva(image));
  std::vector<OvaDisk> disks;
  for (const formats::OvfDisk& disk : ova.ovf.disks) {
    if (disk.file_id.empty()) {
      facts.push_back("disk " + Printable(disk.id) + " of the OVF is empty");
      continue;
    }
    // Or a small file would ask for a lot of work.
    if (std::ranges::find(disks, disk.href, &OvaDisk::name) != disks.end()) {
      return InvalidInput("two disks of the OVF are the same file, " + Printable(disk.href))
          .WithFix("export the machine with a file for each disk");
    }
    ASSIGN_OR_RETURN(OvaDisk found, FindDisk(image, ova, disk));
    disks.push_back(std::move(found));
  }
  facts.push_back(fmt::format("OVA of machine \"{}\" with {} disks{}{}", Printable(ova.ovf.name),
                              disks.size(), ova.manifest.empty() ? ", without a manifest" : "",
                              ova.ovf.vtpm ? ", with a vTPM" : ""));
  if (ova.ovf.firmware == formats::OvfFirmware::kEfi) {
    facts.emplace_back(ova.ovf.secure_boot.value_or(false) ? "asks for UEFI with Secure Boot"
                                                           : "asks for UEFI");
  }
  return disks;
}

Result<Facts> DescribeMedium(const RandomAccessReader& image) {
  ASSIGN_OR_RETURN(const std::vector<formats::Detection> found, formats::DetectFormats(image));
  const bool iso = std::ranges::any_of(
      found, [](const formats::Detection& d) { return d.format == formats::Format::kIso9660; });
  if (!iso) {
    ASSIGN_OR_RETURN(formats::UdfVolume udf, formats::ParseUdf(image));
    return std::move(udf.facts);
  }
  ASSIGN_OR_RETURN(formats::IsoVolume volume, formats::ParseIso9660(image));
  return std::move(volume.facts);
}

}  // namespace vallum::images
