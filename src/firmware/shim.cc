// SPDX-License-Identifier: Apache-2.0
#include "firmware/shim.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

namespace vallum::firmware {
namespace {

Result<Bytes> Part(ByteView section, uint32_t offset, uint32_t size) {
  if (size == 0) {
    return Bytes{};
  }
  if (offset > section.size() || size > section.size() - offset) {
    return Corrupt(fmt::format(".vendor_cert: {} bytes at {} lie outside its {} bytes", size,
                               offset, section.size()));
  }
  return ToBytes(section.subspan(offset, size));
}

}  // namespace

Result<VendorCertificates> ParseVendorCertSection(ByteView section) {
  ByteCursor cursor(section);
  ASSIGN_OR_RETURN(const uint32_t allowed_size, cursor.ReadU32Le());
  ASSIGN_OR_RETURN(const uint32_t forbidden_size, cursor.ReadU32Le());
  ASSIGN_OR_RETURN(const uint32_t allowed_offset, cursor.ReadU32Le());
  ASSIGN_OR_RETURN(const uint32_t forbidden_offset, cursor.ReadU32Le());
  VendorCertificates certificates;
  ASSIGN_OR_RETURN(certificates.allowed, Part(section, allowed_offset, allowed_size));
  ASSIGN_OR_RETURN(certificates.forbidden, Part(section, forbidden_offset, forbidden_size));
  return certificates;
}

Result<std::vector<Bytes>> ParseSbatLevelSection(ByteView section) {
  ByteCursor cursor(section);
  ASSIGN_OR_RETURN(const uint32_t version, cursor.ReadU32Le());
  if (version != 0) {
    return InvalidInput(fmt::format(".sbatlevel: unknown version {}", version));
  }
  const ByteView levels = cursor.Rest();  // both offsets count from here
  std::vector<Bytes> found;
  for (int i = 0; i < 2; ++i) {
    ASSIGN_OR_RETURN(const uint32_t offset, cursor.ReadU32Le());
    if (offset >= levels.size()) {
      return Corrupt(fmt::format(".sbatlevel: offset {} is outside", offset));
    }
    const ByteView rest = levels.subspan(offset);
    const auto end = std::find(rest.begin(), rest.end(), std::byte{0});
    if (end == rest.end()) {
      return Corrupt(fmt::format(".sbatlevel: the level at {} has no end", offset));
    }
    found.emplace_back(rest.begin(), end);
  }
  return found;
}

std::vector<Signature> VendorEntries(const VendorCertificates& vendor) {
  if (vendor.allowed.empty()) {
    return {};
  }
  // A vendor gives either signature lists or one bare certificate; a list never parses as DER.
  if (auto lists = ParseSignatureLists(vendor.allowed); lists.has_value()) {
    return *std::move(lists);
  }
  return {MakeSignature(SignatureType::kX509, kShimLockGuid, vendor.allowed)};
}

Result<ShimTrust> ReadShimTrust(const formats::PeImage& shim) {
  const std::optional<ByteView> section = shim.Section(".vendor_cert");
  if (!section.has_value()) {
    return NotFound("the program is no shim: it has no section .vendor_cert");
  }
  ShimTrust trust;
  ASSIGN_OR_RETURN(const VendorCertificates vendor, ParseVendorCertSection(*section));
  trust.vendor = VendorEntries(vendor);
  trust.has_vendor_db = !vendor.allowed.empty() && ParseSignatureLists(vendor.allowed).has_value();
  ASSIGN_OR_RETURN_CONTEXT(trust.vendor_dbx, ParseSignatureLists(vendor.forbidden),
                           "reading the forbidden part of .vendor_cert");
  if (const std::optional<ByteView> levels = shim.Section(".sbatlevel"); levels.has_value()) {
    ASSIGN_OR_RETURN(trust.sbat_levels, ParseSbatLevelSection(*levels));
  }
  return trust;
}

}  // namespace vallum::firmware
