// SPDX-License-Identifier: Apache-2.0
#include "vtpm/control_protocol.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>

namespace vallum::vtpm {
namespace {

TEST(ControlProtocol, RequestsSurviveTheWire) {
  const auto records =
      ParseRequest(FormatRequest(RecordsRequest{7, std::chrono::milliseconds(250)}));
  ASSERT_TRUE(records.has_value()) << records.error().Describe();
  EXPECT_EQ(std::get<RecordsRequest>(*records).since, 7U);
  EXPECT_EQ(std::get<RecordsRequest>(*records).wait.count(), 250);
  const auto pcrs = ParseRequest(
      FormatRequest(PcrsRequest{HashAlgorithm::kSha384, {PcrIndex::Of<0>(), PcrIndex::Of<23>()}}));
  ASSERT_TRUE(pcrs.has_value()) << pcrs.error().Describe();
  EXPECT_EQ(std::get<PcrsRequest>(*pcrs).bank, HashAlgorithm::kSha384);
  EXPECT_EQ(std::get<PcrsRequest>(*pcrs).pcrs.size(), 2U);
  EXPECT_TRUE(ParseRequest(FormatRequest(StatusRequest{})).has_value());
  EXPECT_TRUE(ParseRequest(FormatRequest(StopRequest{})).has_value());
}

TEST(ControlProtocol, MalformedRequestsAreRefused) {
  const std::string deep(2000, '[');
  for (const std::string& line :
       {std::string(""), std::string("[]"), std::string("{"), std::string("{\"op\":1}"),
        std::string("{\"op\":\"none\"}"), std::string("{\"op\":\"records\"}"),
        std::string("{\"op\":\"records\",\"since\":-1}"),
        std::string("{\"op\":\"records\",\"since\":1,\"wait_ms\":60001}"),
        std::string("{\"op\":\"pcrs\",\"bank\":\"sha256\",\"pcrs\":[]}"),
        std::string("{\"op\":\"pcrs\",\"bank\":\"sha256\",\"pcrs\":[24]}"),
        std::string("{\"op\":\"pcrs\",\"bank\":\"sha256\",\"pcrs\":[1,1]}"),
        std::string("{\"op\":\"pcrs\",\"bank\":\"md5\",\"pcrs\":[1]}"), deep}) {
    const auto request = ParseRequest(line);
    ASSERT_FALSE(request.has_value()) << line;
    EXPECT_EQ(request.error().code(), ErrorCode::kInvalidInput);
  }
}

TEST(ControlProtocol, StatusSurvivesTheWire) {
  const VtpmStatus status{TpmState::kReset, true, 12, 13, 4, 5, 6, "no space \xff"};
  const auto parsed = ParseStatusReply(FormatStatus(status));
  ASSERT_TRUE(parsed.has_value()) << parsed.error().Describe();
  EXPECT_EQ(parsed->tpm, TpmState::kReset);
  EXPECT_TRUE(parsed->qemu_connected);
  EXPECT_EQ(parsed->pid, 12);
  EXPECT_EQ(parsed->swtpm_pid, 13);
  EXPECT_EQ(parsed->first_sequence, 4U);
  EXPECT_EQ(parsed->last_sequence, 5U);
  EXPECT_EQ(parsed->guest_commands, 6U);
  EXPECT_TRUE(parsed->record_error.starts_with("no space"));
}

TEST(ControlProtocol, RecordsAndPcrsSurviveTheWire) {
  measure::ExtendLog log;
  log.Append(WallTime(), measure::PcrExtend{PcrIndex::Of<7>(), HashAlgorithm::kSha1, Bytes(20)});
  const RecordBatch batch{{log.records().begin(), log.records().end()}, 1, 9};
  const auto parsed = ParseRecordsReply(FormatRecords(batch));
  ASSERT_TRUE(parsed.has_value()) << parsed.error().Describe();
  EXPECT_EQ(parsed->records, batch.records);
  EXPECT_EQ(parsed->last_sequence, 9U);
  const std::map<PcrIndex, Bytes> values = {{PcrIndex::Of<3>(), Bytes(32)}};
  EXPECT_EQ(ParsePcrsReply(FormatPcrs(values)).value(), values);
}

TEST(ControlProtocol, ErrorsKeepTheirCode) {
  const auto reply = ParseDoneReply(FormatError(Exhausted("too many")));
  ASSERT_FALSE(reply.has_value());
  EXPECT_EQ(reply.error().code(), ErrorCode::kExhausted);
  EXPECT_EQ(reply.error().message(), "too many");
}

TEST(ControlProtocol, RepliesOfAnotherKindAreCorrupt) {
  for (const char* line : {"", "null", "{}", "{\"ok\":1}", "{\"ok\":true}"}) {
    EXPECT_EQ(ParseRecordsReply(line).error().code(), ErrorCode::kCorrupt) << line;
    EXPECT_EQ(ParsePcrsReply(line).error().code(), ErrorCode::kCorrupt) << line;
    EXPECT_EQ(ParseStatusReply(line).error().code(), ErrorCode::kCorrupt) << line;
  }
}

TEST(ControlProtocol, TheLargestRepliesFitALine) {
  measure::ExtendLog log;
  for (size_t i = 0; i < ControlClient::kMaxBatch; ++i) {
    log.Append(WallTime(), measure::LogNote{std::string(300, '"')});
  }
  const RecordBatch batch{{log.records().begin(), log.records().end()}, 1, UINT64_MAX};
  EXPECT_LT(FormatRecords(batch).size(), kMaxReplyLine);
}

}  // namespace
}  // namespace vallum::vtpm
