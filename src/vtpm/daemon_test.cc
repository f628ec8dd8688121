// SPDX-License-Identifier: Apache-2.0
// vallum-vtpm as a process, with a real swtpm behind it and QEMU's side played by the test.
#include "vtpm/daemon.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <atomic>
#include <fstream>
#include <numeric>
#include <sstream>
#include <thread>

#include "measure/extend_log.h"
#include "vtpm/test_support.h"
#include "vtpm/tpm_command.h"

namespace vallum::vtpm {
namespace {

using measure::StartupType;
using testing::AllPcrs;
using testing::FakeQemu;
using ::testing::HasSubstr;
using testing::MakeEvent;
using testing::MakeExtend;
using testing::MakePcrResetCommand;
using testing::TempDir;
using testing::VtpmUnderTest;

constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;

// A guest whose firmware has just started the TPM.
void PowerOn(FakeQemu& qemu) {
  qemu.Init();
  qemu.Succeed(MakeStartup(StartupType::kClear));
}

measure::ExtendLog LogOf(const VtpmUnderTest& vtpm) {
  const std::string text = testing::ReadFile(vtpm.record());
  auto log = measure::ParseExtendLog(AsBytes(text));
  EXPECT_TRUE(log.has_value()) << log.error().Describe();
  return log.has_value() ? *log : measure::ExtendLog();
}

// The replay of what was recorded must be what the TPM itself holds, in all 24 PCRs.
void ExpectReplayEqualsTpm(const VtpmUnderTest& vtpm, HashAlgorithm bank = kBank) {
  const auto pcrs = vtpm.Client().ReadPcrs(bank, AllPcrs());
  ASSERT_TRUE(pcrs.has_value()) << pcrs.error().Describe();
  ASSERT_EQ(pcrs->size(), PcrIndex::kCount);
  const measure::PcrReplay replay = LogOf(vtpm).Replay(bank);
  EXPECT_TRUE(replay.started);
  EXPECT_TRUE(replay.gaps.empty());
  for (const auto& [pcr, value] : *pcrs) {
    EXPECT_EQ(ToHex(replay.values[pcr.value()]), ToHex(value)) << "PCR " << pcr.value();
  }
}

std::string EndOf(VtpmUnderTest& vtpm, FakeQemu& qemu) {
  qemu.Close();
  return vtpm.process().Wait();
}

// The messages of one direction that swtpm logged.
std::vector<Bytes> Logged(const std::string& log, const std::string& label) {
  std::vector<Bytes> messages;
  std::istringstream lines(log);
  bool inside = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.find("length") != std::string::npos) {
      inside = line.find(label) != std::string::npos;
      if (inside) {
        messages.emplace_back();
      }
    } else if (inside) {
      std::erase(line, ' ');
      const auto bytes = FromHex(line);
      EXPECT_TRUE(bytes.has_value()) << line;
      messages.back().insert(messages.back().end(), bytes->begin(), bytes->end());
    }
  }
  return messages;
}

TEST(Vtpm, ReplayOfWhatWasRecordedIsWhatTheTpmHolds) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  qemu.Succeed(MakeExtend(0, kBank, "a"));
  qemu.Succeed(MakeExtend(7, kBank, "b"));
  qemu.Succeed(MakeExtend(7, kBank, "c"));
  qemu.Succeed(MakeEvent(9, "an event"));
  qemu.Succeed(MakeExtend(16, kBank, "debug"));
  qemu.Succeed(MakeExtend(23, kBank, "application"));
  qemu.Succeed(MakePcrResetCommand(16));
  qemu.Succeed(MakeExtend(0x40000007, kBank, "nowhere"));
  ExpectReplayEqualsTpm(vtpm);
  EXPECT_EQ(measure::ExtendsOfLastBoot(LogOf(vtpm), kBank).size(), 6U);
}

TEST(Vtpm, WhatTheTpmRefusesIsNotRecorded) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  qemu.Command(MakeExtend(17, kBank, "needs another locality"));
  qemu.Command(MakePcrResetCommand(0));
  EXPECT_EQ(measure::ExtendsOfLastBoot(LogOf(vtpm), kBank).size(), 0U);
  ExpectReplayEqualsTpm(vtpm);
}

