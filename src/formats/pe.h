// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"

// docs/formats/pe.md mirrors these constants.
namespace vallum::formats {

inline constexpr size_t kPeMaxSections = 96;
inline constexpr size_t kPeMaxSectionName = 64;
inline constexpr size_t kPeMaxCertificates = 16;
inline constexpr uint16_t kWinCertRevision2 = 0x0200;
inline constexpr uint16_t kWinCertTypePkcs7 = 0x0002;

struct PeSection {
  std::string name;  // up to 8 bytes, or out of the string table when it is longer
  uint32_t virtual_size = 0;
  uint32_t virtual_address = 0;
  uint32_t raw_size = 0;
  uint32_t raw_offset = 0;
};

// One WIN_CERTIFICATE.
struct PeCertificate {
  uint16_t revision = 0;
  uint16_t type = 0;
  ByteView data;  // for kWinCertTypePkcs7: DER of a PKCS#7 SignedData (padding may follow)
};

// A view of a PE program; the bytes must outlive it.
class PeImage {
 public:
  // Errors: kInvalidInput (no PE; headers, sections or certificate table not inside the file;
  // counts above the limits).
  static Result<PeImage> Parse(ByteView file);

  // The whole program.
  ByteView file() const { return file_; }
  uint16_t machine() const { return machine_; }
  const std::vector<PeSection>& sections() const { return sections_; }
  const std::vector<PeCertificate>& certificates() const { return certificates_; }
  // Size in bytes of the table that the certificates stand in, as the data directory says; 0: the
  // program is not signed.
  uint32_t certificate_table_size() const { return certificates_size_; }

  // The bytes of the first section of that name (min of raw and virtual size); nothing if absent.
  std::optional<ByteView> Section(std::string_view name) const;

  // The digest that signatures cover and firmware measures (Windows Authenticode PE Signature
  // Format; EDK2 HashPeImage). Computed once for each algorithm, so not thread-safe.
  // Errors: kInvalidInput (sections larger than the file).
  Result<Bytes> AuthenticodeDigest(HashAlgorithm algorithm) const;

 private:
  explicit PeImage(ByteView file) : file_(file) {}
  Result<Bytes> ComputeDigest(HashAlgorithm algorithm) const;
  Result<void> ParseHeaders();
  Result<void> ParseSections(size_t offset, size_t count);
  std::string SectionName(ByteView field) const;
  Result<void> ParseCertificates();

  ByteView file_;
  uint16_t machine_ = 0;
  uint64_t string_table_ = 0;  // 0: none
  size_t checksum_offset_ = 0;
  size_t certificate_entry_offset_ = 0;  // of the data directory's entry; 0: it has none
  uint32_t headers_size_ = 0;
  uint32_t certificates_offset_ = 0;
  uint32_t certificates_size_ = 0;
  std::vector<PeSection> sections_;
  std::vector<PeCertificate> certificates_;
  mutable std::map<HashAlgorithm, Bytes> digests_;
};

}  // namespace vallum::formats
