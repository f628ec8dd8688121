// SPDX-License-Identifier: Apache-2.0
#include "measure/authorities.h"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <string_view>

#include "base/text.h"
#include "firmware/shim.h"
#include "firmware/signature_list.h"
#include "measure/event_digest.h"

namespace vallum::measure {
namespace {

using firmware::Guid;
using firmware::kSecurityDatabaseGuid;
using firmware::kShimLockGuid;
using firmware::Signature;
using firmware::SignatureType;

// What shim resets its level to when Secure Boot is off.
constexpr std::string_view kOriginalSbatLevel = "sbat,1,2021030218\n";
// A loader carries a handful; the rest of a hostile one is not looked at.
constexpr size_t kMaxSignersLookedAt = 64;

using X509Ptr = std::unique_ptr<X509, decltype(&X509_free)>;

X509Ptr ParseCertificate(ByteView der) {
  if (der.size() > static_cast<size_t>(std::numeric_limits<int>::max())) {
    return {nullptr, &X509_free};
  }
  const auto* at = reinterpret_cast<const unsigned char*>(der.data());
  X509Ptr certificate(d2i_X509(nullptr, &at, static_cast<long>(der.size())), &X509_free);
  ERR_clear_error();
  return certificate;
}

bool IssuedBy(ByteView der, X509* issuer) {
  const X509Ptr certificate = ParseCertificate(der);
  if (certificate == nullptr) {
    return false;
  }
  const bool issued = X509_cmp(certificate.get(), issuer) == 0 ||
                      (X509_check_issued(issuer, certificate.get()) == X509_V_OK &&
                       X509_verify(certificate.get(), X509_get0_pubkey(issuer)) == 1);
  ERR_clear_error();
  return issued;
}

// Would firmware find this entry when it checks the binary? The binary's own signature is not
// checked here: that is the pre-flight's part, and the firmware's.
bool Covers(const Signature& entry, const BootBinary& binary) {
  if (entry.type == SignatureType::kSha256) {
    return !binary.authenticode_sha256.empty() && entry.data == binary.authenticode_sha256;
  }
  if (entry.type != SignatureType::kX509) {
    return false;
  }
  const X509Ptr issuer = ParseCertificate(entry.data);
  const auto& signers = binary.signer_certificates;
  const auto end =
      signers.begin() + static_cast<std::ptrdiff_t>(std::min(signers.size(), kMaxSignersLookedAt));
  return issuer != nullptr && std::any_of(signers.begin(), end, [&](const Bytes& signer) {
           return IssuedBy(signer, issuer.get());
         });
}

std::string WhoIsCovered(const Signature& entry, std::span<const BootBinary> binaries) {
  for (const BootBinary& binary : binaries) {
    if (Covers(entry, binary)) {
      return fmt::format("let {} start", Printable(binary.path));
    }
  }
  return "let an image start that is not among the disk's known loaders";
}

Bytes VariableDigest(std::string_view name, const Guid& vendor, ByteView data) {
  return VariableEventDigest(HashAlgorithm::kSha256, name, vendor, data);
}

// shim names the place where it found the certificate; the names changed over its versions.
void AddShimAuthority(const Signature& entry, std::string_view where, Authorities& out) {
  const std::string explanation =
      fmt::format("shim let an image start by {} ({})", DescribeSignature(entry), where);
  const auto add = [&](std::string_view name, const Guid& vendor, ByteView data) {
    out.admissible.push_back(
        {Pcr7EventKind::kShimAuthority, VariableDigest(name, vendor, data), explanation});
  };
  add("MokListRT", kShimLockGuid, entry.Encode());
  add("MokList", kShimLockGuid, entry.Encode());
  add("vendor_db", kSecurityDatabaseGuid, entry.Encode());
  add("Shim", kShimLockGuid, entry.data);
}

std::vector<Signature> VendorEntries(const Bytes& allowed) {
  // A vendor gives either signature lists or one bare certificate; a list never parses as DER.
  if (const auto lists = firmware::ParseSignatureLists(allowed); lists.has_value()) {
    return *lists;
  }
  Signature certificate;
  certificate.type = SignatureType::kX509;
  certificate.owner = kShimLockGuid;
  certificate.data = allowed;
  return {certificate};
}

void AddShim(const BootBinary& binary, Authorities& out) {
  if (binary.vendor_cert_section.empty()) {
    return;
  }
  const auto vendor = firmware::ParseVendorCertSection(binary.vendor_cert_section);
  if (!vendor.has_value()) {
    out.notes.push_back(fmt::format("{}: {}", Printable(binary.path), vendor.error().Describe()));
    return;
  }
  const std::string where = fmt::format("built into {}", Printable(binary.path));
  for (const Signature& entry : VendorEntries(vendor->allowed)) {
    AddShimAuthority(entry, where, out);
  }
}

void AddSbatLevel(ByteView level, std::string_view where, Authorities& out) {
  const std::string_view text = AsText(level);
  out.admissible.push_back({Pcr7EventKind::kSbatLevel,
                            VariableDigest("SbatLevel", kShimLockGuid, level),
                            fmt::format("shim's revocation level {} ({})",
                                        Printable(text.substr(0, text.find('\n'))), where)});
}

void AddSbatLevels(const firmware::VariableStore& store, std::span<const BootBinary> binaries,
                   Authorities& out) {
  if (const auto* level = store.Find("SbatLevel", kShimLockGuid); level != nullptr) {
    AddSbatLevel(level->data, "variable SbatLevel", out);
  }
  if (DeriveSecureBoot(store) != firmware::SecureBootSetting::kOn) {
    AddSbatLevel(AsBytes(kOriginalSbatLevel), "shim's value with Secure Boot off", out);
  }
  for (const BootBinary& binary : binaries) {
    if (binary.sbat_level_section.empty()) {
      continue;
    }
    const auto levels = firmware::ParseSbatLevelSection(binary.sbat_level_section);
    if (!levels.has_value()) {
      out.notes.push_back(fmt::format("{}: {}", Printable(binary.path), levels.error().Describe()));
      continue;
    }
    for (const Bytes& level : *levels) {
      AddSbatLevel(level, fmt::format("built into {}", Printable(binary.path)), out);
    }
  }
}

Result<void> AddDb(const firmware::VariableStore& store, std::span<const BootBinary> binaries,
                   Authorities& out) {
  const auto* db = store.Find("db", kSecurityDatabaseGuid);
  if (db == nullptr) {
    return Ok();
  }
  ASSIGN_OR_RETURN_CONTEXT(const auto entries, firmware::ParseSignatureLists(db->data),
                           "reading db of the variable store");
  for (const Signature& entry : entries) {
    out.admissible.push_back(
        {Pcr7EventKind::kDbAuthority, VariableDigest("db", kSecurityDatabaseGuid, entry.Encode()),
         fmt::format("db: {} {}", DescribeSignature(entry), WhoIsCovered(entry, binaries))});
  }
  return Ok();
}

}  // namespace

Result<Authorities> FindAuthorities(const firmware::VariableStore& store,
                                    std::span<const BootBinary> binaries) {
  Authorities found;
  AddSbatLevels(store, binaries, found);
  if (DeriveSecureBoot(store) != firmware::SecureBootSetting::kOn) {
    return found;
  }
  RETURN_IF_ERROR(AddDb(store, binaries, found));
  for (const BootBinary& binary : binaries) {
    AddShim(binary, found);
  }
  if (const auto* mok = store.Find("MokList", kShimLockGuid); mok != nullptr) {
    const auto entries = firmware::ParseSignatureLists(mok->data);
    if (!entries.has_value()) {
      found.notes.push_back("MokList does not parse: " + entries.error().Describe());
      return found;
    }
    for (const Signature& entry : *entries) {
      AddShimAuthority(entry, "variable MokList", found);
    }
  }
  return found;
}

}  // namespace vallum::measure
