// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"

namespace vallum::attest {

// Larger than the TPMT_PUBLIC of an RSA 4096 key with a policy of SHA-512.
inline constexpr size_t kMaxTpmPublic = 1024;
// TPM_ALG_ID (2 bytes) and the largest digest.
inline constexpr size_t kMaxTpmName = 2 + 64;

// TPM_ALG_ID of what keys are used for: part 2, section 6.3. kNull: whoever uses the key says.
enum class KeyScheme : uint16_t {
  kNull = 0x0010,
  kRsassa = 0x0014,
  kRsaes = 0x0015,
  kRsapss = 0x0016,
  kOaep = 0x0017,
  kEcdsa = 0x0018,
  kEcdh = 0x0019,
};
// "RSASSA", "ECDSA", ...
std::string_view KeySchemeName(KeyScheme scheme);

enum class EcCurve : uint16_t { kP256 = 0x0003, kP384 = 0x0004, kP521 = 0x0005 };
std::string_view EcCurveName(EcCurve curve);  // "P-256", ...
size_t CoordinateSize(EcCurve curve);         // 32, 48, 66

// TPMA_OBJECT: part 2, section 8.3.
enum class KeyAttribute : uint32_t {
  kFixedTpm = 1U << 1U,
  kFixedParent = 1U << 4U,
  kSensitiveDataOrigin = 1U << 5U,
  kUserWithAuth = 1U << 6U,
  kAdminWithPolicy = 1U << 7U,
  kNoDa = 1U << 10U,
  kRestricted = 1U << 16U,
  kDecrypt = 1U << 17U,
  kSign = 1U << 18U,
};

// With what a parent key protects its children; always in CFB mode.
struct SymmetricCipher {
  uint16_t algorithm = 0;  // 0x0006: AES
  uint16_t key_bits = 0;
  bool operator==(const SymmetricCipher&) const = default;
};

struct RsaPublic {
  uint16_t bits = 0;
  uint32_t exponent = 0;  // as used: 65537 where the TPM writes 0
  Bytes modulus;          // bits / 8 bytes, big-endian
  bool operator==(const RsaPublic&) const = default;
};

struct EcPublic {
  EcCurve curve = EcCurve::kP256;
  Bytes x;  // CoordinateSize(curve) bytes each
  Bytes y;
  bool operator==(const EcPublic&) const = default;
};

// The public part of a key, as its TPM describes it (TPMT_PUBLIC). A value.
struct TpmPublic {
  HashAlgorithm name_algorithm = HashAlgorithm::kSha256;
  uint32_t attributes = 0;
  Bytes auth_policy;
  std::optional<SymmetricCipher> symmetric;  // restricted decryption keys alone have one
  KeyScheme scheme = KeyScheme::kNull;
  std::optional<HashAlgorithm> scheme_hash;  // none for kNull and kRsaes
  std::variant<RsaPublic, EcPublic> key;
  Bytes encoded;  // the TPMT_PUBLIC itself

  bool Has(KeyAttribute attribute) const {
    return (attributes & static_cast<uint32_t>(attribute)) != 0;
  }
  // TPM_ALG_ID and digest: what the TPM knows the key by. Part 1, section 16.
  Bytes Name() const;
};

// Parses a TPMT_PUBLIC, or a TPM2B_PUBLIC (the same behind its size): layout and what each field
// may be; not that the point is on the curve (see PublicKey).
//   bytes: exactly one of these; untrusted.
// Errors: kInvalidInput (kind of key, curve, algorithm or size that is not known, naming it; bytes
// missing or left over); kExhausted (above kMaxTpmPublic).
// Source: TPM 2.0 Library part 2, sections 11.1 and 12.2. Pure; thread-safe.
Result<TpmPublic> ParseTpmtPublic(ByteView bytes);
Result<TpmPublic> ParseTpm2bPublic(ByteView bytes);

// Qualified names tell under which parent a key lies: part 1, section 16.
enum class Hierarchy : uint32_t {
  kOwner = 0x40000001,
  kEndorsement = 0x4000000B,
  kPlatform = 0x4000000C,
};
// Of a primary key; of a key below a parent of that qualified name.
Bytes QualifiedName(Hierarchy hierarchy, const TpmPublic& key);
Bytes QualifiedName(ByteView parent_qualified_name, const TpmPublic& key);

}  // namespace vallum::attest
