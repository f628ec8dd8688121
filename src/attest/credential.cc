// SPDX-License-Identifier: Apache-2.0
#include "attest/credential.h"

#include <fmt/format.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rsa.h>

#include <string>
#include <string_view>
#include <utility>

#include "attest/openssl.h"
#include "attest/public_key.h"
#include "base/check.h"

namespace vallum::attest {
namespace {

constexpr uint16_t kAlgorithmAes = 0x0006;
constexpr size_t kMinName = 2 + 20;

using KdfPtr = std::unique_ptr<EVP_KDF, Freer<EVP_KDF_free>>;
using KdfContextPtr = std::unique_ptr<EVP_KDF_CTX, Freer<EVP_KDF_CTX_free>>;
using CipherContextPtr = std::unique_ptr<EVP_CIPHER_CTX, Freer<EVP_CIPHER_CTX_free>>;

// A label as KDFe and OAEP take it: part 1, section 11.4.10.2, "shall be null-terminated".
constexpr std::string_view kIdentity("IDENTITY", sizeof "IDENTITY");

// OpenSSL's parameters point to what may be changed, and is not.
OSSL_PARAM OctetParam(const char* name, ByteView bytes) {
  return OSSL_PARAM_construct_octet_string(name, const_cast<std::byte*>(bytes.data()),
                                           bytes.size());
}
OSSL_PARAM TextParam(const char* name, std::string& text) {
  return OSSL_PARAM_construct_utf8_string(name, text.data(), 0);
}

SecretBytes Derive(const char* kdf_name, const OSSL_PARAM* params, size_t size) {
  const KdfPtr kdf(EVP_KDF_fetch(nullptr, kdf_name, nullptr));
  const KdfContextPtr context(EVP_KDF_CTX_new(kdf.get()));
  CHECK(context != nullptr);
  Bytes out(size);
  CHECK(EVP_KDF_derive(context.get(), Unsigned(out), size, params) == 1);
  return SecretBytes::TakeAndWipe(out);
}

// Part 1, section 11.4.10.2: HMAC in counter mode (SP 800-108) over label, zero and contexts; the
// label's zero is the one that KBKDF puts behind it.
SecretBytes KdfA(HashAlgorithm hash, const SecretBytes& key, std::string_view label,
                 ByteView context, size_t size) {
  std::string mac = "HMAC";
  std::string digest(HashAlgorithmName(hash));
  const OSSL_PARAM params[] = {
      TextParam(OSSL_KDF_PARAM_MAC, mac),
      TextParam(OSSL_KDF_PARAM_DIGEST, digest),
      OctetParam(OSSL_KDF_PARAM_KEY, key.Reveal(SecretAccess("deriving a credential's keys"))),
      OctetParam(OSSL_KDF_PARAM_SALT, AsBytes(label)),
      OctetParam(OSSL_KDF_PARAM_INFO, context),
      OSSL_PARAM_construct_end()};
  return Derive("KBKDF", params, size);
}

// Part 1, section 11.4.10.3: the single-step KDF of SP 800-56A.
SecretBytes KdfE(HashAlgorithm hash, const SecretBytes& z, ByteView info, size_t size) {
  std::string digest(HashAlgorithmName(hash));
  const OSSL_PARAM params[] = {
      TextParam(OSSL_KDF_PARAM_DIGEST, digest),
      OctetParam(OSSL_KDF_PARAM_SECRET, z.Reveal(SecretAccess("deriving a credential's seed"))),
      OctetParam(OSSL_KDF_PARAM_INFO, info), OSSL_PARAM_construct_end()};
  return Derive("SSKDF", params, size);
}

Bytes Sized(ByteView bytes) {
  ByteWriter writer;
  writer.U16Be(static_cast<uint16_t>(bytes.size())).Raw(bytes);
  return std::move(writer).Take();
}

struct SharedSeed {
  SecretBytes seed;
  Bytes encrypted;  // the content of TPM2B_ENCRYPTED_SECRET
};

// Annex B.10.3: a random seed in OAEP with the name algorithm and the label IDENTITY.
// Errors: kInvalidInput (numbers that are no RSA key's, such as an even modulus).
Result<SharedSeed> ShareByRsa(const PublicKey& key, HashAlgorithm hash) {
  SharedSeed out{SecretBytes::Random(DigestSize(hash)), {}};
  const KeyContextPtr context(EVP_PKEY_CTX_new(key.get(), nullptr));
  const EVP_MD* md = EVP_get_digestbyname(std::string(HashAlgorithmName(hash)).c_str());
  CHECK(context != nullptr && EVP_PKEY_encrypt_init(context.get()) == 1);
  CHECK(EVP_PKEY_CTX_set_rsa_padding(context.get(), RSA_PKCS1_OAEP_PADDING) == 1);
  CHECK(EVP_PKEY_CTX_set_rsa_oaep_md(context.get(), md) == 1);
  CHECK(EVP_PKEY_CTX_set_rsa_mgf1_md(context.get(), md) == 1);
  void* label = OPENSSL_memdup(kIdentity.data(), kIdentity.size());
  CHECK(EVP_PKEY_CTX_set0_rsa_oaep_label(context.get(), label, kIdentity.size()) == 1);
  const ByteView seed = out.seed.Reveal(SecretAccess("encrypting a credential's seed to an EK"));
  size_t size = static_cast<size_t>(EVP_PKEY_get_size(key.get()));
  out.encrypted.resize(size);
  if (EVP_PKEY_encrypt(context.get(), Unsigned(out.encrypted), &size, Unsigned(seed),
                       seed.size()) != 1) {
    ERR_clear_error();
    return InvalidInput("nothing can be encrypted to the key: its numbers are no RSA key's");
  }
  out.encrypted.resize(size);
  return out;
}

Bytes EphemeralCoordinate(EVP_PKEY* key, const char* name, size_t size) {
  BIGNUM* number = nullptr;
  CHECK(EVP_PKEY_get_bn_param(key, name, &number) == 1);
  const BignumPtr owned(number);
  Bytes out(size);
  CHECK(BN_bn2binpad(number, Unsigned(out), static_cast<int>(size)) >= 0);
  return out;
}

// Annex C.6: one-pass Diffie-Hellman with an ephemeral key, then KDFe over both x coordinates.
Result<SharedSeed> ShareByEc(const PublicKey& key, const EcPublic& ek, HashAlgorithm hash) {
  const KeyPtr ephemeral(EVP_EC_gen(std::string(EcCurveName(ek.curve)).c_str()));
  CHECK(ephemeral != nullptr);
  const size_t size = CoordinateSize(ek.curve);
  const Bytes x = EphemeralCoordinate(ephemeral.get(), OSSL_PKEY_PARAM_EC_PUB_X, size);
  const Bytes y = EphemeralCoordinate(ephemeral.get(), OSSL_PKEY_PARAM_EC_PUB_Y, size);
  const KeyContextPtr context(EVP_PKEY_CTX_new(ephemeral.get(), nullptr));
  CHECK(context != nullptr && EVP_PKEY_derive_init(context.get()) == 1);
  CHECK(EVP_PKEY_derive_set_peer(context.get(), key.get()) == 1);
  Bytes z(size);
  size_t written = size;
  CHECK(EVP_PKEY_derive(context.get(), Unsigned(z), &written) == 1 && written == size);
  ByteWriter info;
  info.Raw(AsBytes(kIdentity)).Raw(x).Raw(ek.x);
  const SecretBytes secret = SecretBytes::TakeAndWipe(z);
  SharedSeed out{KdfE(hash, secret, info.bytes(), DigestSize(hash)), {}};
  ByteWriter point;
  point.Raw(Sized(x)).Raw(Sized(y));
  out.encrypted = std::move(point).Take();
  return out;
}

// AES-CFB with an IV of zeros.
Bytes Encrypt(const SecretBytes& key, const SecretBytes& plain) {
  const CipherContextPtr context(EVP_CIPHER_CTX_new());
  const EVP_CIPHER* cipher = key.size() == 16 ? EVP_aes_128_cfb128() : EVP_aes_256_cfb128();
  const unsigned char iv[16] = {};
  const SecretAccess access("encrypting a credential");
  const ByteView input = plain.Reveal(access);
  Bytes out(input.size());
  int written = 0;
  CHECK(context != nullptr &&
        EVP_EncryptInit_ex(context.get(), cipher, nullptr, Unsigned(key.Reveal(access)), iv) == 1);
  CHECK(EVP_EncryptUpdate(context.get(), Unsigned(out), &written, Unsigned(input),
                          static_cast<int>(input.size())) == 1);
  CHECK(static_cast<size_t>(written) == out.size());
  return out;
}

Bytes Hmac(HashAlgorithm hash, const SecretBytes& key, ByteView data) {
  const std::string digest(HashAlgorithmName(hash));
  const ByteView revealed = key.Reveal(SecretAccess("signing a credential"));
  Bytes out(DigestSize(hash));
  size_t size = 0;
  CHECK(EVP_Q_mac(nullptr, "HMAC", nullptr, digest.c_str(), nullptr, revealed.data(),
                  revealed.size(), Unsigned(data), data.size(), Unsigned(out), out.size(),
                  &size) != nullptr);
  return out;
}

Result<void> CheckEk(const TpmPublic& ek) {
  if (!ek.Has(KeyAttribute::kRestricted) || !ek.Has(KeyAttribute::kDecrypt) ||
      ek.Has(KeyAttribute::kSign)) {
    return Denied("the key cannot receive a credential: it is no restricted decryption key");
  }
  if (!ek.symmetric.has_value() || ek.symmetric->algorithm != kAlgorithmAes ||
      (ek.symmetric->key_bits != 128 && ek.symmetric->key_bits != 256)) {
    return Denied("the key cannot receive a credential: it does not protect its children by AES");
  }
  if (const auto* ec = std::get_if<EcPublic>(&ek.key);
      ec != nullptr && ec->curve == EcCurve::kP521) {
    return Denied("the key cannot receive a credential: P-521 is not supported");
  }
  return Ok();
}

SecretBytes SizedSecret(const SecretBytes& secret) {
  Bytes sized = Sized(secret.Reveal(SecretAccess("making a credential")));
  return SecretBytes::TakeAndWipe(sized);
}

}  // namespace

Result<Credential> MakeCredential(const TpmPublic& ek, ByteView ak_name,
                                  const SecretBytes& secret) {
  RETURN_IF_ERROR(CheckEk(ek));
  const HashAlgorithm hash = ek.name_algorithm;
  if (ak_name.size() < kMinName || ak_name.size() > kMaxTpmName) {
    return InvalidInput(fmt::format("a key's name of {} bytes", ak_name.size()));
  }
  if (secret.empty() || secret.size() > DigestSize(hash)) {
    return InvalidInput(
        fmt::format("a credential of {} bytes; 1 to {} can be", secret.size(), DigestSize(hash)));
  }
  ASSIGN_OR_RETURN(const PublicKey key, PublicKey::FromTpm(ek));
  const auto* ec = std::get_if<EcPublic>(&ek.key);
  ASSIGN_OR_RETURN(const SharedSeed shared,
                   ec == nullptr ? ShareByRsa(key, hash) : ShareByEc(key, *ec, hash));

  const size_t key_size = ek.symmetric->key_bits / 8U;
  const SecretBytes cipher_key = KdfA(hash, shared.seed, "STORAGE", ak_name, key_size);
  const Bytes identity = Encrypt(cipher_key, SizedSecret(secret));
  ByteWriter covered;
  covered.Raw(identity).Raw(ak_name);
  const SecretBytes mac_key = KdfA(hash, shared.seed, "INTEGRITY", {}, DigestSize(hash));
  ByteWriter object;
  object.Raw(Sized(Hmac(hash, mac_key, covered.bytes()))).Raw(identity);
  return Credential{Sized(object.bytes()), Sized(shared.encrypted)};
}

}  // namespace vallum::attest
