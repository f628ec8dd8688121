// SPDX-License-Identifier: Apache-2.0
#include "measure/ima_signature.h"

#include <gtest/gtest.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/pkcs7.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <memory>
#include <string>
#include <vector>

#include "base/digest.h"
#include "measure/ima_keys.h"

namespace vallum::measure {
namespace {

using KeyPtr = std::unique_ptr<EVP_PKEY, OpensslFree<EVP_PKEY_free>>;
using CertificatePtr = std::unique_ptr<X509, OpensslFree<X509_free>>;

const KeyPtr& RsaKey() {
  static const KeyPtr key(EVP_RSA_gen(2048));
  return key;
}

const KeyPtr& EcKey() {
  static const KeyPtr key(EVP_EC_gen("P-256"));
  return key;
}

Bytes PublicDer(const KeyPtr& key) {
  unsigned char* der = nullptr;
  const int size = i2d_PUBKEY(key.get(), &der);
  const std::unique_ptr<unsigned char, OpensslMemoryFree> owned(der);
  return ToBytes({reinterpret_cast<const std::byte*>(der), static_cast<size_t>(size)});
}

CertificatePtr MakeCertificate(const KeyPtr& key, const char* subject_key_id) {
  CertificatePtr out(X509_new());
  X509_set_version(out.get(), X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(out.get()), 7);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(out.get()), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>("files"), -1, -1, 0);
  X509_set_issuer_name(out.get(), X509_get_subject_name(out.get()));
  X509_gmtime_adj(X509_getm_notBefore(out.get()), 0);
  X509_gmtime_adj(X509_getm_notAfter(out.get()), 3600);
  X509_set_pubkey(out.get(), key.get());
  const std::unique_ptr<X509_EXTENSION, OpensslFree<X509_EXTENSION_free>> id(
      X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_key_identifier, subject_key_id));
  X509_add_ext(out.get(), id.get(), -1);
  X509_sign(out.get(), key.get(), EVP_sha256());
  return out;
}

Bytes CertificateDer(const CertificatePtr& certificate) {
  unsigned char* der = nullptr;
  const int size = i2d_X509(certificate.get(), &der);
  const std::unique_ptr<unsigned char, OpensslMemoryFree> owned(der);
  return ToBytes({reinterpret_cast<const std::byte*>(der), static_cast<size_t>(size)});
}

Bytes Sign(const KeyPtr& key, ByteView digest) {
  const std::unique_ptr<EVP_PKEY_CTX, OpensslFree<EVP_PKEY_CTX_free>> context(
      EVP_PKEY_CTX_new(key.get(), nullptr));
  EVP_PKEY_sign_init(context.get());
  EVP_PKEY_CTX_set_signature_md(context.get(), EVP_sha256());
  size_t size = 512;
  Bytes out(size);
  EVP_PKEY_sign(context.get(), reinterpret_cast<unsigned char*>(out.data()), &size,
                reinterpret_cast<const unsigned char*>(digest.data()), digest.size());
  out.resize(size);
  return out;
}

uint32_t IdOf(const Bytes& key) {
  ImaKeys keys;
  EXPECT_TRUE(keys.Add(key).has_value());
  return static_cast<uint32_t>(std::stoul(keys.KeyIds().back(), nullptr, 16));
}

Bytes Field(uint8_t type, uint8_t version, uint32_t key_id, ByteView signature) {
  ByteWriter out;
  out.U8(type).U8(version).U8(static_cast<uint8_t>(ImaHash::kSha256)).U32Be(key_id);
  out.U16Be(static_cast<uint16_t>(signature.size())).Raw(signature);
  return std::move(out).Take();
}

const Bytes& FileDigest() {
  static const Bytes digest = Digest(HashAlgorithm::kSha256, AsBytes("a file"));
  return digest;
}

ImaDigest MakeDigest(const Bytes& bytes) {
  return {.type = ImaDigestType::kFile, .hash = ImaHash::kSha256, .bytes = bytes};
}

Bytes MakeValidField(const KeyPtr& key) {
  return Field(3, 2, IdOf(PublicDer(key)), Sign(key, FileDigest()));
}

ImaKeys MakeKeys(const KeyPtr& key) {
  ImaKeys out;
  EXPECT_TRUE(out.Add(PublicDer(key)).has_value());
  return out;
}

TEST(ImaSignature, OfAListedKeyIsGood) {
  for (const KeyPtr* key : {&RsaKey(), &EcKey()}) {
    EXPECT_EQ(MakeKeys(*key).Verify(MakeValidField(*key), MakeDigest(FileDigest())),
              ImaSignatureVerdict::kGood);
  }
}

TEST(ImaSignature, OfAnotherDigestIsBad) {
  const Bytes other(32, std::byte{1});
  for (const KeyPtr* key : {&RsaKey(), &EcKey()}) {
    EXPECT_EQ(MakeKeys(*key).Verify(MakeValidField(*key), MakeDigest(other)),
              ImaSignatureVerdict::kBad);
  }
}

