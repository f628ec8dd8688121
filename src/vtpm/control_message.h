// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/bytes.h"
#include "base/result.h"

// The framing of swtpm's control channel as QEMU speaks it (swtpm_ioctls(3)): big-endian, a request
// begins with the command's number, a response with a result code. Pure; bytes untrusted.
namespace vallum::vtpm {

// An open set: newer QEMUs may send numbers that are not here.
enum class ControlCommand : uint32_t {
  kGetCapability = 0x01,
  kInit = 0x02,
  kShutdown = 0x03,
  kGetTpmEstablished = 0x04,
  kSetLocality = 0x05,
  kHashStart = 0x06,
  kHashData = 0x07,
  kHashEnd = 0x08,
  kCancelTpmCommand = 0x09,
  kStoreVolatile = 0x0a,
  kResetTpmEstablished = 0x0b,
  kGetStateBlob = 0x0c,
  kSetStateBlob = 0x0d,
  kStop = 0x0e,
  kGetConfig = 0x0f,
  kSetDataFd = 0x10,
  kSetBufferSize = 0x11,
  kGetInfo = 0x12,
  kLockStorage = 0x13,
};

// State blobs are tens of kilobytes.
inline constexpr size_t kMaxControlMessage = size_t{1} << 20U;
inline constexpr uint32_t kControlSuccess = 0;
inline constexpr uint32_t kControlIoError = 0x1f;  // TPM_IOERROR: swtpm has a data channel already

// The command of a request; empty while it has fewer than 4 bytes.
std::optional<ControlCommand> ControlCommandOf(ByteView request);

// Size of the request at the front of what was received. Empty: more bytes are needed to tell. An
// unknown command is taken to be all that was received, as QEMU sends one and waits.
// Errors: kInvalidInput (larger than kMaxControlMessage).
Result<std::optional<size_t>> ControlRequestSize(ByteView received);

// Size of the response to a command. A response that reports an error, or to an unknown command,
// is all that was received: swtpm writes each response at once.
// Errors: kInvalidInput (larger than kMaxControlMessage).
Result<std::optional<size_t>> ControlResponseSize(ControlCommand command, ByteView received);

// The result code: of all responses but that to kGetCapability. Errors: kInvalidInput (truncated).
Result<uint32_t> ControlResult(ByteView response);

// A request that is its command alone, such as kGetCapability; the others have a body.
Bytes MakeControlRequest(ControlCommand command);
// CMD_INIT with no flags.
Bytes MakeControlInit();
Bytes MakeControlSetLocality(uint8_t locality);
Bytes MakeControlResult(uint32_t result);

}  // namespace vallum::vtpm
