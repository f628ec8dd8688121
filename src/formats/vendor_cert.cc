// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/fields.h"
#include "formats/pe.h"
#include "formats/reader.h"

namespace vallum::formats {
namespace {

constexpr size_t kTableHeader = 16;
constexpr size_t kListHeader = 28;
constexpr size_t kOwnerGuid = 16;
constexpr std::byte kDerSequence{0x30};
// EFI_CERT_X509_GUID a5c059a1-94e4-4aa7-87b5-ab155c2bf072, as on disk.
constexpr std::array<std::byte, 16> kX509Guid = {
    std::byte{0xa1}, std::byte{0x59}, std::byte{0xc0}, std::byte{0xa5},
    std::byte{0xe4}, std::byte{0x94}, std::byte{0xa7}, std::byte{0x4a},
    std::byte{0x87}, std::byte{0xb5}, std::byte{0xab}, std::byte{0x15},
    std::byte{0x5c}, std::byte{0x2b}, std::byte{0xf0}, std::byte{0x72}};

Error Wrong(std::string message) { return InvalidInput(".vendor_cert: " + std::move(message)); }

// EFI_SIGNATURE_LIST: type, list size, header size, signature size, header, signatures of (owner,
// data).
Result<std::vector<ByteView>> CertificatesOfLists(ByteView lists) {
  std::vector<ByteView> out;
  while (!lists.empty()) {
    if (lists.size() < kListHeader) return Wrong("truncated signature list");
    const uint32_t list_size = U32Le(lists, 16);
    const uint32_t header_size = U32Le(lists, 20);
    const uint32_t signature_size = U32Le(lists, 24);
    if (list_size < kListHeader || list_size > lists.size() ||
        header_size > list_size - kListHeader || signature_size <= kOwnerGuid) {
      return Wrong(fmt::format("a signature list of {} bytes does not fit", list_size));
    }
    ByteView body = lists.subspan(kListHeader + header_size, list_size - kListHeader - header_size);
    const ByteView type = lists.first(16);
    while (body.size() >= signature_size) {
      if (AsText(type) == AsText(kX509Guid)) {
        if (out.size() == kMaxVendorCerts) {
          return Wrong(fmt::format("more than {} certificates", kMaxVendorCerts));
        }
        out.push_back(body.subspan(kOwnerGuid, signature_size - kOwnerGuid));
      }
      body = body.subspan(signature_size);
    }
    lists = lists.subspan(list_size);
  }
  return out;
}

}  // namespace

// shim, cert.S: authorised size, deauthorised size, and their offsets from the section's start.
Result<VendorCertTable> ParseVendorCert(ByteView section) {
  if (section.size() < kTableHeader) return Wrong("truncated table");
  const uint32_t authorized_size = U32Le(section, 0);
  const uint32_t deauthorized_size = U32Le(section, 4);
  const uint32_t authorized_offset = U32Le(section, 8);
  const uint32_t deauthorized_offset = U32Le(section, 12);
  if (!IsInside(authorized_offset, authorized_size, section.size()) ||
      !IsInside(deauthorized_offset, deauthorized_size, section.size())) {
    return Wrong("its offsets are outside of the section");
  }
  VendorCertTable table;
  table.authorized = section.subspan(authorized_offset, authorized_size);
  table.deauthorized = section.subspan(deauthorized_offset, deauthorized_size);
  if (!table.authorized.empty() && table.authorized.front() == kDerSequence) {
    table.certificates.push_back(table.authorized);
  } else {
    ASSIGN_OR_RETURN(table.certificates, CertificatesOfLists(table.authorized));
  }
  return table;
}

}  // namespace vallum::formats
