// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"
#include "base/units.h"
#include "measure/extend_log.h"
#include "vtpm/control_client.h"

// What TPM 2.0 commands do to PCRs (TCG TPM 2.0 Library, part 3), and the few commands that the
// host sends itself. Pure; all bytes untrusted.
namespace vallum::vtpm {

inline constexpr size_t kTpmHeaderSize = 10;
// libtpms works with 4096 bytes; the rest is room for other versions.
inline constexpr size_t kMaxTpmMessage = size_t{16} << 10U;
inline constexpr uint32_t kTpmSuccess = 0;
inline constexpr uint32_t kTpmCanceled = 0x909;

// Whether authorizations follow a command's handles.
enum class TpmTag : uint16_t { kNoSessions = 0x8001, kSessions = 0x8002 };
// A command: its header, with the size, before what follows it.
Bytes MakeCommand(TpmTag tag, uint32_t code, ByteView body);

// Size of the command or response at the front of a stream, by its header.
// Returns empty while the header is incomplete.
// Errors: kInvalidInput (a size that no message has: the stream cannot be cut into messages).
Result<std::optional<size_t>> TpmMessageSize(ByteView buffered);

// The response code. Errors: kInvalidInput (shorter than a header, or not of the size it says).
Result<uint32_t> ResponseCode(ByteView response);

struct ExtendCommand {
  std::optional<PcrIndex> pcr;  // empty: TPM_RH_NULL, extends nothing
  std::vector<std::pair<HashAlgorithm, Bytes>> digests;
};
// PCR_Event, EventSequenceComplete: the response says which digests went into the PCR.
struct EventCommand {
  std::optional<PcrIndex> pcr;
};
struct PcrResetCommand {
  PcrIndex pcr;
};
struct StartupCommand {
  measure::StartupType type;
};
struct ShutdownCommand {
  measure::StartupType type;
};
// Changes no PCR.
struct OtherCommand {};
// Has the code of a command that changes PCRs, but cannot be read.
struct UnreadableCommand {
  std::string what;
};
using GuestCommand = std::variant<OtherCommand, ExtendCommand, EventCommand, PcrResetCommand,
                                  StartupCommand, ShutdownCommand, UnreadableCommand>;

// Reads a command as far as PCRs are concerned. Cannot fail: what cannot be read is a value too.
GuestCommand ParseGuestCommand(ByteView command);

// What the TPM did to its PCRs, given its answer. Nothing when it refused.
//   locality: in which the command was sent.
std::vector<measure::RecordBody> EffectsOf(const GuestCommand& command, ByteView response,
                                           uint8_t locality);

// At most 8 PCRs come back from one command: ask again for the rest.
Bytes MakePcrRead(HashAlgorithm bank, const PcrSelection& pcrs);
struct PcrReadReply {
  uint32_t update_counter = 0;  // changes whenever a PCR does
  std::map<PcrIndex, Bytes> values;
};
// Errors: kUnavailable (the TPM refused, with its code); kCorrupt (not an answer to PCR_Read).
Result<PcrReadReply> ParsePcrReadReply(HashAlgorithm bank, ByteView response);

// Asks which PCR banks are active.
Bytes MakeGetPcrBanks();
// Banks that Vallum does not know are left out. Errors: kCorrupt (not an answer to that).
Result<std::vector<HashAlgorithm>> ParsePcrBanksReply(ByteView response);

// TPM2_Startup and TPM2_Shutdown.
Bytes MakeStartup(measure::StartupType type);
Bytes MakeShutdown(measure::StartupType type);
// Makes exactly these banks active after the next reset; needs the platform's empty password.
Bytes MakePcrAllocate(const std::vector<HashAlgorithm>& banks);

}  // namespace vallum::vtpm
