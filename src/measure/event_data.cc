// SPDX-License-Identifier: Apache-2.0
#include "measure/event_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "formats/text16.h"

namespace vallum::measure {
namespace {

using firmware::Guid;

constexpr size_t kGptHeaderSize = 92;
constexpr size_t kGptDiskGuidOffset = 56;
constexpr size_t kGptEntrySizeOffset = 84;
constexpr size_t kGptEntrySize = 128;
constexpr size_t kGptNameOffset = 56;
constexpr size_t kHandoffEntrySize = 24;
constexpr size_t kCcelSize = 56;
constexpr size_t kAcpiHeaderSize = 36;

// A name that two different byte strings never share.
std::string ExactName(ByteView bytes) {
  std::string text;
  for (size_t i = 0; i + 1 < bytes.size(); i += 2) {
    const unsigned unit =
        std::to_integer<unsigned>(bytes[i]) | std::to_integer<unsigned>(bytes[i + 1]) << 8U;
    text += unit >= 0x20 && unit < 0x7f && unit != '\\' ? std::string(1, static_cast<char>(unit))
                                                        : fmt::format("\\u{:04x}", unit);
  }
  return text;
}

Error Named(std::string_view what, const Error& error) {
  return Corrupt(fmt::format("{}: {}", what, error.message()));
}

Result<VariableEvent> ReadVariable(ByteView data) {
  ByteCursor cursor(data);
  VariableEvent event;
  ASSIGN_OR_RETURN(event.vendor, Guid::Read(cursor));
  ASSIGN_OR_RETURN(const uint64_t name_units, cursor.ReadU64Le());
  ASSIGN_OR_RETURN(const uint64_t data_size, cursor.ReadU64Le());
  if (name_units > cursor.remaining() / 2 || data_size > cursor.remaining() - 2 * name_units) {
    return Corrupt(fmt::format("a name of {} units and {} bytes of data in {} bytes", name_units,
                               data_size, cursor.remaining()));
  }
  ASSIGN_OR_RETURN(const ByteView name, cursor.ReadBytes(static_cast<size_t>(2 * name_units)));
  event.name = ExactName(name);
  ASSIGN_OR_RETURN(event.data, cursor.ReadBytes(static_cast<size_t>(data_size)));
  event.size = cursor.offset();
  return event;
}

Result<LoadOption> ReadLoadOption(ByteView value) {
  ByteCursor cursor(value);
  LoadOption option;
  ASSIGN_OR_RETURN(option.attributes, cursor.ReadU32Le());
  ASSIGN_OR_RETURN(const uint16_t path_size, cursor.ReadU16Le());
  const ByteView rest = cursor.Rest();
  size_t end = 0;
  while (end + 1 < rest.size() && (rest[end] != std::byte{0} || rest[end + 1] != std::byte{0})) {
    end += 2;
  }
  RETURN_IF_ERROR(cursor.Skip(end + 2));
  option.description = formats::Utf16LeToUtf8(rest.first(end));
  ASSIGN_OR_RETURN(option.device_path, cursor.ReadBytes(path_size));
  option.optional_data = cursor.Rest();
  return option;
}

Result<ImageLoadEvent> ReadImageLoad(ByteView data) {
  ByteCursor cursor(data);
  ImageLoadEvent event;
  ASSIGN_OR_RETURN(event.address, cursor.ReadU64Le());
  ASSIGN_OR_RETURN(event.size, cursor.ReadU64Le());
  ASSIGN_OR_RETURN(event.link_address, cursor.ReadU64Le());
  ASSIGN_OR_RETURN(const uint64_t path_size, cursor.ReadU64Le());
  if (path_size > cursor.remaining()) {
    return Corrupt(fmt::format("a device path of {} bytes in {}", path_size, cursor.remaining()));
  }
  ASSIGN_OR_RETURN(event.device_path, cursor.ReadBytes(static_cast<size_t>(path_size)));
  return event;
}

Result<GptEventPartition> ReadPartition(ByteView entry) {
  ByteCursor cursor(entry);
  GptEventPartition partition;
  ASSIGN_OR_RETURN(partition.type, Guid::Read(cursor));
  ASSIGN_OR_RETURN(partition.id, Guid::Read(cursor));
  ASSIGN_OR_RETURN(partition.first_block, cursor.ReadU64Le());
  ASSIGN_OR_RETURN(partition.last_block, cursor.ReadU64Le());
  partition.name = formats::Utf16LeToUtf8(entry.subspan(kGptNameOffset));
  return partition;
}

Result<GptEvent> ReadGpt(ByteView data) {
  ByteCursor cursor(data);
  GptEvent event;
  RETURN_IF_ERROR(cursor.Seek(kGptDiskGuidOffset));
  ASSIGN_OR_RETURN(event.disk, Guid::Read(cursor));
  RETURN_IF_ERROR(cursor.Seek(kGptEntrySizeOffset));
  ASSIGN_OR_RETURN(const uint32_t entry_size, cursor.ReadU32Le());
  RETURN_IF_ERROR(cursor.Seek(kGptHeaderSize));
  ASSIGN_OR_RETURN(const uint64_t count, cursor.ReadU64Le());
  if (entry_size < kGptEntrySize || count > cursor.remaining() / entry_size) {
    return Corrupt(fmt::format("{} partitions of {} bytes in {} bytes", count, entry_size,
                               cursor.remaining()));
  }
  for (uint64_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(const ByteView entry, cursor.ReadBytes(entry_size));
    ASSIGN_OR_RETURN(auto partition, ReadPartition(entry));
    event.partitions.push_back(std::move(partition));
  }
  return event;
}

// A length in one byte, then that many characters.
Result<std::string> ReadShortText(ByteCursor& cursor) {
  ASSIGN_OR_RETURN(const uint8_t size, cursor.ReadU8());
  ASSIGN_OR_RETURN(const ByteView text, cursor.ReadBytes(size));
  const std::string_view view = AsText(text);
  return std::string(view.substr(0, view.find('\0')));
}

Result<FirmwareBlobEvent> ReadBlob(ByteCursor cursor, std::string description) {
  FirmwareBlobEvent event;
  event.description = std::move(description);
  ASSIGN_OR_RETURN(event.base, cursor.ReadU64Le());
  ASSIGN_OR_RETURN(event.size, cursor.ReadU64Le());
  return event;
}

Result<HandoffTablesEvent> ReadTables(ByteCursor cursor, std::string description) {
  HandoffTablesEvent event;
  event.description = std::move(description);
  ASSIGN_OR_RETURN(const uint64_t count, cursor.ReadU64Le());
  if (count > cursor.remaining() / kHandoffEntrySize) {
    return Corrupt(fmt::format("{} tables in {} bytes", count, cursor.remaining()));
  }
  for (uint64_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(const Guid table, Guid::Read(cursor));
    RETURN_IF_ERROR(cursor.Skip(sizeof(uint64_t)));
    event.tables.push_back(table);
  }
  return event;
}

bool IsAsciiText(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) {
    return (c >= 0x20 && c < 0x7f) || c == '\n' || c == '\t' || c == '\r';
  });
}

