// SPDX-License-Identifier: Apache-2.0
#include "attest/platform_certificate_builder.h"

#include <openssl/objects.h>

#include <memory>

#include "attest/der.h"
#include "attest/openssl.h"
#include "base/check.h"

namespace vallum::attest {
namespace {

using X509Ptr = std::unique_ptr<X509, Freer<X509_free>>;
using DigestContextPtr = std::unique_ptr<EVP_MD_CTX, Freer<EVP_MD_CTX_free>>;

void Append(Bytes& out, ByteView more) { out.insert(out.end(), more.begin(), more.end()); }

void SetName(X509_NAME* name, const std::string& common_name) {
  if (common_name.empty()) return;
  CHECK(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
                                   reinterpret_cast<const unsigned char*>(common_name.data()),
                                   static_cast<int>(common_name.size()), -1, 0) == 1);
}

void AddExtension(X509* x509, int nid, const std::string& value) {
  if (value.empty()) return;
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, nid, value.c_str());
  CHECK(extension != nullptr && X509_add_ext(x509, extension, -1) == 1);
  X509_EXTENSION_free(extension);
}

Bytes Sign(const SoftwareKey& key, const char* hash, ByteView data) {
  const DigestContextPtr context(EVP_MD_CTX_new());
  CHECK(EVP_DigestSignInit_ex(context.get(), nullptr, hash, nullptr, nullptr, key.get(), nullptr) ==
        1);
  size_t size = 0;
  CHECK(EVP_DigestSign(context.get(), nullptr, &size, Unsigned(data), data.size()) == 1);
  Bytes out(size);
  CHECK(EVP_DigestSign(context.get(), Unsigned(out), &size, Unsigned(data), data.size()) == 1);
  out.resize(size);
  return out;
}

Bytes EcdsaAlgorithm(const char* hash) {
  const bool sha1 = std::string_view(hash) == "SHA1";
  return Der(der::kSequence, {DerOid(sha1 ? "1.2.840.10045.4.1" : "1.2.840.10045.4.3.2")});
}

Bytes Component(std::string_view model, std::vector<Bytes> rest) {
  const Bytes component_class = Der(
      der::kSequence, {DerOid("2.23.133.18.3.1"), DerText(der::kOctetString, {"\0\x06\0\x04", 4})});
  std::vector<Bytes> parts = {component_class, DerText(der::kUtf8String, "ACME"),
                              DerText(der::kUtf8String, model)};
  parts.insert(parts.end(), rest.begin(), rest.end());
  return Der(der::kSequence, parts);
}

}  // namespace

Bytes Der(uint8_t tag, const std::vector<Bytes>& parts) {
  Bytes content;
  for (const Bytes& part : parts) Append(content, part);
  ByteWriter out;
  out.U8(tag);
  if (content.size() < 0x80) {
    out.U8(static_cast<uint8_t>(content.size()));
  } else if (content.size() < 0x100) {
    out.U8(0x81).U8(static_cast<uint8_t>(content.size()));
  } else {
    CHECK(content.size() < 0x10000);
    out.U8(0x82).U16Be(static_cast<uint16_t>(content.size()));
  }
  out.Raw(content);
  return std::move(out).Take();
}

Bytes DerText(uint8_t tag, std::string_view text) { return Der(tag, {ToBytes(AsBytes(text))}); }

Bytes DerOid(const std::string& dotted) {
  ASN1_OBJECT* object = OBJ_txt2obj(dotted.c_str(), 1);
  CHECK(object != nullptr);
  Bytes content = ToBytes(ViewOf(OBJ_get0_data(object), OBJ_length(object)));
  ASN1_OBJECT_free(object);
  return Der(der::kOid, {content});
}

Bytes DerNumber(uint8_t number) {
  CHECK(number < 0x80);
  return Der(der::kInteger, {Bytes{std::byte{number}}});
}

Bytes DerName(const std::string& type, std::string_view value) {
  const Bytes attribute = Der(der::kSequence, {DerOid(type), DerText(der::kUtf8String, value)});
  return Der(der::kSequence, {Der(der::kSet, {attribute})});
}

Bytes DerAttribute(const std::string& type, const Bytes& value) {
  return Der(der::kSequence, {DerOid(type), Der(der::kSet, {value})});
}

Bytes DerExtension(const std::string& type, bool critical, const Bytes& content) {
  const Bytes flag = critical ? Der(der::kBoolean, {Bytes{std::byte{0xFF}}}) : Bytes();
  return Der(der::kSequence, {DerOid(type), flag, Der(der::kOctetString, {content})});
}

