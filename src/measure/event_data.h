// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "firmware/guid.h"

// What the data of an event means, by its type. Each parser takes the data of one event: untrusted,
// and true only if the event's digest covers it (event_content.h). Views point into that data.
// Errors of all: kCorrupt, naming what does not fit. Pure; thread-safe.
// Source: PC Client Platform Firmware Profile 1.06, section 10.2 and 10.4.
namespace vallum::measure {

// UEFI_VARIABLE_DATA: EV_EFI_VARIABLE_*.
struct VariableEvent {
  firmware::Guid vendor;
  std::string name;  // printable ASCII as it is, any other unit as \uXXXX: "SecureBoot"
  ByteView data;
  size_t size = 0;  // of the structure; some loaders log bytes beyond it
};
Result<VariableEvent> ParseVariableEvent(ByteView data);

// The value of BootOrder: numbers of Boot#### options.
Result<std::vector<uint16_t>> ParseBootOrder(ByteView value);

// EFI_LOAD_OPTION: the value of Boot####. Source: UEFI 2.10, section 3.1.3.
struct LoadOption {
  uint32_t attributes = 0;  // bit 0: active
  std::string description;
  ByteView device_path;
  ByteView optional_data;
};
Result<LoadOption> ParseLoadOption(ByteView value);

// UEFI_IMAGE_LOAD_EVENT: EV_EFI_BOOT_SERVICES_* and EV_EFI_RUNTIME_SERVICES_DRIVER.
struct ImageLoadEvent {
  uint64_t address = 0;
  uint64_t size = 0;
  uint64_t link_address = 0;
  ByteView device_path;  // may be empty: GRUB and shim do not give one for a kernel
};
Result<ImageLoadEvent> ParseImageLoadEvent(ByteView data);

// UEFI_GPT_DATA: EV_EFI_GPT_EVENT*.
struct GptEventPartition {
  firmware::Guid type;
  firmware::Guid id;
  uint64_t first_block = 0;
  uint64_t last_block = 0;
  std::string name;
};
struct GptEvent {
  firmware::Guid disk;
  std::vector<GptEventPartition> partitions;
};
Result<GptEvent> ParseGptEvent(ByteView data);

// UEFI_PLATFORM_FIRMWARE_BLOB (no description) and UEFI_PLATFORM_FIRMWARE_BLOB2.
struct FirmwareBlobEvent {
  std::string description;
  uint64_t base = 0;
  uint64_t size = 0;
};
Result<FirmwareBlobEvent> ParseFirmwareBlob(ByteView data);
Result<FirmwareBlobEvent> ParseFirmwareBlob2(ByteView data);

// UEFI_HANDOFF_TABLE_POINTERS (no description) and UEFI_HANDOFF_TABLE_POINTERS2.
struct HandoffTablesEvent {
  std::string description;
  std::vector<firmware::Guid> tables;
};
Result<HandoffTablesEvent> ParseHandoffTables(ByteView data);
Result<HandoffTablesEvent> ParseHandoffTables2(ByteView data);

// TCG_PCClientTaggedEvent: EV_EVENT_TAG.
struct TaggedEvent {
  uint32_t id = 0;
  ByteView data;
};
Result<TaggedEvent> ParseTaggedEvent(ByteView data);

// What an EV_SEPARATOR's data says.
enum class SeparatorKind {
  kNormal,   // 0 or 0xFFFFFFFF
  kError,    // 1: the firmware could not measure
  kWindows,  // "WBCL": Windows' boot manager ends its part
  kOther,
};
SeparatorKind ParseSeparator(ByteView data);

// A measurement that a loader logged as EV_IPL. Each writer has its own form.
enum class IplKind {
  kGrubCommand,  // "grub_cmd: linux /vmlinuz"; its digest is of the command
  kCommandLine,  // "kernel_cmdline: /vmlinuz ro", of a kernel or ("module_cmdline: ") a module
  kText,         // ASCII: a file's path (GRUB), a variable's name (shim)
  kUtf16Text,    // systemd-boot, systemd-stub
  kOther,
};
struct IplEvent {
  IplKind kind = IplKind::kOther;
  std::string text;   // without its prefix and closing zeros; UTF-8
  ByteView measured;  // kGrubCommand, kCommandLine: what the digest should be of
};
IplEvent ParseIplEvent(ByteView data);

// IplEvent::measured alone, without making its text.
//   Result: nothing for what is neither kGrubCommand nor kCommandLine.
std::optional<ByteView> GrubTextOf(ByteView data);

// The text of an event whose data is printable ASCII or UTF-16 with or without closing zeros.
std::optional<std::string> ParseEventText(ByteView data);

// The CCEL table of ACPI: where firmware keeps the confidential computing event log.
// Source: UEFI 2.10, section 38.4 ("CCEL").
struct CcelTable {
  uint8_t type = 0;  // 1 SEV, 2 TDX
  uint8_t subtype = 0;
  uint64_t log_size = 0;     // LAML: bytes of the log area
  uint64_t log_address = 0;  // LASA: physical
};
// table: the whole table, as /sys/firmware/acpi/tables/CCEL. Errors: kInvalidInput (another table),
// kCorrupt (length, check sum).
Result<CcelTable> ParseCcelTable(ByteView table);

}  // namespace vallum::measure
