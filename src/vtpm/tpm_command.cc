// SPDX-License-Identifier: Apache-2.0
#include "vtpm/tpm_command.h"

#include <algorithm>
#include <array>
#include <utility>

namespace vallum::vtpm {
namespace {

using measure::OpaqueChange;
using measure::RecordBody;
using measure::StartupType;

constexpr auto kTagNoSessions = static_cast<uint16_t>(TpmTag::kNoSessions);
constexpr auto kTagSessions = static_cast<uint16_t>(TpmTag::kSessions);
constexpr uint32_t kPcrAllocate = 0x0000012B;
constexpr uint32_t kPcrEvent = 0x0000013C;
constexpr uint32_t kPcrReset = 0x0000013D;
constexpr uint32_t kStartup = 0x00000144;
constexpr uint32_t kShutdown = 0x00000145;
constexpr uint32_t kGetCapability = 0x0000017A;
constexpr uint32_t kPcrRead = 0x0000017E;
constexpr uint32_t kPcrExtend = 0x00000182;
constexpr uint32_t kEventSequenceComplete = 0x00000185;
constexpr uint32_t kHandleNull = 0x40000007;
constexpr uint32_t kHandlePlatform = 0x4000000C;
constexpr uint32_t kPasswordSession = 0x40000009;
constexpr uint32_t kCapabilityPcrs = 5;
constexpr uint16_t kStartupClear = 0;
constexpr uint16_t kStartupState = 1;
// TPML_DIGEST_VALUES holds one digest for each algorithm of the TPM; part 2 knows fewer than this.
constexpr uint32_t kMaxDigests = 16;
constexpr size_t kPcrBitmapSize = PcrIndex::kCount / 8;

using Digests = std::vector<std::pair<HashAlgorithm, Bytes>>;

Result<Digests> ReadDigests(ByteCursor& cursor) {
  ASSIGN_OR_RETURN(const uint32_t count, cursor.ReadU32Be());
  if (count > kMaxDigests) {
    return InvalidInput(std::to_string(count) + " digests");
  }
  Digests digests;
  for (uint32_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(const uint16_t id, cursor.ReadU16Be());
    ASSIGN_OR_RETURN(const HashAlgorithm bank, measure::BankOfTpmAlgorithm(id));
    ASSIGN_OR_RETURN(const ByteView digest, cursor.ReadBytes(DigestSize(bank)));
    digests.emplace_back(bank, ToBytes(digest));
  }
  return digests;
}

// A TPMI_DH_PCR: a PCR, or TPM_RH_NULL.
Result<std::optional<PcrIndex>> ReadPcrHandle(ByteCursor& cursor) {
  ASSIGN_OR_RETURN(const uint32_t handle, cursor.ReadU32Be());
  if (handle == kHandleNull) {
    return std::optional<PcrIndex>();
  }
  ASSIGN_OR_RETURN(const PcrIndex pcr, PcrIndex::Create(handle));
  return std::optional<PcrIndex>(pcr);
}

// Part 1, section 18: with TPM_ST_SESSIONS a sized authorization area is behind the handles.
Result<void> SkipAuthorizations(ByteCursor& cursor) {
  ASSIGN_OR_RETURN(const uint32_t size, cursor.ReadU32Be());
  return cursor.Skip(size);
}

Result<void> ExpectEnd(const ByteCursor& cursor) {
  if (!cursor.AtEnd()) {
    return InvalidInput(std::to_string(cursor.remaining()) + " bytes behind the end");
  }
  return Ok();
}

Result<GuestCommand> ReadExtend(ByteCursor cursor) {
  ASSIGN_OR_RETURN(const std::optional<PcrIndex> pcr, ReadPcrHandle(cursor));
  RETURN_IF_ERROR(SkipAuthorizations(cursor));
  ASSIGN_OR_RETURN(Digests digests, ReadDigests(cursor));
  RETURN_IF_ERROR(ExpectEnd(cursor));
  return GuestCommand(ExtendCommand{pcr, std::move(digests)});
}

Result<GuestCommand> ReadEvent(ByteCursor cursor) {
  ASSIGN_OR_RETURN(const std::optional<PcrIndex> pcr, ReadPcrHandle(cursor));
  return GuestCommand(EventCommand{pcr});
}

Result<GuestCommand> ReadPcrReset(ByteCursor cursor) {
  ASSIGN_OR_RETURN(const std::optional<PcrIndex> pcr, ReadPcrHandle(cursor));
  if (!pcr.has_value()) {
    return InvalidInput("no PCR");
  }
  return GuestCommand(PcrResetCommand{*pcr});
}

Result<StartupType> ReadStartupType(ByteCursor& cursor) {
  ASSIGN_OR_RETURN(const uint16_t type, cursor.ReadU16Be());
  if (type != kStartupClear && type != kStartupState) {
    return InvalidInput("startup type " + std::to_string(type));
  }
  return type == kStartupClear ? StartupType::kClear : StartupType::kState;
}

Result<GuestCommand> ReadStartup(ByteCursor cursor) {
  ASSIGN_OR_RETURN(const StartupType type, ReadStartupType(cursor));
  RETURN_IF_ERROR(ExpectEnd(cursor));
  return GuestCommand(StartupCommand{type});
}

Result<GuestCommand> ReadShutdown(ByteCursor cursor, uint16_t tag) {
  if (tag == kTagSessions) {
    RETURN_IF_ERROR(SkipAuthorizations(cursor));
  }
  ASSIGN_OR_RETURN(const StartupType type, ReadStartupType(cursor));
  return GuestCommand(ShutdownCommand{type});
}

struct PcrCommand {
  uint32_t code;
  const char* name;
};
constexpr std::array kPcrCommands = {
    PcrCommand{kPcrExtend, "TPM2_PCR_Extend"},
    PcrCommand{kPcrEvent, "TPM2_PCR_Event"},
    PcrCommand{kPcrReset, "TPM2_PCR_Reset"},
    PcrCommand{kStartup, "TPM2_Startup"},
    PcrCommand{kShutdown, "TPM2_Shutdown"},
    PcrCommand{kEventSequenceComplete, "TPM2_EventSequenceComplete"}};

Result<GuestCommand> ReadBody(uint32_t code, uint16_t tag, ByteCursor cursor) {
  switch (code) {
    case kStartup:
      return ReadStartup(cursor);
    case kShutdown:
      return ReadShutdown(cursor, tag);
    default:
      break;
  }
  // The others need an authorization of the PCR, if only an empty one.
  if (tag != kTagSessions) {
    return InvalidInput("no sessions");
  }
  switch (code) {
    case kPcrExtend:
      return ReadExtend(cursor);
    case kPcrReset:
      return ReadPcrReset(cursor);
    default:
      return ReadEvent(cursor);
  }
}

// The digests that PCR_Event and EventSequenceComplete return.
Result<Digests> ReadEventResponse(ByteView response) {
  ByteCursor cursor(response);
  ASSIGN_OR_RETURN(const uint16_t tag, cursor.ReadU16Be());
  RETURN_IF_ERROR(cursor.Skip(kTpmHeaderSize - 2));
  if (tag != kTagSessions) {
    return InvalidInput("no sessions in the response");
  }
  ASSIGN_OR_RETURN(const uint32_t parameter_size, cursor.ReadU32Be());
  ASSIGN_OR_RETURN(const ByteView parameters, cursor.ReadBytes(parameter_size));
  ByteCursor inner(parameters);
  return ReadDigests(inner);
}

std::vector<RecordBody> ExtendRecords(std::optional<PcrIndex> pcr, const Digests& digests) {
  std::vector<RecordBody> records;
  for (const auto& [bank, digest] : digests) {
    if (pcr.has_value()) {
      records.emplace_back(measure::PcrExtend{*pcr, bank, digest});
    }
  }
  return records;
}

std::vector<RecordBody> EventRecords(const EventCommand& command, ByteView response) {
  const auto digests = ReadEventResponse(response);
  if (!digests.has_value()) {
    return {OpaqueChange{"event response cannot be read: " + digests.error().message()}};
  }
  return ExtendRecords(command.pcr, *digests);
}

void WriteSelection(ByteWriter& writer, HashAlgorithm bank,
                    const std::array<uint8_t, kPcrBitmapSize>& bitmap) {
  writer.U16Be(measure::TpmAlgorithmId(bank)).U8(kPcrBitmapSize);
  for (const uint8_t byte : bitmap) {
    writer.U8(byte);
  }
}

// Reads the TPML_PCR_SELECTION of a PCR_Read reply: which PCRs of the bank came back.
Result<PcrSelection> ReadSelection(ByteCursor& cursor, HashAlgorithm bank) {
  ASSIGN_OR_RETURN(const uint32_t count, cursor.ReadU32Be());
  if (count > kMaxDigests) {
    return Corrupt(std::to_string(count) + " selections");
  }
  PcrSelection pcrs;
  for (uint32_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(const uint16_t id, cursor.ReadU16Be());
    ASSIGN_OR_RETURN(const uint8_t size, cursor.ReadU8());
    ASSIGN_OR_RETURN(const ByteView bitmap, cursor.ReadBytes(size));
    for (uint32_t bit = 0; bit < PcrIndex::kCount && bit / 8 < size; ++bit) {
      const bool set = (std::to_integer<uint32_t>(bitmap[bit / 8]) >> (bit % 8) & 1U) != 0;
      if (set && id == measure::TpmAlgorithmId(bank)) {
        ASSIGN_OR_RETURN(const PcrIndex pcr, PcrIndex::Create(bit));
        pcrs.push_back(pcr);
      }
    }
  }
  return pcrs;
}

Result<PcrReadReply> ReadPcrReadReply(HashAlgorithm bank, ByteCursor cursor) {
  PcrReadReply reply;
  ASSIGN_OR_RETURN(reply.update_counter, cursor.ReadU32Be());
  ASSIGN_OR_RETURN(const PcrSelection pcrs, ReadSelection(cursor, bank));
  ASSIGN_OR_RETURN(const uint32_t count, cursor.ReadU32Be());
  if (count != pcrs.size()) {
    return Corrupt(std::to_string(count) + " values for " + std::to_string(pcrs.size()) + " PCRs");
  }
  for (const PcrIndex pcr : pcrs) {
    ASSIGN_OR_RETURN(const uint16_t size, cursor.ReadU16Be());
    ASSIGN_OR_RETURN(const ByteView value, cursor.ReadBytes(size));
    if (size != DigestSize(bank)) {
      return Corrupt("a value of " + std::to_string(size) + " bytes");
    }
    reply.values[pcr] = ToBytes(value);
  }
  RETURN_IF_ERROR(ExpectEnd(cursor));
  return reply;
}

Result<std::vector<HashAlgorithm>> ReadPcrBanks(ByteCursor cursor) {
  ASSIGN_OR_RETURN(const uint8_t more, cursor.ReadU8());
  ASSIGN_OR_RETURN(const uint32_t capability, cursor.ReadU32Be());
  ASSIGN_OR_RETURN(const uint32_t count, cursor.ReadU32Be());
  if (more != 0 || capability != kCapabilityPcrs || count > kMaxDigests) {
    return Corrupt("not the list of PCR banks");
  }
  std::vector<HashAlgorithm> banks;
  for (uint32_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(const uint16_t id, cursor.ReadU16Be());
    ASSIGN_OR_RETURN(const uint8_t size, cursor.ReadU8());
    ASSIGN_OR_RETURN(const ByteView bitmap, cursor.ReadBytes(size));
    const bool active =
        std::ranges::any_of(bitmap, [](std::byte byte) { return byte != std::byte{0}; });
    if (const auto bank = measure::BankOfTpmAlgorithm(id); active && bank.has_value()) {
      banks.push_back(*bank);
    }
  }
  RETURN_IF_ERROR(ExpectEnd(cursor));
  return banks;
}

}  // namespace

Bytes MakeCommand(TpmTag tag, uint32_t code, ByteView body) {
  ByteWriter writer;
  writer.U16Be(static_cast<uint16_t>(tag));
  writer.U32Be(static_cast<uint32_t>(kTpmHeaderSize + body.size())).U32Be(code).Raw(body);
  return std::move(writer).Take();
}

Result<std::optional<size_t>> TpmMessageSize(ByteView buffered) {
  if (buffered.size() < kTpmHeaderSize) {
    return std::optional<size_t>();
  }
  ByteCursor cursor(buffered);
  RETURN_IF_ERROR(cursor.Skip(2));
  ASSIGN_OR_RETURN(const uint32_t size, cursor.ReadU32Be());
  if (size < kTpmHeaderSize || size > kMaxTpmMessage) {
    return InvalidInput("a TPM message of " + std::to_string(size) + " bytes");
  }
  return std::optional<size_t>(size);
}

Result<uint32_t> ResponseCode(ByteView response) {
  ASSIGN_OR_RETURN(const std::optional<size_t> size, TpmMessageSize(response));
  if (size != response.size()) {
    return InvalidInput("the response is not as long as it says");
  }
  ByteCursor cursor(response);
  RETURN_IF_ERROR(cursor.Skip(kTpmHeaderSize - 4));
  return cursor.ReadU32Be();
}

GuestCommand ParseGuestCommand(ByteView command) {
  ByteCursor cursor(command);
  const auto tag = cursor.ReadU16Be();
  const auto size = cursor.ReadU32Be();
  const auto code = cursor.ReadU32Be();
  if (!tag.has_value() || !size.has_value() || !code.has_value() || *size != command.size()) {
    return UnreadableCommand{"command without a proper header"};
  }
  const auto* known = std::ranges::find(kPcrCommands, *code, &PcrCommand::code);
  if (known == kPcrCommands.end() || (*tag != kTagSessions && *tag != kTagNoSessions)) {
    return OtherCommand{};
  }
  auto parsed = ReadBody(*code, *tag, cursor);
  if (!parsed.has_value()) {
    return UnreadableCommand{std::string(known->name) +
                             " cannot be read: " + parsed.error().message()};
  }
  return *std::move(parsed);
}

std::vector<RecordBody> EffectsOf(const GuestCommand& command, ByteView response,
                                  uint8_t locality) {
  const auto code = ResponseCode(response);
  if (code.has_value() && *code != kTpmSuccess) {
    return {};
  }
  if (std::holds_alternative<OtherCommand>(command)) {
    return {};
  }
  if (!code.has_value()) {
    return {OpaqueChange{"response cannot be read: " + code.error().message()}};
  }
  if (const auto* extend = std::get_if<ExtendCommand>(&command)) {
    return ExtendRecords(extend->pcr, extend->digests);
  }
  if (const auto* event = std::get_if<EventCommand>(&command)) {
    return EventRecords(*event, response);
  }
  if (const auto* reset = std::get_if<PcrResetCommand>(&command)) {
    return {measure::PcrReset{reset->pcr}};
  }
  if (const auto* startup = std::get_if<StartupCommand>(&command)) {
    return {measure::TpmStartup{startup->type, locality}};
  }
  if (const auto* shutdown = std::get_if<ShutdownCommand>(&command)) {
    const bool clear = shutdown->type == StartupType::kClear;
    return {measure::LogNote{clear ? "shutdown clear" : "shutdown state"}};
  }
  return {OpaqueChange{std::get<UnreadableCommand>(command).what}};
}

Bytes MakePcrRead(HashAlgorithm bank, const PcrSelection& pcrs) {
  std::array<uint8_t, kPcrBitmapSize> bitmap{};
  for (const PcrIndex pcr : pcrs) {
    uint8_t& byte = bitmap[pcr.value() / 8];
    byte = static_cast<uint8_t>(byte | (1U << (pcr.value() % 8)));
  }
  ByteWriter body;
  body.U32Be(1);
  WriteSelection(body, bank, bitmap);
  return MakeCommand(TpmTag::kNoSessions, kPcrRead, body.bytes());
}

Result<PcrReadReply> ParsePcrReadReply(HashAlgorithm bank, ByteView response) {
  const auto code = ResponseCode(response);
  if (!code.has_value()) {
    return Corrupt(code.error().message());
  }
  if (*code != kTpmSuccess) {
    return Unavailable("the TPM refused to read PCRs, response code " + std::to_string(*code));
  }
  auto reply = ReadPcrReadReply(bank, ByteCursor(response.subspan(kTpmHeaderSize)));
  if (!reply.has_value()) {
    return Corrupt("the TPM's answer to PCR_Read: " + reply.error().message());
  }
  return reply;
}

Bytes MakeGetPcrBanks() {
  ByteWriter body;
  body.U32Be(kCapabilityPcrs).U32Be(0).U32Be(1);
  return MakeCommand(TpmTag::kNoSessions, kGetCapability, body.bytes());
}

Result<std::vector<HashAlgorithm>> ParsePcrBanksReply(ByteView response) {
  const auto code = ResponseCode(response);
  if (!code.has_value() || *code != kTpmSuccess) {
    return Corrupt("the TPM does not say which PCR banks are active");
  }
  auto banks = ReadPcrBanks(ByteCursor(response.subspan(kTpmHeaderSize)));
  if (!banks.has_value()) {
    return Corrupt("the TPM's list of PCR banks: " + banks.error().message());
  }
  return banks;
}

Bytes MakeStartup(StartupType type) {
  ByteWriter body;
  body.U16Be(type == StartupType::kClear ? kStartupClear : kStartupState);
  return MakeCommand(TpmTag::kNoSessions, kStartup, body.bytes());
}

Bytes MakeShutdown(StartupType type) {
  ByteWriter body;
  body.U16Be(type == StartupType::kClear ? kStartupClear : kStartupState);
  return MakeCommand(TpmTag::kNoSessions, kShutdown, body.bytes());
}

Bytes MakePcrAllocate(const std::vector<HashAlgorithm>& banks) {
  constexpr std::array kAll = {HashAlgorithm::kSha1, HashAlgorithm::kSha256, HashAlgorithm::kSha384,
                               HashAlgorithm::kSha512};
  constexpr uint32_t kEmptyPasswordSize = 9;
  ByteWriter body;
  body.U32Be(kHandlePlatform).U32Be(kEmptyPasswordSize);
  body.U32Be(kPasswordSession).U16Be(0).U8(0).U16Be(0);
  body.U32Be(kAll.size());
  for (const HashAlgorithm bank : kAll) {
    const uint8_t bits = std::ranges::find(banks, bank) == banks.end() ? 0 : 0xff;
    WriteSelection(body, bank, {bits, bits, bits});
  }
  return MakeCommand(TpmTag::kSessions, kPcrAllocate, body.bytes());
}

}  // namespace vallum::vtpm
