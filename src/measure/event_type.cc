// SPDX-License-Identifier: Apache-2.0
#include "measure/event_type.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

namespace vallum::measure {
namespace {

struct TypeName {
  EventType type;
  std::string_view name;
};

constexpr std::array kNames = {
    TypeName{EventType::kPrebootCert, "EV_PREBOOT_CERT"},
    TypeName{EventType::kPostCode, "EV_POST_CODE"},
    TypeName{EventType::kUnused, "EV_UNUSED"},
    TypeName{EventType::kNoAction, "EV_NO_ACTION"},
    TypeName{EventType::kSeparator, "EV_SEPARATOR"},
    TypeName{EventType::kAction, "EV_ACTION"},
    TypeName{EventType::kEventTag, "EV_EVENT_TAG"},
    TypeName{EventType::kCrtmContents, "EV_S_CRTM_CONTENTS"},
    TypeName{EventType::kCrtmVersion, "EV_S_CRTM_VERSION"},
    TypeName{EventType::kCpuMicrocode, "EV_CPU_MICROCODE"},
    TypeName{EventType::kPlatformConfigFlags, "EV_PLATFORM_CONFIG_FLAGS"},
    TypeName{EventType::kTableOfDevices, "EV_TABLE_OF_DEVICES"},
    TypeName{EventType::kCompactHash, "EV_COMPACT_HASH"},
    TypeName{EventType::kIpl, "EV_IPL"},
    TypeName{EventType::kIplPartitionData, "EV_IPL_PARTITION_DATA"},
    TypeName{EventType::kNonhostCode, "EV_NONHOST_CODE"},
    TypeName{EventType::kNonhostConfig, "EV_NONHOST_CONFIG"},
    TypeName{EventType::kNonhostInfo, "EV_NONHOST_INFO"},
    TypeName{EventType::kOmitBootDeviceEvents, "EV_OMIT_BOOT_DEVICE_EVENTS"},
    TypeName{EventType::kPostCode2, "EV_POST_CODE2"},
    TypeName{EventType::kVariableDriverConfig, "EV_EFI_VARIABLE_DRIVER_CONFIG"},
    TypeName{EventType::kVariableBoot, "EV_EFI_VARIABLE_BOOT"},
    TypeName{EventType::kBootServicesApplication, "EV_EFI_BOOT_SERVICES_APPLICATION"},
    TypeName{EventType::kBootServicesDriver, "EV_EFI_BOOT_SERVICES_DRIVER"},
    TypeName{EventType::kRuntimeServicesDriver, "EV_EFI_RUNTIME_SERVICES_DRIVER"},
    TypeName{EventType::kGptEvent, "EV_EFI_GPT_EVENT"},
    TypeName{EventType::kEfiAction, "EV_EFI_ACTION"},
    TypeName{EventType::kFirmwareBlob, "EV_EFI_PLATFORM_FIRMWARE_BLOB"},
    TypeName{EventType::kHandoffTables, "EV_EFI_HANDOFF_TABLES"},
    TypeName{EventType::kFirmwareBlob2, "EV_EFI_PLATFORM_FIRMWARE_BLOB2"},
    TypeName{EventType::kHandoffTables2, "EV_EFI_HANDOFF_TABLES2"},
    TypeName{EventType::kVariableBoot2, "EV_EFI_VARIABLE_BOOT2"},
    TypeName{EventType::kGptEvent2, "EV_EFI_GPT_EVENT2"},
    TypeName{EventType::kHcrtmEvent, "EV_EFI_HCRTM_EVENT"},
    TypeName{EventType::kVariableAuthority, "EV_EFI_VARIABLE_AUTHORITY"},
    TypeName{EventType::kSpdmFirmwareBlob, "EV_EFI_SPDM_FIRMWARE_BLOB"},
    TypeName{EventType::kSpdmFirmwareConfig, "EV_EFI_SPDM_FIRMWARE_CONFIG"},
    TypeName{EventType::kSpdmDevicePolicy, "EV_EFI_SPDM_DEVICE_POLICY"},
    TypeName{EventType::kSpdmDeviceAuthority, "EV_EFI_SPDM_DEVICE_AUTHORITY"},
};

}  // namespace

std::string EventTypeName(EventType type) {
  const auto found = std::ranges::find(kNames, type, &TypeName::type);
  return found == kNames.end() ? fmt::format("0x{:08x}", static_cast<uint32_t>(type))
                               : std::string(found->name);
}

}  // namespace vallum::measure
