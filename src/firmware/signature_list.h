// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "firmware/guid.h"
#include "firmware/variable_store.h"

namespace vallum::firmware {

enum class SignatureType {
  kX509,        // a DER certificate
  kSha256,      // the Authenticode digest of an image
  kX509Sha256,  // the SHA-256 of a certificate's signed part and a revocation time
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

// One list that holds one entry: owner and data of `signature` under its type.
Bytes EncodeSignatureList(const Signature& signature);

// "X.509 CN=Microsoft Corporation UEFI CA 2011 (sha256 48e99b99...)", "SHA-256 80b4d969...".
std::string DescribeSignature(const Signature& signature);

// Names a certificate of a key set that Vallum knows, or "" for others.
std::string_view KnownCertificateName(ByteView der);

// Whose keys a store holds, for people and for `key set: microsoft`.
struct KeySetSummary {
  std::string name;             // "none", "microsoft", "microsoft+custom", "custom"
  std::vector<std::string> pk;  // one line an entry
  std::vector<std::string> kek;
  std::vector<std::string> db;
  size_t dbx_entries = 0;
};
// Decided by db alone: "microsoft" when each of its entries is one of Microsoft's published
// certificates, "microsoft+custom" when some are. Errors: kCorrupt (a key variable does not parse).
Result<KeySetSummary> SummarizeKeySet(const VariableStore& store);

}  // namespace vallum::firmware
