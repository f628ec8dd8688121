// SPDX-License-Identifier: Apache-2.0
#include "attest/public_key.h"

#include <fmt/format.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/objects.h>
#include <openssl/pem.h>

#include <algorithm>
#include <climits>
#include <iterator>
#include <utility>

#include "attest/openssl.h"
#include "base/check.h"

namespace vallum::attest {
namespace {

constexpr size_t kMaxPemBytes = size_t{16} << 10U;
constexpr int kMinRsaBits = 1024;
constexpr int kMaxRsaBits = 8192;

BignumPtr ToNumber(ByteView bytes) {
  return BignumPtr(BN_bin2bn(Unsigned(bytes), static_cast<int>(bytes.size()), nullptr));
}

// Empty when OpenSSL does not take the numbers for a key.
KeyPtr MakeKey(const char* type, OSSL_PARAM_BLD* builder) {
  const ParamsPtr params(OSSL_PARAM_BLD_to_param(builder));
  const KeyContextPtr context(EVP_PKEY_CTX_new_from_name(nullptr, type, nullptr));
  EVP_PKEY* key = nullptr;
  if (params != nullptr && context != nullptr && EVP_PKEY_fromdata_init(context.get()) == 1) {
    EVP_PKEY_fromdata(context.get(), &key, EVP_PKEY_PUBLIC_KEY, params.get());
  }
  ERR_clear_error();
  return KeyPtr(key);
}

KeyPtr MakeRsa(const RsaPublic& rsa) {
  const BignumPtr modulus = ToNumber(rsa.modulus);
  const BignumPtr exponent(BN_new());
  const ParamBuilderPtr builder(OSSL_PARAM_BLD_new());
  CHECK(modulus != nullptr && exponent != nullptr && builder != nullptr);
  CHECK(BN_set_word(exponent.get(), rsa.exponent) == 1);
  CHECK(OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_N, modulus.get()) == 1);
  CHECK(OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_E, exponent.get()) == 1);
  return MakeKey("RSA", builder.get());
}

KeyPtr MakeEc(const EcPublic& ec) {
  Bytes point = {std::byte{0x04}};
  point.insert(point.end(), ec.x.begin(), ec.x.end());
  point.insert(point.end(), ec.y.begin(), ec.y.end());
  const std::string group(EcCurveName(ec.curve));
  const ParamBuilderPtr builder(OSSL_PARAM_BLD_new());
  CHECK(builder != nullptr);
  CHECK(OSSL_PARAM_BLD_push_utf8_string(builder.get(), OSSL_PKEY_PARAM_GROUP_NAME, group.c_str(),
                                        0) == 1);
  CHECK(OSSL_PARAM_BLD_push_octet_string(builder.get(), OSSL_PKEY_PARAM_PUB_KEY, point.data(),
                                         point.size()) == 1);
  return MakeKey("EC", builder.get());
}

std::optional<EcCurve> CurveOf(const EVP_PKEY* key) {
  char name[64];
  size_t size = 0;
  if (EVP_PKEY_get_group_name(key, name, sizeof name, &size) != 1) {
    ERR_clear_error();
    return std::nullopt;
  }
  switch (OBJ_txt2nid(name)) {
    case NID_X9_62_prime256v1:
      return EcCurve::kP256;
    case NID_secp384r1:
      return EcCurve::kP384;
    case NID_secp521r1:
      return EcCurve::kP521;
    default:  // NIDs are OpenSSL's, not an enum
      return std::nullopt;
  }
}

Result<void> CheckKind(const EVP_PKEY* key) {
  const int type = EVP_PKEY_get_base_id(key);
  if (type == EVP_PKEY_RSA) {
    const int bits = EVP_PKEY_get_bits(key);
    if (bits < kMinRsaBits || bits > kMaxRsaBits) {
      return InvalidInput(fmt::format("an RSA key of {} bits", bits));
    }
    return Ok();
  }
  if (type != EVP_PKEY_EC || !CurveOf(key).has_value()) {
    return InvalidInput("not an RSA key, nor one on P-256, P-384 or P-521");
  }
  return Ok();
}

