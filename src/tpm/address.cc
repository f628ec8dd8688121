// SPDX-License-Identifier: Apache-2.0
#include "tpm/address.h"

#include <unistd.h>

#include "base/text.h"

namespace vallum::tpm {
namespace {

Error Unreadable(std::string_view text) {
  return InvalidInput("'" + Printable(text) + "' names no TPM")
      .WithFix(
          "write auto, none, device:/dev/tpmrm0, swtpm:host=127.0.0.1,port=2321 or "
          "swtpm:path=/run/tpm.sock");
}

Result<TpmAddress> ParseSocket(std::string_view text, std::string_view settings) {
  TpmAddress address;
  for (const std::string& part : Split(settings, ',')) {
    const size_t equals = part.find('=');
    const std::string key = part.substr(0, equals);
    std::string* const target = key == "host"   ? &address.host
                                : key == "port" ? &address.port
                                : key == "path" ? &address.path
                                                : nullptr;
    if (target == nullptr || !target->empty() || equals >= part.size() - 1) {
      return Unreadable(text);
    }
    *target = part.substr(equals + 1);
  }
  const bool is_path = !address.path.empty();
  if (is_path ? !address.host.empty() || !address.port.empty() || address.path.front() != '/'
              : address.host.empty() || address.port.empty()) {
    return Unreadable(text);
  }
  address.kind = is_path ? TpmKind::kUnixSocket : TpmKind::kTcpSocket;
  return address;
}

}  // namespace

Result<TpmAddress> ParseTpmAddress(std::string_view text) {
  constexpr std::string_view kDevice = "device:";
  constexpr std::string_view kSocket = "swtpm:";
  TpmAddress address;
  if (text == "none") {
    address.absence = "the agent was told to use no TPM (--tpm none)";
    return address;
  }
  if (text == "auto") {
    const bool there = access(kTpmDevice, F_OK) == 0;
    address.kind = there ? TpmKind::kDevice : TpmKind::kNone;
    address.path = there ? kTpmDevice : "";
    address.absence = there ? ""
                            : std::string("this host has no ") + kTpmDevice +
                                  ": no TPM 2.0, switched off in the firmware, or the kernel has "
                                  "no driver for it";
    return address;
  }
  if (text.starts_with(kDevice) && text.substr(kDevice.size()).starts_with('/')) {
    address.kind = TpmKind::kDevice;
    address.path = text.substr(kDevice.size());
    return address;
  }
  return text.starts_with(kSocket) ? ParseSocket(text, text.substr(kSocket.size()))
                                   : Unreadable(text);
}

}  // namespace vallum::tpm
