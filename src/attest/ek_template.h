// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>
#include <vector>

#include "attest/tpm_public.h"
#include "base/bytes.h"

namespace vallum::attest {

// The default templates of endorsement keys: with one, a TPM makes the key of its EK certificate
// from its endorsement seed.
enum class EkTemplate {
  kRsa2048,  // L-1
  kEcP256,   // L-2
};

// TPMT_PUBLIC of the template, for TPM2_CreatePrimary.
// Source: TCG EK Credential Profile for TPM 2.0, 2.5, annex B.3.3 and B.3.4.
Bytes EkTemplateBytes(EkTemplate which);
// Its TPM2_PolicySecret(TPM_RH_ENDORSEMENT), "PolicyA" with SHA-256.
Bytes EkPolicyDigest();
// NV index of the certificate of the key that the template makes.
uint32_t EkCertificateIndex(EkTemplate which);

// How a public key differs from one that a default template makes.
enum class EkProblem {
  kKind,           // neither RSA 2048 nor P-256
  kNameAlgorithm,  // not SHA-256
  kAttributes,
  kPolicy,
  kSymmetric,  // not AES 128
  kScheme,     // has one
  kExponent,   // not 65537
};
std::string_view EkProblemName(EkProblem problem);

// All differences; empty for a key that a default template makes. It does not say that a TPM made
// it: the certificate and a credential that was activated do.
std::vector<EkProblem> CheckEkPublic(const TpmPublic& ek);

}  // namespace vallum::attest
