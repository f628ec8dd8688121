// SPDX-License-Identifier: Apache-2.0
#include "measure/authorities.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "base/text.h"
#include "firmware/pkcs7.h"
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

// Would firmware find this entry when it checks the binary? The binary's own signature is not
// checked here: that is the pre-flight's part, and the firmware's.
bool Covers(const Signature& entry, const BootBinary& binary) {
  if (entry.type == SignatureType::kSha256) {
    return !binary.authenticode_sha256.empty() && entry.data == binary.authenticode_sha256;
  }
  if (entry.type != SignatureType::kX509) {
    return false;
  }
  const auto issuer = firmware::Certificate::Parse(entry.data);
  const auto& signers = binary.signer_certificates;
  const auto end =
      signers.begin() + static_cast<std::ptrdiff_t>(std::min(signers.size(), kMaxSignersLookedAt));
  return issuer.has_value() && std::any_of(signers.begin(), end, [&](const Bytes& signer) {
           return issuer->Issued(signer);
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

Authority DbAuthority(const Signature& entry, std::string_view what) {
  return {Pcr7EventKind::kDbAuthority, "db", kSecurityDatabaseGuid, entry.Encode(),
          fmt::format("db: {} {}", DescribeSignature(entry), what)};
}

// shim names the place where it found the certificate; the names changed over its versions.
void AddShimAuthority(const Signature& entry, std::string_view where, Authorities& out) {
  const std::string explanation =
      fmt::format("shim let an image start by {} ({})", DescribeSignature(entry), where);
  const auto add = [&](std::string_view name, const Guid& vendor, ByteView data) {
    out.admissible.push_back(
        {Pcr7EventKind::kShimAuthority, std::string(name), vendor, ToBytes(data), explanation});
  };
  add("MokListRT", kShimLockGuid, entry.Encode());
  add("MokList", kShimLockGuid, entry.Encode());
  add("vendor_db", kSecurityDatabaseGuid, entry.Encode());
  add("Shim", kShimLockGuid, entry.data);
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
  for (const Signature& entry : VendorEntries(*vendor)) {
    AddShimAuthority(entry, where, out);
  }
}

Authority MakeSbatLevel(ByteView level, std::string_view where) {
  const std::string_view text = AsText(level);
  return {Pcr7EventKind::kSbatLevel, "SbatLevel", kShimLockGuid, ToBytes(level),
          fmt::format("shim's revocation level {} ({})", Printable(text.substr(0, text.find('\n'))),
                      where)};
}

void AddSbatLevels(const firmware::VariableStore& store, std::span<const BootBinary> binaries,
                   Authorities& out) {
  if (const auto* level = store.Find("SbatLevel", kShimLockGuid); level != nullptr) {
    out.admissible.push_back(MakeSbatLevel(level->data, "variable SbatLevel"));
  }
  if (DeriveSecureBoot(store) != firmware::SecureBootSetting::kOn) {
    out.admissible.push_back(
        MakeSbatLevel(AsBytes(kOriginalSbatLevel), "shim's value with Secure Boot off"));
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
      out.admissible.push_back(
          MakeSbatLevel(level, fmt::format("built into {}", Printable(binary.path))));
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
    out.admissible.push_back(DbAuthority(entry, WhoIsCovered(entry, binaries)));
  }
  return Ok();
}

}  // namespace

Bytes Authority::DigestIn(HashAlgorithm bank) const {
  return VariableEventDigest(bank, variable, vendor, data);
}

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

namespace {

// Of these at most, so that a hostile program costs few verifications of signatures.
constexpr size_t kMaxChainedCertificates = 16;
constexpr size_t kMaxChain = 8;

// A binary's certificates that lead from one signature to its root: the signer first.
std::vector<ByteView> ChainOf(size_t leaf, std::span<const Bytes> certificates) {
  std::vector<ByteView> chain = {certificates[leaf]};
  std::vector<bool> used(certificates.size());
  used[leaf] = true;
  for (size_t i = 0; i < chain.size(); ++i) {
    for (size_t j = 0; j < certificates.size() && chain.size() < kMaxChain; ++j) {
      if (used[j]) {
        continue;
      }
      const auto issuer = firmware::Certificate::Parse(certificates[j]);
      if (issuer.has_value() && issuer->Issued(chain[i])) {
        used[j] = true;
        chain.emplace_back(certificates[j]);
      }
    }
  }
  return chain;
}

// Whether a certificate issued none of the others: then it is a signer's own.
bool IsLeaf(size_t at, std::span<const Bytes> certificates) {
  const auto issuer = firmware::Certificate::Parse(certificates[at]);
  return issuer.has_value() &&
         std::none_of(certificates.begin(), certificates.end(), [&](const Bytes& other) {
           return other != certificates[at] && issuer->Issued(other);
         });
}

// The chain of each of the binary's signatures, in their order.
std::vector<std::vector<ByteView>> SignatureChains(const BootBinary& binary) {
  const std::span<const Bytes> all = binary.signer_certificates;
  const auto certificates = all.first(std::min(all.size(), kMaxChainedCertificates));
  std::vector<std::vector<ByteView>> chains;
  for (size_t i = 0; i < certificates.size(); ++i) {
    if (IsLeaf(i, certificates)) {
      chains.push_back(ChainOf(i, certificates));
    }
  }
  return chains;
}

const Signature* FindCertificate(std::span<const Signature> entries,
                                 std::span<const ByteView> chain) {
  for (const Signature& entry : entries) {
    if (entry.type != SignatureType::kX509) {
      continue;
    }
    const auto issuer = firmware::Certificate::Parse(entry.data);
    if (issuer.has_value() && std::any_of(chain.begin(), chain.end(), [&](ByteView certificate) {
          return issuer->Issued(certificate);
        })) {
      return &entry;
    }
  }
  return nullptr;
}

const Signature* FindDigest(std::span<const Signature> entries, const BootBinary& binary) {
  const auto found = std::find_if(entries.begin(), entries.end(), [&](const Signature& entry) {
    return entry.type == SignatureType::kSha256 && Covers(entry, binary);
  });
  return found == entries.end() ? nullptr : &*found;
}

Result<std::vector<Signature>> ReadEntries(const firmware::VariableStore& store,
                                           std::string_view name, const Guid& vendor) {
  const auto* variable = store.Find(name, vendor);
  if (variable == nullptr) {
    return std::vector<Signature>{};
  }
  ASSIGN_OR_RETURN_CONTEXT(auto entries, firmware::ParseSignatureLists(variable->data),
                           fmt::format("reading {} of the variable store", name));
  return entries;
}

// The ten digits of "sbat,1,2025021800".
Result<std::string> LevelDate(ByteView level) {
  constexpr std::string_view kBegin = "sbat,1,";
  constexpr size_t kDigits = 10;
  const std::string_view text = AsText(level);
  const std::string_view date = text.substr(std::min(kBegin.size(), text.size()), kDigits);
  if (!text.starts_with(kBegin) || date.size() != kDigits ||
      !std::all_of(date.begin(), date.end(), [](char c) { return c >= '0' && c <= '9'; })) {
    return InvalidInput("SBAT level without a date: " + Printable(text, 40));
  }
  return std::string(date);
}

}  // namespace

Result<std::optional<Authority>> FirmwareAuthority(const firmware::VariableStore& store,
                                                   const BootBinary& binary) {
  ASSIGN_OR_RETURN(const auto db, ReadEntries(store, "db", kSecurityDatabaseGuid));
  const std::string what = fmt::format("let {} start", Printable(binary.path));
  for (const auto& chain : SignatureChains(binary)) {
    if (const Signature* entry = FindCertificate(db, chain); entry != nullptr) {
      return DbAuthority(*entry, what);
    }
  }
  const Signature* entry = FindDigest(db, binary);
  return entry == nullptr ? std::optional<Authority>{} : DbAuthority(*entry, what);
}

Result<std::optional<Authority>> ShimAuthority(const firmware::VariableStore& store,
                                               const BootBinary& shim, const BootBinary& binary) {
  ASSIGN_OR_RETURN(const auto db, ReadEntries(store, "db", kSecurityDatabaseGuid));
  ASSIGN_OR_RETURN(const auto mok, ReadEntries(store, "MokList", kShimLockGuid));
  ASSIGN_OR_RETURN(const auto vendor, firmware::ParseVendorCertSection(shim.vendor_cert_section));
  std::vector<Signature> listed =
      vendor.allowed.empty() ? std::vector<Signature>{} : VendorEntries(vendor);
  listed.insert(listed.end(), mok.begin(), mok.end());
  auto chains = SignatureChains(binary);
  if (chains.empty()) {
    chains.emplace_back();  // an unsigned program can be listed by its digest
  }
  for (const auto& chain : chains) {
    for (const bool in_db : {true, false}) {
      const auto& entries = in_db ? db : listed;
      const Signature* entry = FindDigest(entries, binary);
      entry = entry == nullptr ? FindCertificate(entries, chain) : entry;
      if (entry != nullptr) {
        const std::string what = fmt::format("let {} start by shim", Printable(binary.path));
        return in_db ? DbAuthority(*entry, what)
                     : Authority{Pcr7EventKind::kShimAuthority, "MokListRT", kShimLockGuid,
                                 entry->Encode(),
                                 fmt::format("MokListRT: {} {}", DescribeSignature(*entry), what)};
      }
    }
  }
  return std::optional<Authority>{};
}

Result<Authority> SbatLevelAuthority(const firmware::VariableStore& store, const BootBinary& shim) {
  if (store.Find("SbatPolicy", kShimLockGuid) != nullptr) {
    return InvalidInput("the variable SbatPolicy asks shim for another revocation level");
  }
  if (DeriveSecureBoot(store) != firmware::SecureBootSetting::kOn) {
    return MakeSbatLevel(AsBytes(kOriginalSbatLevel), "shim's value with Secure Boot off");
  }
  ASSIGN_OR_RETURN(const auto levels, firmware::ParseSbatLevelSection(shim.sbat_level_section));
  ASSIGN_OR_RETURN(const std::string built_in, LevelDate(levels.front()));
  if (const auto* variable = store.Find("SbatLevel", kShimLockGuid); variable != nullptr) {
    ASSIGN_OR_RETURN(const std::string stored, LevelDate(variable->data));
    if (stored >= built_in) {
      return MakeSbatLevel(variable->data, "variable SbatLevel");
    }
  }
  return MakeSbatLevel(levels.front(), fmt::format("built into {}", Printable(shim.path)));
}

}  // namespace vallum::measure
