// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"
#include "base/units.h"
#include "measure/pcr_selection.h"

// What a vTPM is known by and what it signs. Pure.
namespace vallum::vtpm {

// The keys that the TPM made from its own seed, and the certificate that it carries.
struct VtpmIdentity {
  Bytes ek_public;    // TPMT_PUBLIC of the endorsement key: EC P-256, TCG template L-2
  Bytes ak_public;    // TPMT_PUBLIC of the attestation key: EC P-256, restricted, ECDSA SHA-256
  Bytes certificate;  // DER, of the EK, as in NV index 0x01c0000a; empty: none there
  bool operator==(const VtpmIdentity&) const = default;
};

struct QuoteRequest {
  static constexpr size_t kMaxNonce = 64;  // TPM2B_DATA holds no more with SHA-512
  static constexpr size_t kMaxBanks = 4;
  Bytes nonce;  // 0 to kMaxNonce bytes
  std::vector<measure::BankSelection>
      selections;  // 1 to kMaxBanks, each bank once, each with a PCR
};

struct Quote {
  Bytes quoted;     // TPMS_ATTEST, what is signed
  Bytes signature;  // TPMT_SIGNATURE
  Bytes ak_public;  // TPMT_PUBLIC of the key that signed
  // In the order of the request's selections: the values that the quote is about.
  std::vector<std::map<PcrIndex, Bytes>> values;
};

// A TPMT_PUBLIC of an EC P-256 key as X.509 has it (SubjectPublicKeyInfo, DER).
// Errors: kInvalidInput (another kind of key, or not a TPMT_PUBLIC). The point is not checked to be
// on the curve: whoever uses the key does.
Result<Bytes> SubjectPublicKeyInfo(ByteView tpm_public);
// The name by which the TPM knows a key with SHA-256 as its name algorithm: TPM 2.0 part 1,
// section 16.
Bytes ObjectName(ByteView tpm_public);

// PCR values as tpm2_quote writes them with --pcrs_format=serialized and tpm2_checkquote reads
// them: TPML_PCR_SELECTION and TPML_DIGESTs as they lie in a little-endian machine's memory.
Bytes SerializePcrs(const QuoteRequest& request, const Quote& quote);

}  // namespace vallum::vtpm