TEST(Vtpm, OnlyActiveBanksAreRecorded) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir, {"--pcr-banks", "sha1,sha384"});
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  qemu.Succeed(MakeExtend(1, HashAlgorithm::kSha256, "ignored by the TPM"));
  qemu.Succeed(MakeExtend(1, HashAlgorithm::kSha384, "x"));
  qemu.Succeed(MakeEvent(2, "into both banks"));
  EXPECT_EQ(measure::ExtendsOfLastBoot(LogOf(vtpm), HashAlgorithm::kSha256).size(), 0U);
  ExpectReplayEqualsTpm(vtpm, HashAlgorithm::kSha1);
  ExpectReplayEqualsTpm(vtpm, HashAlgorithm::kSha384);
  const auto missing = vtpm.Client().ReadPcrs(HashAlgorithm::kSha256, AllPcrs());
  ASSERT_FALSE(missing.has_value());
  EXPECT_EQ(missing.error().code(), ErrorCode::kInvalidInput);
}

TEST(Vtpm, SwtpmSawExactlyWhatQemuSent) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  qemu.Command(MakeStartup(StartupType::kClear));  // before CMD_INIT: a fatal error response
  PowerOn(qemu);
  qemu.Succeed(MakeExtend(3, kBank, "x"));
  qemu.Succeed(MakeEvent(4, std::string(1000, 'e')));
  qemu.Succeed(MakePcrRead(kBank, AllPcrs()));
  qemu.Command(FromHex("80010000000cdeadbeef0020").value());  // no such command
  EXPECT_EQ(EndOf(vtpm, qemu), "exit status 0") << vtpm.output();

  std::vector<Bytes> commands = Logged(vtpm.swtpm_log(), "SWTPM_IO_Read");
  std::vector<Bytes> responses = Logged(vtpm.swtpm_log(), "SWTPM_IO_Write");
  ASSERT_EQ(commands.size(), responses.size());
  // Our own: those that make the TPM, one behind the guest's startup, one at the end.
  const auto made = std::ranges::find(commands, MakeShutdown(StartupType::kClear));
  ASSERT_NE(made, commands.end());
  const auto before = static_cast<size_t>(made - commands.begin()) + 1;
  std::vector<size_t> own(before);
  std::iota(own.begin(), own.end(), size_t{0});
  own.insert(own.end(), {before + 2, commands.size() - 1});
  EXPECT_EQ(commands[before + 2], MakeGetPcrBanks());
  EXPECT_EQ(commands.back(), MakeShutdown(StartupType::kClear));
  for (auto it = own.rbegin(); it != own.rend(); ++it) {
    commands.erase(commands.begin() + static_cast<std::ptrdiff_t>(*it));
    responses.erase(responses.begin() + static_cast<std::ptrdiff_t>(*it));
  }
  EXPECT_EQ(commands, qemu.sent());
  EXPECT_EQ(responses, qemu.received());
}

TEST(Vtpm, HostReadsBetweenCommandsOfABusyGuest) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  std::atomic<bool> done = false;
  std::thread host([&] {
    ControlClient client = vtpm.Client();
    for (int i = 0; i < 50; ++i) {
      const auto pcrs = client.ReadPcrs(kBank, AllPcrs());
      EXPECT_TRUE(pcrs.has_value()) << pcrs.error().Describe();
    }
    done = true;
  });
  size_t extends = 0;
  for (; !done || extends < 100; ++extends) {
    qemu.Succeed(MakeExtend(5, kBank, "x"));
  }
  host.join();
  EXPECT_EQ(measure::ExtendsOfLastBoot(LogOf(vtpm), kBank).size(), extends);
  ExpectReplayEqualsTpm(vtpm);
}

TEST(Vtpm, ResetBeginsANewBoot) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  qemu.Succeed(MakeExtend(4, kBank, "first boot"));
  PowerOn(qemu);
  qemu.Succeed(MakeExtend(4, kBank, "second boot"));
  EXPECT_EQ(measure::ExtendsOfLastBoot(LogOf(vtpm), kBank).size(), 1U);
  ExpectReplayEqualsTpm(vtpm);
}

