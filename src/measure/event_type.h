// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace vallum::measure {

// What an event says that it is; a log may hold values that are not listed here.
// Source: TCG PC Client Platform Firmware Profile 1.06, section 10.4.1.
enum class EventType : uint32_t {
  kPrebootCert = 0x00,
  kPostCode = 0x01,
  kUnused = 0x02,
  kNoAction = 0x03,  // extends nothing
  kSeparator = 0x04,
  kAction = 0x05,
  kEventTag = 0x06,
  kCrtmContents = 0x07,
  kCrtmVersion = 0x08,
  kCpuMicrocode = 0x09,
  kPlatformConfigFlags = 0x0a,
  kTableOfDevices = 0x0b,
  kCompactHash = 0x0c,
  kIpl = 0x0d,
  kIplPartitionData = 0x0e,
  kNonhostCode = 0x0f,
  kNonhostConfig = 0x10,
  kNonhostInfo = 0x11,
  kOmitBootDeviceEvents = 0x12,
  kPostCode2 = 0x13,
  kVariableDriverConfig = 0x80000001,
  kVariableBoot = 0x80000002,
  kBootServicesApplication = 0x80000003,
  kBootServicesDriver = 0x80000004,
  kRuntimeServicesDriver = 0x80000005,
  kGptEvent = 0x80000006,
  kEfiAction = 0x80000007,
  kFirmwareBlob = 0x80000008,
  kHandoffTables = 0x80000009,
  kFirmwareBlob2 = 0x8000000a,
  kHandoffTables2 = 0x8000000b,
  kVariableBoot2 = 0x8000000c,
  kGptEvent2 = 0x8000000d,
  kHcrtmEvent = 0x80000010,
  kVariableAuthority = 0x800000e0,
  kSpdmFirmwareBlob = 0x800000e1,
  kSpdmFirmwareConfig = 0x800000e2,
  kSpdmDevicePolicy = 0x800000e3,
  kSpdmDeviceAuthority = 0x800000e4,
};

// "EV_SEPARATOR"; "0x0000040e" for a type that the profile does not list.
std::string EventTypeName(EventType type);

}  // namespace vallum::measure
