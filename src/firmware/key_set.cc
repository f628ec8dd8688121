// SPDX-License-Identifier: Apache-2.0
#include "firmware/key_set.h"

#include <fmt/format.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include <algorithm>
#include <array>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/digest.h"
#include "firmware/pkcs7.h"
#include "firmware/sbat.h"
#include "firmware/shim.h"
#include "formats/pe.h"

namespace vallum::firmware {
namespace {

using Json = nlohmann::json;

constexpr std::array kLists = {
    KeyList{"PK", &KeySet::pk, kGlobalVariableGuid},
    KeyList{"KEK", &KeySet::kek, kGlobalVariableGuid},
    KeyList{"db", &KeySet::db, kSecurityDatabaseGuid},
    KeyList{"dbx", &KeySet::dbx, kSecurityDatabaseGuid},
    KeyList{"dbt", &KeySet::dbt, kSecurityDatabaseGuid},
    KeyList{"dbr", &KeySet::dbr, kSecurityDatabaseGuid},
    KeyList{"MokList", &KeySet::mok, kShimLockGuid},
    KeyList{"MokListX", &KeySet::mokx, kShimLockGuid},
};
constexpr const char* kName = "name";
constexpr const char* kSecureBoot = "secureBoot";
constexpr const char* kSbatLevel = "SbatLevel";
constexpr size_t kMembers = kLists.size() + 3;

Result<void> CheckLimits(const KeySet& keys) {
  size_t certificates = 0;
  for (const KeyList& member : kLists) {
    certificates += static_cast<size_t>(
        std::ranges::count(keys.*member.entries, SignatureType::kX509, &Signature::type));
  }
  if (certificates > kMaxKeySetCertificates) {
    return Exhausted(fmt::format("a key set of {} certificates; at most {} are used", certificates,
                                 kMaxKeySetCertificates));
  }
  return Ok();
}

Error NotAKeySet(std::string_view what) {
  return InvalidInput(fmt::format("not a key set: {}", what));
}

Result<const std::string*> TextMember(const Json& object, const char* name) {
  const auto member = object.find(name);
  if (member == object.end() || !member->is_string()) {
    return NotAKeySet(fmt::format("\"{}\" is missing or no text", name));
  }
  return member->get_ptr<const std::string*>();
}

}  // namespace

std::span<const KeyList> KeyLists() { return kLists; }

Result<KeySet> KeySetFromStore(const VariableStore& store) {
  KeySet keys;
  ASSIGN_OR_RETURN(KeySetSummary summary, SummarizeKeySet(store));
  keys.name = std::move(summary.name);
  keys.secure_boot = DeriveSecureBoot(store) == SecureBootSetting::kOn;
  for (const KeyList& member : kLists) {
    const Variable* variable = store.Find(member.variable, member.vendor);
    if (variable == nullptr) continue;
    ASSIGN_OR_RETURN_CONTEXT(keys.*member.entries, ParseSignatureLists(variable->data),
                             fmt::format("reading {}", member.variable));
  }
  if (const Variable* level = store.Find(kSbatLevel, kShimLockGuid);
      level != nullptr && level->data.size() <= kMaxSbatBytes) {
    keys.sbat_level = AsText(level->data);
  }
  RETURN_IF_ERROR(CheckLimits(keys));
  return keys;
}

Result<std::vector<Signature>> CertificatesFromFile(ByteView pem_or_der, const Guid& owner) {
  constexpr std::string_view kBegin = "-----BEGIN CERTIFICATE-----";
  if (AsText(pem_or_der).find(kBegin) == std::string_view::npos) {
    RETURN_IF_ERROR(Certificate::Parse(pem_or_der));
    return std::vector{MakeSignature(SignatureType::kX509, owner, pem_or_der)};
  }
  if (pem_or_der.size() > kMaxKeySetJson) {
    return Exhausted(fmt::format("a file of certificates above {} bytes", kMaxKeySetJson));
  }
  const std::unique_ptr<BIO, decltype(&BIO_free_all)> bio(
      BIO_new_mem_buf(pem_or_der.data(), static_cast<int>(pem_or_der.size())), &BIO_free_all);
  if (bio == nullptr) return Internal("out of memory");
  std::vector<Signature> found;
  char* name = nullptr;
  char* header = nullptr;
  unsigned char* data = nullptr;
  long size = 0;
  while (PEM_read_bio(bio.get(), &name, &header, &data, &size) == 1) {
    if (std::string_view(name) == PEM_STRING_X509) {
      const ByteView der(reinterpret_cast<const std::byte*>(data), static_cast<size_t>(size));
      found.push_back(MakeSignature(SignatureType::kX509, owner, der));
    }
    OPENSSL_free(name);
    OPENSSL_free(header);
    OPENSSL_free(data);
    if (found.size() > kMaxKeySetCertificates) {
      return Exhausted(fmt::format("more than {} certificates", kMaxKeySetCertificates));
    }
  }
  ERR_clear_error();
  for (const Signature& certificate : found) {
    RETURN_IF_ERROR(Certificate::Parse(certificate.data));
  }
  if (found.empty()) return InvalidInput("no PEM certificate that can be read");
  return found;
}

Result<KeySet> DebianKeySet(ByteView shim) {
  ASSIGN_OR_RETURN(const formats::PeImage image, formats::PeImage::Parse(shim));
  const std::optional<ByteView> section = image.Section(".vendor_cert");
  if (!section.has_value()) {
    return InvalidInput("the program is no shim: it has no section .vendor_cert");
  }
  ASSIGN_OR_RETURN(const VendorCertificates vendor, ParseVendorCertSection(*section));
  if (ToHex(Sha256(vendor.allowed)) != kDebianSecureBootCaSha256) {
    return InvalidInput("the shim does not carry Debian's Secure Boot CA")
        .WithFix("use the shim of Debian's package shim-signed");
  }
  KeySet keys;
  keys.name = "debian";
  keys.pk = {MakeSignature(SignatureType::kX509, kShimLockGuid, vendor.allowed)};
  keys.kek = keys.pk;
  keys.db = keys.pk;
  return keys;
}

std::string ToJson(const KeySet& keys) {
  Json object = {{kName, keys.name},
                 {kSecureBoot, keys.secure_boot},
                 {kSbatLevel, ToBase64(AsBytes(keys.sbat_level))}};
  for (const KeyList& member : kLists) {
    object[member.variable] = ToBase64(EncodeSignatureLists(keys.*member.entries));
  }
  return object.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<KeySet> ParseKeySet(std::string_view json) {
  if (json.size() > kMaxKeySetJson) {
    return Exhausted(fmt::format("a key set of {} bytes, above {}", json.size(), kMaxKeySetJson));
  }
  // Nothing below the first level is kept, so that nesting costs no memory.
  const auto shallow = [](int depth, Json::parse_event_t /*event*/, const Json& /*parsed*/) {
    return depth <= 1;
  };
  const Json object = Json::parse(json, shallow, false);
  if (!object.is_object()) return NotAKeySet("no JSON object");
  if (object.size() != kMembers) return NotAKeySet("members are missing or unknown");
  KeySet keys;
  ASSIGN_OR_RETURN(const std::string* name, TextMember(object, kName));
  if (name->size() > kMaxKeySetName) return NotAKeySet("its name is too long");
  keys.name = *name;
  const auto secure_boot = object.find(kSecureBoot);
  if (secure_boot == object.end() || !secure_boot->is_boolean()) {
    return NotAKeySet("\"secureBoot\" is missing or neither true nor false");
  }
  keys.secure_boot = secure_boot->get<bool>();
  ASSIGN_OR_RETURN(const std::string* level, TextMember(object, kSbatLevel));
  ASSIGN_OR_RETURN(const Bytes level_bytes, FromBase64(*level));
  if (level_bytes.size() > kMaxSbatBytes) return NotAKeySet("its SbatLevel is too long");
  keys.sbat_level = AsText(level_bytes);
  for (const KeyList& member : kLists) {
    ASSIGN_OR_RETURN(const std::string* text, TextMember(object, member.variable));
    ASSIGN_OR_RETURN(const Bytes lists, FromBase64(*text));
    ASSIGN_OR_RETURN_CONTEXT(keys.*member.entries, ParseSignatureLists(lists),
                             fmt::format("reading {} of a key set", member.variable));
  }
  RETURN_IF_ERROR(CheckLimits(keys));
  return keys;
}

}  // namespace vallum::firmware