TEST(ImaSignature, EachChangedByteOfItIsNotGood) {
  const Bytes good = MakeValidField(EcKey());
  for (size_t i = 0; i < good.size(); ++i) {
    Bytes field = good;
    field[i] ^= std::byte{0x41};
    EXPECT_NE(MakeKeys(EcKey()).Verify(field, MakeDigest(FileDigest())), ImaSignatureVerdict::kGood)
        << i;
  }
}

TEST(ImaSignature, OfAKeyThatIsNotListedIsUnknown) {
  EXPECT_EQ(MakeKeys(EcKey()).Verify(MakeValidField(RsaKey()), MakeDigest(FileDigest())),
            ImaSignatureVerdict::kUnknownKey);
  EXPECT_EQ(ImaKeys().Verify(MakeValidField(RsaKey()), MakeDigest(FileDigest())),
            ImaSignatureVerdict::kUnknownKey);
}

TEST(ImaSignature, ThatNamesTheIdOfAnotherKeyIsBad) {
  ImaKeys keys = MakeKeys(RsaKey());
  ASSERT_TRUE(keys.Add(PublicDer(EcKey())).has_value());
  const Bytes field = Field(3, 2, IdOf(PublicDer(EcKey())), Sign(RsaKey(), FileDigest()));
  EXPECT_EQ(keys.Verify(field, MakeDigest(FileDigest())), ImaSignatureVerdict::kBad);
}

TEST(ImaSignature, OfAnotherAlgorithmThanTheEntrysIsMalformed) {
  const Bytes sha1(20);
  EXPECT_EQ(MakeKeys(EcKey()).Verify(
                MakeValidField(EcKey()),
                {.type = ImaDigestType::kFile, .hash = ImaHash::kSha1, .bytes = sha1}),
            ImaSignatureVerdict::kMalformed);
}

TEST(ImaSignature, KeyOfACertificateIsFoundByItsSubjectKeyIdentifier) {
  const auto certificate = MakeCertificate(RsaKey(), "00:11:22:33:aa:bb:cc:dd");
  ImaKeys keys;
  ASSERT_TRUE(keys.Add(CertificateDer(certificate)).has_value());
  EXPECT_EQ(keys.KeyIds().back(), "aabbccdd");
  EXPECT_EQ(
      keys.Verify(Field(3, 2, 0xaabbccdd, Sign(RsaKey(), FileDigest())), MakeDigest(FileDigest())),
      ImaSignatureVerdict::kGood);
  EXPECT_EQ(keys.Verify(MakeValidField(RsaKey()), MakeDigest(FileDigest())),
            ImaSignatureVerdict::kGood);
}

TEST(ImaSignature, PemMayHoldSeveralKeys) {
  const std::unique_ptr<BIO, OpensslFree<BIO_free_all>> bio(BIO_new(BIO_s_mem()));
  const auto certificate = MakeCertificate(RsaKey(), "00:11:22:33:aa:bb:cc:dd");
  PEM_write_bio_X509(bio.get(), certificate.get());
  PEM_write_bio_PUBKEY(bio.get(), EcKey().get());
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &text);
  ImaKeys keys;
  const auto added = keys.Add(AsBytes({text, static_cast<size_t>(size)}));
  ASSERT_TRUE(added.has_value());
  EXPECT_EQ(*added, 2U);
  EXPECT_EQ(keys.size(), 2U);
}

TEST(ImaSignature, SameKeyIsKeptOnce) {
  ImaKeys keys = MakeKeys(EcKey());
  ASSERT_TRUE(keys.Add(PublicDer(EcKey())).has_value());
  EXPECT_EQ(keys.size(), 1U);
}

