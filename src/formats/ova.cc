// SPDX-License-Identifier: Apache-2.0
#include "formats/ova.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "formats/ovf.h"
#include "formats/reader.h"

namespace vallum::formats {
namespace {

Error Refused(const std::string& message) {
  return InvalidInput("OVA: " + message)
      .WithFix("pack the descriptor (.ovf) first, then manifest and disks, with nothing outside");
}

Error Contradiction(const std::string& message) {
  return Corrupt("OVA: inconsistent: " + message).WithFix("export it again, or copy it whole");
}

bool HasExtension(const TarMember& member, std::string_view extension) {
  return ToLower(member.name).ends_with(extension);
}

std::optional<HashAlgorithm> AlgorithmOf(std::string_view name) {
  for (const HashAlgorithm algorithm : {HashAlgorithm::kSha1, HashAlgorithm::kSha256,
                                        HashAlgorithm::kSha384, HashAlgorithm::kSha512}) {
    if (ToLower(name) == HashAlgorithmName(algorithm)) return algorithm;
  }
  return std::nullopt;
}

// "SHA256(file)= hex"; some exporters write spaces around the parentheses.
std::optional<OvaDigest> ParseLine(std::string_view line) {
  const size_t open = line.find('(');
  const size_t close = line.rfind(")");
  if (open == std::string_view::npos || close == std::string_view::npos || close < open) {
    return std::nullopt;
  }
  std::string_view rest = Trim(line.substr(close + 1));
  if (!rest.starts_with('=')) return std::nullopt;
  rest = Trim(rest.substr(1));
  const std::optional<HashAlgorithm> algorithm = AlgorithmOf(Trim(line.substr(0, open)));
  Result<Bytes> digest = FromHex(rest);
  if (!algorithm.has_value() || !digest.has_value() || digest->size() != DigestSize(*algorithm)) {
    return std::nullopt;
  }
  return OvaDigest{std::string(line.substr(open + 1, close - open - 1)), *algorithm,
                   *std::move(digest)};
}

Result<const TarMember*> FindDescriptor(const OvaImage& ova) {
  if (ova.members.empty() || !HasExtension(ova.members.front(), ".ovf")) {
    return Refused("its first member is not the descriptor (.ovf)");
  }
  const auto is_ovf = [](const TarMember& m) { return HasExtension(m, ".ovf"); };
  if (std::ranges::count_if(ova.members, is_ovf) > 1) return Refused("several descriptors (.ovf)");
  return &ova.members.front();
}

Result<void> ReadManifest(const RandomAccessReader& file, OvaImage& ova, ByteView descriptor) {
  for (const TarMember& member : ova.members) {
    if (HasExtension(member, ".cert")) ova.has_certificate = true;
    if (!HasExtension(member, ".mf")) continue;
    if (!ova.manifest.empty()) return Refused("several manifests (.mf)");
    if (member.size > kOvaMaxManifestBytes) {
      return Refused(fmt::format("a manifest of {} bytes; {} are accepted", member.size,
                                 kOvaMaxManifestBytes));
    }
    ASSIGN_OR_RETURN(const Bytes text,
                     ReadBytesAt(file, member.offset, static_cast<size_t>(member.size)));
    ASSIGN_OR_RETURN_CONTEXT(ova.manifest, ParseOvfManifest(text), member.name);
  }
  for (const OvaDigest& entry : ova.manifest) {
    const TarMember* member = ova.Find(entry.file);
    if (member == nullptr) {
      return Contradiction(fmt::format("the manifest names \"{}\", which is not in the archive",
                                       Printable(entry.file)));
    }
    if (member == &ova.members.front() && Digest(entry.algorithm, descriptor) != entry.digest) {
      return Contradiction(fmt::format("the {} of the descriptor differs from the manifest's",
                                       HashAlgorithmName(entry.algorithm)));
    }
  }
  return Ok();
}

Result<void> CheckFiles(const OvaImage& ova) {
  for (const OvfFile& file : ova.ovf.files) {
    const TarMember* member = ova.Find(file.href);
    if (member == nullptr) {
      return Contradiction(
          fmt::format("the descriptor names the file \"{}\", which is not in the "
                      "archive",
                      Printable(file.href)));
    }
    if (file.size.has_value() && *file.size != member->size) {
      return Contradiction(fmt::format("\"{}\" has {} bytes, the descriptor says {}",
                                       Printable(file.href), member->size, *file.size));
    }
  }
  return Ok();
}

}  // namespace

const TarMember* OvaImage::Find(std::string_view name) const {
  const auto it = std::ranges::find(members, name, &TarMember::name);
  return it == members.end() ? nullptr : &*it;
}

Result<std::vector<OvaDigest>> ParseOvfManifest(ByteView text) {
  std::vector<OvaDigest> out;
  size_t number = 0;
  for (const std::string& raw : Split(AsText(text), '\n')) {
    ++number;
    const std::string_view line = Trim(raw);
    if (line.empty()) continue;
    std::optional<OvaDigest> entry = ParseLine(line);
    if (!entry.has_value()) {
      return Refused(
          fmt::format("line {} of the manifest is no digest: \"{}\"", number, Printable(line)));
    }
    if (out.size() == kTarMaxMembers) return Refused("a manifest with too many lines");
    if (std::ranges::find(out, entry->file, &OvaDigest::file) != out.end()) {
      return Refused(fmt::format("line {} of the manifest names \"{}\" again", number,
                                 Printable(entry->file)));
    }
    out.push_back(*std::move(entry));
  }
  return out;
}

Result<OvaImage> ParseOva(const RandomAccessReader& ova) {
  OvaImage out;
  ASSIGN_OR_RETURN(out.members, ListTar(ova));
  ASSIGN_OR_RETURN(const TarMember* descriptor, FindDescriptor(out));
  if (descriptor->size > kOvfMaxBytes) {
    return Refused(
        fmt::format("a descriptor of {} bytes; {} are accepted", descriptor->size, kOvfMaxBytes));
  }
  ASSIGN_OR_RETURN(const Bytes xml,
                   ReadBytesAt(ova, descriptor->offset, static_cast<size_t>(descriptor->size)));
  ASSIGN_OR_RETURN_CONTEXT(out.ovf, ParseOvf(xml), descriptor->name);
  RETURN_IF_ERROR(ReadManifest(ova, out, xml));
  RETURN_IF_ERROR(CheckFiles(out));
  return out;
}

}  // namespace vallum::formats