TEST(Vtpm, SuspendAndResumeKeepPcrs) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  qemu.Succeed(MakeExtend(4, kBank, "x"));
  qemu.Succeed(MakeExtend(16, kBank, "is not saved"));
  qemu.Succeed(MakeShutdown(StartupType::kState));
  qemu.Init();
  qemu.Succeed(MakeStartup(StartupType::kState));
  qemu.Succeed(MakeExtend(4, kBank, "y"));
  ExpectReplayEqualsTpm(vtpm);
}

TEST(Vtpm, StartupLocalityShowsInPcrZero) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  qemu.Init();
  qemu.SetLocality(3);
  qemu.Succeed(MakeStartup(StartupType::kClear));
  qemu.SetLocality(0);
  qemu.Succeed(MakeExtend(0, kBank, "x"));
  ExpectReplayEqualsTpm(vtpm);
}

TEST(Vtpm, HashedBeforeStartupGoesToPcrZero) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  qemu.Init();
  qemu.Hash("the core root of trust");
  qemu.Succeed(MakeStartup(StartupType::kClear));
  ExpectReplayEqualsTpm(vtpm);
}

TEST(Vtpm, HashedAfterStartupIsADynamicLaunch) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  qemu.Hash("a launched environment");
  ExpectReplayEqualsTpm(vtpm);
}

TEST(Vtpm, LocalityOfTheGuestIsLeftAsItIs) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  qemu.SetLocality(2);
  ASSERT_TRUE(vtpm.Client().ReadPcrs(kBank, AllPcrs()).has_value());
  qemu.Succeed(MakeExtend(20, kBank, "only locality 1 to 3 may"));
  ExpectReplayEqualsTpm(vtpm);
}

TEST(Vtpm, BytesThatAreNoCommandAreAGap) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  // swtpm's own prefix: locality 2, then a command. The framing of TPM commands does not know it.
  ByteWriter prefixed;
  const Bytes extend = MakeExtend(20, kBank, "smuggled");
  prefixed.U32Be(8).U8(2).U32Be(static_cast<uint32_t>(extend.size())).Raw(extend);
  qemu.Raw(prefixed.bytes());
  EXPECT_THAT(LogOf(vtpm).Replay(kBank).gaps,
              ::testing::ElementsAre("bytes that are no TPM command were sent"));
  PowerOn(qemu);
  EXPECT_TRUE(LogOf(vtpm).Replay(kBank).gaps.empty());
}

TEST(Vtpm, SecondQemuIsRefused) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  EXPECT_FALSE(testing::ConnectTo(vtpm.qemu_socket()).valid());
  qemu.Succeed(MakeExtend(1, kBank, "the first one is still served"));
}

TEST(Vtpm, EndsWithQemuAndKeepsTheTpmsState) {
  const TempDir dir;
  {
    VtpmUnderTest vtpm(dir);
    FakeQemu qemu(vtpm.qemu_socket());
    PowerOn(qemu);
    qemu.Succeed(MakeExtend(1, kBank, "x"));
    const auto swtpm = testing::OpenPidfd(vtpm.Client().Status()->swtpm_pid);
    EXPECT_EQ(EndOf(vtpm, qemu), "exit status 0") << vtpm.output();
    EXPECT_TRUE(testing::WaitForEnd(swtpm.get()));
    EXPECT_THAT(vtpm.output(), HasSubstr("swtpm: exit status 0"));
    EXPECT_THAT(testing::ReadFile(vtpm.record()), HasSubstr("note shutdown clear"));
  }
  VtpmUnderTest again(dir, {"--pcr-banks", "sha1"});  // the TPM is made already: no effect
  FakeQemu qemu(again.qemu_socket());
  PowerOn(qemu);
  EXPECT_TRUE(again.Client().ReadPcrs(HashAlgorithm::kSha256, AllPcrs()).has_value());
  ExpectReplayEqualsTpm(again);
  EXPECT_GT(again.Client().Status()->last_sequence, 5U);  // the record goes on where it was
}

TEST(Vtpm, QemuMayShutTheTpmDownItself) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  EXPECT_EQ(qemu.Control(MakeControlRequest(ControlCommand::kShutdown)), MakeControlResult(0));
  EXPECT_EQ(vtpm.process().Wait(), "exit status 0");
  EXPECT_THAT(vtpm.output(), HasSubstr("QEMU shut the TPM down"));
}

