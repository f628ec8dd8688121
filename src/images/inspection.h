// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"
#include "formats/detect.h"
#include "formats/reader.h"
#include "images/inspection_request.h"
#include "images/preflight.h"
#include "measure/prediction.h"

namespace vallum::images {

// What the operator says that the file is.
enum class DeclaredFormat {
  kQcow2,
  kVmdk,
  kVhd,
  kVhdx,
  kVdi,
  kIso,     // a medium: ISO 9660 or UDF, with a GPT beside it or not
  kGpt,     // a bootable raw disk
  kMbr,     // the same with the older partition table
  kRaw,     // a blob that nothing starts from
  kLuks,    // an encrypted volume
  kKernel,  // for direct boot: a Linux bzImage or a PE program
  kInitrd,  // for direct boot: cpio archives, compressed or not
  kOva,     // an OVF with its disks in a tar
};

// As people write it and ParseDeclaredFormat reads it: "qcow2", "vmdk", ...
std::string_view DeclaredFormatName(DeclaredFormat format);
// The names above, and "vpc" for vhd. Errors: kInvalidInput with the fix (unknown; ami, aki, ari:
// retired; a format that is known, but not accepted: qed, parallels).
Result<DeclaredFormat> ParseDeclaredFormat(std::string_view name);
// Declared must equal detected, and only one format may be there at all.
//   found: what DetectFormats found. Errors: kInvalidInput.
Result<void> CheckDeclared(const std::vector<formats::Detection>& found, DeclaredFormat declared);
// The one accepted format that the content has. Errors: kInvalidInput (none that is known, one that
// is not accepted, several), those of the reader.
Result<DeclaredFormat> DetectFormat(const formats::RandomAccessReader& image);
// Whether it holds the disk of a guest: what can be converted.
bool IsDiskFormat(DeclaredFormat format);

enum class ContentFormat { kGpt, kMbr, kRaw };
std::string_view ContentFormatName(ContentFormat format);

// A PE program on the EFI system partition, as firmware or shim would start it.
struct BootBinary {
  std::string path;                 // "\EFI\BOOT\BOOTX64.EFI", as spelt on the disk
  uint64_t size = 0;                // bytes
  std::string authenticode_sha256;  // hexadecimal
  std::string signer;               // subject of the first signature's signer; empty if unsigned
  Bytes signer_certificate;         // its DER; empty if unsigned
  std::vector<Bytes> signatures;    // every PKCS#7 SignedData (DER), in file order
  Bytes vendor_cert_section;        // shim's PE section .vendor_cert, whole; empty if too large
  Bytes sbat_level_section;         // shim's PE section .sbatlevel, whole
  std::vector<Bytes> certificates;  // DER, every one that its signatures carry
  std::string sbat;                 // text of .sbat; empty if there is none
};

// What an image is and holds. A value without authority: see InspectedImage.
struct Inspection {
  DeclaredFormat format = DeclaredFormat::kRaw;  // declared and detected
  ContentFormat content = ContentFormat::kRaw;   // what a guest sees
  uint64_t file_size = 0;
  uint64_t virtual_size = 0;  // the disk that a guest sees, bytes
  uint64_t cluster_size = 0;  // bytes; 0 for formats without clusters
  std::string subformat;      // "streamOptimized", "dynamic", ...; "" where there is one kind only
  bool bootable = false;
  std::vector<std::string> facts;  // one line each, for people
  std::vector<BootBinary> boot_binaries;
  std::vector<KeySetReport> reports;  // one for each key set that was asked about
  // When it was asked for: one for each bank; empty when there is none, and why.
  std::vector<measure::Prediction> predictions;
  std::string prediction_problem;
  // Of the firmware that a prediction was asked for: what it can start by itself.
  std::vector<measure::FirmwareApplication> firmware_applications;
};

// Detects by content, compares with what was declared and checks the whole structure. Pure;
// time and memory are bounded whatever the bytes are.
// Errors: kInvalidInput: refused. One line: what was found at which offset and why it is refused;
// fix() says what is accepted. Other codes: the source could not be read.
//   request: what to look for beside.
Result<Inspection> Inspect(const formats::RandomAccessReader& image, DeclaredFormat declared,
                           const InspectionRequest& request = {});

// Inspects the disk of an instance as it is: what firmware would start from it, judged and
// predicted as `request` asks. What the guest keeps on it is its own business, so that only what
// cannot be read is refused.
//   overlay: the qcow2 that the instance writes; untrusted; may change while it is read.
//   base: what is under it, inspected when it was fetched; base_format: qcow2, gpt, mbr or raw.
// The report is that of a qcow2 with the overlay's sizes.
// Errors: as Inspect.
Result<Inspection> InspectInstanceDisk(const formats::RandomAccessReader& overlay,
                                       const formats::RandomAccessReader& base,
                                       DeclaredFormat base_format,
                                       const InspectionRequest& request);

// 64 hexadecimal digits. Errors: kInvalidInput.
Result<Sha256Digest> ParseSha256(std::string_view hex);

// Proof that some content passed inspection: only inspection makes one. What attaches, converts or
// overlays an image takes this, and calls CheckUnchanged with what it is about to use.
class InspectedImage {
 public:
  const Inspection& inspection() const { return inspection_; }
  const Sha256Digest& digest() const { return digest_; }
  uint64_t size() const { return inspection_.file_size; }

  // Errors: kCorrupt (the content is not the one that was inspected).
  Result<void> CheckUnchanged(const Sha256Digest& digest, uint64_t size) const;

 private:
  friend Result<InspectedImage> InspectBound(const formats::RandomAccessReader&, DeclaredFormat,
                                             const Sha256Digest&);
  friend class ConfinedInspector;
  InspectedImage(Inspection inspection, const Sha256Digest& digest)
      : inspection_(std::move(inspection)), digest_(digest) {}
  Inspection inspection_;
  Sha256Digest digest_;
};

// Inspect(), bound to the content's digest.
//   digest: SHA-256 of the whole file, as the blob store computed it while it was written.
Result<InspectedImage> InspectBound(const formats::RandomAccessReader& image,
                                    DeclaredFormat declared, const Sha256Digest& digest);

}  // namespace vallum::images
