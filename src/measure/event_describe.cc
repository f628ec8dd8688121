// SPDX-License-Identifier: Apache-2.0
#include "measure/event_describe.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>
#include <vector>

#include "base/text.h"
#include "firmware/signature_list.h"
#include "measure/device_path.h"
#include "measure/event_data.h"

namespace vallum::measure {
namespace {

constexpr size_t kShownBytes = 16;
constexpr size_t kShownKeys = 4;
constexpr size_t kShownPartitions = 8;

std::string Unexplained(ByteView data) {
  if (data.empty()) {
    return "no data";
  }
  if (const auto text = ParseEventText(data); text.has_value()) {
    return fmt::format("\"{}\"", *text);
  }
  return fmt::format("{} bytes: {}{}", data.size(),
                     ToHex(data.first(std::min(data.size(), kShownBytes))),
                     data.size() > kShownBytes ? "..." : "");
}

std::string Counted(size_t count, std::string_view one, std::string_view many) {
  return fmt::format("{} {}", count, count == 1 ? one : many);
}

std::string Malformed(const Error& error, ByteView data) {
  return fmt::format("malformed ({}); {}", error.message(), Unexplained(data));
}

std::string DescribeKeys(ByteView value) {
  const auto keys = firmware::ParseSignatureLists(value);
  if (!keys.has_value()) {
    return "no signature list: " + keys.error().message();
  }
  if (keys->empty()) {
    return "empty";
  }
  std::string text = Counted(keys->size(), "entry", "entries");
  for (size_t i = 0; i < std::min(keys->size(), kShownKeys); ++i) {
    text += (i == 0 ? ": " : ", ") + DescribeSignature((*keys)[i]);
  }
  return text + (keys->size() > kShownKeys ? ", ..." : "");
}

bool IsKeyVariable(const VariableEvent& variable) {
  static constexpr std::array<std::string_view, 6> kNames = {"PK",  "KEK", "db",
                                                             "dbx", "dbt", "dbr"};
  static constexpr std::array<std::string_view, 3> kShimNames = {"MokList", "MokListX",
                                                                 "vendor_db"};
  return ((variable.vendor == firmware::kGlobalVariableGuid ||
           variable.vendor == firmware::kSecurityDatabaseGuid) &&
          std::ranges::find(kNames, variable.name) != kNames.end()) ||
         (variable.vendor == firmware::kShimLockGuid &&
          std::ranges::find(kShimNames, variable.name) != kShimNames.end());
}

// "Boot0001" and "Boot00AF", not "BootOrder".
bool IsBootOption(std::string_view name) {
  constexpr std::string_view kPrefix = "Boot";
  return name.size() == kPrefix.size() + 4 && name.starts_with(kPrefix) &&
         std::ranges::all_of(name.substr(kPrefix.size()),
                             [](unsigned char c) { return std::isxdigit(c) != 0; });
}

std::string DescribeBootOrder(ByteView value) {
  const auto order = ParseBootOrder(value);
  if (!order.has_value()) {
    return order.error().message();
  }
  std::string text;
  for (const uint16_t number : *order) {
    if (text.size() > kMaxEventDescription) {
      break;
    }
    text += (text.empty() ? "" : ", ") + fmt::format("{:04X}", number);
  }
  return text.empty() ? "empty" : text;
}

std::string DescribeBootOption(ByteView value) {
  const auto option = ParseLoadOption(value);
  if (!option.has_value()) {
    return Malformed(option.error(), value);
  }
  return fmt::format("\"{}\"{} {}", option->description,
                     (option->attributes & 1U) != 0 ? "" : " (inactive)",
                     DevicePathToText(option->device_path));
}

std::string DescribeVariable(EventType type, ByteView data) {
  const auto variable = ParseVariableEvent(data);
  if (!variable.has_value()) {
    return Malformed(variable.error(), data);
  }
  const ByteView value = variable->data;
  std::string text = variable->name + ": ";
  if (type == EventType::kVariableAuthority) {
    constexpr size_t kOwner = 16;
    constexpr std::byte kDerSequence{0x30};
    const bool owned = value.size() > kOwner && value[kOwner] == kDerSequence;
    const bool bare = !value.empty() && value[0] == kDerSequence;
    if (owned || bare) {
      return text + DescribeSignature(firmware::MakeSignature(
                        firmware::SignatureType::kX509, {}, bare ? value : value.subspan(kOwner)));
    }
    return text + Unexplained(value);
  }
  if (IsKeyVariable(*variable)) {
    return text + DescribeKeys(value);
  }
  if (variable->vendor == firmware::kGlobalVariableGuid && variable->name == "BootOrder") {
    return text + DescribeBootOrder(value);
  }
  if (variable->vendor == firmware::kGlobalVariableGuid && IsBootOption(variable->name)) {
    return text + DescribeBootOption(value);
  }
  return text + Unexplained(value);
}

std::string DescribeImage(ByteView data) {
  const auto image = ParseImageLoadEvent(data);
  if (!image.has_value()) {
    return Malformed(image.error(), data);
  }
  const std::string path = DevicePathToText(image->device_path);
  return path.empty() ? "a program without a path, started by a loader" : path;
}

std::string DescribeGpt(ByteView data) {
  const auto gpt = ParseGptEvent(data);
  if (!gpt.has_value()) {
    return Malformed(gpt.error(), data);
  }
  std::string text = fmt::format("disk {}, {}", gpt->disk.ToString(),
                                 Counted(gpt->partitions.size(), "partition", "partitions"));
  for (size_t i = 0; i < std::min(gpt->partitions.size(), kShownPartitions); ++i) {
    const GptEventPartition& each = gpt->partitions[i];
    text += fmt::format("{} {} ({}-{})", i == 0 ? ":" : ",",
                        each.name.empty() ? each.id.ToString() : each.name, each.first_block,
                        each.last_block);
  }
  return text;
}

std::string DescribeBlob(const Result<FirmwareBlobEvent>& blob, ByteView data) {
  // Some firmware logs a text where the structure should stand.
  if (!blob.has_value() || ParseEventText(data).has_value()) {
    return Unexplained(data);
  }
  return fmt::format("{}{}{} bytes at 0x{:x}", blob->description,
                     blob->description.empty() ? "" : ", ", blob->size, blob->base);
}

std::string DescribeTables(const Result<HandoffTablesEvent>& event, ByteView data) {
  if (!event.has_value()) {
    return Malformed(event.error(), data);
  }
  std::string text = event->description + (event->description.empty() ? "" : ", ") +
                     Counted(event->tables.size(), "table", "tables");
  for (size_t i = 0; i < std::min(event->tables.size(), kShownKeys); ++i) {
    text += (i == 0 ? ": " : ", ") + event->tables[i].ToString();
  }
  return text;
}

std::string DescribeSeparator(ByteView data) {
  switch (ParseSeparator(data)) {
    case SeparatorKind::kNormal:
      return "the part before it is complete";
    case SeparatorKind::kError:
      return "the firmware failed to measure";
    case SeparatorKind::kWindows:
      return "WBCL: the part of Windows' boot manager is complete";
    case SeparatorKind::kOther:
      break;
  }
  return Unexplained(data);
}

struct TagName {
  uint32_t id;
  std::string_view name;
};
// Linux' EFI stub, systemd-boot and systemd-stub.
constexpr std::array kTags = {
    TagName{0x8f3b22ec, "the kernel's initrd"},
    TagName{0x8f3b22ed, "the kernel's command line"},
    TagName{0xf5bc582a, "systemd-boot's loader.conf"},
    TagName{0x6c46f751, "devicetree add-on"},
    TagName{0x49dffe0f, "initrd add-on"},
    TagName{0xdac08e1a, "microcode add-on"},
    TagName{0x13aed6db, "profile of the unified kernel image"},
};

std::string DescribeTag(ByteView data) {
  const auto tag = ParseTaggedEvent(data);
  if (!tag.has_value()) {
    return Unexplained(data);
  }
  const auto known = std::ranges::find(kTags, tag->id, &TagName::id);
  const std::string name =
      known == kTags.end() ? fmt::format("tag 0x{:08x}", tag->id) : std::string(known->name);
  return name + ": " + Unexplained(tag->data);
}

// What systemd-stub says of a measurement, as UTF-16: the section's name, the command line itself,
// or what the initrd is that it made of files beside the image.
// Source: systemd-stub(7), "TPM PCR Notes"; src/boot/efi/stub.c (pack_cpio).
std::string DescribeStubText(uint32_t pcr, const std::string& text) {
  constexpr uint32_t kSectionsPcr = 11;
  constexpr uint32_t kParametersPcr = 12;
  constexpr uint32_t kExtensionsPcr = 13;
  static constexpr std::array<std::string_view, 4> kMadeInitrds = {
      "Credentials initrd", "Global credentials initrd", "Configuration extension initrd",
      "System extension initrd"};
  const bool made = std::ranges::find(kMadeInitrds, text) != kMadeInitrds.end();
  switch (pcr) {
    case kSectionsPcr:
      return "section of the unified kernel image: " + text;
    case kParametersPcr:
      return (made ? "files beside the unified kernel image: " : "kernel parameters: ") + text;
    case kExtensionsPcr:
      return "extensions beside the unified kernel image: " + text;
  }
  return text;
}

std::string DescribeIpl(const LoggedEvent& event) {
  const IplEvent ipl = ParseIplEvent(event.data);
  switch (ipl.kind) {
    case IplKind::kGrubCommand:
      return "GRUB ran: " + ipl.text;
    case IplKind::kCommandLine:
      return "command line: " + ipl.text;
    case IplKind::kText:
      return ipl.text;
    case IplKind::kUtf16Text:
      return DescribeStubText(event.index, ipl.text);
    case IplKind::kOther:
      break;
  }
  return Unexplained(event.data);
}

std::string DescribeNoAction(const EventLog& log, const LoggedEvent& event) {
  const std::string_view text = AsText(event.data);
  if (&event == log.events().data() && log.spec_id().has_value()) {
    const SpecIdEvent& spec = *log.spec_id();
    std::string banks;
    for (const LogBank& bank : log.banks()) {
      banks += " " + bank.Name();
    }
    return fmt::format("TCG log {}.{}, errata {}, banks:{}", spec.version_major, spec.version_minor,
                       spec.errata, banks);
  }
  if (text.starts_with("StartupLocality") && !event.data.empty()) {
    return fmt::format("the TPM was started from locality {}",
                       std::to_integer<unsigned>(event.data.back()));
  }
  return text.starts_with("SP800-155 Event")
             ? "reference to the vendor's expected measurements (SP 800-155)"
             : Unexplained(event.data);
}

std::string Describe(const EventLog& log, const LoggedEvent& event) {
  switch (event.type) {
    case EventType::kNoAction:
      return DescribeNoAction(log, event);
    case EventType::kSeparator:
      return DescribeSeparator(event.data);
    case EventType::kVariableDriverConfig:
    case EventType::kVariableBoot:
    case EventType::kVariableBoot2:
    case EventType::kVariableAuthority:
      return DescribeVariable(event.type, event.data);
    case EventType::kBootServicesApplication:
    case EventType::kBootServicesDriver:
    case EventType::kRuntimeServicesDriver:
      return DescribeImage(event.data);
    case EventType::kGptEvent:
    case EventType::kGptEvent2:
      return DescribeGpt(event.data);
    case EventType::kFirmwareBlob:
    case EventType::kPostCode:
      return DescribeBlob(ParseFirmwareBlob(event.data), event.data);
    case EventType::kFirmwareBlob2:
    case EventType::kPostCode2:
      return DescribeBlob(ParseFirmwareBlob2(event.data), event.data);
    case EventType::kHandoffTables:
      return DescribeTables(ParseHandoffTables(event.data), event.data);
    case EventType::kHandoffTables2:
      return DescribeTables(ParseHandoffTables2(event.data), event.data);
    case EventType::kEventTag:
      return DescribeTag(event.data);
    case EventType::kIpl:
      return DescribeIpl(event);
    default:  // what a log holds is not limited to the enumerators
      return Unexplained(event.data);
  }
}

}  // namespace

std::string DescribeEvent(const EventLog& log, const LoggedEvent& event) {
  return Printable(Describe(log, event), kMaxEventDescription);
}

}  // namespace vallum::measure
