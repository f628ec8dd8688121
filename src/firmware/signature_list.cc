// SPDX-License-Identifier: Apache-2.0
#include "firmware/signature_list.h"

#include <fmt/format.h>
#include <openssl/x509.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <limits>
#include <memory>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "base/text.h"

namespace vallum::firmware {
namespace {

constexpr size_t kListHeaderSize = 28;
constexpr size_t kOwnerSize = 16;
constexpr size_t kRevocationTimeSize = 16;  // EFI_TIME

struct TypeInfo {
  SignatureType type;
  Guid guid;
  std::string_view name;
  HashAlgorithm algorithm;
};
// UEFI 2.10 section 32.4.1.
constexpr std::array kTypes = {
    TypeInfo{SignatureType::kX509, kX509CertificateGuid, "X.509", HashAlgorithm::kSha256},
    TypeInfo{SignatureType::kSha1,
             MakeGuid(0x826ca512, 0xcf10, 0x4ac9, {0xb1, 0x87, 0xbe, 0x01, 0x49, 0x66, 0x31, 0xbd}),
             "SHA-1", HashAlgorithm::kSha1},
    TypeInfo{SignatureType::kSha256, kSha256CertificateGuid, "SHA-256", HashAlgorithm::kSha256},
    TypeInfo{SignatureType::kSha384,
             MakeGuid(0xff3e5307, 0x9fd0, 0x48c9, {0x85, 0xf1, 0x8a, 0xd5, 0x6c, 0x70, 0x1e, 0x01}),
             "SHA-384", HashAlgorithm::kSha384},
    TypeInfo{SignatureType::kSha512,
             MakeGuid(0x093e0fae, 0xa6c4, 0x4f50, {0x9f, 0x1b, 0xd4, 0x1e, 0x2b, 0x89, 0xc1, 0x9a}),
             "SHA-512", HashAlgorithm::kSha512},
    TypeInfo{SignatureType::kX509Sha256,
             MakeGuid(0x3bd2a492, 0x96c0, 0x4079, {0xb4, 0x20, 0xfc, 0xf9, 0x8e, 0xf1, 0x03, 0xed}),
             "SHA-256", HashAlgorithm::kSha256},
    TypeInfo{SignatureType::kX509Sha384,
             MakeGuid(0x7076876e, 0x80c2, 0x4ee6, {0xaa, 0xd2, 0x28, 0xb3, 0x49, 0xa6, 0x86, 0x5b}),
             "SHA-384", HashAlgorithm::kSha384},
    TypeInfo{SignatureType::kX509Sha512,
             MakeGuid(0x446dbf63, 0x2502, 0x4cda, {0xbc, 0xfa, 0x24, 0x65, 0xd2, 0xb0, 0xfe, 0x9d}),
             "SHA-512", HashAlgorithm::kSha512},
};

// github.com/microsoft/secureboot_objects; dates as in the certificates, none for those of 2023
// that are not at hand to read them from.
constexpr std::array kKnownCertificates = {
    KnownCertificate{
        .sha256 = "a1117f516a32cefcba3f2d1ace10a87972fd6bbe8fe0d0b996e09e65d802a503",
        .key_set = "microsoft",
        .name = "Microsoft Corporation KEK CA 2011",
        .expires = {.year = 2026, .month = 6, .day = 24, .hour = 20, .minute = 51, .second = 29},
        .successors = {"Microsoft Corporation KEK 2K CA 2023"}},
    KnownCertificate{
        .sha256 = "e8e95f0733a55e8bad7be0a1413ee23c51fcea64b3c8fa6a786935fddcc71961",
        .key_set = "microsoft",
        .name = "Microsoft Windows Production PCA 2011",
        .expires = {.year = 2026, .month = 10, .day = 19, .hour = 18, .minute = 51, .second = 42},
        .successors = {"Windows UEFI CA 2023"}},
    KnownCertificate{
        .sha256 = "48e99b991f57fc52f76149599bff0a58c47154229b9f8d603ac40d3500248507",
        .key_set = "microsoft",
        .name = "Microsoft Corporation UEFI CA 2011",
        .expires = {.year = 2026, .month = 6, .day = 27, .hour = 21, .minute = 32, .second = 45},
        .successors = {"Microsoft UEFI CA 2023", "Microsoft Option ROM UEFI CA 2023"}},
    KnownCertificate{
        .sha256 = "3cd3f0309edae228767a976dd40d9f4affc4fbd5218f2e8cc3c9dd97e8ac6f9d",
        .key_set = "microsoft",
        .name = "Microsoft Corporation KEK 2K CA 2023",
        .expires = {.year = 2038, .month = 3, .day = 2, .hour = 20, .minute = 31, .second = 35},
        .successors = {}},
    KnownCertificate{.sha256 = "076f1fea90ac29155ebf77c17682f75f1fdd1be196da302dc8461e350a9ae330",
                     .key_set = "microsoft",
                     .name = "Windows UEFI CA 2023",
                     .expires = {},
                     .successors = {}},
    KnownCertificate{.sha256 = "f6124e34125bee3fe6d79a574eaa7b91c0e7bd9d929c1a321178efd611dad901",
                     .key_set = "microsoft",
                     .name = "Microsoft UEFI CA 2023",
                     .expires = {},
                     .successors = {}},
    KnownCertificate{.sha256 = "e5be3e64c6e66a281457ecdece0d6d0787577aad2a3a0144262c10c14ba8d8f1",
                     .key_set = "microsoft",
                     .name = "Microsoft Option ROM UEFI CA 2023",
                     .expires = {},
                     .successors = {}},
    KnownCertificate{.sha256 = kDebianSecureBootCaSha256,
                     .key_set = "debian",
                     .name = "Debian Secure Boot CA",
                     .expires = {},
                     .successors = {}},
};

const TypeInfo* FindType(SignatureType type) {
  const auto it = std::ranges::find(kTypes, type, &TypeInfo::type);
  return it == kTypes.end() ? nullptr : &*it;
}

SignatureType TypeOf(const Guid& guid) {
  const auto it = std::ranges::find(kTypes, guid, &TypeInfo::guid);
  return it == kTypes.end() ? SignatureType::kOther : it->type;
}

// The size that an entry of the type must have, or 0 when the type leaves it open.
size_t RequiredSize(SignatureType type) {
  switch (type) {
    case SignatureType::kSha1:
    case SignatureType::kSha256:
    case SignatureType::kSha384:
    case SignatureType::kSha512:
      return kOwnerSize + DigestSize(SignatureAlgorithm(type));
    case SignatureType::kX509Sha256:
    case SignatureType::kX509Sha384:
    case SignatureType::kX509Sha512:
      return kOwnerSize + DigestSize(SignatureAlgorithm(type)) + kRevocationTimeSize;
    case SignatureType::kX509:
    case SignatureType::kOther:
      return 0;
  }
  return 0;
}

struct ListHeader {
  Guid type;
  size_t entries_size = 0;
  size_t entry_size = 0;
};

// Reads the header of one list and the type's own header; leaves the cursor at the entries.
Result<ListHeader> ReadListHeader(ByteCursor& cursor) {
  const size_t offset = cursor.offset();
  ListHeader header;
  ASSIGN_OR_RETURN(header.type, Guid::Read(cursor));
  ASSIGN_OR_RETURN(const uint32_t list_size, cursor.ReadU32Le());
  ASSIGN_OR_RETURN(const uint32_t extra_size, cursor.ReadU32Le());
  ASSIGN_OR_RETURN(const uint32_t entry_size, cursor.ReadU32Le());
  if (list_size < kListHeaderSize || list_size - kListHeaderSize > cursor.remaining() ||
      extra_size > list_size - kListHeaderSize) {
    return Corrupt(fmt::format("offset {}: a signature list of {} bytes (header {}) does not fit",
                               offset, list_size, extra_size));
  }
  header.entries_size = list_size - kListHeaderSize - extra_size;
  header.entry_size = entry_size;
  const size_t required = RequiredSize(TypeOf(header.type));
  if (entry_size < kOwnerSize || header.entries_size % entry_size != 0 ||
      (required != 0 && entry_size != required)) {
    return Corrupt(fmt::format("offset {}: entries of {} bytes in a list of {} bytes of type {}",
                               offset, entry_size, header.entries_size, header.type.ToString()));
  }
  RETURN_IF_ERROR(cursor.Skip(extra_size));
  return header;
}

// "CN=..." of the subject, or "" when it is no certificate.
std::string CommonName(ByteView der) {
  if (der.size() > static_cast<size_t>(std::numeric_limits<long>::max())) {
    return "";
  }
  const auto* at = reinterpret_cast<const unsigned char*>(der.data());
  const std::unique_ptr<X509, decltype(&X509_free)> certificate(
      d2i_X509(nullptr, &at, static_cast<long>(der.size())), &X509_free);
  if (certificate == nullptr) {
    return "";
  }
  std::array<char, 256> text{};
  const int size = X509_NAME_get_text_by_NID(X509_get_subject_name(certificate.get()),
                                             NID_commonName, text.data(), text.size());
  if (size > 0) {
    return "CN=" + Printable(text.data());
  }
  X509_NAME_oneline(X509_get_subject_name(certificate.get()), text.data(), text.size());
  return Printable(text.data());
}

Result<std::vector<Signature>> SignaturesOf(const VariableStore& store, std::string_view name,
                                            const Guid& vendor) {
  const Variable* variable = store.Find(name, vendor);
  if (variable == nullptr) {
    return std::vector<Signature>{};
  }
  ASSIGN_OR_RETURN_CONTEXT(auto signatures, ParseSignatureLists(variable->data),
                           fmt::format("reading {}", name));
  return signatures;
}

std::vector<std::string> Describe(const std::vector<Signature>& signatures) {
  std::vector<std::string> lines;
  for (const Signature& signature : signatures) {
    lines.push_back(DescribeSignature(signature));
  }
  return lines;
}

// db decides what starts; KEK decides who may change that, but distributions add their own.
std::string NameOfDb(const std::vector<Signature>& db) {
  for (const std::string_view key_set : {"microsoft", "debian"}) {
    const auto known = std::ranges::count_if(db, [&](const Signature& s) {
      const KnownCertificate* certificate =
          s.type == SignatureType::kX509 ? FindKnownCertificate(s.data) : nullptr;
      return certificate != nullptr && certificate->key_set == key_set;
    });
    if (known != 0) {
      return fmt::format("{}{}", key_set, known == std::ssize(db) ? "" : "+custom");
    }
  }
  return "custom";
}

}  // namespace

Bytes Signature::Encode() const {
  Bytes out(owner.bytes.begin(), owner.bytes.end());
  out.insert(out.end(), data.begin(), data.end());
  return out;
}

Result<std::vector<Signature>> ParseSignatureLists(ByteView lists) {
  std::vector<Signature> signatures;
  ByteCursor cursor(lists);
  while (!cursor.AtEnd()) {
    if (cursor.remaining() < kListHeaderSize) {
      return Corrupt(fmt::format("offset {}: {} bytes after the last signature list",
                                 cursor.offset(), cursor.remaining()));
    }
    ASSIGN_OR_RETURN(const ListHeader header, ReadListHeader(cursor));
    for (size_t left = header.entries_size; left > 0; left -= header.entry_size) {
      if (signatures.size() == kMaxSignatures) {
        return Exhausted(fmt::format("more than {} signatures in one variable", kMaxSignatures));
      }
      Signature signature;
      signature.type = TypeOf(header.type);
      signature.type_guid = header.type;
      ASSIGN_OR_RETURN(signature.owner, Guid::Read(cursor));
      ASSIGN_OR_RETURN(const ByteView data, cursor.ReadBytes(header.entry_size - kOwnerSize));
      signature.data = ToBytes(data);
      signatures.push_back(std::move(signature));
    }
  }
  return signatures;
}

HashAlgorithm SignatureAlgorithm(SignatureType type) {
  const TypeInfo* info = FindType(type);
  return info == nullptr ? HashAlgorithm::kSha256 : info->algorithm;
}

Signature MakeSignature(SignatureType type, const Guid& owner, ByteView data) {
  const TypeInfo* info = FindType(type);
  CHECK(info != nullptr);
  return {.type = type, .type_guid = info->guid, .owner = owner, .data = ToBytes(data)};
}

Bytes EncodeSignatureList(const Signature& signature) { return EncodeSignatureLists({signature}); }

Bytes EncodeSignatureLists(const std::vector<Signature>& signatures) {
  const auto share_a_list = [](const Signature& a, const Signature& b) {
    return a.type != SignatureType::kX509 && a.type != SignatureType::kOther &&
           a.type_guid == b.type_guid && a.data.size() == b.data.size();
  };
  ByteWriter out;
  for (auto begin = signatures.begin(); begin != signatures.end();) {
    const auto end = std::find_if_not(begin + 1, signatures.end(), [&](const Signature& next) {
      return share_a_list(*begin, next);
    });
    const auto entry_size = static_cast<uint32_t>(kOwnerSize + begin->data.size());
    const auto entries = static_cast<uint32_t>(end - begin) * entry_size;
    out.Raw(begin->type_guid.bytes).U32Le(kListHeaderSize + entries).U32Le(0).U32Le(entry_size);
    for (; begin != end; ++begin) out.Raw(begin->owner.bytes).Raw(begin->data);
  }
  return std::move(out).Take();
}

std::string DescribeSignature(const Signature& signature) {
  switch (signature.type) {
    case SignatureType::kX509: {
      const std::string name = CommonName(signature.data);
      return fmt::format("X.509 {} (sha256 {})", name.empty() ? "unreadable certificate" : name,
                         ToHex(Sha256(signature.data)).substr(0, 16));
    }
    case SignatureType::kSha1:
    case SignatureType::kSha256:
    case SignatureType::kSha384:
    case SignatureType::kSha512:
      return fmt::format("{} {}", FindType(signature.type)->name, ToHex(signature.data));
    case SignatureType::kX509Sha256:
    case SignatureType::kX509Sha384:
    case SignatureType::kX509Sha512: {
      const TypeInfo* info = FindType(signature.type);
      const ByteView digest = ByteView(signature.data).first(DigestSize(info->algorithm));
      return fmt::format("revoked certificate {} {}", info->name, ToHex(digest));
    }
    case SignatureType::kOther:
      break;
  }
  return fmt::format("entry of type {} ({} bytes)", signature.type_guid.ToString(),
                     signature.data.size());
}

std::span<const KnownCertificate> KnownCertificates() { return kKnownCertificates; }

const KnownCertificate* FindKnownCertificate(ByteView der) {
  const std::string digest = ToHex(Sha256(der));
  const auto it = std::ranges::find(kKnownCertificates, digest, &KnownCertificate::sha256);
  return it == kKnownCertificates.end() ? nullptr : &*it;
}

Result<KeySetSummary> SummarizeKeySet(const VariableStore& store) {
  ASSIGN_OR_RETURN(const auto pk, SignaturesOf(store, "PK", kGlobalVariableGuid));
  ASSIGN_OR_RETURN(const auto kek, SignaturesOf(store, "KEK", kGlobalVariableGuid));
  ASSIGN_OR_RETURN(const auto db, SignaturesOf(store, "db", kSecurityDatabaseGuid));
  ASSIGN_OR_RETURN(const auto dbx, SignaturesOf(store, "dbx", kSecurityDatabaseGuid));
  KeySetSummary summary;
  summary.pk = Describe(pk);
  summary.kek = Describe(kek);
  summary.db = Describe(db);
  summary.dbx_entries = dbx.size();
  summary.name = pk.empty() && kek.empty() && db.empty() ? "none" : NameOfDb(db);
  return summary;
}

}  // namespace vallum::firmware
