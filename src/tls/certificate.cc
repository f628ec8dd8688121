// SPDX-License-Identifier: Apache-2.0
#include "tls/certificate.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509_vfy.h>

#include <chrono>

#include "base/digest.h"
#include "base/ids.h"
#include "base/text.h"
#include "tls/openssl.h"

namespace vallum::tls {
namespace {

constexpr std::string_view kBegin = "-----BEGIN CERTIFICATE-----";
constexpr std::string_view kEnd = "-----END CERTIFICATE-----";
constexpr size_t kMaxCertificates = 256;

using StorePtr = std::unique_ptr<X509_STORE, Freer<X509_STORE_free>>;
using StoreContextPtr = std::unique_ptr<X509_STORE_CTX, Freer<X509_STORE_CTX_free>>;

// Empty when the name has no such entry.
Result<std::string> NameEntry(const X509_NAME* name, int nid) {
  const int index = X509_NAME_get_index_by_NID(name, nid, -1);
  if (index < 0) return std::string();
  if (X509_NAME_get_index_by_NID(name, nid, index) >= 0) {
    return InvalidInput(std::string("certificate names ") + OBJ_nid2sn(nid) + " twice");
  }
  unsigned char* utf8 = nullptr;
  const int size =
      ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, index)));
  if (size < 0) {
    ERR_clear_error();
    return InvalidInput("certificate has a name in an unknown encoding");
  }
  std::string text(reinterpret_cast<const char*>(utf8), static_cast<size_t>(size));
  OPENSSL_free(utf8);
  // A NUL hides what follows from every C program that compares names.
  if (text.find('\0') != std::string::npos) return InvalidInput("certificate has a NUL in a name");
  return text;
}

std::string AddressText(const ASN1_OCTET_STRING* address) {
  char text[INET6_ADDRSTRLEN] = {};
  const int size = ASN1_STRING_length(address);
  const int family = size == 4 ? AF_INET : AF_INET6;
  if (size != 4 && size != 16) return {};
  return ::inet_ntop(family, ASN1_STRING_get0_data(address), text, sizeof text) != nullptr
             ? std::string(text)
             : std::string();
}

void ReadAlternativeNames(const X509* certificate, CertificateInfo* info) {
  const NamesPtr names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type == GEN_DNS) {
      info->dns_names.emplace_back(
          reinterpret_cast<const char*>(ASN1_STRING_get0_data(name->d.dNSName)),
          static_cast<size_t>(ASN1_STRING_length(name->d.dNSName)));
    } else if (name->type == GEN_IPADD) {
      if (std::string text = AddressText(name->d.iPAddress); !text.empty()) {
        info->ip_addresses.push_back(std::move(text));
      }
    }
  }
}

std::string SerialHex(const X509* certificate) {
  const ASN1_INTEGER* serial = X509_get0_serialNumber(certificate);
  return ToHex(ByteView(reinterpret_cast<const std::byte*>(ASN1_STRING_get0_data(serial)),
                        static_cast<size_t>(ASN1_STRING_length(serial))));
}

Result<std::string> KeySha256(const X509* certificate) {
  unsigned char* der = nullptr;
  const int size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &der);
  if (size <= 0) return InvalidInput("the certificate's public key is not readable");
  std::string hex =
      Fingerprint(ByteView(reinterpret_cast<const std::byte*>(der), static_cast<size_t>(size)));
  OPENSSL_free(der);
  return hex;
}

Result<CertPtr> FirstCertificate(std::string_view pem) {
  ASSIGN_OR_RETURN(const std::vector<Bytes> certificates, CertificatesFromPem(pem));
  return ParseCertificate(certificates.front());
}

Result<Bytes> MakeCsr(EVP_PKEY* key, const std::string& name) {
  CsrPtr csr(X509_REQ_new());
  const NamePtr subject(X509_NAME_new());
  if (csr == nullptr || subject == nullptr ||
      X509_NAME_add_entry_by_NID(subject.get(), NID_commonName, MBSTRING_UTF8,
                                 reinterpret_cast<const unsigned char*>(name.data()),
                                 static_cast<int>(name.size()), -1, 0) != 1 ||
      X509_REQ_set_version(csr.get(), 0) != 1 ||
      X509_REQ_set_subject_name(csr.get(), subject.get()) != 1 ||
      X509_REQ_set_pubkey(csr.get(), key) != 1 ||
      X509_REQ_sign(csr.get(), key, EVP_sha256()) == 0) {
    return OpenSslError("make a certificate request");
  }
  unsigned char* der = nullptr;
  const int size = i2d_X509_REQ(csr.get(), &der);
  if (size <= 0) return OpenSslError("encode a certificate request");
  const auto* bytes = reinterpret_cast<const std::byte*>(der);
  Bytes out(bytes, bytes + size);
  OPENSSL_free(der);
  return out;
}

}  // namespace

