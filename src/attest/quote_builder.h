// SPDX-License-Identifier: Apache-2.0
// Keys and quotes by software in place of a TPM, for tests and benchmarks.
#pragma once

#include <memory>
#include <vector>

#include "attest/attestation.h"
#include "attest/quote.h"
#include "attest/tpm_public.h"
#include "base/bytes.h"
#include "measure/pcr_selection.h"

namespace vallum::attest {

// A key pair with the public part that a TPM would show.
class SoftwareKey {
 public:
  static constexpr uint32_t kAttestationKey = 0x00050072;  // as tpm2_createak makes them

  static SoftwareKey MakeRsa(KeyScheme scheme, HashAlgorithm hash, int bits = 2048);
  static SoftwareKey MakeEc(EcCurve curve, HashAlgorithm hash);

  evp_pkey_st* get() const { return key_.get(); }
  // What the next calls of Public() say.
  void SetAttributes(uint32_t attributes) { attributes_ = attributes; }
  void SetScheme(KeyScheme scheme) { scheme_ = scheme; }
  // TPMT_PUBLIC.
  Bytes Public() const;
  TpmPublic Parsed() const { return ParseTpmtPublic(Public()).value(); }

  // TPMT_SIGNATURE, and the bare signature: RSA, or the DER of ECDSA.
  Bytes Sign(ByteView message) const;
  Bytes SignPlain(ByteView message) const;

 private:
  SoftwareKey(std::shared_ptr<evp_pkey_st> key, KeyScheme scheme, HashAlgorithm hash)
      : key_(std::move(key)), scheme_(scheme), hash_(hash) {}

  std::shared_ptr<evp_pkey_st> key_;
  KeyScheme scheme_;
  HashAlgorithm hash_;
  uint32_t attributes_ = kAttestationKey;
};

// TPMS_ATTEST.
Bytes BuildAttestation(const Attestation& attestation);
// The digest that a TPM would quote over these PCRs.
Bytes PcrDigest(HashAlgorithm hash, const PcrBanks& pcrs);
// Each bank's PCRs.
std::vector<QuotedBank> SelectAll(const PcrBanks& pcrs);
// As tpm2_quote --pcrs_format=serialized writes them.
Bytes SerializePcrs(const PcrBanks& pcrs);

}  // namespace vallum::attest
