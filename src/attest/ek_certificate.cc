// SPDX-License-Identifier: Apache-2.0
#include "attest/ek_certificate.h"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/objects.h>
#include <openssl/pem.h>

#include <algorithm>
#include <ctime>
#include <utility>

#include "attest/openssl.h"
#include "attest/platform_certificate.h"
#include "attest/x509_text.h"
#include "base/check.h"
#include "base/digest.h"
#include "base/text.h"

namespace vallum::attest {
namespace {

// TCG OID registry: tpmManufacturer, tpmModel, tpmVersion.
constexpr std::string_view kManufacturerOid = "2.23.133.2.1";
constexpr std::string_view kModelOid = "2.23.133.2.2";
constexpr std::string_view kVersionOid = "2.23.133.2.3";

using NamesPtr = std::unique_ptr<GENERAL_NAMES, Freer<GENERAL_NAMES_free>>;
using UsagesPtr = std::unique_ptr<EXTENDED_KEY_USAGE, Freer<EXTENDED_KEY_USAGE_free>>;

std::string OidText(const ASN1_OBJECT* object) {
  char text[128];
  const int size = OBJ_obj2txt(text, sizeof text, object, 1);
  return size > 0 && static_cast<size_t>(size) < sizeof text ? text : "";
}

Result<TpmCertificate::Time> ReadTime(const ASN1_TIME* time) {
  std::tm parts = {};
  if (ASN1_TIME_to_tm(time, &parts) != 1) {
    ERR_clear_error();
    return InvalidInput("the certificate has an unreadable date");
  }
  return TpmCertificate::Time(std::chrono::seconds(::timegm(&parts)));
}

std::vector<std::string> ReadUsages(const X509* x509) {
  std::vector<std::string> out;
  const UsagesPtr usages(static_cast<EXTENDED_KEY_USAGE*>(
      X509_get_ext_d2i(x509, NID_ext_key_usage, nullptr, nullptr)));
  for (int i = 0; usages != nullptr && i < sk_ASN1_OBJECT_num(usages.get()); ++i) {
    out.push_back(OidText(sk_ASN1_OBJECT_value(usages.get(), i)));
  }
  ERR_clear_error();
  return out;
}

// Four letters in hexadecimal, as TPM_PT_MANUFACTURER has them: "id:49465800" is "IFX".
std::string VendorOf(std::string_view manufacturer) {
  if (!manufacturer.starts_with("id:")) {
    return "";
  }
  const auto bytes = FromHex(manufacturer.substr(3));
  if (!bytes.has_value()) {
    return "";
  }
  std::string_view letters = AsText(*bytes);
  letters = letters.substr(0, letters.find('\0'));
  return Printable(Trim(letters), 8);
}

void ReadMakerEntry(const X509_NAME_ENTRY* entry, TpmMaker& maker) {
  const std::string oid = OidText(X509_NAME_ENTRY_get_object(entry));
  const ASN1_STRING* value = X509_NAME_ENTRY_get_data(entry);
  const std::string text = Printable(
      AsText(ViewOf(ASN1_STRING_get0_data(value), static_cast<size_t>(ASN1_STRING_length(value)))));
  if (oid == kManufacturerOid) {
    maker.manufacturer = text;
    maker.vendor = VendorOf(text);
  } else if (oid == kModelOid) {
    maker.model = text;
  } else if (oid == kVersionOid) {
    maker.version = text;
  }
}

// EK Credential Profile, section 3.2.9: a directoryName in the subject alternative name.
TpmMaker ReadMaker(const X509* x509) {
  TpmMaker maker;
  const NamesPtr names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(x509, NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != GEN_DIRNAME) {
      continue;
    }
    for (int j = 0; j < X509_NAME_entry_count(name->d.directoryName); ++j) {
      ReadMakerEntry(X509_NAME_get_entry(name->d.directoryName, j), maker);
    }
  }
  ERR_clear_error();
  return maker;
}

std::string ReadSignatureHash(const X509* x509) {
  int hash = NID_undef;
  if (X509_get_signature_info(const_cast<X509*>(x509), &hash, nullptr, nullptr, nullptr) != 1 ||
      hash == NID_undef) {
    ERR_clear_error();
    return "";
  }
  return ToLower(OBJ_nid2sn(hash));
}

std::optional<PublicKey> ReadKey(const X509* x509) {
  unsigned char* der = nullptr;
  const int size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x509), &der);
  if (size <= 0) {
    ERR_clear_error();
    return std::nullopt;
  }
  auto key = PublicKey::FromSpki(ViewOf(der, static_cast<size_t>(size)));
  OPENSSL_free(der);
  return key.has_value() ? std::optional(*std::move(key)) : std::nullopt;
}

// Infineon's intermediates name the self-signed form of their root by its serial number, and the
// form that VeriSign signed has another. RFC 5280, section 4.2.1.1, has the authority key
// identifier for finding an issuer; whether it is one, its name and its signature say.
int IsIssuer(X509_STORE_CTX* /*context*/, X509* certificate, X509* issuer) {
  const int error = X509_check_issued(issuer, certificate);
  // That it may not sign is said by name once the chain is there.
  return error == X509_V_OK || error == X509_V_ERR_AKID_ISSUER_SERIAL_MISMATCH ||
                 error == X509_V_ERR_KEYUSAGE_NO_CERTSIGN
             ? 1
             : 0;
}

