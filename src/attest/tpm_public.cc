// SPDX-License-Identifier: Apache-2.0
#include "attest/tpm_public.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "measure/extend_log.h"

namespace vallum::attest {
namespace {

constexpr uint16_t kTypeRsa = 0x0001;
constexpr uint16_t kTypeEcc = 0x0023;
constexpr uint16_t kAlgorithmNull = 0x0010;
constexpr uint16_t kModeCfb = 0x0043;
constexpr uint32_t kDefaultExponent = 65537;
constexpr uint16_t kMinRsaBits = 1024;
constexpr uint16_t kMaxRsaBits = 4096;

Result<ByteView> ReadSized(ByteCursor& cursor, size_t limit) {
  ASSIGN_OR_RETURN(const uint16_t size, cursor.ReadU16Be());
  if (size > limit) {
    return InvalidInput(fmt::format("a field of {} bytes where at most {} can be", size, limit));
  }
  return cursor.ReadBytes(size);
}

Result<HashAlgorithm> ReadHash(ByteCursor& cursor) {
  ASSIGN_OR_RETURN(const uint16_t id, cursor.ReadU16Be());
  const auto hash = measure::BankOfTpmAlgorithm(id);
  if (!hash.has_value()) {
    return InvalidInput(fmt::format("hash algorithm {:#06x} is not supported", id));
  }
  return *hash;
}

// TPMT_SYM_DEF_OBJECT.
Result<std::optional<SymmetricCipher>> ReadSymmetric(ByteCursor& cursor) {
  SymmetricCipher cipher;
  ASSIGN_OR_RETURN(cipher.algorithm, cursor.ReadU16Be());
  if (cipher.algorithm == kAlgorithmNull) {
    return std::optional<SymmetricCipher>();
  }
  ASSIGN_OR_RETURN(cipher.key_bits, cursor.ReadU16Be());
  ASSIGN_OR_RETURN(const uint16_t mode, cursor.ReadU16Be());
  if (mode != kModeCfb) {
    return InvalidInput(fmt::format("cipher mode {:#06x} of a parent key is not CFB", mode));
  }
  return std::optional(cipher);
}

// TPMT_RSA_SCHEME, TPMT_ECC_SCHEME.
Result<void> ReadScheme(ByteCursor& cursor, TpmPublic& key) {
  ASSIGN_OR_RETURN(const uint16_t id, cursor.ReadU16Be());
  key.scheme = static_cast<KeyScheme>(id);
  switch (key.scheme) {
    case KeyScheme::kNull:
    case KeyScheme::kRsaes:
      return Ok();
    case KeyScheme::kRsassa:
    case KeyScheme::kRsapss:
    case KeyScheme::kOaep:
    case KeyScheme::kEcdsa:
    case KeyScheme::kEcdh: {
      ASSIGN_OR_RETURN(key.scheme_hash, ReadHash(cursor));
      return Ok();
    }
  }
  return InvalidInput(fmt::format("key scheme {:#06x} is not supported", id));
}

Result<RsaPublic> ReadRsa(ByteCursor& cursor) {
  RsaPublic key;
  ASSIGN_OR_RETURN(key.bits, cursor.ReadU16Be());
  if (key.bits < kMinRsaBits || key.bits > kMaxRsaBits || key.bits % 8 != 0) {
    return InvalidInput(fmt::format("an RSA key of {} bits", key.bits));
  }
  ASSIGN_OR_RETURN(key.exponent, cursor.ReadU32Be());
  // Part 2, section 12.2.3.5: "When zero, indicates that the exponent is the default of 2^16 + 1".
  if (key.exponent == 0) {
    key.exponent = kDefaultExponent;
  }
  ASSIGN_OR_RETURN(const ByteView modulus, ReadSized(cursor, key.bits / 8));
  if (modulus.size() != key.bits / 8U || (modulus.front() & std::byte{0x80}) == std::byte{0}) {
    return InvalidInput(fmt::format("the modulus has not {} bits", key.bits));
  }
  if (key.exponent < 3 || key.exponent % 2 == 0) {
    return InvalidInput(fmt::format("RSA exponent {}", key.exponent));
  }
  key.modulus = ToBytes(modulus);
  return key;
}

Result<EcCurve> ReadCurve(ByteCursor& cursor) {
  ASSIGN_OR_RETURN(const uint16_t id, cursor.ReadU16Be());
  const auto curve = static_cast<EcCurve>(id);
  switch (curve) {
    case EcCurve::kP256:
    case EcCurve::kP384:
    case EcCurve::kP521:
      return curve;
  }
  return InvalidInput(fmt::format("curve {:#06x} is not supported", id));
}

// TPMs may leave leading zeros out.
Result<Bytes> ReadCoordinate(ByteCursor& cursor, size_t size) {
  ASSIGN_OR_RETURN(const ByteView bytes, ReadSized(cursor, size));
  Bytes out(size - bytes.size());
  out.insert(out.end(), bytes.begin(), bytes.end());
  return out;
}

Result<EcPublic> ReadEc(ByteCursor& cursor) {
  EcPublic key;
  ASSIGN_OR_RETURN(key.curve, ReadCurve(cursor));
  ASSIGN_OR_RETURN(const uint16_t kdf, cursor.ReadU16Be());
  if (kdf != kAlgorithmNull) {
    RETURN_IF_ERROR(ReadHash(cursor));
  }
  const size_t size = CoordinateSize(key.curve);
  ASSIGN_OR_RETURN(key.x, ReadCoordinate(cursor, size));
  ASSIGN_OR_RETURN(key.y, ReadCoordinate(cursor, size));
  return key;
}

bool SchemeFits(const TpmPublic& key) {
  const bool rsa = std::holds_alternative<RsaPublic>(key.key);
  switch (key.scheme) {
    case KeyScheme::kNull:
      return true;
    case KeyScheme::kRsassa:
    case KeyScheme::kRsapss:
    case KeyScheme::kRsaes:
    case KeyScheme::kOaep:
      return rsa;
    case KeyScheme::kEcdsa:
    case KeyScheme::kEcdh:
      return !rsa;
  }
  CHECK(false);
}

Result<TpmPublic> ReadPublic(ByteCursor& cursor) {
  TpmPublic key;
  ASSIGN_OR_RETURN(const uint16_t type, cursor.ReadU16Be());
  if (type != kTypeRsa && type != kTypeEcc) {
    return InvalidInput(fmt::format("an object of type {:#06x} is no RSA or ECC key", type));
  }
  ASSIGN_OR_RETURN(key.name_algorithm, ReadHash(cursor));
  ASSIGN_OR_RETURN(key.attributes, cursor.ReadU32Be());
  ASSIGN_OR_RETURN(const ByteView policy, ReadSized(cursor, DigestSize(HashAlgorithm::kSha512)));
  if (!policy.empty() && policy.size() != DigestSize(key.name_algorithm)) {
    return InvalidInput(fmt::format("a policy digest of {} bytes", policy.size()));
  }
  key.auth_policy = ToBytes(policy);
  ASSIGN_OR_RETURN(key.symmetric, ReadSymmetric(cursor));
  RETURN_IF_ERROR(ReadScheme(cursor, key));
  if (type == kTypeRsa) {
    ASSIGN_OR_RETURN(key.key, ReadRsa(cursor));
  } else {
    ASSIGN_OR_RETURN(key.key, ReadEc(cursor));
  }
  if (!SchemeFits(key)) {
    return InvalidInput(
        fmt::format("scheme {} is not of that kind of key", KeySchemeName(key.scheme)));
  }
  return key;
}

Bytes NameOf(HashAlgorithm algorithm, ByteView first, ByteView second) {
  Hasher hasher(algorithm);
  hasher.Update(first);
  hasher.Update(second);
  ByteWriter writer;
  writer.U16Be(measure::TpmAlgorithmId(algorithm)).Raw(hasher.Finish());
  return std::move(writer).Take();
}

}  // namespace

std::string_view KeySchemeName(KeyScheme scheme) {
  switch (scheme) {
    case KeyScheme::kNull:
      return "none";
    case KeyScheme::kRsassa:
      return "RSASSA";
    case KeyScheme::kRsaes:
      return "RSAES";
    case KeyScheme::kRsapss:
      return "RSAPSS";
    case KeyScheme::kOaep:
      return "OAEP";
    case KeyScheme::kEcdsa:
      return "ECDSA";
    case KeyScheme::kEcdh:
      return "ECDH";
  }
  return "unknown";
}

std::string_view EcCurveName(EcCurve curve) {
  switch (curve) {
    case EcCurve::kP256:
      return "P-256";
    case EcCurve::kP384:
      return "P-384";
    case EcCurve::kP521:
      return "P-521";
  }
  return "unknown";
}

size_t CoordinateSize(EcCurve curve) {
  switch (curve) {
    case EcCurve::kP256:
      return 32;
    case EcCurve::kP384:
      return 48;
    case EcCurve::kP521:
      return 66;
  }
  CHECK(false);
}

Bytes TpmPublic::Name() const { return NameOf(name_algorithm, encoded, {}); }

Result<TpmPublic> ParseTpmtPublic(ByteView bytes) {
  if (bytes.size() > kMaxTpmPublic) {
    return Exhausted(
        fmt::format("a public key of {} bytes; at most {} are read", bytes.size(), kMaxTpmPublic));
  }
  ByteCursor cursor(bytes);
  ASSIGN_OR_RETURN_CONTEXT(TpmPublic key, ReadPublic(cursor), "reading a TPMT_PUBLIC");
  if (!cursor.AtEnd()) {
    return InvalidInput(fmt::format("{} bytes follow a TPMT_PUBLIC", cursor.remaining()));
  }
  key.encoded = ToBytes(bytes);
  return key;
}

Result<TpmPublic> ParseTpm2bPublic(ByteView bytes) {
  ByteCursor cursor(bytes);
  ASSIGN_OR_RETURN_CONTEXT(const uint16_t size, cursor.ReadU16Be(), "reading a TPM2B_PUBLIC");
  if (size != cursor.remaining()) {
    return InvalidInput(
        fmt::format("a TPM2B_PUBLIC says {} bytes and has {}", size, cursor.remaining()));
  }
  return ParseTpmtPublic(cursor.Rest());
}

Bytes QualifiedName(Hierarchy hierarchy, const TpmPublic& key) {
  ByteWriter handle;
  handle.U32Be(static_cast<uint32_t>(hierarchy));
  return NameOf(key.name_algorithm, handle.bytes(), key.Name());
}

Bytes QualifiedName(ByteView parent_qualified_name, const TpmPublic& key) {
  return NameOf(key.name_algorithm, parent_qualified_name, key.Name());
}

}  // namespace vallum::attest
