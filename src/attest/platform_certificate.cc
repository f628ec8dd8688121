// SPDX-License-Identifier: Apache-2.0
#include "attest/platform_certificate.h"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/objects.h>
#include <openssl/pem.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <utility>

#include "attest/der.h"
#include "attest/openssl.h"
#include "attest/x509_text.h"
#include "base/text.h"

namespace vallum::attest {
namespace {

constexpr std::string_view kPem = "ATTRIBUTE CERTIFICATE";
constexpr std::string_view kBaseType = "2.23.133.8.2";
constexpr std::string_view kDeltaType = "2.23.133.8.5";

// Extensions.
constexpr std::string_view kDirectoryAttributes = "2.5.29.9";
constexpr std::string_view kAlternativeName = "2.5.29.17";
constexpr std::string_view kPolicies = "2.5.29.32";
constexpr std::string_view kAuthorityKey = "2.5.29.35";
constexpr std::string_view kTargets = "2.5.29.55";
constexpr std::string_view kNoRevocation = "2.5.29.56";
constexpr std::string_view kSerialNumberName = "2.5.4.5";

constexpr uint8_t kDirectoryName = der::ContextOf(4);
constexpr size_t kMaxSerialBytes = 64;  // 20 are allowed; makers write digits of other bases

using NamePtr = std::unique_ptr<X509_NAME, Freer<X509_NAME_free>>;
using IntegerPtr = std::unique_ptr<ASN1_INTEGER, Freer<ASN1_INTEGER_free>>;

Result<CertificateName> ReadName(DerReader& reader) {
  ASSIGN_OR_RETURN(const DerElement element, reader.Read(der::kSequence));
  const unsigned char* at = Unsigned(element.whole);
  const NamePtr name(d2i_X509_NAME(nullptr, &at, static_cast<long>(element.whole.size())));
  ERR_clear_error();
  if (name == nullptr || at != Unsigned(element.whole) + element.whole.size()) {
    return InvalidInput("no distinguished name");
  }
  return CertificateName{.der = ToBytes(element.whole), .text = NameText(name.get())};
}

// RFC 5755, sections 4.2.2 and 4.2.3: GeneralNames of "one and only one" directoryName.
Result<CertificateName> ReadOnlyDirectoryName(DerReader names) {
  ASSIGN_OR_RETURN_CONTEXT(DerReader name, names.Enter(kDirectoryName), "reading a directoryName");
  RETURN_IF_ERROR(names.ExpectEnd());
  ASSIGN_OR_RETURN(CertificateName out, ReadName(name));
  RETURN_IF_ERROR(name.ExpectEnd());
  return out;
}

Result<std::string> ReadSerial(DerReader& reader) {
  ASSIGN_OR_RETURN(const DerElement element, reader.Read(der::kInteger));
  if (element.content.size() > kMaxSerialBytes) return Exhausted("a serial number is too long");
  const unsigned char* at = Unsigned(element.whole);
  const IntegerPtr number(d2i_ASN1_INTEGER(nullptr, &at, static_cast<long>(element.whole.size())));
  ERR_clear_error();
  if (number == nullptr) return InvalidInput("no serial number");
  return SerialText(number.get());
}

// Profile, section 3.2.4: baseCertificateID, and nothing else that could be another holder.
Result<void> ReadHolder(DerReader reader, PlatformCertificate& out) {
  ASSIGN_OR_RETURN_CONTEXT(DerReader base, reader.Enter(der::ContextOf(0)),
                           "reading the issuer and serial number of its certificate");
  RETURN_IF_ERROR(reader.ExpectEnd());
  ASSIGN_OR_RETURN(const DerReader names, base.Enter(der::kSequence));
  ASSIGN_OR_RETURN(out.holder_issuer, ReadOnlyDirectoryName(names));
  ASSIGN_OR_RETURN(out.holder_serial, ReadSerial(base));
  if (base.Sees(der::kBitString)) {  // the issuer's unique identifier
    RETURN_IF_ERROR(base.Read());
  }
  return base.ExpectEnd();
}

Result<void> ReadIssuer(DerReader reader, PlatformCertificate& out) {
  ASSIGN_OR_RETURN(const DerReader names, reader.Enter(der::kSequence));
  RETURN_IF_ERROR(reader.ExpectEnd());
  ASSIGN_OR_RETURN(out.issuer, ReadOnlyDirectoryName(names));
  return Ok();
}

// "20180915044509Z": RFC 5755 has no other form.
Result<PlatformCertificate::Time> ReadTime(DerReader& reader) {
  ASSIGN_OR_RETURN(const DerElement element, reader.Read(der::kGeneralizedTime));
  const std::string_view text = AsText(element.content);
  int parts[6] = {};
  constexpr size_t kWidths[] = {4, 2, 2, 2, 2, 2};
  bool good = text.size() == 15 && text.back() == 'Z';
  size_t at = 0;
  for (size_t i = 0; good && i < std::size(parts); ++i) {
    const char* const end = text.data() + at + kWidths[i];
    const auto parsed = std::from_chars(text.data() + at, end, parts[i]);
    good = parsed.ec == std::errc() && parsed.ptr == end && text[at] != '-';
    at += kWidths[i];
  }
  const std::chrono::year_month_day date{std::chrono::year(parts[0]),
                                         std::chrono::month(static_cast<unsigned>(parts[1])),
                                         std::chrono::day(static_cast<unsigned>(parts[2]))};
  if (!good || !date.ok() || parts[3] > 23 || parts[4] > 59 || parts[5] > 59) {
    return InvalidInput("no date: \"" + Printable(text, 40) + "\"");
  }
  return std::chrono::sys_days(date) + std::chrono::hours(parts[3]) +
         std::chrono::minutes(parts[4]) + std::chrono::seconds(parts[5]);
}

Result<void> ReadValidity(DerReader reader, PlatformCertificate& out) {
  ASSIGN_OR_RETURN(out.not_before, ReadTime(reader));
  ASSIGN_OR_RETURN(out.not_after, ReadTime(reader));
  return reader.ExpectEnd();
}

Result<std::string> AlgorithmName(ByteView algorithm) {
  ASSIGN_OR_RETURN(DerReader reader, DerReader(algorithm).Enter(der::kSequence));
  ASSIGN_OR_RETURN(const DerElement oid, reader.Read(der::kOid));
  ASSIGN_OR_RETURN(std::string text, OidFromDer(oid.content));
  const int nid = OBJ_txt2nid(text.c_str());
  ERR_clear_error();
  return nid == NID_undef ? text : std::string(OBJ_nid2ln(nid));
}

std::string* MemberOf(PlatformCertificate& out, std::string_view type) {
  // The second of each is of certificates about TPM 1.2.
  if (type == "2.23.133.5.1.1" || type == "2.23.133.2.4") return &out.manufacturer;
  if (type == "2.23.133.5.1.2") return &out.manufacturer_id;
  if (type == "2.23.133.5.1.4" || type == "2.23.133.2.5") return &out.model;
  if (type == "2.23.133.5.1.5" || type == "2.23.133.2.6") return &out.version;
  if (type == "2.23.133.5.1.6" || type == "2.23.133.2.23") return &out.platform_serial;
  return nullptr;
}

// What a platform is called: in UTF8String, but for the SEQUENCE of a maker's number.
Result<std::string> ReadNameValue(DerReader& reader) {
  if (reader.Sees(der::kSequence)) {
    ASSIGN_OR_RETURN(DerReader inside, reader.Enter(der::kSequence));
    ASSIGN_OR_RETURN(const DerElement oid, inside.Read(der::kOid));
    RETURN_IF_ERROR(inside.ExpectEnd());
    return OidFromDer(oid.content);
  }
  ASSIGN_OR_RETURN(const DerElement text, reader.Read());
  if (text.tag != der::kUtf8String && text.tag != der::kPrintableString) {
    return InvalidInput("a name that is no text");
  }
  if (text.content.size() > kMaxPlatformText) return Exhausted("a name is too long");
  return Printable(AsText(text.content), kMaxPlatformText);
}

// Calls use(type, value) for each attribute of a name. Errors: of use, kInvalidInput.
template <typename Use>
Result<void> ForEachOfName(DerReader name, Use use) {
  while (!name.AtEnd()) {
    ASSIGN_OR_RETURN(DerReader set, name.Enter(der::kSet));
    while (!set.AtEnd()) {
      ASSIGN_OR_RETURN(DerReader each, set.Enter(der::kSequence));
      ASSIGN_OR_RETURN(const DerElement type, each.Read(der::kOid));
      ASSIGN_OR_RETURN(const std::string text, OidFromDer(type.content));
      RETURN_IF_ERROR(use(text, each));
    }
  }
  return Ok();
}

Result<void> ReadPlatformName(DerReader name, PlatformCertificate& out) {
  return ForEachOfName(name, [&out](const std::string& type, DerReader& value) -> Result<void> {
    std::string* member = MemberOf(out, type);
    if (member == nullptr) return Ok();
    if (!member->empty()) return InvalidInput("the platform's name has " + type + " twice");
    ASSIGN_OR_RETURN(*member, ReadNameValue(value));
    return value.ExpectEnd();
  });
}

Result<void> ReadAlternativeName(ByteView content, PlatformCertificate& out) {
  DerReader reader(content);
  ASSIGN_OR_RETURN(DerReader names, reader.Enter(der::kSequence));
  RETURN_IF_ERROR(reader.ExpectEnd());
  // Certificates about TPM 1.2 have the name itself in place of a list of names.
  if (names.Sees(der::kSet)) return ReadPlatformName(names, out);
  while (!names.AtEnd()) {
    ASSIGN_OR_RETURN(const DerElement each, names.Read());
    if (each.tag != kDirectoryName) continue;
    DerReader inside(each.content);
    ASSIGN_OR_RETURN(const DerReader name, inside.Enter(der::kSequence));
    RETURN_IF_ERROR(inside.ExpectEnd());
    RETURN_IF_ERROR(ReadPlatformName(name, out));
  }
  return Ok();
}

// RFC 5755, section 4.3.2; profile, section 3.2.9: names with the EK certificate's serial number.
// Targets of any other kind are nobody that is known here.
Result<void> ReadTargets(ByteView content, PlatformCertificate& out) {
  out.targeted = true;
  DerReader reader(content);
  ASSIGN_OR_RETURN(DerReader lists, reader.Enter(der::kSequence));
  RETURN_IF_ERROR(reader.ExpectEnd());
  const auto add = [&out](const std::string& type, DerReader& value) -> Result<void> {
    if (type != kSerialNumberName) return Ok();
    if (out.target_serials.size() == kMaxPlatformTargets) return Exhausted("too many targets");
    ASSIGN_OR_RETURN(std::string serial, ReadNameValue(value));
    out.target_serials.push_back(ToLower(serial));
    return value.ExpectEnd();
  };
  while (!lists.AtEnd()) {
    ASSIGN_OR_RETURN(DerReader targets, lists.Enter(der::kSequence));
    while (!targets.AtEnd()) {
      ASSIGN_OR_RETURN(const DerElement target, targets.Read());
      DerReader general(target.content);
      if (target.tag != der::ContextOf(0) || !general.Sees(kDirectoryName)) continue;
      ASSIGN_OR_RETURN(DerReader directory, general.Enter(kDirectoryName));
      ASSIGN_OR_RETURN(const DerReader name, directory.Enter(der::kSequence));
      RETURN_IF_ERROR(ForEachOfName(name, add));
    }
  }
  return Ok();
}

Result<void> ReadDirectoryAttributes(ByteView content, PlatformCertificate& out) {
  DerReader reader(content);
  ASSIGN_OR_RETURN(const DerElement list, reader.Read(der::kSequence));
  RETURN_IF_ERROR(reader.ExpectEnd());
  return ReadPlatformAttributes(list.content, out);
}

Result<void> ReadExtension(const std::string& type, bool critical, ByteView content,
                           PlatformCertificate& out) {
  if (type == kAlternativeName) return ReadAlternativeName(content, out);
  if (type == kTargets) return ReadTargets(content, out);
  // Where certificates about TPM 1.2 have what others have among their attributes.
  if (type == kDirectoryAttributes) return ReadDirectoryAttributes(content, out);
  const bool known = type == kPolicies || type == kAuthorityKey || type == kNoRevocation;
  if (critical && !known) out.unknown_critical.push_back(type);
  return Ok();
}

Result<void> ReadExtensions(DerReader list, PlatformCertificate& out) {
  std::vector<std::string> seen;
  while (!list.AtEnd()) {
    if (seen.size() == kMaxPlatformExtensions) return Exhausted("too many extensions");
    ASSIGN_OR_RETURN(DerReader each, list.Enter(der::kSequence));
    ASSIGN_OR_RETURN(const DerElement oid, each.Read(der::kOid));
    ASSIGN_OR_RETURN(const std::string type, OidFromDer(oid.content));
    if (std::ranges::find(seen, type) != seen.end()) {
      return InvalidInput("extension " + type + " is there twice");
    }
    seen.push_back(type);
    bool critical = false;
    if (each.Sees(der::kBoolean)) {
      ASSIGN_OR_RETURN(const DerElement flag, each.Read());
      ASSIGN_OR_RETURN(critical, BooleanFromDer(flag.content));
    }
    ASSIGN_OR_RETURN(const DerElement content, each.Read(der::kOctetString));
    RETURN_IF_ERROR(each.ExpectEnd());
    RETURN_IF_ERROR(ReadExtension(type, critical, content.content, out))
        .context("reading extension " + type);
  }
  return Ok();
}

// AttributeCertificateInfo.
Result<void> ReadInfo(DerReader info, PlatformCertificate& out) {
  ASSIGN_OR_RETURN(const DerElement version, info.Read(der::kInteger));
  ASSIGN_OR_RETURN(const uint64_t number, UnsignedFromDer(version.content));
  if (number != 1) return InvalidInput("an attribute certificate that is not of version 2");
  ASSIGN_OR_RETURN(const DerReader holder, info.Enter(der::kSequence));
  RETURN_IF_ERROR(ReadHolder(holder, out)).context("reading the holder");
  ASSIGN_OR_RETURN_CONTEXT(const DerReader issuer, info.Enter(der::ContextOf(0)),
                           "reading the issuer");
  RETURN_IF_ERROR(ReadIssuer(issuer, out)).context("reading the issuer");
  ASSIGN_OR_RETURN(const DerElement algorithm, info.Read(der::kSequence));
  out.algorithm = ToBytes(algorithm.whole);
  ASSIGN_OR_RETURN(out.signature_algorithm, AlgorithmName(out.algorithm));
  ASSIGN_OR_RETURN(out.serial, ReadSerial(info));
  ASSIGN_OR_RETURN(const DerReader validity, info.Enter(der::kSequence));
  RETURN_IF_ERROR(ReadValidity(validity, out)).context("reading the validity");
  ASSIGN_OR_RETURN(const DerElement attributes, info.Read(der::kSequence));
  RETURN_IF_ERROR(ReadPlatformAttributes(attributes.content, out));
  if (info.Sees(der::kBitString)) return InvalidInput("an issuer's unique identifier is there");
  if (info.Sees(der::kSequence)) {
    ASSIGN_OR_RETURN(const DerReader extensions, info.Enter(der::kSequence));
    RETURN_IF_ERROR(ReadExtensions(extensions, out));
  }
  return info.ExpectEnd();
}

Result<PlatformCertificate> ReadCertificate(DerReader reader) {
  ASSIGN_OR_RETURN(DerReader parts, reader.Enter(der::kSequence));
  RETURN_IF_ERROR(reader.ExpectEnd());
  ASSIGN_OR_RETURN(const DerElement info, parts.Read(der::kSequence));
  PlatformCertificate out;
  out.signed_part = ToBytes(info.whole);
  RETURN_IF_ERROR(ReadInfo(DerReader(info.content), out));
  ASSIGN_OR_RETURN(const DerElement algorithm, parts.Read(der::kSequence));
  // RFC 5755, section 4.2.4: the same as the one that is signed.
  if (!std::ranges::equal(algorithm.whole, out.algorithm)) {
    return InvalidInput("two signature algorithms that differ");
  }
  ASSIGN_OR_RETURN(const DerElement bits, parts.Read(der::kBitString));
  RETURN_IF_ERROR(parts.ExpectEnd());
  if (bits.content.empty() || bits.content[0] != std::byte{0}) {
    return InvalidInput("a signature that is no whole bytes");
  }
  out.signature = ToBytes(bits.content.subspan(1));
  return out;
}

}  // namespace

std::string_view PlatformChangeName(PlatformChange change) {
  switch (change) {
    case PlatformChange::kNone:
      return "";
    case PlatformChange::kAdded:
      return "added";
    case PlatformChange::kModified:
      return "modified";
    case PlatformChange::kRemoved:
      return "removed";
  }
  return "";
}

std::string_view PlatformCertificateKindName(PlatformCertificateKind kind) {
  switch (kind) {
    case PlatformCertificateKind::kUnstated:
      return "unstated";
    case PlatformCertificateKind::kBase:
      return "base";
    case PlatformCertificateKind::kDelta:
      return "delta";
    case PlatformCertificateKind::kOther:
      return "other";
  }
  return "other";
}

PlatformCertificateKind PlatformCertificate::Kind() const {
  if (credential_type.empty()) return PlatformCertificateKind::kUnstated;
  if (credential_type == kBaseType) return PlatformCertificateKind::kBase;
  return credential_type == kDeltaType ? PlatformCertificateKind::kDelta
                                       : PlatformCertificateKind::kOther;
}

Result<PlatformCertificate> ParsePlatformCertificate(ByteView der) {
  if (der.size() > kMaxPlatformCertificate) {
    return Exhausted(fmt::format("a platform certificate of {} bytes; at most {} are read",
                                 der.size(), kMaxPlatformCertificate));
  }
  ASSIGN_OR_RETURN_CONTEXT(PlatformCertificate out, ReadCertificate(DerReader(der)),
                           "reading a platform certificate");
  return out;
}

Result<PlatformCertificate> ReadPlatformCertificate(ByteView file) {
  if (AsText(file).find("-----BEGIN") == std::string_view::npos) {
    return ParsePlatformCertificate(file);
  }
  if (file.size() > 2 * kMaxPlatformCertificate) return Exhausted("a PEM file that is too large");
  const BioPtr in(BIO_new_mem_buf(file.data(), static_cast<int>(file.size())));
  char* name = nullptr;
  char* header = nullptr;
  unsigned char* data = nullptr;
  long size = 0;
  Bytes found;
  while (found.empty() && PEM_read_bio(in.get(), &name, &header, &data, &size) == 1) {
    if (name == kPem) found = ToBytes(ViewOf(data, static_cast<size_t>(size)));
    OPENSSL_free(name);
    OPENSSL_free(header);
    OPENSSL_free(data);
  }
  ERR_clear_error();
  if (found.empty()) {
    return InvalidInput("there is no block \"BEGIN ATTRIBUTE CERTIFICATE\"")
        .WithFix("give the platform certificate, in DER or PEM; it is no X.509 certificate");
  }
  return ParsePlatformCertificate(found);
}

}  // namespace vallum::attest
