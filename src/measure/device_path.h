// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

#include "base/bytes.h"

namespace vallum::measure {

// A device path as UEFI shells write it: "PciRoot(0x0)/Pci(0x1,0x1)/HD(1,GPT,...)/\EFI\x.efi".
//   path: EFI_DEVICE_PATH_PROTOCOL nodes; untrusted. The end node may be missing.
// Nodes that are not known, or too short for what they are, come as Path(type,subtype,hex); what
// does not hold together ends the text with "..." and the reason. "" for no path. At most
// kMaxDevicePathText bytes, cut with "...".
// Source: UEFI 2.10, sections 10.3 and 10.6. Pure; thread-safe.
std::string DevicePathToText(ByteView path);
inline constexpr size_t kMaxDevicePathText = 1024;

}  // namespace vallum::measure
