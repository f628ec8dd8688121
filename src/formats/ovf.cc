// SPDX-License-Identifier: Apache-2.0
#include "formats/ovf.h"

#include <expat.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"

namespace vallum::formats {
namespace {

using Attributes = std::map<std::string, std::string, std::less<>>;

// CIM_ResourceAllocationSettingData.ResourceType.
constexpr std::string_view kTypeProcessor = "3";
constexpr std::string_view kTypeMemory = "4";

// expat gives names as "namespace URI|local name".
constexpr char kSeparator = '|';
constexpr std::string_view kOurs = "urn:vallum:ovf:1|";
constexpr std::string_view kNamespace = "http://schemas.dmtf.org/ovf/envelope/";

Error Refused(const std::string& message) {
  return InvalidInput("OVF: " + message)
      .WithFix("export one virtual machine with its disks as files of the package (OVF 1 or 2)");
}

Error Contradiction(const std::string& message) {
  return Corrupt("OVF: inconsistent: " + message).WithFix("export it again");
}

std::string_view LocalName(std::string_view name) {
  const size_t at = name.rfind(kSeparator);
  return at == std::string_view::npos ? name : name.substr(at + 1);
}

bool IsOvfEnvelope(std::string_view name) {
  if (!name.starts_with(kNamespace)) return false;
  name.remove_prefix(kNamespace.size());
  // oVirt ends the namespace with a slash.
  return name == "1|Envelope" || name == "1/|Envelope" || name == "2|Envelope";
}

std::optional<uint64_t> Number(std::string_view text) {
  text = text.substr(0, text.find_last_not_of(" \t\r\n") + 1);
  text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// DSP0004 "Programmatic units", as far as OVF uses them: "byte * 2^30", "byte*10^9", and the words
// of OVF 1.0.
std::optional<uint64_t> UnitBytes(std::string_view unit) {
  std::string text = ToLower(unit);
  std::erase(text, ' ');
  if (text.empty() || text == "byte" || text == "bytes") return 1;
  if (text == "kilobytes") return uint64_t{1} << 10U;
  if (text == "megabytes") return uint64_t{1} << 20U;
  if (text == "gigabytes") return uint64_t{1} << 30U;
  for (const auto& [prefix, base, most] : {std::tuple("byte*2^", uint64_t{2}, uint64_t{50}),
                                           std::tuple("byte*10^", uint64_t{10}, uint64_t{15})}) {
    if (!text.starts_with(prefix)) continue;
    const std::optional<uint64_t> power = Number(text.substr(std::string_view(prefix).size()));
    if (!power.has_value() || *power > most) return std::nullopt;
    uint64_t bytes = 1;
    for (uint64_t i = 0; i < *power; ++i) bytes *= base;
    return bytes;
  }
  return std::nullopt;
}

Result<uint64_t> Scaled(std::string_view what, std::string_view amount, std::string_view unit,
                        uint64_t most) {
  const std::optional<uint64_t> number = Number(amount);
  const std::optional<uint64_t> scale = UnitBytes(unit);
  if (!number.has_value() || !scale.has_value() || *number > most / *scale) {
    return Refused(
        fmt::format("a {} of \"{}\" in units of \"{}\"; numbers up to {} bytes are "
                    "accepted",
                    what, Printable(amount), Printable(unit), most));
  }
  return *number * *scale;
}

bool IsTrue(std::string_view value) {
  const std::string text = ToLower(Trim(value));
  return text == "true" || text == "1";
}

// One Item (or StorageItem, EthernetPortItem) of the virtual hardware: its children by name.
using Item = Attributes;

std::string_view Get(const Attributes& attributes, std::string_view name) {
  const auto it = attributes.find(name);
  return it == attributes.end() ? std::string_view() : std::string_view(it->second);
}

class Builder {
 public:
  Result<void> Start(std::string_view parent, std::string_view element,
                     const Attributes& attributes) {
    if (element == "File" && parent == "References") return AddFile(attributes);
    if (element == "Disk" && parent == "DiskSection") return AddDisk(attributes);
    if (element == "VirtualSystemCollection") {
      return Refused("a collection of virtual machines; one is accepted");
    }
    // oVirt's older descriptors call it Content.
    if ((element == "VirtualSystem" || element == "Content") && ++systems_ > 1) {
      return Refused("several virtual machines; one is accepted");
    }
    if (element == "Config" || element == "ExtraConfig") {
      return AddConfig(Get(attributes, "key"), Get(attributes, "value"));
    }
    return Ok();
  }

  // "firmware" and "bootOptions.efiSecureBootEnabled" as VMware exports them, and the keys of its
  // configuration files.
  Result<void> AddConfig(std::string_view key, std::string_view value) {
    const std::string name = ToLower(key);
    if (name == "firmware") {
      const std::string kind = ToLower(value);
      if (kind != "efi" && kind != "bios") {
        return Refused(fmt::format("unknown firmware \"{}\"", Printable(value)));
      }
      out_.firmware = kind == "efi" ? OvfFirmware::kEfi : OvfFirmware::kBios;
    } else if (name == "bootoptions.efisecurebootenabled" || name == "uefi.secureboot.enabled") {
      out_.secure_boot = IsTrue(value);
    } else if (name == "vtpm.present" || name == "tpm.present") {
      out_.vtpm = out_.vtpm || IsTrue(value);
    }
    return Ok();
  }

  Result<void> AddItem(const Item& item) {
    const std::string_view type = Get(item, "ResourceType");
    const std::string_view quantity = Get(item, "VirtualQuantity");
    if (ToLower(Get(item, "ResourceSubType")) == "vmware.vtpm") out_.vtpm = true;
    NoteDevice(item, type);
    if (type == kTypeProcessor) {
      ASSIGN_OR_RETURN(const uint64_t cpus, Scaled("processor count", quantity, "", kOvfMaxCpus));
      out_.cpus = cpus;
    } else if (type == kTypeMemory) {
      // "MegaBytes" is the default of CIM's memory.
      const std::string_view unit = Get(item, "AllocationUnits");
      ASSIGN_OR_RETURN(out_.memory, Scaled("memory", quantity, unit.empty() ? "MegaBytes" : unit,
                                           kOvfMaxMemory));
    }
    return Ok();
  }

  // oVirt's elements of the machine.
  Result<void> AddOfMachine(std::string_view element, std::string_view text) {
    if (element == "Name") out_.name = Printable(text);
    if (element == "TrustedService") out_.trusted_service = IsTrue(text);
    if (element != "BiosType") return Ok();
    // 0: the cluster's; 1 and 2: SeaBIOS; 3: OVMF; 4: OVMF with Secure Boot.
    const std::optional<uint64_t> type = Number(text);
    if (!type.has_value() || *type > 4) {
      return Refused(fmt::format("unknown BiosType \"{}\"", Printable(text, 40)));
    }
    if (*type == 0) return Ok();
    out_.firmware = *type >= 3 ? OvfFirmware::kEfi : OvfFirmware::kBios;
    if (*type >= 3) out_.secure_boot = *type == 4;
    return Ok();
  }

  Result<void> AddOurs(std::string_view element, const Attributes& attributes) {
    const auto href = [&]() -> Result<std::string> {
      std::string name(Get(attributes, "href"));
      if (!name.empty() && !IsPackageName(name)) {
        return Refused(fmt::format("a file of ours is external: \"{}\"", Printable(name)));
      }
      return name;
    };
    OvfVallum& out = out_.vallum;
    if (element == "KeySet") {
      out.key_set = Printable(Get(attributes, "name"), 63);
      out.key_set_version = Number(Get(attributes, "version")).value_or(0);
      out.key_set_sha256 = Printable(Get(attributes, "sha256"), 64);
      ASSIGN_OR_RETURN(out.key_set_href, href());
    } else if (element == "Variables") {
      out.variable_origin = Printable(Get(attributes, "origin"), 500);
      ASSIGN_OR_RETURN(out.variables_href, href());
    } else if (element == "Tpm") {
      out.tpm_model = Printable(Get(attributes, "model"), 40);
      ASSIGN_OR_RETURN(out.tpm_href, href());
    }
    return Ok();
  }

  // Resolves references once all is read: DiskSection may stand anywhere.
  Result<OvfEnvelope> Finish() && {
    if (systems_ == 0) return Refused("no virtual machine");
    for (OvfDisk& disk : out_.disks) {
      if (disk.file_id.empty()) continue;
      const auto file = std::ranges::find(out_.files, disk.file_id, &OvfFile::id);
      if (file == out_.files.end()) {
        return Contradiction(fmt::format("disk {} refers to the file {}, which there is not",
                                         Printable(disk.id), Printable(disk.file_id)));
      }
      disk.href = file->href;
    }
    return std::move(out_);
  }

 private:
  // Disks and what they hang on, CPUs and memory are taken over; input devices nobody misses.
  void NoteDevice(const Item& item, std::string_view type) {
    constexpr std::array<std::string_view, 12> kKnown = {"3",  "4",  "5",  "6",  "13", "17",
                                                         "20", "18", "24", "23", "31", ""};
    if (std::ranges::find(kKnown, type) != kKnown.end() ||
        ToLower(Get(item, "ResourceSubType")) == "vmware.vtpm" ||
        out_.not_understood.size() == kOvfMaxNotes) {
      return;
    }
    const std::string_view name = Get(item, "ElementName");
    out_.not_understood.push_back(
        fmt::format("device \"{}\" of type {} is not taken over",
                    Printable(name.empty() ? Get(item, "Caption") : name, 80), Printable(type, 8)));
  }

  Result<void> AddFile(const Attributes& attributes) {
    if (out_.files.size() == kOvfMaxFiles) return Refused("too many files");
    OvfFile file;
    file.id = Get(attributes, "id");
    file.href = Get(attributes, "href");
    file.compression = Get(attributes, "compression");
    if (!IsPackageName(file.href)) {
      return Refused(
          fmt::format("the file {} is external: \"{}\"", Printable(file.id), Printable(file.href)));
    }
    if (attributes.contains("chunkSize")) {
      return Refused(fmt::format("the file {} is split into chunks", Printable(file.id)));
    }
    if (const std::string_view size = Get(attributes, "size"); !size.empty()) {
      file.size = Number(size);
      if (!file.size.has_value()) {
        return Refused(fmt::format("a file of \"{}\" bytes", Printable(size)));
      }
    }
    if (file.id.empty() || !file_ids_.insert(file.id).second) {
      return Contradiction(
          fmt::format("two files with the id \"{}\", or none", Printable(file.id)));
    }
    out_.files.push_back(std::move(file));
    return Ok();
  }

  Result<void> AddDisk(const Attributes& attributes) {
    if (out_.disks.size() == kOvfMaxFiles) return Refused("too many disks");
    OvfDisk disk;
    disk.id = Get(attributes, "diskId");
    disk.file_id = Get(attributes, "fileRef");
    disk.format = Get(attributes, "format");
    // Some exporters write the attribute, empty, where there is no parent.
    if (const std::string_view parent = Get(attributes, "parentRef"); !parent.empty()) {
      return Refused(fmt::format("disk {} has the parent {} (parentRef): a difference only",
                                 Printable(disk.id), Printable(parent)));
    }
    ASSIGN_OR_RETURN(disk.capacity,
                     Scaled("disk capacity", Get(attributes, "capacity"),
                            Get(attributes, "capacityAllocationUnits"), kOvfMaxCapacity));
    if (disk.id.empty() || !disk_ids_.insert(disk.id).second) {
      return Contradiction(
          fmt::format("two disks with the id \"{}\", or none", Printable(disk.id)));
    }
    out_.disks.push_back(std::move(disk));
    return Ok();
  }

  OvfEnvelope out_;
  size_t systems_ = 0;
  std::set<std::string, std::less<>> file_ids_;
  std::set<std::string, std::less<>> disk_ids_;
};

// Drives expat; its callbacks are C functions, so the first error is kept and stops the parser.
class Reader {
 public:
  Reader() : parser_(XML_ParserCreateNS(nullptr, kSeparator), &XML_ParserFree) {}

  Result<OvfEnvelope> Read(ByteView xml) {
    if (parser_ == nullptr) return Internal("an XML parser cannot be set up");
    XML_Parser parser = parser_.get();
    XML_SetUserData(parser, this);
    XML_SetElementHandler(parser, &OnStart, &OnEnd);
    XML_SetCharacterDataHandler(parser, &OnText);
    XML_SetStartDoctypeDeclHandler(parser, &OnDoctype);
    const XML_Status status = XML_Parse(parser, reinterpret_cast<const char*>(xml.data()),
                                        static_cast<int>(xml.size()), XML_TRUE);
    if (error_.has_value()) {
      return std::move(*error_).Context(fmt::format("line {}", line_));
    }
    if (status != XML_STATUS_OK) {
      return Refused(fmt::format("line {}: no well-formed XML: {}",
                                 XML_GetCurrentLineNumber(parser),
                                 XML_ErrorString(XML_GetErrorCode(parser))));
    }
    return std::move(builder_).Finish();
  }

 private:
  static Reader& Self(void* user) { return *static_cast<Reader*>(user); }

  static void XMLCALL OnStart(void* user, const XML_Char* name, const XML_Char** attributes) {
    Self(user).Keep(Self(user).Start(name, attributes));
  }
  static void XMLCALL OnEnd(void* user, const XML_Char* name) {
    Self(user).Keep(Self(user).End(LocalName(name)));
  }
  static void XMLCALL OnText(void* user, const XML_Char* text, int size) {
    Self(user).Keep(Self(user).Text(std::string_view(text, static_cast<size_t>(size))));
  }
  // Without a document type there can be no entities but XML's own five.
  static void XMLCALL OnDoctype(void* user, const XML_Char*, const XML_Char*, const XML_Char*,
                                int) {
    Self(user).Keep(Refused("a document type declaration (DTD)"));
  }

  void Keep(Result<void> result) {
    if (result.has_value() || error_.has_value()) return;
    error_ = std::move(result).error();
    line_ = XML_GetCurrentLineNumber(parser_.get());
    XML_StopParser(parser_.get(), XML_FALSE);
  }

  Result<void> Start(std::string_view name, const XML_Char** raw) {
    if (path_.empty() && !IsOvfEnvelope(name)) {
      return Refused("the document is no OVF envelope of version 1 or 2");
    }
    if (path_.size() == kOvfMaxDepth) return Refused("elements nested too deep");
    if (++elements_ > kOvfMaxElements) return Refused("too many elements");
    Attributes attributes;
    for (; *raw != nullptr; raw += 2) {
      // Some exporters leave the prefix out; where both stand, OVF's own counts.
      if (std::string_view(raw[0]).starts_with(kNamespace)) {
        attributes.insert_or_assign(std::string(LocalName(raw[0])), raw[1]);
      } else {
        attributes.emplace(LocalName(raw[0]), raw[1]);
      }
    }
    const std::string parent = path_.empty() ? std::string() : path_.back();
    path_.emplace_back(LocalName(name));
    text_.clear();
    if (IsItem(path_.back())) item_.clear();
    if (name.starts_with(kOurs)) return builder_.AddOurs(path_.back(), attributes);
    return builder_.Start(parent, path_.back(), attributes);
  }

  Result<void> End(std::string_view name) {
    // expat still ends an empty element after it was stopped at its start.
    if (error_.has_value()) return Ok();
    const std::string text = std::exchange(text_, std::string());
    path_.pop_back();
    if (path_.empty()) return Ok();
    const std::string& parent = path_.back();
    if (IsItem(parent)) item_.insert_or_assign(std::string(name), std::string(Trim(text)));
    if (IsMachine(parent)) {
      RETURN_IF_ERROR(builder_.AddOfMachine(name, Trim(text)));
    }
    if (IsItem(name)) return builder_.AddItem(item_);
    return Ok();
  }

  Result<void> Text(std::string_view text) {
    // Only what the elements that are read can hold: licences may be long.
    const bool wanted =
        path_.size() >= 2 && (IsItem(path_[path_.size() - 2]) || path_.back() == "Name" ||
                              path_.back() == "TrustedService" || path_.back() == "BiosType");
    if (!wanted) return Ok();
    if (text_.size() + text.size() > kOvfMaxText) return Refused("a text that is too long");
    text_ += text;
    return Ok();
  }

  static bool IsMachine(std::string_view name) {
    return name == "VirtualSystem" || name == "Content";
  }
  static bool IsItem(std::string_view name) {
    return name == "Item" || name == "StorageItem" || name == "EthernetPortItem";
  }

  std::unique_ptr<std::remove_pointer_t<XML_Parser>, decltype(&XML_ParserFree)> parser_;
  Builder builder_;
  std::vector<std::string> path_;
  std::string text_;
  Item item_;
  size_t elements_ = 0;
  std::optional<Error> error_;
  uint64_t line_ = 0;
};

}  // namespace

bool IsPackageName(std::string_view name) {
  constexpr std::string_view kForbidden = "\\:%?#*\"<>|";
  if (name.empty() || name.size() > 255) return false;
  for (const char c : name) {
    if (c < ' ' || c > '~' || kForbidden.find(c) != std::string_view::npos) return false;
  }
  return std::ranges::none_of(Split(name, '/'), [](const std::string& part) {
    return part.empty() || part == "." || part == "..";
  });
}

Result<OvfEnvelope> ParseOvf(ByteView xml) {
  if (xml.size() > kOvfMaxBytes) {
    return Refused(
        fmt::format("a descriptor of {} bytes; {} are accepted", xml.size(), kOvfMaxBytes));
  }
  return Reader().Read(xml);
}

}  // namespace vallum::formats
