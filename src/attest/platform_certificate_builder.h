// SPDX-License-Identifier: Apache-2.0
// Attribute certificates for tests: OpenSSL makes none.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "attest/ek_certificate.h"
#include "attest/quote_builder.h"
#include "base/bytes.h"

namespace vallum::attest {

// Elements of DER.
Bytes Der(uint8_t tag, const std::vector<Bytes>& parts);
Bytes DerText(uint8_t tag, std::string_view text);
Bytes DerOid(const std::string& dotted);
Bytes DerNumber(uint8_t number);
// A name of one attribute: SEQUENCE of SET of type and value.
Bytes DerName(const std::string& type, std::string_view value);
// Attribute: type, SET of the value.
Bytes DerAttribute(const std::string& type, const Bytes& value);
Bytes DerExtension(const std::string& type, bool critical, const Bytes& content);

// An X.509 certificate as simple as can be: a common name each, extensions as OpenSSL's
// configuration writes them ("" for none).
struct CertificateRecipe {
  std::string subject;
  std::string issuer;
  const SoftwareKey* key = nullptr;
  const SoftwareKey* signer = nullptr;
  std::string basic_constraints = {};
  std::string key_usage = {};
  const char* not_after = "20991231235959Z";
  int64_t serial = 7;
};
TpmCertificate MakeCertificate(const CertificateRecipe& recipe);

struct PlatformRecipe {
  uint8_t version = 1;
  Bytes holder_issuer = DerName("2.5.4.3", "Maker");
  Bytes holder_serial = DerNumber(7);
  Bytes issuer = DerName("2.5.4.3", "Signer");
  Bytes serial = DerNumber(9);
  std::string not_before = "20200101000000Z";
  std::string not_after = "20401231235959Z";
  std::vector<Bytes> attributes;  // MakeAttributes() when empty
  std::vector<Bytes> extensions;  // MakeExtensions() when empty
  const SoftwareKey* signer = nullptr;
  const char* hash = "SHA256";
  Bytes outer_algorithm;  // the same as is signed, when empty
  Bytes tail;             // behind the extensions
};
// Two components, one property, all the specifications.
std::vector<Bytes> MakeAttributes();
// The platform's name, as a subject alternative name.
std::vector<Bytes> MakeExtensions();
Bytes MakePlatformDer(const PlatformRecipe& recipe);

}  // namespace vallum::attest
