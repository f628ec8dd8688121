// SPDX-License-Identifier: Apache-2.0
#include "tpm/templates.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/bytes.h"
#include "tpm/marshal.h"

namespace vallum::tpm {
namespace {

constexpr uint16_t kRsaBits = 2048;
constexpr uint16_t kRsaBytes = kRsaBits / 8;
constexpr uint16_t kP256Bytes = 32;

// PolicySecret(TPM_RH_ENDORSEMENT), as B.6.2 of the profile has it.
constexpr std::array<uint8_t, 32> kEndorsementPolicy = {
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xB3, 0xF8, 0x1A, 0x90, 0xCC, 0x8D, 0x46, 0xA5, 0xD7, 0x24,
    0xFD, 0x52, 0xD7, 0x6E, 0x06, 0x52, 0x0B, 0x64, 0xF2, 0xA1, 0xDA, 0x1B, 0x33, 0x14, 0x69, 0xAA};

constexpr TPMA_OBJECT kMadeHere =
    TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN;

// A key that encrypts other keys, with AES-128 in CFB mode.
TPM2B_PUBLIC DecryptingKey(KeyKind kind, TPMA_OBJECT attributes) {
  TPM2B_PUBLIC out{};
  TPMT_PUBLIC& area = out.publicArea;
  area.nameAlg = TPM2_ALG_SHA256;
  area.objectAttributes = attributes;
  TPMT_SYM_DEF_OBJECT symmetric{};
  symmetric.algorithm = TPM2_ALG_AES;
  symmetric.keyBits.aes = 128;
  symmetric.mode.aes = TPM2_ALG_CFB;
  switch (kind) {
    case KeyKind::kRsa2048:
      area.type = TPM2_ALG_RSA;
      area.parameters.rsaDetail = {.symmetric = symmetric,
                                   .scheme = {.scheme = TPM2_ALG_NULL, .details = {}},
                                   .keyBits = kRsaBits,
                                   .exponent = 0};
      area.unique.rsa.size = kRsaBytes;
      break;
    case KeyKind::kEccP256:
      area.type = TPM2_ALG_ECC;
      area.parameters.eccDetail = {.symmetric = symmetric,
                                   .scheme = {.scheme = TPM2_ALG_NULL, .details = {}},
                                   .curveID = TPM2_ECC_NIST_P256,
                                   .kdf = {.scheme = TPM2_ALG_NULL, .details = {}}};
      area.unique.ecc.x.size = kP256Bytes;
      area.unique.ecc.y.size = kP256Bytes;
      break;
  }
  return out;
}

}  // namespace

TPM2B_PUBLIC EndorsementTemplate(KeyKind kind) {
  TPM2B_PUBLIC out = DecryptingKey(
      kind, kMadeHere | TPMA_OBJECT_ADMINWITHPOLICY | TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT);
  out.publicArea.authPolicy.size = kEndorsementPolicy.size();
  std::ranges::copy(kEndorsementPolicy, out.publicArea.authPolicy.buffer);
  return out;
}

TPM2B_PUBLIC AttestationTemplate(KeyKind kind) {
  TPM2B_PUBLIC out = DecryptingKey(kind, kMadeHere | TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA |
                                             TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_SIGN_ENCRYPT);
  TPMT_PUBLIC& area = out.publicArea;
  switch (kind) {
    case KeyKind::kRsa2048:
      area.parameters.rsaDetail.symmetric.algorithm = TPM2_ALG_NULL;
      area.parameters.rsaDetail.scheme.scheme = TPM2_ALG_RSASSA;
      area.parameters.rsaDetail.scheme.details.rsassa.hashAlg = TPM2_ALG_SHA256;
      area.unique.rsa.size = 0;
      break;
    case KeyKind::kEccP256:
      area.parameters.eccDetail.symmetric.algorithm = TPM2_ALG_NULL;
      area.parameters.eccDetail.scheme.scheme = TPM2_ALG_ECDSA;
      area.parameters.eccDetail.scheme.details.ecdsa.hashAlg = TPM2_ALG_SHA256;
      area.unique.ecc.x.size = 0;
      area.unique.ecc.y.size = 0;
      break;
  }
  return out;
}

bool IsOfTemplate(const TPMT_PUBLIC& area, const TPM2B_PUBLIC& made_from) {
  TPMT_PUBLIC blank = area;
  blank.unique = made_from.publicArea.unique;
  const auto mine = Marshal(blank);
  const auto wanted = Marshal(made_from.publicArea);
  return area.type == made_from.publicArea.type && mine.has_value() && wanted.has_value() &&
         *mine == *wanted;
}

}  // namespace vallum::tpm