TEST(Vtpm, KilledSwtpmIsRecordedAndQemuCutOff) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  kill(vtpm.Client().Status()->swtpm_pid, SIGKILL);
  EXPECT_TRUE(qemu.Closed());
  EXPECT_EQ(vtpm.process().Wait(), "exit status 1");
  EXPECT_THAT(vtpm.output(), HasSubstr("signal 9 (Killed)"));
  EXPECT_THAT(testing::ReadFile(vtpm.record()), HasSubstr("signal 9 (Killed)"));
}

TEST(Vtpm, SwtpmDoesNotOutliveAKilledVtpm) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  qemu.Succeed(MakeExtend(1, kBank, "x"));
  const auto swtpm = testing::OpenPidfd(vtpm.Client().Status()->swtpm_pid);
  kill(vtpm.process().pid(), SIGKILL);
  EXPECT_TRUE(testing::WaitForEnd(swtpm.get()));
  EXPECT_EQ(measure::ExtendsOfLastBoot(LogOf(vtpm), kBank).size(), 1U);
}

TEST(Vtpm, HasASessionOfItsOwnAndIgnoresHangup) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  EXPECT_EQ(getsid(vtpm.process().pid()), vtpm.process().pid());
  kill(vtpm.process().pid(), SIGHUP);
  qemu.Succeed(MakeExtend(1, kBank, "x"));
  kill(vtpm.process().pid(), SIGTERM);
  EXPECT_EQ(vtpm.process().Wait(), "exit status 0");
}

TEST(Vtpm, ClientsSeeWhatHappens) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  ControlClient client = vtpm.Client();
  EXPECT_EQ(client.Status()->tpm, TpmState::kOff);
  EXPECT_FALSE(client.Status()->qemu_connected);
  const auto early = client.ReadPcrs(kBank, AllPcrs());
  ASSERT_FALSE(early.has_value());
  EXPECT_EQ(early.error().code(), ErrorCode::kUnavailable);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  const auto status = client.Status();
  ASSERT_TRUE(status.has_value());
  EXPECT_EQ(status->tpm, TpmState::kStarted);
  EXPECT_TRUE(status->qemu_connected);
  EXPECT_EQ(status->pid, vtpm.process().pid());
  EXPECT_EQ(status->last_sequence, 2U);
  EXPECT_EQ(status->guest_commands, 1U);
  EXPECT_EQ(status->record_error, "");
  EXPECT_EQ(client.RecordsSince(1)->records.size(), 1U);
}

TEST(Vtpm, AWaitingClientIsAnsweredByTheNextRecord) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  ControlClient client = vtpm.Client();
  std::thread guest([&] { qemu.Succeed(MakeExtend(1, kBank, "x")); });
  const auto batch = client.WaitForRecords(2, testing::kTestTimeout);
  guest.join();
  ASSERT_TRUE(batch.has_value()) << batch.error().Describe();
  ASSERT_EQ(batch->records.size(), 1U);
  EXPECT_EQ(batch->records[0].sequence, 3U);
  const auto none = client.WaitForRecords(3, std::chrono::milliseconds(1));
  ASSERT_TRUE(none.has_value()) << none.error().Describe();
  EXPECT_TRUE(none->records.empty());
}

TEST(Vtpm, ManyRecordsComeInBatches) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  for (int i = 0; i < 300; ++i) {
    qemu.Succeed(MakeExtend(10, kBank, "x"));
  }
  ControlClient client = vtpm.Client();
  const auto first = client.RecordsSince(0);
  ASSERT_EQ(first->records.size(), ControlClient::kMaxBatch);
  const auto second = client.RecordsSince(first->records.back().sequence);
  EXPECT_EQ(second->records.size(), 302 - ControlClient::kMaxBatch);
}

TEST(Vtpm, AClientThatNeverReadsHoldsUpNobody) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  const UniqueFd rude = testing::ConnectTo(dir / "control.sock");
  const std::string request = "{\"op\":\"status\"}\n";
  // Until its requests are not taken any more, because its answers are not.
  while (send(rude.get(), request.data(), request.size(), MSG_DONTWAIT | MSG_NOSIGNAL) > 0) {
  }
  for (int i = 0; i < 100; ++i) {
    qemu.Succeed(MakeExtend(10, kBank, "x"));
  }
  EXPECT_TRUE(vtpm.Client().Status().has_value());
}

