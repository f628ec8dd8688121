// SPDX-License-Identifier: Apache-2.0
#include "firmware/descriptor.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/text.h"

namespace vallum::firmware {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxListEntries = 256;
constexpr size_t kMaxText = 4096;

Error Wrong(std::string_view source, std::string_view what) {
  return InvalidInput(fmt::format("firmware descriptor {}: {}", Printable(source), what));
}

Result<std::string> TextMember(std::string_view source, const Json& object, const char* name) {
  const auto member = object.find(name);
  if (member == object.end() || !member->is_string()) {
    return Wrong(source, fmt::format("\"{}\" is missing or no text", name));
  }
  const auto& text = member->get_ref<const std::string&>();
  if (text.size() > kMaxText) {
    return Wrong(source, fmt::format("\"{}\" is longer than {} bytes", name, kMaxText));
  }
  return text;
}

Result<const Json*> Member(std::string_view source, const Json& object, const char* name,
                           Json::value_t type) {
  const auto member = object.find(name);
  if (member == object.end() || member->type() != type) {
    return Wrong(source, fmt::format("\"{}\" is missing or of the wrong type", name));
  }
  if (member->is_array() && member->size() > kMaxListEntries) {
    return Wrong(source, fmt::format("\"{}\" has more than {} entries", name, kMaxListEntries));
  }
  return &*member;
}

Result<std::vector<std::string>> TextList(std::string_view source, const Json& object,
                                          const char* name) {
  ASSIGN_OR_RETURN(const Json* list, Member(source, object, name, Json::value_t::array));
  std::vector<std::string> texts;
  for (const Json& entry : *list) {
    if (!entry.is_string()) {
      return Wrong(source, fmt::format("\"{}\" holds something that is no text", name));
    }
    texts.push_back(entry.get<std::string>());
  }
  return texts;
}

Result<FirmwareInterface> ParseInterface(std::string_view source, std::string_view text) {
  if (text == "bios") {
    return FirmwareInterface::kBios;
  }
  if (text == "openfirmware") {
    return FirmwareInterface::kOpenfirmware;
  }
  if (text == "uboot") {
    return FirmwareInterface::kUboot;
  }
  if (text == "uefi") {
    return FirmwareInterface::kUefi;
  }
  return Wrong(source, fmt::format("unknown interface type {}", Printable(text)));
}

Result<FirmwareFile> ParseFile(std::string_view source, const Json& object, const char* name) {
  ASSIGN_OR_RETURN(const Json* file, Member(source, object, name, Json::value_t::object));
  FirmwareFile parsed;
  ASSIGN_OR_RETURN(parsed.path, TextMember(source, *file, "filename"));
  ASSIGN_OR_RETURN(parsed.format, TextMember(source, *file, "format"));
  return parsed;
}

Result<FlashMode> ParseFlashMode(std::string_view source, const Json& mapping) {
  if (!mapping.contains("mode")) {
    return FlashMode::kSplit;  // "the default is split", for descriptors older than the member
  }
  ASSIGN_OR_RETURN(const std::string mode, TextMember(source, mapping, "mode"));
  if (mode == "split") {
    return FlashMode::kSplit;
  }
  if (mode == "combined") {
    return FlashMode::kCombined;
  }
  if (mode == "stateless") {
    return FlashMode::kStateless;
  }
  return Wrong(source, fmt::format("unknown flash mode {}", Printable(mode)));
}

Result<FirmwareMapping> ParseMapping(std::string_view source, const Json& root) {
  ASSIGN_OR_RETURN(const Json* object, Member(source, root, "mapping", Json::value_t::object));
  ASSIGN_OR_RETURN(const std::string device, TextMember(source, *object, "device"));
  FirmwareMapping mapping;
  if (device == "kernel" || device == "memory") {
    mapping.device = device == "kernel" ? MappingDevice::kKernel : MappingDevice::kMemory;
    mapping.executable.format = "raw";
    ASSIGN_OR_RETURN(mapping.executable.path, TextMember(source, *object, "filename"));
    return mapping;
  }
  if (device != "flash") {
    return Wrong(source, fmt::format("unknown mapping device {}", Printable(device)));
  }
  ASSIGN_OR_RETURN(mapping.mode, ParseFlashMode(source, *object));
  ASSIGN_OR_RETURN(mapping.executable, ParseFile(source, *object, "executable"));
  if (mapping.mode == FlashMode::kSplit) {
    ASSIGN_OR_RETURN(mapping.nvram_template, ParseFile(source, *object, "nvram-template"));
  }
  return mapping;
}

Result<std::vector<FirmwareTarget>> ParseTargets(std::string_view source, const Json& root) {
  ASSIGN_OR_RETURN(const Json* list, Member(source, root, "targets", Json::value_t::array));
  std::vector<FirmwareTarget> targets;
  for (const Json& entry : *list) {
    if (!entry.is_object()) {
      return Wrong(source, "\"targets\" holds something that is no object");
    }
    FirmwareTarget target;
    ASSIGN_OR_RETURN(target.architecture, TextMember(source, entry, "architecture"));
    ASSIGN_OR_RETURN(target.machines, TextList(source, entry, "machines"));
    targets.push_back(std::move(target));
  }
  return targets;
}

// Parses text without ever throwing; nested no deeper than any descriptor needs.
std::optional<Json> ParseJson(ByteView json) {
  constexpr int kMaxDepth = 16;
  bool too_deep = false;
  const auto guard = [&](int depth, Json::parse_event_t, Json&) {
    too_deep = too_deep || depth > kMaxDepth;
    return !too_deep;
  };
  try {
    Json root = Json::parse(AsText(json), guard, false);
    if (root.is_discarded() || too_deep) {
      return std::nullopt;
    }
    return root;
  } catch (const Json::exception&) {
    return std::nullopt;
  }
}

// '*' and '?' as in glob(7), the two that descriptors use; linear in pattern times text.
bool GlobMatches(std::string_view pattern, std::string_view text) {
  size_t p = 0;
  size_t t = 0;
  size_t star = std::string_view::npos;
  size_t star_text = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_text = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++star_text;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') {
    ++p;
  }
  return p == pattern.size();
}

