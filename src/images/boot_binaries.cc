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

bool IsAboutContent(const Error& error) {
  return error.code() == ErrorCode::kInvalidInput || error.code() == ErrorCode::kNotFound ||
         error.code() == ErrorCode::kExhausted;
}

std::string DescribeSigner(const BootBinary& binary) {
  if (binary.signatures.empty()) return "unsigned";
  if (binary.signer.empty()) return "signed in a way that cannot be read";
  const std::string more = binary.signatures.size() > 1
                               ? fmt::format(" (and {} more)", binary.signatures.size() - 1)
                               : std::string();
  return "signed by " + binary.signer + more;
}

Result<DescribedBinary> DescribeBootBinary(std::string path, const formats::PeImage& pe) {
  ASSIGN_OR_RETURN(const Bytes digest, pe.AuthenticodeDigest(HashAlgorithm::kSha256));
  DescribedBinary described;
  BootBinary& out = described.binary;
  out.path = std::move(path);
  out.size = pe.file().size();
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

}  // namespace vallum::images
