// SPDX-License-Identifier: Apache-2.0
#include "vtpm/control_message.h"

#include <algorithm>
#include <string>

namespace vallum::vtpm {
namespace {

constexpr size_t kNumberSize = 4;
constexpr size_t kHashDataHeader = kNumberSize + 4;
constexpr size_t kSetStateHeader = kNumberSize + 12;
constexpr size_t kGetStateResponseHeader = 16;
constexpr size_t kGetInfoResponseHeader = 12;

// header bytes, then as many as the 32 bits in front of the header's end say.
Result<std::optional<size_t>> SizedMessage(ByteView received, size_t header) {
  if (received.size() < header) {
    return std::optional<size_t>();
  }
  ByteCursor cursor(received.subspan(header - 4));
  ASSIGN_OR_RETURN(const uint32_t length, cursor.ReadU32Be());
  if (length > kMaxControlMessage - header) {
    return InvalidInput("a control message of " + std::to_string(length) + " bytes");
  }
  return std::optional<size_t>(header + length);
}

std::optional<ControlCommand> KnownCommand(ByteView request) {
  const auto command = ControlCommandOf(request);
  if (!command.has_value() || *command < ControlCommand::kGetCapability ||
      *command > ControlCommand::kLockStorage) {
    return std::nullopt;
  }
  return command;
}

}  // namespace

std::optional<ControlCommand> ControlCommandOf(ByteView request) {
  ByteCursor cursor(request);
  const auto number = cursor.ReadU32Be();
  return number.has_value() ? std::optional(static_cast<ControlCommand>(*number)) : std::nullopt;
}

Result<std::optional<size_t>> ControlRequestSize(ByteView received) {
  if (received.size() < kNumberSize) {
    return std::optional<size_t>();
  }
  const auto command = KnownCommand(received);
  if (!command.has_value()) {
    return std::optional<size_t>(std::min(received.size(), kMaxControlMessage));
  }
  switch (*command) {
    case ControlCommand::kInit:
    case ControlCommand::kSetLocality:
    case ControlCommand::kResetTpmEstablished:
    case ControlCommand::kSetBufferSize:
    case ControlCommand::kLockStorage:
      return std::optional<size_t>(kNumberSize + 4);
    case ControlCommand::kGetStateBlob:
      return std::optional<size_t>(kNumberSize + 12);
    case ControlCommand::kGetInfo:
      return std::optional<size_t>(kNumberSize + 16);
    case ControlCommand::kHashData:
      return SizedMessage(received, kHashDataHeader);
    case ControlCommand::kSetStateBlob:
      return SizedMessage(received, kSetStateHeader);
    case ControlCommand::kGetCapability:
    case ControlCommand::kShutdown:
    case ControlCommand::kGetTpmEstablished:
    case ControlCommand::kHashStart:
    case ControlCommand::kHashEnd:
    case ControlCommand::kCancelTpmCommand:
    case ControlCommand::kStoreVolatile:
    case ControlCommand::kStop:
    case ControlCommand::kGetConfig:
    case ControlCommand::kSetDataFd:
      return std::optional<size_t>(kNumberSize);
  }
  return std::optional<size_t>(kNumberSize);
}

Result<std::optional<size_t>> ControlResponseSize(ControlCommand command, ByteView received) {
  if (command == ControlCommand::kGetCapability) {
    return std::optional<size_t>(8);
  }
  const auto result = ControlResult(received);
  if (!result.has_value()) {
    return std::optional<size_t>();
  }
  if (*result != kControlSuccess) {
    return std::optional<size_t>(std::min(received.size(), kMaxControlMessage));
  }
  switch (command) {
    case ControlCommand::kGetTpmEstablished:
    case ControlCommand::kGetConfig:
      return std::optional<size_t>(8);
    case ControlCommand::kSetBufferSize:
      return std::optional<size_t>(16);
    case ControlCommand::kGetStateBlob:
      return SizedMessage(received, kGetStateResponseHeader);
    case ControlCommand::kGetInfo:
      return SizedMessage(received, kGetInfoResponseHeader);
    case ControlCommand::kGetCapability:
    case ControlCommand::kInit:
    case ControlCommand::kShutdown:
    case ControlCommand::kSetLocality:
    case ControlCommand::kHashStart:
    case ControlCommand::kHashData:
    case ControlCommand::kHashEnd:
    case ControlCommand::kCancelTpmCommand:
    case ControlCommand::kStoreVolatile:
    case ControlCommand::kResetTpmEstablished:
    case ControlCommand::kSetStateBlob:
    case ControlCommand::kStop:
    case ControlCommand::kSetDataFd:
    case ControlCommand::kLockStorage:
      return std::optional<size_t>(4);
  }
  return std::optional<size_t>(std::min(received.size(), kMaxControlMessage));
}

Result<uint32_t> ControlResult(ByteView response) { return ByteCursor(response).ReadU32Be(); }

Bytes MakeControlRequest(ControlCommand command) {
  ByteWriter writer;
  writer.U32Be(static_cast<uint32_t>(command));
  return std::move(writer).Take();
}

Bytes MakeControlInit() {
  ByteWriter writer;
  writer.U32Be(static_cast<uint32_t>(ControlCommand::kInit)).U32Be(0);
  return std::move(writer).Take();
}

Bytes MakeControlSetLocality(uint8_t locality) {
  ByteWriter writer;
  writer.U32Be(static_cast<uint32_t>(ControlCommand::kSetLocality)).U8(locality).Zeros(3);
  return std::move(writer).Take();
}

Bytes MakeControlResult(uint32_t result) {
  ByteWriter writer;
  writer.U32Be(result);
  return std::move(writer).Take();
}

}  // namespace vallum::vtpm
