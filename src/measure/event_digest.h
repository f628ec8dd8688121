// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <string_view>

#include "base/bytes.h"
#include "base/digest.h"
#include "firmware/guid.h"

namespace vallum::measure {

// The UEFI_VARIABLE_DATA that firmware and shim log: vendor, lengths, name in UTF-16 without a
// closing zero, data (TCG PC Client Platform Firmware Profile, section 10.2.6).
//   name: ASCII.
Bytes EncodeVariableData(std::string_view name, const firmware::Guid& vendor, ByteView data);

// The digest of EV_EFI_VARIABLE_DRIVER_CONFIG (the variable's whole value) and of
// EV_EFI_VARIABLE_AUTHORITY (the EFI_SIGNATURE_DATA that was used): over UEFI_VARIABLE_DATA.
Bytes VariableEventDigest(HashAlgorithm bank, std::string_view name, const firmware::Guid& vendor,
                          ByteView data);

// The digest of EV_SEPARATOR at the end of a PCR's pre-boot part: over four zero bytes.
Bytes SeparatorDigest(HashAlgorithm bank);
// The digest of the EV_SEPARATOR by which firmware says that measuring failed: over the value 1.
Bytes ErrorSeparatorDigest(HashAlgorithm bank);

// What firmware measures as EV_EFI_ACTION around boot options, into PCR 4, and when the loader
// hands over, into PCR 5. Source: TCG PC Client Platform Firmware Profile 1.05, EV_EFI_ACTION.
inline constexpr std::string_view kActionCalling = "Calling EFI Application from Boot Option";
inline constexpr std::string_view kActionReturning =
    "Returning from EFI Application from Boot Option";
inline constexpr std::string_view kActionExitInvoked = "Exit Boot Services Invocation";
inline constexpr std::string_view kActionExitFailed = "Exit Boot Services Returned with Failure";
inline constexpr std::string_view kActionExitSucceeded = "Exit Boot Services Returned with Success";
inline constexpr std::array kBootActions = {kActionCalling, kActionReturning, kActionExitInvoked,
                                            kActionExitFailed, kActionExitSucceeded};
// The digest of EV_EFI_ACTION: over the text, without a closing zero.
Bytes ActionDigest(HashAlgorithm bank, std::string_view text);

}  // namespace vallum::measure