TpmCertificate MakeCertificate(const CertificateRecipe& recipe) {
  const X509Ptr x509(X509_new());
  CHECK(X509_set_version(x509.get(), X509_VERSION_3) == 1);
  CHECK(ASN1_INTEGER_set_int64(X509_get_serialNumber(x509.get()), recipe.serial) == 1);
  CHECK(ASN1_TIME_set_string_X509(X509_getm_notBefore(x509.get()), "20200101000000Z") == 1);
  CHECK(ASN1_TIME_set_string_X509(X509_getm_notAfter(x509.get()), recipe.not_after) == 1);
  SetName(X509_get_subject_name(x509.get()), recipe.subject);
  SetName(X509_get_issuer_name(x509.get()), recipe.issuer);
  CHECK(X509_set_pubkey(x509.get(), recipe.key->get()) == 1);
  AddExtension(x509.get(), NID_basic_constraints, recipe.basic_constraints);
  AddExtension(x509.get(), NID_key_usage, recipe.key_usage);
  CHECK(X509_sign(x509.get(), recipe.signer->get(), EVP_sha256()) > 0);
  unsigned char* der = nullptr;
  const int size = i2d_X509(x509.get(), &der);
  CHECK(size > 0);
  auto parsed = TpmCertificate::Parse(ViewOf(der, static_cast<size_t>(size)));
  OPENSSL_free(der);
  return std::move(parsed).value();
}

std::vector<Bytes> MakeAttributes() {
  const auto version = [](uint8_t major, uint8_t minor, uint8_t revision) {
    return Der(der::kSequence, {DerNumber(major), DerNumber(minor), DerNumber(revision)});
  };
  const Bytes address =
      Der(der::kSequence, {DerOid("2.23.133.17.1"), DerText(der::kUtf8String, "8C0F6F72C6C5")});
  const Bytes full =
      Component("disk", {DerText(der::Context(0), "S1"), DerText(der::Context(1), "R2"),
                         DerText(der::Context(2), "\x2b\x06\x01\x04\x01\x82\x57"),
                         DerText(der::Context(3), "\xff"), Der(der::ContextOf(4), {address}),
                         DerText(der::Context(7), {"\1", 1})});
  const auto uri = [](std::string_view text) { return DerText(der::kIa5String, text); };
  const Bytes property =
      Der(der::kSequence, {DerText(der::kUtf8String, "vPro"), DerText(der::kUtf8String, "true")});
  const Bytes configuration =
      Der(der::kSequence,
          {Der(der::ContextOf(0), {full, Component("board", {})}),
           Der(der::ContextOf(1), {uri("https://a/")}), Der(der::ContextOf(2), {property}),
           Der(der::ContextOf(3), {uri("https://b/")})});
  return {DerAttribute(
              "2.23.133.2.17",
              Der(der::kSequence, {version(2, 0, 1), DerText(der::kOctetString, {"\0\0\0\1", 4})})),
          DerAttribute("2.23.133.2.25", Der(der::kSequence, {DerOid("2.23.133.8.2")})),
          DerAttribute("2.23.133.2.23", version(1, 1, 19)),
          DerAttribute("2.23.133.5.1.3", Der(der::kSequence, {uri("https://c/")})),
          DerAttribute("2.23.133.5.1.7.2", configuration),
          DerAttribute("2.23.133.2.19", Der(der::kSequence, {}))};
}

std::vector<Bytes> MakeExtensions() {
  const auto entry = [](const std::string& type, std::string_view value) {
    return Der(der::kSet, {Der(der::kSequence, {DerOid(type), DerText(der::kUtf8String, value)})});
  };
  const Bytes name =
      Der(der::kSequence, {entry("2.23.133.5.1.1", "ACME"), entry("2.23.133.5.1.4", "Server 9"),
                           entry("2.23.133.5.1.5", "rev A"), entry("2.23.133.5.1.6", "SN123")});
  return {DerExtension("2.5.29.17", false, Der(der::kSequence, {Der(der::ContextOf(4), {name})}))};
}

Bytes MakePlatformDer(const PlatformRecipe& recipe) {
  const Bytes algorithm = EcdsaAlgorithm(recipe.hash);
  const auto names = [](const Bytes& name) {
    return Der(der::kSequence, {Der(der::ContextOf(4), {name})});
  };
  const Bytes holder =
      Der(der::kSequence,
          {Der(der::ContextOf(0), {names(recipe.holder_issuer), recipe.holder_serial})});
  const Bytes validity = Der(der::kSequence, {DerText(der::kGeneralizedTime, recipe.not_before),
                                              DerText(der::kGeneralizedTime, recipe.not_after)});
  const auto& attributes = recipe.attributes.empty() ? MakeAttributes() : recipe.attributes;
  const auto& extensions = recipe.extensions.empty() ? MakeExtensions() : recipe.extensions;
  const Bytes info = Der(der::kSequence, {DerNumber(recipe.version), holder,
                                          Der(der::ContextOf(0), {names(recipe.issuer)}), algorithm,
                                          recipe.serial, validity, Der(der::kSequence, attributes),
                                          Der(der::kSequence, extensions), recipe.tail});
  Bytes signature = {std::byte{0}};
  Append(signature, Sign(*recipe.signer, recipe.hash, info));
  return Der(der::kSequence,
             {info, recipe.outer_algorithm.empty() ? algorithm : recipe.outer_algorithm,
              Der(der::kBitString, {signature})});
}

}  // namespace vallum::attest