TEST(ImaSignature, WhatIsNoKeyIsRefusedAndChangesNothing) {
  ImaKeys keys = MakeKeys(EcKey());
  EXPECT_FALSE(keys.Add({}).has_value());
  EXPECT_FALSE(keys.Add(AsBytes("-----BEGIN NOTHING-----\n")).has_value());
  EXPECT_FALSE(keys.Add(Bytes(kMaxImaKeyBytes + 1)).has_value());
  const KeyPtr other(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  EXPECT_FALSE(keys.Add(PublicDer(other)).has_value());
  EXPECT_EQ(keys.size(), 1U);
}

TEST(ImaSignature, Version3IsOfTypeAlgorithmAndDigest) {
  ByteWriter id;
  id.U8(6).U8(static_cast<uint8_t>(ImaHash::kSha256)).Raw(FileDigest());
  const Bytes hashed = Digest(HashAlgorithm::kSha256, id.bytes());
  const Bytes field = Field(6, 3, IdOf(PublicDer(EcKey())), Sign(EcKey(), hashed));
  ImaDigest digest = MakeDigest(FileDigest());
  // A digest of fs-verity's kind is another thing than that of a file's content.
  EXPECT_EQ(MakeKeys(EcKey()).Verify(field, digest), ImaSignatureVerdict::kMalformed);
  digest.type = ImaDigestType::kVerity;
  EXPECT_EQ(MakeKeys(EcKey()).Verify(field, digest), ImaSignatureVerdict::kGood);
  EXPECT_EQ(MakeKeys(EcKey()).Verify(MakeValidField(EcKey()), digest),
            ImaSignatureVerdict::kMalformed);
}

TEST(ImaSignature, PortableSignatureSignsNoContent) {
  const Bytes field = Field(5, 2, IdOf(PublicDer(EcKey())), Sign(EcKey(), FileDigest()));
  EXPECT_TRUE(ParseImaSignature(field).has_value());
  EXPECT_EQ(MakeKeys(EcKey()).Verify(field, MakeDigest(FileDigest())),
            ImaSignatureVerdict::kMalformed);
}

TEST(ImaSignature, HeaderThatIsNoneIsRefused) {
  const Bytes signature(8);
  EXPECT_TRUE(ParseImaSignature(Field(3, 2, 0, signature)).has_value());
  EXPECT_FALSE(ParseImaSignature({}).has_value());
  EXPECT_FALSE(ParseImaSignature(Bytes(8)).has_value());
  EXPECT_FALSE(ParseImaSignature(Field(4, 2, 0, signature)).has_value());
  EXPECT_FALSE(ParseImaSignature(Field(3, 1, 0, signature)).has_value());
  EXPECT_FALSE(ParseImaSignature(Field(6, 2, 0, signature)).has_value());
  EXPECT_FALSE(ParseImaSignature(Field(5, 3, 0, signature)).has_value());
  Bytes field = Field(3, 2, 0, signature);
  field[2] = std::byte{23};
  EXPECT_FALSE(ParseImaSignature(field).has_value());
  field = Field(3, 2, 0, signature);
  field.push_back(std::byte{0});
  EXPECT_FALSE(ParseImaSignature(field).has_value());
}

Bytes MakeModsig(const KeyPtr& key, std::string_view content, int more_flags) {
  const auto certificate = MakeCertificate(key, "00:11:22:33:aa:bb:cc:dd");
  const std::unique_ptr<BIO, OpensslFree<BIO_free_all>> bio(
      BIO_new_mem_buf(content.data(), static_cast<int>(content.size())));
  const int flags = PKCS7_BINARY | PKCS7_DETACHED | PKCS7_NOCERTS | more_flags;
  const std::unique_ptr<PKCS7, OpensslFree<PKCS7_free>> message(
      PKCS7_sign(certificate.get(), key.get(), nullptr, bio.get(), flags));
  unsigned char* der = nullptr;
  const int size = i2d_PKCS7(message.get(), &der);
  const std::unique_ptr<unsigned char, OpensslMemoryFree> owned(der);
  return ToBytes({reinterpret_cast<const std::byte*>(der), static_cast<size_t>(size)});
}

TEST(ImaSignature, AppendedSignatureIsOfTheDigestWithAndWithoutAttributes) {
  ModsigBudget budget;
  for (const KeyPtr* key : {&RsaKey(), &EcKey()}) {
    for (const int flags : {0, PKCS7_NOATTR}) {
      const Bytes modsig = MakeModsig(*key, "a file", flags);
      EXPECT_EQ(MakeKeys(*key).VerifyModsig(modsig, MakeDigest(FileDigest()), budget),
                ImaSignatureVerdict::kGood);
      const Bytes other(32, std::byte{1});
      EXPECT_NE(MakeKeys(*key).VerifyModsig(modsig, MakeDigest(other), budget),
                ImaSignatureVerdict::kGood);
      EXPECT_NE(ImaKeys().VerifyModsig(modsig, MakeDigest(FileDigest()), budget),
                ImaSignatureVerdict::kGood);
    }
  }
}

TEST(ImaSignature, EachKeyThatIsTriedCostsOfTheBudget) {
  const Bytes modsig = MakeModsig(EcKey(), "a file", 0);
  ModsigBudget one(1);
  EXPECT_EQ(MakeKeys(EcKey()).VerifyModsig(modsig, MakeDigest(FileDigest()), one),
            ImaSignatureVerdict::kGood);
  EXPECT_TRUE(one.spent());
  EXPECT_EQ(MakeKeys(EcKey()).VerifyModsig(modsig, MakeDigest(FileDigest()), one),
            ImaSignatureVerdict::kUnknownKey);
}

TEST(ImaSignature, KeyWhoseSignaturesAreOfAnotherSizeCostsNothing) {
  ModsigBudget one(1);
  EXPECT_EQ(MakeKeys(RsaKey()).VerifyModsig(MakeModsig(EcKey(), "a file", 0),
                                            MakeDigest(FileDigest()), one),
            ImaSignatureVerdict::kUnknownKey);
  EXPECT_FALSE(one.spent());
}

TEST(ImaSignature, AppendedSignatureThatIsNoneIsMalformed) {
  ModsigBudget budget;
  EXPECT_EQ(MakeKeys(EcKey()).VerifyModsig(AsBytes("none"), MakeDigest(FileDigest()), budget),
            ImaSignatureVerdict::kMalformed);
  EXPECT_EQ(
      MakeKeys(EcKey()).VerifyModsig(Bytes(kMaxModsigBytes + 1), MakeDigest(FileDigest()), budget),
      ImaSignatureVerdict::kMalformed);
}

}  // namespace
}  // namespace vallum::measure
