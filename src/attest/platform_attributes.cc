// SPDX-License-Identifier: Apache-2.0
// The attributes of a platform certificate: TCG Platform Certificate Profile 1.1, section 3.1.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "attest/der.h"
#include "attest/platform_certificate.h"
#include "base/text.h"

namespace vallum::attest {
namespace {

constexpr std::string_view kPlatformSpecification = "2.23.133.2.17";
constexpr std::string_view kCredentialSpecification = "2.23.133.2.23";
constexpr std::string_view kCredentialType = "2.23.133.2.25";
constexpr std::string_view kConfigurationUri = "2.23.133.5.1.3";
constexpr std::string_view kConfiguration1 = "2.23.133.5.1.7.1";
constexpr std::string_view kConfiguration2 = "2.23.133.5.1.7.2";
constexpr size_t kClassBytes = 4;

Result<std::string> TextOf(ByteView content, size_t limit = kMaxPlatformText) {
  if (content.size() > limit) {
    return Exhausted(fmt::format("a text of {} bytes; at most {} are read", content.size(), limit));
  }
  return Printable(AsText(content), limit);
}

Result<std::string> ReadText(DerReader& reader) {
  ASSIGN_OR_RETURN(const DerElement element, reader.Read(der::kUtf8String));
  return TextOf(element.content);
}

// A text behind an IMPLICIT tag; "" where it is not there.
Result<std::string> ReadOptionalText(DerReader& reader, uint8_t tag) {
  if (!reader.Sees(tag)) return std::string();
  ASSIGN_OR_RETURN(const DerElement element, reader.Read(tag));
  return TextOf(element.content);
}

Result<std::string> ReadOid(DerReader& reader) {
  ASSIGN_OR_RETURN(const DerElement element, reader.Read(der::kOid));
  return OidFromDer(element.content);
}

Result<uint64_t> ReadNumber(DerReader& reader) {
  ASSIGN_OR_RETURN(const DerElement element, reader.Read(der::kInteger));
  return UnsignedFromDer(element.content);
}

// URIReference: what a hash behind it would be of is not fetched.
Result<std::string> ReadUri(DerReader reader) {
  ASSIGN_OR_RETURN(const DerElement uri, reader.Read(der::kIa5String));
  if (!reader.AtEnd()) {
    RETURN_IF_ERROR(reader.Enter(der::kSequence));
    RETURN_IF_ERROR(reader.Read(der::kBitString));
  }
  RETURN_IF_ERROR(reader.ExpectEnd());
  return TextOf(uri.content, kMaxPlatformUri);
}

Result<std::string> ReadOptionalUri(DerReader& reader, uint8_t tag) {
  if (!reader.Sees(tag)) return std::string();
  ASSIGN_OR_RETURN(const DerReader uri, reader.Enter(tag));
  return ReadUri(uri);
}

Result<PlatformChange> ReadChange(DerReader& reader, uint8_t tag) {
  if (!reader.Sees(tag)) return PlatformChange::kNone;
  ASSIGN_OR_RETURN(const DerElement element, reader.Read(tag));
  ASSIGN_OR_RETURN(const uint64_t value, UnsignedFromDer(element.content));
  switch (value) {
    case 0:
      return PlatformChange::kAdded;
    case 1:
      return PlatformChange::kModified;
    case 2:
      return PlatformChange::kRemoved;
    default:
      return InvalidInput(fmt::format("status {} is none of added, modified, removed", value));
  }
}

Result<SpecificationVersion> ReadVersion(DerReader reader) {
  SpecificationVersion out;
  ASSIGN_OR_RETURN(out.major, ReadNumber(reader));
  ASSIGN_OR_RETURN(out.minor, ReadNumber(reader));
  ASSIGN_OR_RETURN(out.revision, ReadNumber(reader));
  RETURN_IF_ERROR(reader.ExpectEnd());
  return out;
}

Result<PlatformSpecification> ReadSpecification(DerReader reader) {
  ASSIGN_OR_RETURN(const DerReader version, reader.Enter(der::kSequence));
  PlatformSpecification out;
  ASSIGN_OR_RETURN(out.version, ReadVersion(version));
  // Certificates about TPM 1.2 have it as text.
  const uint8_t tag = reader.Sees(der::kUtf8String) ? der::kUtf8String : der::kOctetString;
  ASSIGN_OR_RETURN(const DerElement platform_class, reader.Read(tag));
  if (platform_class.content.size() > kClassBytes) {
    return InvalidInput("a platform class of more than four bytes");
  }
  out.platform_class = ToBytes(platform_class.content);
  RETURN_IF_ERROR(reader.ExpectEnd());
  return out;
}

// Version 1.0 of the profile has no class; its drafts have one of no registry.
Result<void> ReadClass(DerReader& reader, PlatformComponent& out) {
  DerElement value;
  if (reader.Sees(der::kOctetString)) {
    ASSIGN_OR_RETURN(value, reader.Read(der::kOctetString));
  } else if (reader.Sees(der::kSequence)) {
    ASSIGN_OR_RETURN(DerReader inside, reader.Enter(der::kSequence));
    ASSIGN_OR_RETURN(out.class_registry, ReadOid(inside));
    ASSIGN_OR_RETURN(value, inside.Read(der::kOctetString));
    RETURN_IF_ERROR(inside.ExpectEnd());
  } else {
    return Ok();
  }
  if (value.content.size() != kClassBytes) return InvalidInput("a class that is not four bytes");
  out.class_value = ToBytes(value.content);
  return Ok();
}

Result<void> ReadAddresses(DerReader& reader, PlatformComponent& out) {
  if (!reader.Sees(der::ContextOf(4))) return Ok();
  ASSIGN_OR_RETURN(DerReader list, reader.Enter(der::ContextOf(4)));
  while (!list.AtEnd()) {
    if (out.addresses.size() == kMaxComponentAddresses) return Exhausted("too many addresses");
    ASSIGN_OR_RETURN(DerReader each, list.Enter(der::kSequence));
    ComponentAddress address;
    ASSIGN_OR_RETURN(address.type, ReadOid(each));
    ASSIGN_OR_RETURN(address.value, ReadText(each));
    RETURN_IF_ERROR(each.ExpectEnd());
    out.addresses.push_back(std::move(address));
  }
  return Ok();
}

Result<PlatformComponent> ReadComponent(DerReader reader) {
  PlatformComponent out;
  RETURN_IF_ERROR(ReadClass(reader, out));
  ASSIGN_OR_RETURN(out.manufacturer, ReadText(reader));
  ASSIGN_OR_RETURN(out.model, ReadText(reader));
  ASSIGN_OR_RETURN(out.serial, ReadOptionalText(reader, der::Context(0)));
  ASSIGN_OR_RETURN(out.revision, ReadOptionalText(reader, der::Context(1)));
  if (reader.Sees(der::Context(2))) {
    ASSIGN_OR_RETURN(const DerElement id, reader.Read(der::Context(2)));
    ASSIGN_OR_RETURN(out.manufacturer_id, OidFromDer(id.content));
  }
  if (reader.Sees(der::Context(3))) {
    ASSIGN_OR_RETURN(const DerElement replaceable, reader.Read(der::Context(3)));
    ASSIGN_OR_RETURN(const bool yes, BooleanFromDer(replaceable.content));
    out.replaceable = yes ? FieldReplaceable::kYes : FieldReplaceable::kNo;
  }
  RETURN_IF_ERROR(ReadAddresses(reader, out));
  // The component's own certificate, and where it is said to be: neither is here.
  for (const uint8_t tag : {der::ContextOf(5), der::ContextOf(6)}) {
    if (reader.Sees(tag)) {
      RETURN_IF_ERROR(reader.Read(tag));
    }
  }
  ASSIGN_OR_RETURN(out.change, ReadChange(reader, der::Context(7)));
  RETURN_IF_ERROR(reader.ExpectEnd());
  return out;
}

Result<void> ReadComponents(DerReader& reader, PlatformCertificate& out) {
  if (!reader.Sees(der::ContextOf(0))) return Ok();
  ASSIGN_OR_RETURN(DerReader list, reader.Enter(der::ContextOf(0)));
  while (!list.AtEnd()) {
    if (out.components.size() == kMaxPlatformComponents) return Exhausted("too many components");
    ASSIGN_OR_RETURN(const DerReader each, list.Enter(der::kSequence));
    ASSIGN_OR_RETURN_CONTEXT(PlatformComponent component, ReadComponent(each),
                             fmt::format("reading component {}", out.components.size() + 1));
    out.components.push_back(std::move(component));
  }
  return Ok();
}

Result<PlatformProperty> ReadProperty(DerReader reader) {
  PlatformProperty out;
  ASSIGN_OR_RETURN(out.name, ReadText(reader));
  ASSIGN_OR_RETURN(out.value, ReadText(reader));
  ASSIGN_OR_RETURN(out.change, ReadChange(reader, der::Context(0)));
  RETURN_IF_ERROR(reader.ExpectEnd());
  return out;
}

Result<void> ReadProperties(DerReader& reader, uint8_t tag, PlatformCertificate& out) {
  if (!reader.Sees(tag)) return Ok();
  ASSIGN_OR_RETURN(DerReader list, reader.Enter(tag));
  while (!list.AtEnd()) {
    if (out.properties.size() == kMaxPlatformProperties) return Exhausted("too many properties");
    ASSIGN_OR_RETURN(const DerReader each, list.Enter(der::kSequence));
    ASSIGN_OR_RETURN_CONTEXT(PlatformProperty property, ReadProperty(each),
                             fmt::format("reading property {}", out.properties.size() + 1));
    out.properties.push_back(std::move(property));
  }
  return Ok();
}

// Version 2 put a URI of the components between; the tags behind it moved by one.
Result<void> ReadConfiguration(DerReader reader, uint8_t moved, PlatformCertificate& out) {
  RETURN_IF_ERROR(ReadComponents(reader, out));
  if (moved != 0) {
    ASSIGN_OR_RETURN(out.components_uri, ReadOptionalUri(reader, der::ContextOf(1)));
  }
  const auto tag = [moved](unsigned number) {
    return der::ContextOf(static_cast<uint8_t>(number + moved));
  };
  RETURN_IF_ERROR(ReadProperties(reader, tag(1), out));
  ASSIGN_OR_RETURN(out.properties_uri, ReadOptionalUri(reader, tag(2)));
  return reader.ExpectEnd();
}

// Makers have it inside another SEQUENCE, as the other specification's is.
Result<SpecificationVersion> ReadCredentialSpecification(DerReader reader) {
  if (!reader.Sees(der::kSequence)) return ReadVersion(reader);
  ASSIGN_OR_RETURN(const DerReader inside, reader.Enter(der::kSequence));
  RETURN_IF_ERROR(reader.ExpectEnd());
  return ReadVersion(inside);
}

// Reads the value of an attribute that is known.
Result<void> ReadAttribute(std::string_view type, DerReader value, PlatformCertificate& out) {
  if (type == kPlatformSpecification) {
    ASSIGN_OR_RETURN(out.specification, ReadSpecification(value));
  } else if (type == kCredentialSpecification) {
    ASSIGN_OR_RETURN(out.credential_specification, ReadCredentialSpecification(value));
  } else if (type == kCredentialType) {
    ASSIGN_OR_RETURN(out.credential_type, ReadOid(value));
    return value.ExpectEnd();
  } else if (type == kConfigurationUri) {
    ASSIGN_OR_RETURN(out.configuration_uri, ReadUri(value));
  } else {
    return ReadConfiguration(value, type == kConfiguration2 ? 1 : 0, out);
  }
  return Ok();
}

bool IsRead(std::string_view type) {
  return type == kPlatformSpecification || type == kCredentialSpecification ||
         type == kCredentialType || type == kConfigurationUri || type == kConfiguration1 ||
         type == kConfiguration2;
}

// RFC 5755, section 4.2.7: "each AttributeType OBJECT IDENTIFIER in the sequence MUST be unique".
// Of two configurations, too, nobody could say which counts.
bool IsTwice(const std::vector<std::string>& seen, const std::string& type) {
  const auto has = [&seen](std::string_view each) {
    return std::ranges::find(seen, each) != seen.end();
  };
  return has(type) || (type == kConfiguration1 && has(kConfiguration2)) ||
         (type == kConfiguration2 && has(kConfiguration1));
}

}  // namespace

Result<void> ReadPlatformAttributes(ByteView attributes, PlatformCertificate& out) {
  DerReader list(attributes);
  std::vector<std::string> seen;
  while (!list.AtEnd()) {
    if (seen.size() == kMaxPlatformAttributes) return Exhausted("too many attributes");
    ASSIGN_OR_RETURN(DerReader each, list.Enter(der::kSequence));
    ASSIGN_OR_RETURN(const std::string type, ReadOid(each));
    if (IsTwice(seen, type)) return InvalidInput("attribute " + type + " is there twice");
    seen.push_back(type);
    ASSIGN_OR_RETURN(DerReader values, each.Enter(der::kSet));
    RETURN_IF_ERROR(each.ExpectEnd());
    if (!IsRead(type)) {
      out.unread_attributes.push_back(type);
      continue;
    }
    ASSIGN_OR_RETURN_CONTEXT(const DerReader value, values.Enter(der::kSequence),
                             "reading attribute " + type);
    RETURN_IF_ERROR(values.ExpectEnd()).context("reading attribute " + type);
    RETURN_IF_ERROR(ReadAttribute(type, value, out)).context("reading attribute " + type);
  }
  return Ok();
}

}  // namespace vallum::attest
