// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

// What a platform's maker says of it, about the endorsement key of its TPM:
// docs/formats/platform_certificate.md mirrors these limits.
namespace vallum::attest {

inline constexpr size_t kMaxPlatformCertificate = size_t{64} << 10U;
inline constexpr size_t kMaxPlatformComponents = 512;
inline constexpr size_t kMaxPlatformProperties = 256;
inline constexpr size_t kMaxComponentAddresses = 16;
inline constexpr size_t kMaxPlatformAttributes = 64;
inline constexpr size_t kMaxPlatformExtensions = 32;
inline constexpr size_t kMaxPlatformTargets = 16;
inline constexpr size_t kMaxPlatformText = 256;  // bytes; TCG's STRMAX
inline constexpr size_t kMaxPlatformUri = 1024;  // TCG's URIMAX

// All texts of these structures are safe to print; empty: not said.

// The three numbers of a specification: "2.0, revision 1".
struct SpecificationVersion {
  uint64_t major = 0;
  uint64_t minor = 0;
  uint64_t revision = 0;
  bool operator==(const SpecificationVersion&) const = default;
};
struct PlatformSpecification {
  SpecificationVersion version;
  Bytes platform_class;  // 00000001: server
  bool operator==(const PlatformSpecification&) const = default;
};

// Of a delta certificate: what became of a part since the one before.
enum class PlatformChange { kNone, kAdded, kModified, kRemoved };
std::string_view PlatformChangeName(PlatformChange change);  // "", "added", ...
enum class FieldReplaceable { kUnsaid, kNo, kYes };

struct ComponentAddress {
  std::string type;  // 2.23.133.17.1: MAC of Ethernet
  std::string value;
  bool operator==(const ComponentAddress&) const = default;
};
struct PlatformComponent {
  std::string class_registry;  // 2.23.133.18.3.1: TCG's; empty: certificates of version 1.0
  Bytes class_value;           // four bytes, or none
  std::string manufacturer;
  std::string model;
  std::string serial;
  std::string revision;
  std::string manufacturer_id;  // 1.3.6.1.4.1.343
  FieldReplaceable replaceable = FieldReplaceable::kUnsaid;
  std::vector<ComponentAddress> addresses;
  PlatformChange change = PlatformChange::kNone;
  bool operator==(const PlatformComponent&) const = default;
};
struct PlatformProperty {
  std::string name;
  std::string value;
  PlatformChange change = PlatformChange::kNone;
  bool operator==(const PlatformProperty&) const = default;
};

// A distinguished name as it was read, to be compared, and as people read it.
struct CertificateName {
  Bytes der;
  std::string text;
  bool operator==(const CertificateName&) const = default;
};

// Base: the platform as it left its maker. Delta: what was changed since.
enum class PlatformCertificateKind { kUnstated, kBase, kDelta, kOther };
std::string_view PlatformCertificateKindName(PlatformCertificateKind kind);

// A TCG platform certificate: an attribute certificate whose holder is an EK certificate. A value.
struct PlatformCertificate {
  using Time = std::chrono::sys_seconds;

  CertificateName holder_issuer;  // of the EK certificate
  std::string holder_serial;      // hexadecimal, no leading zeros
  CertificateName issuer;
  std::string serial;
  std::string signature_algorithm;  // OpenSSL's name, or the object identifier
  Time not_before;
  Time not_after;

  std::string manufacturer;
  std::string manufacturer_id;
  std::string model;
  std::string version;
  std::string platform_serial;

  std::string credential_type;  // object identifier
  std::optional<PlatformSpecification> specification = std::nullopt;
  std::optional<SpecificationVersion> credential_specification = std::nullopt;
  std::string configuration_uri;  // where reference measurements are said to be
  std::vector<PlatformComponent> components;
  std::string components_uri;
  std::vector<PlatformProperty> properties;
  std::string properties_uri;
  std::vector<std::string> unread_attributes;  // object identifiers

  std::vector<std::string> unknown_critical;  // extensions, object identifiers
  // Serial numbers of EK certificates that the certificate is meant for; of a targeting that names
  // others than these, `targeted` says so and these are empty.
  bool targeted = false;
  std::vector<std::string> target_serials;

  Bytes signed_part;  // AttributeCertificateInfo
  Bytes algorithm;    // AlgorithmIdentifier
  Bytes signature;

  // By its credential type.
  PlatformCertificateKind Kind() const;
};

// Parses exactly one attribute certificate; says nothing of its signature.
//   der: untrusted. What makers do otherwise than the profile says is read where it is unambiguous:
//   docs/formats/platform_certificate.md lists it.
// Errors: kInvalidInput (no such certificate, naming the part); kExhausted (a limit above).
// Source: RFC 5755, section 4.1; TCG Platform Certificate Profile 1.1. Pure; thread-safe.
Result<PlatformCertificate> ParsePlatformCertificate(ByteView der);

// The same of a file: DER, or the first "BEGIN ATTRIBUTE CERTIFICATE" block of PEM (RFC 7468,
// section 11).
Result<PlatformCertificate> ReadPlatformCertificate(ByteView file);

// Reads attributes into a certificate; for ParsePlatformCertificate.
//   attributes: the content of a SEQUENCE OF Attribute.
Result<void> ReadPlatformAttributes(ByteView attributes, PlatformCertificate& out);

}  // namespace vallum::attest
