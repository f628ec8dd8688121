// SPDX-License-Identifier: Apache-2.0
#include "vtpm/control_message.h"

#include <gtest/gtest.h>

namespace vallum::vtpm {
namespace {

Bytes Hex(const std::string& hex) { return FromHex(hex).value(); }

TEST(ControlRequest, SizesAreThoseOfQemu) {
  const struct {
    const char* request;
    size_t size;
  } cases[] = {{"00000001", 4},
               {"00000002", 8},
               {"00000003", 4},
               {"00000004", 4},
               {"00000005", 8},
               {"00000006", 4},
               {"00000008", 4},
               {"00000009", 4},
               {"0000000a", 4},
               {"0000000b", 8},
               {"0000000c", 16},
               {"0000000e", 4},
               {"0000000f", 4},
               {"00000010", 4},
               {"00000011", 8},
               {"00000012", 20},
               {"00000013", 8},
               {"0000000700000005", 13},
               {"0000000d000000000000000100000100", 272}};
  for (const auto& test : cases) {
    EXPECT_EQ(ControlRequestSize(Hex(test.request)).value(), test.size) << test.request;
  }
}

TEST(ControlRequest, MoreBytesAreAskedForWhileTheSizeIsUnknown) {
  for (const char* partial : {"", "000000", "00000007000000", "0000000d00000000000000010000"}) {
    EXPECT_FALSE(ControlRequestSize(Hex(partial))->has_value()) << partial;
  }
}

TEST(ControlRequest, HugeOnesAreRefused) {
  EXPECT_FALSE(ControlRequestSize(Hex("00000007ffffffff")).has_value());
  EXPECT_FALSE(ControlRequestSize(Hex("0000000d0000000000000001ffffffff")).has_value());
}

TEST(ControlRequest, UnknownOnesAreAllThatCame) {
  EXPECT_EQ(ControlRequestSize(Hex("000000990102")).value(), 6U);
  EXPECT_EQ(ControlRequestSize(Hex("00000000")).value(), 4U);
}

TEST(ControlResponse, SizesFollowCommandAndResult) {
  const struct {
    ControlCommand command;
    const char* response;
    size_t size;
  } cases[] = {{ControlCommand::kGetCapability, "0000", 8},
               {ControlCommand::kInit, "00000000", 4},
               {ControlCommand::kGetTpmEstablished, "00000000", 8},
               {ControlCommand::kGetTpmEstablished, "0000000a", 4},
               {ControlCommand::kSetBufferSize, "00000000", 16},
               {ControlCommand::kGetStateBlob, "00000000000000000000000400000004", 20},
               {ControlCommand::kGetInfo, "000000000000000300000003", 15}};
  for (const auto& test : cases) {
    EXPECT_EQ(ControlResponseSize(test.command, Hex(test.response)).value(), test.size)
        << test.response;
  }
  EXPECT_FALSE(ControlResponseSize(ControlCommand::kInit, Hex("0000"))->has_value());
  EXPECT_FALSE(
      ControlResponseSize(ControlCommand::kGetInfo, Hex("0000000000000000ffffffff")).has_value());
}

}  // namespace
}  // namespace vallum::vtpm
