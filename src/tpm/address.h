// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace vallum::tpm {

enum class TpmKind { kNone, kDevice, kUnixSocket, kTcpSocket };

// How the host's TPM is reached.
struct TpmAddress {
  TpmKind kind = TpmKind::kNone;
  std::string path;  // of the device or of swtpm's data socket
  std::string host;  // of swtpm's data socket
  std::string port;
  std::string absence;  // why there is none, for people
};

// The kernel's resource manager.
inline constexpr const char* kTpmDevice = "/dev/tpmrm0";

// Reads what an operator wrote: "auto" (the kernel's TPM if there is one), "none",
// "device:/dev/tpmrm0", "swtpm:host=H,port=P", "swtpm:path=/run/x.sock".
// Errors: kInvalidInput, with the forms that are taken. Looks for the device with "auto" only.
Result<TpmAddress> ParseTpmAddress(std::string_view text);

}  // namespace vallum::tpm