// QEMU's short names stand for the newest version of their family.
std::string VersionedMachine(std::string_view machine) {
  if (machine == "q35") {
    return "pc-q35-0";
  }
  return machine == "pc" ? "pc-i440fx-0" : std::string(machine);
}

bool FitsTarget(const FirmwareDescriptor& descriptor, const FirmwareQuery& query) {
  const std::string machine = VersionedMachine(query.machine);
  return std::any_of(
      descriptor.targets.begin(), descriptor.targets.end(), [&](const FirmwareTarget& target) {
        return target.architecture == query.architecture &&
               std::any_of(target.machines.begin(), target.machines.end(),
                           [&](const std::string& glob) { return GlobMatches(glob, machine); });
      });
}

// The first thing that the query wants and the descriptor lacks; "" when it fits.
std::string FirstMisfit(const FirmwareDescriptor& descriptor, const FirmwareQuery& query) {
  const bool uefi = query.type == FirmwareType::kUefi;
  if (!descriptor.HasInterface(uefi ? FirmwareInterface::kUefi : FirmwareInterface::kBios)) {
    return uefi ? "is no UEFI firmware" : "is no BIOS";
  }
  if (!FitsTarget(descriptor, query)) {
    return fmt::format("is not for {} on {}", Printable(query.machine), query.architecture);
  }
  if (!uefi) {
    return "";
  }
  const FirmwareMapping& mapping = descriptor.mapping;
  if (mapping.device != MappingDevice::kFlash || mapping.mode != FlashMode::kSplit) {
    return "keeps no variables in a file of their own (flash, mode split)";
  }
  if (query.secure_boot == SecureBootSupport::kRequired) {
    for (const std::string_view feature : {"secure-boot", "requires-smm"}) {
      if (!descriptor.HasFeature(feature)) {
        return fmt::format("lacks {}", feature);
      }
    }
  }
  const bool enrolled = descriptor.HasFeature("enrolled-keys");
  if (query.keys == KeyEnrolment::kEnrolled && !enrolled) {
    return "lacks enrolled-keys";
  }
  if (query.keys == KeyEnrolment::kBlank && enrolled) {
    return "has enrolled-keys";
  }
  if (query.secure_boot == SecureBootSupport::kAbsent && enrolled) {
    return "enforces Secure Boot with enrolled-keys";
  }
  return "";
}

std::string DescribeQuery(const FirmwareQuery& query) {
  if (query.type == FirmwareType::kBios) {
    return fmt::format("type BIOS for {} on {}", Printable(query.machine), query.architecture);
  }
  std::vector<std::string> wanted;
  if (query.secure_boot == SecureBootSupport::kRequired) {
    wanted.insert(wanted.end(), {"secure-boot", "requires-smm"});
  } else {
    wanted.emplace_back("Secure Boot not enforced");
  }
  if (query.keys == KeyEnrolment::kEnrolled) {
    wanted.emplace_back("enrolled-keys");
  } else if (query.keys == KeyEnrolment::kBlank) {
    wanted.emplace_back("no enrolled-keys");
  }
  return fmt::format("type UEFI and features {} for {} on {}", Join(wanted, ", "),
                     Printable(query.machine), query.architecture);
}

}  // namespace

