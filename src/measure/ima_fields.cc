// SPDX-License-Identifier: Apache-2.0
#include "measure/ima_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/text.h"

namespace vallum::measure {
namespace {

struct HashRow {
  std::string_view name;
  size_t size;
};

// In the order of ImaHash: hash_algo_name and hash_digest_size of crypto/hash_info.c.
constexpr std::array kHashes = {
    HashRow{"md4", 16},         HashRow{"md5", 16},         HashRow{"sha1", 20},
    HashRow{"rmd160", 20},      HashRow{"sha256", 32},      HashRow{"sha384", 48},
    HashRow{"sha512", 64},      HashRow{"sha224", 28},      HashRow{"rmd128", 16},
    HashRow{"rmd256", 32},      HashRow{"rmd320", 40},      HashRow{"wp256", 32},
    HashRow{"wp384", 48},       HashRow{"wp512", 64},       HashRow{"tgr128", 16},
    HashRow{"tgr160", 20},      HashRow{"tgr192", 24},      HashRow{"sm3", 32},
    HashRow{"streebog256", 32}, HashRow{"streebog512", 64}, HashRow{"sha3-256", 32},
    HashRow{"sha3-384", 48},    HashRow{"sha3-512", 64},
};

constexpr std::array<std::pair<std::string_view, ImaField>, 16> kFields = {{
    {"d", ImaField::kDigest},
    {"n", ImaField::kName},
    {"d-ng", ImaField::kDigestNg},
    {"d-ngv2", ImaField::kDigestNgv2},
    {"n-ng", ImaField::kNameNg},
    {"sig", ImaField::kSignature},
    {"buf", ImaField::kBuffer},
    {"d-modsig", ImaField::kModsigDigest},
    {"modsig", ImaField::kModsig},
    {"evmsig", ImaField::kEvmSignature},
    {"iuid", ImaField::kUid},
    {"igid", ImaField::kGid},
    {"imode", ImaField::kMode},
    {"xattrnames", ImaField::kXattrNames},
    {"xattrlengths", ImaField::kXattrLengths},
    {"xattrvalues", ImaField::kXattrValues},
}};

Result<ImaFormat> FormatFromFields(std::string_view name) {
  ImaFormat format{.name = std::string(name), .fields = {}};
  for (std::string_view rest = name;;) {
    const size_t bar = std::min(rest.find('|'), rest.size());
    const auto* const field = std::ranges::find(kFields, rest.substr(0, bar),
                                                &std::pair<std::string_view, ImaField>::first);
    if (field == kFields.end() || format.fields.size() == kMaxImaFields) {
      return InvalidInput(fmt::format("'{}' is no template", Printable(name, 64)));
    }
    format.fields.push_back(field->second);
    if (bar == rest.size()) {
      return format;
    }
    rest.remove_prefix(bar + 1);
  }
}

ImaFormat Builtin(std::string_view name, std::string_view fields) {
  auto format = FormatFromFields(fields);
  CHECK(format.has_value());
  format->name = name;
  return *std::move(format);
}

}  // namespace

std::string_view ImaHashName(ImaHash hash) { return kHashes[static_cast<size_t>(hash)].name; }

size_t ImaHashSize(ImaHash hash) { return kHashes[static_cast<size_t>(hash)].size; }

std::optional<ImaHash> ImaHashFromName(std::string_view name) {
  constexpr std::string_view kUsual = "sha256";
  if (name == kUsual) {
    return ImaHash::kSha256;
  }
  // What older kernels wrote, and TCG's and Keylime's name.
  if (name == "sm3-256" || name == "sm3_256") {
    return ImaHash::kSm3;
  }
  const auto* const row = std::ranges::find(kHashes, name, &HashRow::name);
  return row == kHashes.end() ? std::nullopt
                              : ImaHashFromNumber(static_cast<uint8_t>(row - kHashes.begin()));
}

std::optional<ImaHash> ImaHashFromNumber(uint8_t number) {
  return number < kHashes.size() ? std::optional(static_cast<ImaHash>(number)) : std::nullopt;
}

const std::vector<ImaFormat>& BuiltinImaFormats() {
  static const std::vector<ImaFormat> formats = [] {
    std::vector<ImaFormat> out = {
        Builtin("ima", "d|n"),
        Builtin("ima-ng", "d-ng|n-ng"),
        Builtin("ima-sig", "d-ng|n-ng|sig"),
        Builtin("ima-ngv2", "d-ngv2|n-ng"),
        Builtin("ima-sigv2", "d-ngv2|n-ng|sig"),
        Builtin("ima-buf", "d-ng|n-ng|buf"),
        Builtin("ima-modsig", "d-ng|n-ng|sig|d-modsig|modsig"),
        Builtin("evm-sig", "d-ng|n-ng|evmsig|xattrnames|xattrlengths|xattrvalues|iuid|igid|imode"),
    };
    out.front().is_ima = true;
    return out;
  }();
  return formats;
}

Result<ImaFormat> ImaFormatFromName(std::string_view name) {
  const auto& builtin = BuiltinImaFormats();
  const auto found = std::ranges::find(builtin, name, &ImaFormat::name);
  if (found != builtin.end()) {
    return *found;
  }
  return FormatFromFields(name);
}

Result<ImaDigest> ParseImaDigest(ImaField field, ByteView data) {
  ImaDigest out;
  if (field == ImaField::kDigest) {
    if (data.size() != ImaHashSize(ImaHash::kSha1) && data.size() != ImaHashSize(ImaHash::kMd5)) {
      return Corrupt(fmt::format("a digest of {} bytes without a name", data.size()));
    }
    out.hash = data.size() == ImaHashSize(ImaHash::kMd5) ? ImaHash::kMd5 : ImaHash::kSha1;
    out.bytes = data;
    return out;
  }
  const std::string_view text = AsText(data);
  const size_t end = text.find('\0');
  if (end == std::string_view::npos || end == 0 || text[end - 1] != ':') {
    return Corrupt("a digest without the name of its algorithm");
  }
  std::string_view name = text.substr(0, end - 1);
  if (field == ImaField::kDigestNgv2) {
    const size_t colon = std::min(name.find(':'), name.size());
    const std::string_view type = name.substr(0, colon);
    if (colon == name.size() || (type != "ima" && type != "verity")) {
      return Corrupt(fmt::format("a digest of unknown kind '{}'", Printable(type, 32)));
    }
    out.type = type == "ima" ? ImaDigestType::kFile : ImaDigestType::kVerity;
    name.remove_prefix(colon + 1);
  }
  const auto hash = ImaHashFromName(name);
  if (!hash.has_value()) {
    return Corrupt(fmt::format("unknown digest algorithm '{}'", Printable(name, 32)));
  }
  out.hash = *hash;
  out.bytes = data.subspan(end + 1);
  // Older kernels leave 20 zeros in a violation whatever the algorithm.
  const bool placeholder =
      out.bytes.size() == ImaHashSize(ImaHash::kSha1) &&
      std::ranges::all_of(out.bytes, [](std::byte b) { return b == std::byte{0}; });
  if (out.bytes.size() != ImaHashSize(out.hash) && !placeholder) {
    return Corrupt(fmt::format("a digest of {} bytes; {} has {}", out.bytes.size(), name,
                               ImaHashSize(out.hash)));
  }
  return out;
}

std::string DescribeImaDigest(const ImaDigest& digest) {
  return fmt::format("{}{}:{}", digest.type == ImaDigestType::kVerity ? "verity:" : "",
                     ImaHashName(digest.hash), ToHex(digest.bytes));
}

}  // namespace vallum::measure