bool IsUtf16Text(ByteView data) {
  if (data.size() < 2 || data.size() % 2 != 0) {
    return false;
  }
  size_t printable = 0;
  for (size_t i = 0; i < data.size(); i += 2) {
    const auto low = std::to_integer<uint8_t>(data[i]);
    const bool ascii = data[i + 1] == std::byte{0} && (low == 0 || (low >= 0x09 && low < 0x7f));
    printable += ascii ? 1U : 0U;
  }
  return printable == data.size() / 2 && data[0] != std::byte{0};
}

struct IplPrefix {
  std::string_view text;
  IplKind kind;
};
// GRUB 2.04 and later write the first three; GRUB with measurement to RTMRs the others.
constexpr std::array kIplPrefixes = {
    IplPrefix{"grub_cmd: ", IplKind::kGrubCommand},
    IplPrefix{"kernel_cmdline: ", IplKind::kCommandLine},
    IplPrefix{"module_cmdline: ", IplKind::kCommandLine},
    IplPrefix{"grub_cmd ", IplKind::kGrubCommand},
    IplPrefix{"grub_kernel_cmdline ", IplKind::kCommandLine},
};

const IplPrefix* FindIplPrefix(std::string_view text) {
  const auto* const found = std::ranges::find_if(
      kIplPrefixes, [&](const IplPrefix& prefix) { return text.starts_with(prefix.text); });
  return found == kIplPrefixes.end() ? nullptr : found;
}

