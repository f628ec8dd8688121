// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"
#include "firmware/guid.h"
#include "firmware/variable_store.h"

namespace vallum::firmware {

enum class SignatureType {
  kX509,  // a DER certificate
  kSha1,  // the Authenticode digest of an image
  kSha256,
  kSha384,
  kSha512,
  kX509Sha256,  // the digest of a certificate's signed part and a revocation time
  kX509Sha384,
  kX509Sha512,
  kOther,
};

// EFI_CERT_X509_GUID and EFI_CERT_SHA256_GUID.
inline constexpr Guid kX509CertificateGuid =
    MakeGuid(0xa5c059a1, 0x94e4, 0x4aa7, {0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72});
inline constexpr Guid kSha256CertificateGuid =
    MakeGuid(0xc1c41626, 0x504c, 0x4092, {0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28});

// One EFI_SIGNATURE_DATA.
struct Signature {
  SignatureType type = SignatureType::kOther;
  Guid type_guid;
  Guid owner;
  Bytes data;

  // owner and data as they are stored: what firmware measures when it used this entry.
  Bytes Encode() const;
  bool operator==(const Signature&) const = default;
};

// Parses the value of PK, KEK, db or dbx: EFI_SIGNATURE_LISTs one after the other, flattened.
//   lists: may be empty; untrusted.
// Errors: kCorrupt (sizes that contradict each other, with the offset); kExhausted (more than
// kMaxSignatures).
Result<std::vector<Signature>> ParseSignatureLists(ByteView lists);
inline constexpr size_t kMaxSignatures = 65536;

// An entry of a type that has a name. `type` is not kOther.
Signature MakeSignature(SignatureType type, const Guid& owner, ByteView data);

// What an entry of type kSha* or kX509Sha* is a digest of the image or certificate by.
// Returns kSha256 for types that are no digest.
HashAlgorithm SignatureAlgorithm(SignatureType type);

// One list that holds one entry: owner and data of `signature` under its type.
Bytes EncodeSignatureList(const Signature& signature);
// The inverse of ParseSignatureLists, in the grouping that updates are published in: each
// certificate in a list of its own, digests of one type that follow each other in one list. PCR 7
// depends on it; a value that was grouped otherwise comes back with the same meaning, not the same
// bytes.
Bytes EncodeSignatureLists(const std::vector<Signature>& signatures);

// "X.509 CN=Microsoft Corporation UEFI CA 2011 (sha256 48e99b99...)", "SHA-256 80b4d969...".
std::string DescribeSignature(const Signature& signature);

// A certificate that Vallum knows by its SHA-256.
struct KnownCertificate {
  std::string_view sha256;   // of the DER, in hexadecimal
  std::string_view key_set;  // "microsoft", "debian": whose it is
  std::string_view name;
  VariableTime expires;  // year 0 where Vallum does not know it: the certificate itself says it
  // What takes its place, by name; empty for what is not replaced.
  std::array<std::string_view, 2> successors;
};
std::span<const KnownCertificate> KnownCertificates();
// nullptr for others.
const KnownCertificate* FindKnownCertificate(ByteView der);
// The CA of Debian's loaders and kernels, which Debian's shim carries.
inline constexpr std::string_view kDebianSecureBootCaSha256 =
    "079646974bce09b1f04da67bd722d1fb0947ae4c4010bccdbba52d5b23cbf1a2";

// Whose keys a store holds, for people and for `key set: microsoft`.
struct KeySetSummary {
  std::string name;             // "none", "microsoft", "debian", "microsoft+custom", "custom"
  std::vector<std::string> pk;  // one line an entry
  std::vector<std::string> kek;
  std::vector<std::string> db;
  size_t dbx_entries = 0;
};
// Decided by db alone: "microsoft" when each of its entries is one of Microsoft's published
// certificates, "microsoft+custom" when some are; the same for "debian". Errors: kCorrupt (a key
// variable does not parse).
Result<KeySetSummary> SummarizeKeySet(const VariableStore& store);

}  // namespace vallum::firmware
