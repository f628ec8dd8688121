// SPDX-License-Identifier: Apache-2.0
#include "measure/ima_signature.h"

#include <fmt/format.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/digest.h"
#include "measure/ima_keys.h"

namespace vallum::measure {
namespace {

constexpr size_t kKeyIdSize = 4;

uint32_t LastFour(ByteView bytes) {
  uint32_t out = 0;
  for (const std::byte b : bytes.last(kKeyIdSize)) {
    out = out << 8U | std::to_integer<uint32_t>(b);
  }
  return out;
}

// The bytes of the BIT STRING in a SubjectPublicKeyInfo: RSAPublicKey, or the point.
std::optional<uint32_t> KeyIdOf(EVP_PKEY* key) {
  X509_PUBKEY* raw = nullptr;
  if (X509_PUBKEY_set(&raw, key) != 1) {
    return std::nullopt;
  }
  const std::unique_ptr<X509_PUBKEY, OpensslFree<X509_PUBKEY_free>> info(raw);
  const unsigned char* bits = nullptr;
  int size = 0;
  if (X509_PUBKEY_get0_param(nullptr, &bits, &size, nullptr, info.get()) != 1 || size <= 0) {
    return std::nullopt;
  }
  return LastFour(Digest(HashAlgorithm::kSha1,
                         {reinterpret_cast<const std::byte*>(bits), static_cast<size_t>(size)}));
}

Result<std::shared_ptr<const ImaKey>> MakeKey(EVP_PKEY* pkey, const X509* certificate) {
  auto out = std::make_shared<ImaKey>();
  out->key.reset(pkey);
  const auto id = pkey == nullptr ? std::nullopt : KeyIdOf(pkey);
  if (!id.has_value()) {
    return InvalidInput("neither a public key nor a certificate that can be read");
  }
  const int type = EVP_PKEY_get_base_id(pkey);
  if (type != EVP_PKEY_RSA && type != EVP_PKEY_EC) {
    return InvalidInput("a key that is neither RSA nor elliptic");
  }
  out->ids.push_back(*id);
  // The kernel finds the key of a certificate by its subject key identifier.
  const ASN1_OCTET_STRING* const subject =
      certificate == nullptr ? nullptr : X509_get0_subject_key_id(const_cast<X509*>(certificate));
  if (subject != nullptr && ASN1_STRING_length(subject) >= static_cast<int>(kKeyIdSize)) {
    const uint32_t named =
        LastFour({reinterpret_cast<const std::byte*>(ASN1_STRING_get0_data(subject)),
                  static_cast<size_t>(ASN1_STRING_length(subject))});
    if (named != *id) {
      out->ids.push_back(named);
    }
  }
  return out;
}

// One certificate or key, up to the last byte.
Result<std::shared_ptr<const ImaKey>> ReadKey(ByteView der) {
  const auto* at = reinterpret_cast<const unsigned char*>(der.data());
  const unsigned char* const end = at + der.size();
  const auto size = static_cast<long>(der.size());
  const std::unique_ptr<X509, OpensslFree<X509_free>> certificate(d2i_X509(nullptr, &at, size));
  if (certificate != nullptr && at == end) {
    return MakeKey(X509_get_pubkey(certificate.get()), certificate.get());
  }
  at = reinterpret_cast<const unsigned char*>(der.data());
  auto key = MakeKey(d2i_PUBKEY(nullptr, &at, size), nullptr);
  if (key.has_value() && at != end) return InvalidInput("bytes are left over behind the key");
  return key;
}

// The content of each block of a PEM text.
std::vector<Bytes> ReadPem(ByteView text) {
  std::vector<Bytes> out;
  const std::unique_ptr<BIO, OpensslFree<BIO_free_all>> bio(
      BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  char* name = nullptr;
  char* header = nullptr;
  unsigned char* der = nullptr;
  long size = 0;
  while (PEM_read_bio(bio.get(), &name, &header, &der, &size) == 1) {
    const std::unique_ptr<char, OpensslMemoryFree> free_name(name);
    const std::unique_ptr<char, OpensslMemoryFree> free_header(header);
    const std::unique_ptr<unsigned char, OpensslMemoryFree> free_der(der);
    out.push_back(ToBytes({reinterpret_cast<const std::byte*>(der), static_cast<size_t>(size)}));
  }
  return out;
}

// What v3 signs: struct ima_file_id.
Bytes FileIdHash(const ImaSignatureHeader& header, const ImaDigest& digest, const EVP_MD* md) {
  Bytes id = {static_cast<std::byte>(header.type), static_cast<std::byte>(header.hash)};
  id.insert(id.end(), digest.bytes.begin(), digest.bytes.end());
  Bytes out(kMaxImaDigest);
  unsigned size = 0;
  CHECK(EVP_Digest(id.data(), id.size(), reinterpret_cast<unsigned char*>(out.data()), &size, md,
                   nullptr) == 1);
  out.resize(size);
  return out;
}

}  // namespace

const EVP_MD* ImaHashMd(ImaHash hash) {
  switch (hash) {
    case ImaHash::kMd4:
    case ImaHash::kMd5:
    case ImaHash::kRipemd160:
    case ImaHash::kRipemd128:
    case ImaHash::kRipemd256:
    case ImaHash::kRipemd320:
    case ImaHash::kWhirlpool256:
    case ImaHash::kWhirlpool384:
    case ImaHash::kWhirlpool512:
    case ImaHash::kTiger128:
    case ImaHash::kTiger160:
    case ImaHash::kTiger192:
    case ImaHash::kStreebog256:
    case ImaHash::kStreebog512:
      return nullptr;
    case ImaHash::kSha1:
      return EVP_sha1();
    case ImaHash::kSha256:
      return EVP_sha256();
    case ImaHash::kSha384:
      return EVP_sha384();
    case ImaHash::kSha512:
      return EVP_sha512();
    case ImaHash::kSha224:
      return EVP_sha224();
    case ImaHash::kSm3:
      return EVP_sm3();
    case ImaHash::kSha3With256:
      return EVP_sha3_256();
    case ImaHash::kSha3With384:
      return EVP_sha3_384();
    case ImaHash::kSha3With512:
      return EVP_sha3_512();
  }
  return nullptr;
}

bool VerifyImaDigest(EVP_PKEY* key, ImaHash hash, ByteView digest, ByteView signature) {
  const OpensslErrors errors;
  const EVP_MD* const md = ImaHashMd(hash);
  if (md == nullptr) {
    return false;
  }
  const std::unique_ptr<EVP_PKEY_CTX, OpensslFree<EVP_PKEY_CTX_free>> context(
      EVP_PKEY_CTX_new(key, nullptr));
  return context != nullptr && EVP_PKEY_verify_init(context.get()) == 1 &&
         (EVP_PKEY_get_base_id(key) != EVP_PKEY_RSA ||
          EVP_PKEY_CTX_set_rsa_padding(context.get(), RSA_PKCS1_PADDING) == 1) &&
         EVP_PKEY_CTX_set_signature_md(context.get(), md) == 1 &&
         EVP_PKEY_verify(context.get(), reinterpret_cast<const unsigned char*>(signature.data()),
                         signature.size(), reinterpret_cast<const unsigned char*>(digest.data()),
                         digest.size()) == 1;
}

Result<ImaSignatureHeader> ParseImaSignature(ByteView field) {
  constexpr uint8_t kVersion2 = 2;
  constexpr uint8_t kVersion3 = 3;
  ByteCursor cursor(field);
  ImaSignatureHeader out;
  ASSIGN_OR_RETURN(const uint8_t type, cursor.ReadU8());
  ASSIGN_OR_RETURN(out.version, cursor.ReadU8());
  ASSIGN_OR_RETURN(const uint8_t hash, cursor.ReadU8());
  ASSIGN_OR_RETURN(out.key_id, cursor.ReadU32Be());
  ASSIGN_OR_RETURN(const uint16_t size, cursor.ReadU16Be());
  out.type = static_cast<ImaSignatureType>(type);
  if (out.type != ImaSignatureType::kFile && out.type != ImaSignatureType::kPortableEvm &&
      out.type != ImaSignatureType::kVerity) {
    return InvalidInput(fmt::format("an attribute of type {}, which is no signature", type));
  }
  // fs-verity's digests are signed in version 3 only, portable ones in version 2 only.
  const bool known = out.version == kVersion2
                         ? out.type != ImaSignatureType::kVerity
                         : out.version == kVersion3 && out.type != ImaSignatureType::kPortableEvm;
  if (!known) {
    return InvalidInput(fmt::format("a signature of type {} and version {}", type, out.version));
  }
  const auto algorithm = ImaHashFromNumber(hash);
  if (!algorithm.has_value()) {
    return InvalidInput(fmt::format("a signature of an unknown digest algorithm, {}", hash));
  }
  out.hash = *algorithm;
  out.signature = cursor.Rest();
  if (size != out.signature.size()) {
    return InvalidInput(fmt::format("a signature that says it has {} bytes, and has {}", size,
                                    out.signature.size()));
  }
  return out;
}

Result<void> ImaKeys::Keep(std::shared_ptr<const ImaKey> key) {
  for (const auto& each : keys_) {
    if (each->ids == key->ids && EVP_PKEY_eq(each->key.get(), key->key.get()) == 1) {
      return Ok();
    }
  }
  if (keys_.size() == kMaxImaKeys) {
    return Exhausted(fmt::format("more than {} keys", kMaxImaKeys));
  }
  keys_.push_back(std::move(key));
  return Ok();
}

Result<size_t> ImaKeys::Add(ByteView key) {
  const OpensslErrors errors;
  if (key.size() > kMaxImaKeyBytes) {
    return Exhausted(fmt::format("keys of {} bytes; {} are accepted", key.size(), kMaxImaKeyBytes));
  }
  std::vector<Bytes> ders;
  if (AsText(key).find("-----BEGIN ") == std::string_view::npos) {
    ders.push_back(ToBytes(key));
  } else {
    ders = ReadPem(key);
  }
  if (ders.empty()) {
    return InvalidInput("no public key and no certificate in it");
  }
  ImaKeys with = *this;
  for (const Bytes& der : ders) {
    ASSIGN_OR_RETURN(auto read, ReadKey(der));
    RETURN_IF_ERROR(with.Keep(std::move(read)));
  }
  *this = std::move(with);
  return ders.size();
}

Result<void> ImaKeys::AddLoaded(ByteView der) {
  const OpensslErrors errors;
  if (der.size() > kMaxImaKeyBytes) {
    return Exhausted(
        fmt::format("a key of {} bytes; {} are accepted", der.size(), kMaxImaKeyBytes));
  }
  ASSIGN_OR_RETURN(auto key, ReadKey(der));
  return Keep(std::move(key));
}

std::vector<std::string> ImaKeys::KeyIds() const {
  std::vector<std::string> out;
  for (const auto& key : keys_) {
    for (const uint32_t id : key->ids) {
      out.push_back(fmt::format("{:08x}", id));
    }
  }
  return out;
}

ImaSignatureVerdict ImaKeys::Verify(ByteView field, const ImaDigest& digest) const {
  const auto header = ParseImaSignature(field);
  // A portable signature is of the file's attributes, of which the entry has no record.
  if (!header.has_value() || header->type == ImaSignatureType::kPortableEvm ||
      header->hash != digest.hash || digest.bytes.size() != ImaHashSize(digest.hash) ||
      (header->type == ImaSignatureType::kVerity) != (digest.type == ImaDigestType::kVerity)) {
    return ImaSignatureVerdict::kMalformed;
  }
  const EVP_MD* const md = ImaHashMd(header->hash);
  if (md == nullptr) {
    return ImaSignatureVerdict::kMalformed;
  }
  const Bytes hashed =
      header->version == 2 ? ToBytes(digest.bytes) : FileIdHash(*header, digest, md);
  auto out = ImaSignatureVerdict::kUnknownKey;
  for (const auto& key : keys_) {
    if (std::ranges::find(key->ids, header->key_id) == key->ids.end()) {
      continue;
    }
    if (VerifyImaDigest(key->key.get(), header->hash, hashed, header->signature)) {
      return ImaSignatureVerdict::kGood;
    }
    out = ImaSignatureVerdict::kBad;
  }
  return out;
}

}  // namespace vallum::measure