std::string_view TextBeforeZero(ByteView data) {
  const std::string_view all = AsText(data);
  return all.substr(0, all.find('\0'));
}

}  // namespace

Result<VariableEvent> ParseVariableEvent(ByteView data) {
  auto event = ReadVariable(data);
  if (!event.has_value()) {
    return Named("UEFI_VARIABLE_DATA", event.error());
  }
  return event;
}

Result<std::vector<uint16_t>> ParseBootOrder(ByteView value) {
  if (value.size() % 2 != 0) {
    return Corrupt(fmt::format("BootOrder of {} bytes", value.size()));
  }
  std::vector<uint16_t> order;
  ByteCursor cursor(value);
  while (!cursor.AtEnd()) {
    ASSIGN_OR_RETURN(const uint16_t number, cursor.ReadU16Le());
    order.push_back(number);
  }
  return order;
}

Result<LoadOption> ParseLoadOption(ByteView value) {
  auto option = ReadLoadOption(value);
  if (!option.has_value()) {
    return Named("EFI_LOAD_OPTION", option.error());
  }
  return option;
}

Result<ImageLoadEvent> ParseImageLoadEvent(ByteView data) {
  auto event = ReadImageLoad(data);
  if (!event.has_value()) {
    return Named("UEFI_IMAGE_LOAD_EVENT", event.error());
  }
  return event;
}

Result<GptEvent> ParseGptEvent(ByteView data) {
  auto event = ReadGpt(data);
  if (!event.has_value()) {
    return Named("UEFI_GPT_DATA", event.error());
  }
  return event;
}

Result<FirmwareBlobEvent> ParseFirmwareBlob(ByteView data) {
  auto event = ReadBlob(ByteCursor(data), "");
  if (!event.has_value()) {
    return Named("UEFI_PLATFORM_FIRMWARE_BLOB", event.error());
  }
  return event;
}

Result<FirmwareBlobEvent> ParseFirmwareBlob2(ByteView data) {
  ByteCursor cursor(data);
  auto description = ReadShortText(cursor);
  if (!description.has_value()) {
    return Named("UEFI_PLATFORM_FIRMWARE_BLOB2", description.error());
  }
  auto event = ReadBlob(cursor, *std::move(description));
  if (!event.has_value()) {
    return Named("UEFI_PLATFORM_FIRMWARE_BLOB2", event.error());
  }
  return event;
}

Result<HandoffTablesEvent> ParseHandoffTables(ByteView data) {
  auto event = ReadTables(ByteCursor(data), "");
  if (!event.has_value()) {
    return Named("UEFI_HANDOFF_TABLE_POINTERS", event.error());
  }
  return event;
}

Result<HandoffTablesEvent> ParseHandoffTables2(ByteView data) {
  ByteCursor cursor(data);
  auto description = ReadShortText(cursor);
  if (!description.has_value()) {
    return Named("UEFI_HANDOFF_TABLE_POINTERS2", description.error());
  }
  auto event = ReadTables(cursor, *std::move(description));
  if (!event.has_value()) {
    return Named("UEFI_HANDOFF_TABLE_POINTERS2", event.error());
  }
  return event;
}