// The same key under the name rsaEncryption: its parameters only say which padding to use.
KeyPtr DecodeOaepKey(const X509_PUBKEY* spki) {
  ASN1_OBJECT* algorithm = nullptr;
  const unsigned char* bits = nullptr;
  int size = 0;
  if (X509_PUBKEY_get0_param(&algorithm, &bits, &size, nullptr, spki) != 1 ||
      OBJ_obj2nid(algorithm) != NID_rsaesOaep) {
    return nullptr;
  }
  const unsigned char* at = bits;
  KeyPtr key(d2i_PublicKey(EVP_PKEY_RSA, nullptr, &at, size));
  return at == bits + size ? std::move(key) : nullptr;
}

}  // namespace

Result<PublicKey> PublicKey::FromTpm(const TpmPublic& key) {
  const auto* rsa = std::get_if<RsaPublic>(&key.key);
  KeyPtr made = rsa != nullptr ? MakeRsa(*rsa) : MakeEc(std::get<EcPublic>(key.key));
  if (made == nullptr) {
    return InvalidInput("the numbers of the key make no public key: the point is not on its curve");
  }
  return PublicKey(std::move(made));
}

Result<PublicKey> PublicKey::FromSpki(ByteView der) {
  if (der.size() > kMaxSpkiBytes) {
    return Exhausted(
        fmt::format("a public key of {} bytes; at most {} are read", der.size(), kMaxSpkiBytes));
  }
  const unsigned char* at = Unsigned(der);
  const std::unique_ptr<X509_PUBKEY, Freer<X509_PUBKEY_free>> spki(
      d2i_X509_PUBKEY(nullptr, &at, static_cast<long>(der.size())));
  KeyPtr key;
  if (spki != nullptr && at == Unsigned(der) + der.size()) {
    key.reset(X509_PUBKEY_get(spki.get()));
    if (key == nullptr) {
      key = DecodeOaepKey(spki.get());
    }
  }
  ERR_clear_error();
  if (key == nullptr) {
    return InvalidInput("not a SubjectPublicKeyInfo of a supported key");
  }
  RETURN_IF_ERROR(CheckKind(key.get()));
  return PublicKey(std::move(key));
}

Result<PublicKey> PublicKey::FromPem(std::string_view pem) {
  if (pem.size() > kMaxPemBytes) {
    return Exhausted("a PEM text of more than 16 KiB");
  }
  const BioPtr in(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  unsigned char* data = nullptr;
  long size = 0;
  const int found =
      PEM_bytes_read_bio(&data, &size, nullptr, PEM_STRING_PUBLIC, in.get(), nullptr, nullptr);
  ERR_clear_error();
  if (found != 1) {
    return InvalidInput("no BEGIN PUBLIC KEY block");
  }
  const Bytes der = ToBytes(ViewOf(data, static_cast<size_t>(size)));
  OPENSSL_free(data);
  return FromSpki(der);
}

bool PublicKey::IsRsa() const { return EVP_PKEY_get_base_id(key_.get()) == EVP_PKEY_RSA; }

size_t PublicKey::Bits() const { return static_cast<size_t>(EVP_PKEY_get_bits(key_.get())); }

std::optional<EcCurve> PublicKey::Curve() const {
  return IsRsa() ? std::nullopt : CurveOf(key_.get());
}

std::string PublicKey::Describe() const {
  const auto curve = Curve();
  return curve.has_value() ? fmt::format("ECC {}", EcCurveName(*curve))
                           : fmt::format("RSA {}", Bits());
}

Bytes PublicKey::ToSpki() const {
  unsigned char* der = nullptr;
  const int size = i2d_PUBKEY(key_.get(), &der);
  CHECK(size > 0);
  Bytes out = ToBytes(ViewOf(der, static_cast<size_t>(size)));
  OPENSSL_free(der);
  return out;
}

std::string PublicKey::ToPem() const {
  const BioPtr out(BIO_new(BIO_s_mem()));
  CHECK(out != nullptr && PEM_write_bio_PUBKEY(out.get(), key_.get()) == 1);
  char* data = nullptr;
  const long size = BIO_get_mem_data(out.get(), &data);
  return std::string(data, static_cast<size_t>(size));
}

bool PublicKey::operator==(const PublicKey& other) const {
  return EVP_PKEY_eq(key_.get(), other.key_.get()) == 1;
}

}  // namespace vallum::attest
