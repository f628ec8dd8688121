// SPDX-License-Identifier: Apache-2.0
#include "images/ova_json.h"

#include <chrono>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "images/confined_child.h"
#include "images/conversion_messages.h"

namespace vallum::images {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::chrono::seconds kTimeout{30};
// 1024 members and as many digests, each with a name of at most 255 bytes.
constexpr size_t kMaxDocument = size_t{4} << 20U;

std::string FirmwareName(formats::OvfFirmware firmware) {
  switch (firmware) {
    case formats::OvfFirmware::kUnspecified:
      return "unspecified";
    case formats::OvfFirmware::kBios:
      return "bios";
    case formats::OvfFirmware::kEfi:
      return "efi";
  }
  return "unspecified";
}

TakeBytes AppendTo(std::string& text) {
  return [&text](ByteView bytes) -> Result<void> {
    if (text.size() + bytes.size() > kMaxDocument) {
      return InvalidInput("what the OVA holds has no end");
    }
    text += AsText(bytes);
    return Ok();
  };
}

}  // namespace

std::string OvaToJson(const formats::OvaImage& ova) {
  const formats::OvfEnvelope& ovf = ova.ovf;
  Json out = {{"name", ovf.name},
              {"firmware", FirmwareName(ovf.firmware)},
              {"vtpm", ovf.vtpm},
              {"cpus", ovf.cpus},
              {"memory", ovf.memory},
              {"trustedService", ovf.trusted_service},
              {"disks", Json::array()},
              {"notUnderstood", ovf.not_understood},
              {"vallum",
               {{"keySet", ovf.vallum.key_set},
                {"keySetVersion", ovf.vallum.key_set_version},
                {"keySetSha256", ovf.vallum.key_set_sha256},
                {"keySetHref", ovf.vallum.key_set_href},
                {"variablesHref", ovf.vallum.variables_href},
                {"variableOrigin", ovf.vallum.variable_origin},
                {"tpmModel", ovf.vallum.tpm_model},
                {"tpmHref", ovf.vallum.tpm_href}}},
              {"members", Json::array()},
              {"manifest", Json::array()}};
  if (ovf.secure_boot.has_value()) out["secureBoot"] = *ovf.secure_boot;
  for (const formats::OvfDisk& disk : ovf.disks) {
    out["disks"].push_back({{"href", disk.href}, {"capacity", disk.capacity}});
  }
  for (const formats::TarMember& member : ova.members) {
    out["members"].push_back(
        {{"name", member.name}, {"offset", member.offset}, {"size", member.size}});
  }
  for (const formats::OvaDigest& entry : ova.manifest) {
    out["manifest"].push_back({{"file", entry.file},
                               {"algorithm", HashAlgorithmName(entry.algorithm)},
                               {"digest", ToHex(entry.digest)}});
  }
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<std::string> DescribeOva(const std::string& inspector, int image) {
  const ConfinedCommand command{.program = inspector,
                                .arguments = {"ova"},
                                .work = "inspection",
                                .image = image,
                                .request = {},
                                .timeout = kTimeout,
                                .base = -1};
  std::string document;
  std::string messages;
  RETURN_IF_ERROR(RunConfined(command, AppendTo(document), AppendTo(messages)));
  if (!messages.empty()) {
    const Result<uint64_t> refusal =
        ConversionMessageFromJson(messages.substr(0, messages.find('\n')));
    return refusal.has_value() ? InvalidInput("the inspector said nothing that is known")
                               : refusal.error();
  }
  if (!Json::parse(document, nullptr, /*allow_exceptions=*/false).is_object()) {
    return InvalidInput("the inspector gave no document");
  }
  return document;
}

}  // namespace vallum::images