Result<TaggedEvent> ParseTaggedEvent(ByteView data) {
  ByteCursor cursor(data);
  const auto id = cursor.ReadU32Le();
  const auto size = cursor.ReadU32Le();
  if (!id.has_value() || !size.has_value() || *size > cursor.remaining()) {
    return Corrupt(fmt::format("TCG_PCClientTaggedEvent: {} bytes do not hold it", data.size()));
  }
  return TaggedEvent{.id = *id, .data = cursor.Rest().first(*size)};
}

SeparatorKind ParseSeparator(ByteView data) {
  ByteCursor cursor(data);
  const auto value = cursor.ReadU32Le();
  if (!value.has_value() || !cursor.AtEnd()) {
    return SeparatorKind::kOther;
  }
  if (*value == 0 || *value == UINT32_MAX) {
    return SeparatorKind::kNormal;
  }
  if (*value == 1) {
    return SeparatorKind::kError;
  }
  return AsText(data) == "WBCL" ? SeparatorKind::kWindows : SeparatorKind::kOther;
}

std::optional<ByteView> GrubTextOf(ByteView data) {
  const std::string_view text = TextBeforeZero(data);
  const IplPrefix* const prefix = FindIplPrefix(text);
  if (prefix == nullptr) return std::nullopt;
  return AsBytes(text.substr(prefix->text.size()));
}

IplEvent ParseIplEvent(ByteView data) {
  const std::string_view text = TextBeforeZero(data);
  if (const IplPrefix* const prefix = FindIplPrefix(text); prefix != nullptr) {
    const std::string_view rest = text.substr(prefix->text.size());
    return {.kind = prefix->kind, .text = std::string(rest), .measured = AsBytes(rest)};
  }
  auto words = ParseEventText(data);
  if (!words.has_value()) {
    return {};
  }
  const bool ascii = IsAsciiText(text) && text.size() + 2 > data.size();
  return {.kind = ascii ? IplKind::kText : IplKind::kUtf16Text,
          .text = *std::move(words),
          .measured = {}};
}

std::optional<std::string> ParseEventText(ByteView data) {
  std::string_view text = AsText(data);
  text = text.substr(0, text.find_last_not_of('\0') + 1);
  if (IsAsciiText(text) && text.size() > 1) {
    return std::string(text);
  }
  if (IsUtf16Text(data)) {
    return formats::Utf16LeToUtf8(data);
  }
  return std::nullopt;
}

Result<CcelTable> ParseCcelTable(ByteView table) {
  if (!AsText(table).starts_with("CCEL")) {
    return InvalidInput("no CCEL table: its signature is another");
  }
  ByteCursor cursor(table);
  RETURN_IF_ERROR(cursor.Skip(4));
  const auto length = cursor.ReadU32Le();
  if (table.size() != kCcelSize || !length.has_value() || *length != kCcelSize) {
    return Corrupt(fmt::format("a CCEL table of {} bytes; it has {}", table.size(), kCcelSize));
  }
  const unsigned sum = std::accumulate(table.begin(), table.end(), 0U, [](unsigned s, std::byte b) {
    return s + std::to_integer<unsigned>(b);
  });
  if (sum % 256 != 0) {
    return Corrupt("the CCEL table's check sum does not match");
  }
  CcelTable out;
  RETURN_IF_ERROR(cursor.Seek(kAcpiHeaderSize));
  ASSIGN_OR_RETURN(out.type, cursor.ReadU8());
  ASSIGN_OR_RETURN(out.subtype, cursor.ReadU8());
  RETURN_IF_ERROR(cursor.Skip(2));
  ASSIGN_OR_RETURN(out.log_size, cursor.ReadU64Le());
  ASSIGN_OR_RETURN(out.log_address, cursor.ReadU64Le());
  return out;
}

}  // namespace vallum::measure