TEST(Vtpm, AnEndlessLineIsCutOff) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  const UniqueFd rude = testing::ConnectTo(dir / "control.sock");
  const std::string junk(3 * 4096, 'x');
  ASSERT_GT(send(rude.get(), junk.data(), junk.size(), MSG_NOSIGNAL), 0);
  char byte = 0;
  EXPECT_LE(recv(rude.get(), &byte, 1, 0), 0);
  EXPECT_TRUE(vtpm.Client().Status().has_value());
}

TEST(Vtpm, StopsWhenAskedTo) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  FakeQemu qemu(vtpm.qemu_socket());
  PowerOn(qemu);
  EXPECT_TRUE(vtpm.Client().Stop().has_value());
  EXPECT_EQ(vtpm.process().Wait(), "exit status 0");
  EXPECT_TRUE(qemu.Closed());
  EXPECT_THAT(vtpm.output(), HasSubstr("asked to stop"));
}

TEST(Vtpm, GivesUpWhenQemuNeverComes) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir, {"--connect-timeout", "1"});
  EXPECT_EQ(vtpm.process().Wait(), "exit status 1");
  EXPECT_THAT(vtpm.output(), HasSubstr("QEMU did not connect in time"));
}

TEST(Vtpm, SecondVtpmOnTheSameRecordIsRefused) {
  const TempDir dir;
  VtpmUnderTest vtpm(dir);
  ASSERT_TRUE(vtpm.Client().Status().has_value());
  testing::Process second({VALLUM_BIN_DIR "/vallum-vtpm", "--listen", dir / "q2", "--control",
                           dir / "c2", "--record", vtpm.record(), "--", "swtpm"},
                          dir / "stderr2", {});
  EXPECT_EQ(second.Wait(), "exit status 1");
  EXPECT_THAT(testing::ReadFile(dir / "stderr2"), HasSubstr("another process writes"));
}

TEST(Vtpm, MakesItsOwnSocketsPrivate) {
  const TempDir dir;
  mkdir((dir / "state").c_str(), S_IRWXU);
  testing::Process process(
      {VALLUM_BIN_DIR "/vallum-vtpm", "--listen", dir / "q", "--control", dir / "c", "--record",
       dir / "record", "--", "swtpm", "socket", "--tpm2", "--ctrl", "type=unixio,clientfd=7",
       "--tpmstate", "dir=" + (dir / "state")},
      dir / "stderr", {});
  const UniqueFd pidfd = testing::OpenPidfd(process.pid());
  struct stat info{};
  UniqueFd control;
  // There is nothing to wait on before the socket is there, but the process must not end.
  while (!control.valid()) {
    control = testing::ConnectTo(dir / "c");
    ASSERT_EQ(kill(process.pid(), 0), 0);
  }
  for (const char* name : {"q", "c", "record"}) {
    ASSERT_EQ(stat((dir / name).c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777U, 0600U) << name;
  }
  kill(process.pid(), SIGTERM);
  EXPECT_EQ(process.Wait(), "exit status 0");
  EXPECT_NE(stat((dir / "q").c_str(), &info), 0);
}

TEST(Vtpm, SaysWhySwtpmDoesNotStart) {
  const TempDir dir;
  testing::Process process(
      {VALLUM_BIN_DIR "/vallum-vtpm", "--listen", dir / "q", "--control", dir / "c", "--record",
       dir / "record", "--", dir / "no-such-program", "--ctrl", "type=unixio,clientfd=3"},
      dir / "stderr", {});
  EXPECT_EQ(process.Wait(), "exit status 1");
  EXPECT_THAT(testing::ReadFile(dir / "stderr"), HasSubstr("the program cannot be run"));
}

TEST(Vtpm, DamagedRecordIsNotOverwritten) {
  const TempDir dir;
  std::ofstream(dir / "record") << "damaged\n";
  VtpmUnderTest vtpm(dir);
  EXPECT_EQ(vtpm.process().Wait(), "exit status 1");
  EXPECT_EQ(testing::ReadFile(dir / "record"), "damaged\n");
  EXPECT_THAT(vtpm.output(), HasSubstr("move the file away"));
}

}  // namespace
}  // namespace vallum::vtpm
