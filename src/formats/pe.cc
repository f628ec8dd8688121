// SPDX-License-Identifier: Apache-2.0
#include "formats/pe.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/fields.h"
#include "formats/reader.h"

namespace vallum::formats {
namespace {

using std::string_view_literals::operator""sv;

constexpr size_t kDosHeaderSize = 64;
constexpr size_t kCoffHeaderSize = 24;  // with the signature
constexpr size_t kSectionHeaderSize = 40;
constexpr size_t kSymbolSize = 18;
constexpr uint16_t kMagicPe32 = 0x10b;
constexpr uint16_t kMagicPe32Plus = 0x20b;
constexpr size_t kChecksumOffset = 64;  // in the optional header, both kinds
constexpr size_t kSizeOfHeadersOffset = 60;
constexpr size_t kCertificateDirectory = 4;
constexpr size_t kWinCertHeader = 8;

Error Wrong(std::string message) { return InvalidInput("PE: " + std::move(message)); }

}  // namespace

Result<PeImage> PeImage::Parse(ByteView file) {
  PeImage image(file);
  RETURN_IF_ERROR(image.ParseHeaders());
  RETURN_IF_ERROR(image.ParseCertificates());
  return image;
}

Result<void> PeImage::ParseHeaders() {
  if (file_.size() < kDosHeaderSize || !HasText(file_, 0, "MZ")) return Wrong("no MZ at offset 0");
  const size_t pe = U32Le(file_, 60);
  if (!IsInside(pe, kCoffHeaderSize, file_.size()) || !HasText(file_, pe, "PE\0\0"sv)) {
    return Wrong(fmt::format("no signature at offset {}", pe));
  }
  machine_ = U16Le(file_, pe + 4);
  const size_t section_count = U16Le(file_, pe + 6);
  if (U32Le(file_, pe + 12) != 0) {
    string_table_ = U32Le(file_, pe + 12) + uint64_t{U32Le(file_, pe + 16)} * kSymbolSize;
  }
  const size_t optional_size = U16Le(file_, pe + 20);
  const size_t optional = pe + kCoffHeaderSize;
  if (!IsInside(optional, optional_size, file_.size()) || optional_size < 2) {
    return Wrong("truncated: the optional header is not inside the file");
  }
  const uint16_t magic = U16Le(file_, optional);
  if (magic != kMagicPe32 && magic != kMagicPe32Plus) {
    return Wrong(fmt::format("unknown optional header {:#x} at offset {}", magic, optional));
  }
  // NumberOfRvaAndSizes, after which the data directories follow.
  const size_t count_offset = magic == kMagicPe32 ? 92 : 108;
  if (optional_size < count_offset + 4) return Wrong("the optional header is too short");
  checksum_offset_ = optional + kChecksumOffset;
  headers_size_ = U32Le(file_, optional + kSizeOfHeadersOffset);
  const size_t entry = count_offset + 4 + kCertificateDirectory * 8;
  if (U32Le(file_, optional + count_offset) > kCertificateDirectory) {
    if (optional_size < entry + 8) return Wrong("the data directories are not inside their header");
    certificate_entry_offset_ = optional + entry;
    certificates_offset_ = U32Le(file_, optional + entry);
    certificates_size_ = U32Le(file_, optional + entry + 4);
  }
  const size_t hashed_from =
      certificate_entry_offset_ != 0 ? certificate_entry_offset_ + 8 : checksum_offset_ + 4;
  if (headers_size_ > file_.size() || headers_size_ < hashed_from) {
    return Wrong(fmt::format("headers of {} bytes in a file of {}", headers_size_, file_.size()));
  }
  return ParseSections(optional + optional_size, section_count);
}

// "For longer names, this field contains a slash that is followed by an ASCII representation of a
// decimal number that is an offset into the string table": shim's .vendor_cert is one.
std::string PeImage::SectionName(ByteView field) const {
  std::string_view name = AsText(field);
  name = name.substr(0, name.find('\0'));
  if (!name.starts_with('/') || string_table_ == 0) return std::string(name);
  uint64_t offset = 0;
  const auto [end, error] = std::from_chars(name.data() + 1, name.data() + name.size(), offset);
  if (error != std::errc() || end != name.data() + name.size() ||
      !IsInside(string_table_, offset, file_.size())) {
    return std::string(name);
  }
  const ByteView rest = file_.subspan(static_cast<size_t>(string_table_ + offset));
  const std::string_view text = AsText(rest.first(std::min(rest.size(), kPeMaxSectionName)));
  return std::string(text.substr(0, text.find('\0')));
}

Result<void> PeImage::ParseSections(size_t offset, size_t count) {
  if (count > kPeMaxSections || !IsInside(offset, count * kSectionHeaderSize, file_.size())) {
    return Wrong(
        fmt::format("{} sections at offset {} are too many or not inside the file", count, offset));
  }
  for (size_t i = 0; i < count; ++i) {
    const ByteView raw = file_.subspan(offset + i * kSectionHeaderSize, kSectionHeaderSize);
    PeSection s;
    s.name = SectionName(raw.first(8));
    s.virtual_size = U32Le(raw, 8);
    s.virtual_address = U32Le(raw, 12);
    s.raw_size = U32Le(raw, 16);
    s.raw_offset = U32Le(raw, 20);
    if (s.raw_size != 0 && !IsInside(s.raw_offset, s.raw_size, file_.size())) {
      return Wrong(
          fmt::format("truncated: section {} ({} bytes at offset {}) is not inside the file "
                      "of {}",
                      i, s.raw_size, s.raw_offset, file_.size()));
    }
    sections_.push_back(std::move(s));
  }
  return Ok();
}

Result<void> PeImage::ParseCertificates() {
  if (certificates_size_ == 0) return Ok();
  if (!IsInside(certificates_offset_, certificates_size_, file_.size()) ||
      certificates_offset_ % 8 != 0) {
    return Wrong(fmt::format("the certificate table ({} bytes at offset {}) is not inside the file",
                             certificates_size_, certificates_offset_));
  }
  ByteView table = file_.subspan(certificates_offset_, certificates_size_);
  while (table.size() >= kWinCertHeader) {
    const uint32_t length = U32Le(table, 0);
    if (length < kWinCertHeader || length > table.size()) {
      return Wrong(fmt::format("a certificate of {} bytes in {} that are left of its table", length,
                               table.size()));
    }
    if (certificates_.size() == kPeMaxCertificates) {
      return Wrong(fmt::format("more than {} certificates", kPeMaxCertificates));
    }
    certificates_.push_back({.revision = U16Le(table, 4),
                             .type = U16Le(table, 6),
                             .data = table.subspan(kWinCertHeader, length - kWinCertHeader)});
    // "the next entry begins at the next 8-byte boundary"
    table = table.subspan(std::min<size_t>((size_t{length} + 7) / 8 * 8, table.size()));
  }
  return Ok();
}

std::optional<ByteView> PeImage::Section(std::string_view name) const {
  const auto it = std::ranges::find(sections_, name, &PeSection::name);
  if (it == sections_.end()) return std::nullopt;
  if (it->raw_size == 0) return ByteView();
  const uint32_t size =
      it->virtual_size == 0 ? it->raw_size : std::min(it->raw_size, it->virtual_size);
  return file_.subspan(it->raw_offset, size);
}

Result<Bytes> PeImage::AuthenticodeDigest(HashAlgorithm algorithm) const {
  const auto known = digests_.find(algorithm);
  if (known != digests_.end()) return known->second;
  ASSIGN_OR_RETURN(Bytes digest, ComputeDigest(algorithm));
  digests_[algorithm] = digest;
  return digest;
}

Result<Bytes> PeImage::ComputeDigest(HashAlgorithm algorithm) const {
  uint64_t hashed = headers_size_;
  std::vector<const PeSection*> order;
  for (const PeSection& s : sections_) {
    if (s.raw_size == 0) continue;
    order.push_back(&s);
    hashed += s.raw_size;
  }
  // Also what keeps the work within one pass over the file.
  if (hashed + certificates_size_ > file_.size()) {
    return Wrong(fmt::format("headers, sections and certificates have {} bytes, the file {}",
                             hashed + certificates_size_, file_.size()));
  }
  // Equal offsets keep the order of the headers, as in firmware.
  std::ranges::sort(order, [](const PeSection* a, const PeSection* b) {
    return a->raw_offset != b->raw_offset ? a->raw_offset < b->raw_offset : a < b;
  });

  Hasher hasher(algorithm);
  hasher.Update(file_.first(checksum_offset_));
  size_t from = checksum_offset_ + 4;
  if (certificate_entry_offset_ != 0) {
    hasher.Update(file_.subspan(from, certificate_entry_offset_ - from));
    from = certificate_entry_offset_ + 8;
  }
  hasher.Update(file_.subspan(from, headers_size_ - from));
  for (const PeSection* s : order) hasher.Update(file_.subspan(s->raw_offset, s->raw_size));
  // Data after the sections, except the certificates, which stand last.
  const auto extra = static_cast<size_t>(file_.size() - certificates_size_ - hashed);
  hasher.Update(file_.subspan(static_cast<size_t>(hashed), extra));
  return hasher.Finish();
}

}  // namespace vallum::formats