bool FirmwareDescriptor::HasFeature(std::string_view feature) const {
  return std::find(features.begin(), features.end(), feature) != features.end();
}

bool FirmwareDescriptor::HasInterface(FirmwareInterface interface) const {
  return std::find(interfaces.begin(), interfaces.end(), interface) != interfaces.end();
}

Result<FirmwareDescriptor> ParseDescriptor(std::string_view source, ByteView json) {
  if (json.size() > kMaxDescriptorSize) {
    return Exhausted(fmt::format("firmware descriptor {}: larger than {} bytes", Printable(source),
                                 kMaxDescriptorSize));
  }
  const std::optional<Json> root = ParseJson(json);
  if (!root.has_value() || !root->is_object()) {
    return Wrong(source, "not a JSON object");
  }
  FirmwareDescriptor descriptor;
  descriptor.source = std::string(source);
  ASSIGN_OR_RETURN(descriptor.description, TextMember(source, *root, "description"));
  ASSIGN_OR_RETURN(const auto interfaces, TextList(source, *root, "interface-types"));
  for (const std::string& text : interfaces) {
    ASSIGN_OR_RETURN(const FirmwareInterface interface, ParseInterface(source, text));
    descriptor.interfaces.push_back(interface);
  }
  ASSIGN_OR_RETURN(descriptor.mapping, ParseMapping(source, *root));
  ASSIGN_OR_RETURN(descriptor.targets, ParseTargets(source, *root));
  ASSIGN_OR_RETURN(descriptor.features, TextList(source, *root, "features"));
  ASSIGN_OR_RETURN(descriptor.tags, TextList(source, *root, "tags"));
  return descriptor;
}

FirmwareDescriptor BuiltinBios() {
  FirmwareDescriptor bios;
  bios.source = std::string(kBuiltinSource);
  bios.description = "SeaBIOS, QEMU's default firmware";
  bios.interfaces = {FirmwareInterface::kBios};
  bios.mapping.device = MappingDevice::kMemory;
  bios.mapping.executable.format = "raw";
  const std::vector<std::string> machines = {"pc-i440fx-*", "pc-q35-*"};
  bios.targets = {{"i386", machines}, {"x86_64", machines}};
  return bios;
}

std::vector<std::string> DescriptorDirectories(std::string_view config_home) {
  std::vector<std::string> directories;
  if (!config_home.empty()) {
    directories.push_back(std::string(config_home) + "/qemu/firmware");
  }
  directories.emplace_back("/etc/qemu/firmware");
  directories.emplace_back("/usr/share/qemu/firmware");
  return directories;
}

DescriptorSet ResolveDescriptors(const std::vector<std::string>& directories,
                                 const std::vector<DescriptorFile>& files) {
  constexpr std::string_view kSuffix = ".json";
  std::map<std::string, const DescriptorFile*, std::less<>> winners;  // sorted by name
  for (const std::string& directory : directories) {
    for (const DescriptorFile& file : files) {
      const bool is_json = file.name.size() > kSuffix.size() && file.name.ends_with(kSuffix);
      if (file.directory == directory && is_json) {
        winners.emplace(file.name, &file);  // keeps the earlier folder's
      }
    }
  }
  DescriptorSet set;
  for (const auto& [name, file] : winners) {
    if (file->content.empty()) {
      continue;
    }
    auto descriptor = ParseDescriptor(file->directory + "/" + name, file->content);
    if (descriptor.has_value()) {
      set.descriptors.push_back(*std::move(descriptor));
    } else {
      set.problems.push_back(descriptor.error().Describe());
    }
  }
  set.descriptors.push_back(BuiltinBios());
  return set;
}

Result<FirmwareDescriptor> SelectFirmware(const std::vector<FirmwareDescriptor>& descriptors,
                                          const FirmwareQuery& query) {
  std::vector<std::string> found;
  const FirmwareDescriptor* second_choice = nullptr;
  for (const FirmwareDescriptor& descriptor : descriptors) {
    const std::string misfit = FirstMisfit(descriptor, query);
    if (!misfit.empty()) {
      found.push_back(fmt::format("{} {}", Printable(descriptor.source), misfit));
      continue;
    }
    if (query.type == FirmwareType::kUefi && query.secure_boot == SecureBootSupport::kAbsent &&
        descriptor.HasFeature("secure-boot")) {
      second_choice = second_choice == nullptr ? &descriptor : second_choice;
      continue;
    }
    return descriptor;
  }
  if (second_choice != nullptr) {
    return *second_choice;
  }
  return NotFound(fmt::format("no firmware descriptor with {}: {}", DescribeQuery(query),
                              found.empty() ? "none found" : "found " + Join(found, "; ")))
      .WithFix("install the package ovmf, or ask for a type and mode that this host offers");
}

}  // namespace vallum::firmware