Result<CertificateInfo> InspectDer(ByteView der) {
  ASSIGN_OR_RETURN(const CertPtr certificate, ParseCertificate(der));
  CertificateInfo info;
  const X509_NAME* subject = X509_get_subject_name(certificate.get());
  ASSIGN_OR_RETURN(info.common_name, NameEntry(subject, NID_commonName));
  ASSIGN_OR_RETURN(info.organizational_unit, NameEntry(subject, NID_organizationalUnitName));
  ASSIGN_OR_RETURN(info.issuer_common_name,
                   NameEntry(X509_get_issuer_name(certificate.get()), NID_commonName));
  ASSIGN_OR_RETURN(info.not_before, ToWallTime(X509_get0_notBefore(certificate.get())));
  ASSIGN_OR_RETURN(info.not_after, ToWallTime(X509_get0_notAfter(certificate.get())));
  info.serial_hex = SerialHex(certificate.get());
  ReadAlternativeNames(certificate.get(), &info);
  info.is_ca = X509_check_ca(certificate.get()) == 1;
  info.fingerprint_sha256 = Fingerprint(der);
  ASSIGN_OR_RETURN(info.key_sha256, KeySha256(certificate.get()));
  ERR_clear_error();
  return info;
}

Result<CertificateInfo> InspectPem(std::string_view pem) {
  ASSIGN_OR_RETURN(const std::vector<Bytes> certificates, CertificatesFromPem(pem));
  return InspectDer(certificates.front());
}

Result<void> VerifyAgainst(X509* leaf, std::string_view ca_pem, int purpose, WallTime now) {
  ASSIGN_OR_RETURN(const std::vector<Bytes> anchors, CertificatesFromPem(ca_pem));
  const StorePtr store(X509_STORE_new());
  const StoreContextPtr context(X509_STORE_CTX_new());
  if (store == nullptr || context == nullptr) return OpenSslError("allocate");
  for (const Bytes& der : anchors) {
    ASSIGN_OR_RETURN(const CertPtr anchor, ParseCertificate(der));
    if (X509_STORE_add_cert(store.get(), anchor.get()) != 1) return OpenSslError("add an anchor");
  }
  if (X509_STORE_CTX_init(context.get(), store.get(), leaf, nullptr) != 1 ||
      X509_STORE_CTX_set_purpose(context.get(), purpose) != 1) {
    return OpenSslError("set up certificate verification");
  }
  X509_STORE_CTX_set_time(context.get(), 0, std::chrono::system_clock::to_time_t(now));
  const int verified = X509_verify_cert(context.get());
  ERR_clear_error();
  if (verified != 1) {
    return Denied(std::string("certificate does not verify: ") +
                  X509_verify_cert_error_string(X509_STORE_CTX_get_error(context.get())));
  }
  return Ok();
}

Result<void> VerifyChain(std::string_view leaf_pem, std::string_view ca_pem, Purpose purpose,
                         WallTime now) {
  ASSIGN_OR_RETURN(const CertPtr leaf, FirstCertificate(leaf_pem));
  return VerifyAgainst(
      leaf.get(), ca_pem,
      purpose == Purpose::kServer ? X509_PURPOSE_SSL_SERVER : X509_PURPOSE_SSL_CLIENT, now);
}

bool NeedsRenewal(const CertificateInfo& info, WallTime now) {
  return info.not_after - now < (info.not_after - info.not_before) / 3;
}

Result<KeyAndCsr> MakeKeyAndCsr(std::string_view name) {
  RETURN_IF_ERROR(ValidateName("certificate subject", name));
  ASSIGN_OR_RETURN(const KeyPtr key, MakeP256Key());
  ASSIGN_OR_RETURN(Bytes csr, MakeCsr(key.get(), std::string(name)));
  ASSIGN_OR_RETURN(SecretBytes pem, KeyToPem(key.get()));
  return KeyAndCsr{.private_key_pem = std::move(pem), .csr_der = std::move(csr)};
}

Result<Bytes> MakeCsrOfKey(std::string_view name, const SecretBytes& private_key_pem) {
  RETURN_IF_ERROR(ValidateName("certificate subject", name));
  ASSIGN_OR_RETURN(const KeyPtr key, KeyFromPem(private_key_pem));
  return MakeCsr(key.get(), std::string(name));
}

std::string Fingerprint(ByteView der) { return ToHex(Sha256(der)); }

std::string CertificateToPem(ByteView der) {
  const std::string base64 = ToBase64(der);
  std::string pem(kBegin);
  for (size_t i = 0; i < base64.size(); i += 64) {
    pem += '\n';
    pem += base64.substr(i, 64);
  }
  pem += '\n';
  pem += kEnd;
  pem += '\n';
  return pem;
}

Result<std::vector<Bytes>> CertificatesFromPem(std::string_view pem) {
  std::vector<Bytes> certificates;
  size_t position = 0;
  while ((position = pem.find(kBegin, position)) != std::string_view::npos) {
    position += kBegin.size();
    const size_t end = pem.find(kEnd, position);
    if (end == std::string_view::npos) return InvalidInput("PEM certificate has no end line");
    if (certificates.size() == kMaxCertificates) return InvalidInput("more than 256 certificates");
    std::string base64(pem.substr(position, end - position));
    std::erase_if(base64, [](char c) { return c == '\n' || c == '\r' || c == ' ' || c == '\t'; });
    ASSIGN_OR_RETURN_CONTEXT(Bytes der, FromBase64(base64), "reading a PEM certificate");
    certificates.push_back(std::move(der));
    position = end + kEnd.size();
  }
  if (certificates.empty()) return InvalidInput("no PEM certificate found");
  return certificates;
}

}  // namespace vallum::tls