bool IsFill(ByteView bytes) {
  return bytes.empty() || ((bytes[0] == std::byte{0} || bytes[0] == std::byte{0xFF}) &&
                           std::ranges::all_of(bytes, [&](std::byte b) { return b == bytes[0]; }));
}

void Add(CertificateBundle& bundle, ByteView der) {
  auto parsed = TpmCertificate::Parse(der);
  if (parsed.has_value()) {
    bundle.certificates.push_back(*std::move(parsed));
  } else {
    bundle.problems.push_back(fmt::format("certificate {}: {}",
                                          bundle.certificates.size() + bundle.problems.size() + 1,
                                          parsed.error().Describe()));
  }
}

}  // namespace

Result<TpmCertificate> TpmCertificate::Parse(ByteView der) {
  if (der.size() > kMaxTpmCertificate) {
    return Exhausted(fmt::format("a certificate of {} bytes; at most {} are read", der.size(),
                                 kMaxTpmCertificate));
  }
  const unsigned char* at = Unsigned(der);
  TpmCertificate out;
  out.x509_ =
      std::shared_ptr<X509>(d2i_X509(nullptr, &at, static_cast<long>(der.size())), X509_free);
  ERR_clear_error();
  if (out.x509_ == nullptr) {
    if (ParsePlatformCertificate(der).has_value()) {
      return InvalidInput("a platform certificate, which certifies no key")
          .WithFix("see it with `vallum attest platform-certificate`");
    }
    return InvalidInput("not a DER certificate");
  }
  const auto size = static_cast<size_t>(at - Unsigned(der));
  if (!IsFill(der.subspan(size))) {
    return InvalidInput(
        fmt::format("{} bytes that are no fill follow the certificate", der.size() - size));
  }
  out.der_ = ToBytes(der.first(size));
  RETURN_IF_ERROR(out.ReadFields());
  return out;
}

Result<void> TpmCertificate::ReadFields() {
  const X509* x509 = x509_.get();
  subject_ = NameText(X509_get_subject_name(x509));
  issuer_ = NameText(X509_get_issuer_name(x509));
  ASSIGN_OR_RETURN(serial_hex_, SerialText(X509_get0_serialNumber(x509)));
  ASSIGN_OR_RETURN(not_before_, ReadTime(X509_get0_notBefore(x509)));
  ASSIGN_OR_RETURN(not_after_, ReadTime(X509_get0_notAfter(x509)));
  is_ca_ = (X509_get_extension_flags(x509_.get()) & EXFLAG_CA) != 0;
  extended_key_usages_ = ReadUsages(x509);
  signature_hash_ = ReadSignatureHash(x509);
  maker_ = ReadMaker(x509);
  key_ = ReadKey(x509);
  ERR_clear_error();
  return Ok();
}

bool TpmCertificate::IsSelfIssued() const {
  return X509_NAME_cmp(X509_get_subject_name(x509_.get()), X509_get_issuer_name(x509_.get())) == 0;
}

std::string TpmCertificate::FingerprintSha256() const { return ToHex(Sha256(der_)); }

bool TpmCertificate::SignedBy(const TpmCertificate& issuer) const {
  const bool signed_by = issuer.key_.has_value() &&
                         X509_NAME_cmp(X509_get_issuer_name(x509_.get()),
                                       X509_get_subject_name(issuer.x509_.get())) == 0 &&
                         X509_verify(x509_.get(), issuer.key_->get()) == 1;
  ERR_clear_error();
  return signed_by;
}

CertificateBundle ReadCertificateBundle(ByteView bytes) {
  CertificateBundle out;
  if (bytes.size() > kMaxCertificateBundle) {
    out.problems.push_back("more than 4 MiB of certificates");
    return out;
  }
  if (AsText(bytes).find("-----BEGIN") == std::string_view::npos) {
    Add(out, bytes);
    return out;
  }
  const BioPtr in(BIO_new_mem_buf(bytes.data(), static_cast<int>(bytes.size())));
  char* name = nullptr;
  char* header = nullptr;
  unsigned char* data = nullptr;
  long size = 0;
  while (PEM_read_bio(in.get(), &name, &header, &data, &size) == 1) {
    const std::string_view kind(name);
    if (kind == PEM_STRING_X509 || kind == PEM_STRING_X509_TRUSTED || kind == PEM_STRING_X509_OLD) {
      Add(out, ViewOf(data, static_cast<size_t>(size)));
    }
    OPENSSL_free(name);
    OPENSSL_free(header);
    OPENSSL_free(data);
  }
  if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) {
    out.problems.push_back("a PEM block cannot be read; what follows it is left out");
  }
  ERR_clear_error();
  return out;
}

EkTrust::EkTrust(std::vector<TpmCertificate> roots, std::vector<TpmCertificate> intermediates)
    : roots_(std::move(roots)),
      intermediates_(std::move(intermediates)),
      store_(X509_STORE_new(), X509_STORE_free) {
  CHECK(store_ != nullptr);
  X509_STORE_set_check_issued(store_.get(), IsIssuer);
  for (const TpmCertificate& root : roots_) {
    CHECK(X509_STORE_add_cert(store_.get(), root.get()) == 1);
  }
}

}  // namespace vallum::attest
