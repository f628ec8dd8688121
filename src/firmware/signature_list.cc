// SPDX-License-Identifier: Apache-2.0
#include "firmware/signature_list.h"

#include <fmt/format.h>
#include <openssl/x509.h>

#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <utility>

#include "base/digest.h"
#include "base/text.h"

namespace vallum::firmware {
namespace {

constexpr Guid kX509Sha256Guid =
    MakeGuid(0x3bd2a492, 0x96c0, 0x4079, {0xb4, 0x20, 0xfc, 0xf9, 0x8e, 0xf1, 0x03, 0xed});
constexpr size_t kListHeaderSize = 28;
constexpr size_t kOwnerSize = 16;
constexpr size_t kSha256Size = 32;
constexpr size_t kX509Sha256Size = 48;

struct KnownCertificate {
  std::string_view sha256;  // of the DER
  std::string_view name;
};
// The certificates that Microsoft publishes for KEK and db
// (github.com/microsoft/secureboot_objects).
constexpr std::array kMicrosoft = {
    KnownCertificate{"a1117f516a32cefcba3f2d1ace10a87972fd6bbe8fe0d0b996e09e65d802a503",
                     "Microsoft Corporation KEK CA 2011"},
    KnownCertificate{"e8e95f0733a55e8bad7be0a1413ee23c51fcea64b3c8fa6a786935fddcc71961",
                     "Microsoft Windows Production PCA 2011"},
    KnownCertificate{"48e99b991f57fc52f76149599bff0a58c47154229b9f8d603ac40d3500248507",
                     "Microsoft Corporation UEFI CA 2011"},
};

SignatureType TypeOf(const Guid& guid) {
  if (guid == kX509CertificateGuid) {
    return SignatureType::kX509;
  }
  if (guid == kSha256CertificateGuid) {
    return SignatureType::kSha256;
  }
  return guid == kX509Sha256Guid ? SignatureType::kX509Sha256 : SignatureType::kOther;
}

// The size that an entry of the type must have, or 0 when the type leaves it open.
size_t RequiredSize(SignatureType type) {
  switch (type) {
    case SignatureType::kSha256:
      return kOwnerSize + kSha256Size;
    case SignatureType::kX509Sha256:
      return kOwnerSize + kX509Sha256Size;
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

Bytes EncodeSignatureList(const Signature& signature) {
  const auto entry_size = static_cast<uint32_t>(kOwnerSize + signature.data.size());
  ByteWriter out;
  out.Raw(signature.type_guid.bytes).U32Le(kListHeaderSize + entry_size).U32Le(0);
  return std::move(out.U32Le(entry_size).Raw(signature.Encode())).Take();
}

std::string DescribeSignature(const Signature& signature) {
  switch (signature.type) {
    case SignatureType::kX509: {
      const std::string name = CommonName(signature.data);
      return fmt::format("X.509 {} (sha256 {})", name.empty() ? "unreadable certificate" : name,
                         ToHex(Sha256(signature.data)).substr(0, 16));
    }
    case SignatureType::kSha256:
      return "SHA-256 " + ToHex(signature.data);
    case SignatureType::kX509Sha256:
      return "revoked certificate SHA-256 " + ToHex(ByteView(signature.data).first(kSha256Size));
    case SignatureType::kOther:
      break;
  }
  return fmt::format("entry of type {} ({} bytes)", signature.type_guid.ToString(),
                     signature.data.size());
}

std::string_view KnownCertificateName(ByteView der) {
  const std::string digest = ToHex(Sha256(der));
  for (const KnownCertificate& known : kMicrosoft) {
    if (known.sha256 == digest) {
      return known.name;
    }
  }
  return "";
}

Result<KeySetSummary> SummarizeKeySet(const VariableStore& store) {
  ASSIGN_OR_RETURN(const auto pk, SignaturesOf(store, "PK", kGlobalVariableGuid));
  ASSIGN_OR_RETURN(const auto kek, SignaturesOf(store, "KEK", kGlobalVariableGuid));
  ASSIGN_OR_RETURN(const auto db, SignaturesOf(store, "db", kSecurityDatabaseGuid));
  ASSIGN_OR_RETURN(const auto dbx, SignaturesOf(store, "dbx", kSecurityDatabaseGuid));
  const auto is_microsoft = [](const Signature& s) {
    return s.type == SignatureType::kX509 && !KnownCertificateName(s.data).empty();
  };
  KeySetSummary summary;
  summary.pk = Describe(pk);
  summary.kek = Describe(kek);
  summary.db = Describe(db);
  summary.dbx_entries = dbx.size();
  // db decides what starts; KEK decides who may change that, but distributions add their own.
  const auto known = static_cast<size_t>(std::count_if(db.begin(), db.end(), is_microsoft));
  if (pk.empty() && kek.empty() && db.empty()) {
    summary.name = "none";
  } else if (known == 0) {
    summary.name = "custom";
  } else {
    summary.name = known == db.size() ? "microsoft" : "microsoft+custom";
  }
  return summary;
}

}  // namespace vallum::firmware
