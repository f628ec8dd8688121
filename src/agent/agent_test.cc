// SPDX-License-Identifier: Apache-2.0
// The agent as a program, with real QEMU and swtpm, against a controller over real gRPC and TLS.
#include "agent/agent.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "agent/fake_gateway.h"
#include "agent/instance_files.h"
#include "agent/lease_maker.h"
#include "agent/state_files.h"
#include "agent/test_support.h"
#include "firmware/signature_list.h"
#include "tls/certificate.h"
#include "tpm/host_tpm.h"
#include "tpm/swtpm_rig.h"

namespace vallum::agent {
namespace {

constexpr size_t kDiskSize = size_t{1} << 20U;
constexpr const char* kOther = "5b5b5b5b-1b1b-4c2c-8d3d-4e4e4e4e4e4e";

// Numbers of the processes whose command line names the text.
std::vector<pid_t> ProcessesNaming(const std::string& text) {
  std::vector<pid_t> found;
  std::error_code failure;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", failure)) {
    std::ifstream file(entry.path() / "cmdline");
    std::string line;
    std::getline(file, line);
    if (line.find(text) != std::string::npos && line.find("vallum-agent") == std::string::npos) {
      found.push_back(static_cast<pid_t>(std::stol("0" + entry.path().filename().string())));
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

class AgentTest : public testing::Test {
 protected:
  AgentTest() : gateway_(dir_.path() / "ca"), disk_(kDiskSize, 'v') {
    std::filesystem::create_directories(State());
    WriteToken(gateway_.JoinToken());
    gateway_.AddBlob(Digest(), disk_);
  }
  ~AgentTest() override {
    KillAgent();
    for (const pid_t pid : ProcessesNaming(dir_.path().string())) {
      kill(pid, SIGKILL);
    }
  }

  std::filesystem::path State() const { return dir_.path() / "s"; }
  std::filesystem::path Token() const { return dir_.path() / "token"; }
  std::string Digest() const { return ToHex(Sha256(AsBytes(disk_))); }
  void WriteToken(const std::string& text) {
    ASSERT_TRUE(WriteFileAtomically(Token(), AsBytes(text), 0600));
  }

  void StartAgent(std::vector<std::string> more = {}) {
    std::vector<std::string> words = {std::string(VALLUM_BIN_DIR) + "/vallum-agent",
                                      "--state-dir",
                                      State().string(),
                                      "--run-dir",
                                      (dir_.path() / "r").string(),
                                      "--name",
                                      "node1",
                                      "--join-token-file",
                                      Token().string()};
    words.insert(words.end(), more.begin(), more.end());
    agent_ = fork();
    ASSERT_GE(agent_, 0);
    if (agent_ == 0) {
      if (!log_.empty()) {
        dup2(open(log_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600), STDERR_FILENO);
      }
      std::vector<char*> argv;
      for (std::string& word : words) {
        argv.push_back(word.data());
      }
      argv.push_back(nullptr);
      execv(argv[0], argv.data());
      _exit(127);
    }
  }
  // False when it did not end by itself within a minute.
  bool AgentEnds() {
    pollfd ended{
        .fd = static_cast<int>(syscall(SYS_pidfd_open, agent_, 0)), .events = POLLIN, .revents = 0};
    const bool in_time = poll(&ended, 1, 60000) == 1;
    close(ended.fd);
    KillAgent();
    return in_time;
  }
  void KillAgent() {
    if (agent_ > 0) {
      kill(agent_, SIGKILL);
      waitpid(agent_, nullptr, 0);
      agent_ = -1;
    }
  }

  v1::DesiredInstance Instance(const std::string& uid, v1::BootType type, v1::BootMode mode) const {
    v1::DesiredInstance desired;
    desired.set_uid(uid);
    desired.set_name("web1");
    desired.set_generation(1);
    desired.mutable_spec()->set_image("tiny");
    desired.mutable_spec()->set_power(v1::POWER_RUNNING);
    desired.mutable_spec()->set_vcpus(1);
    desired.mutable_spec()->set_memory_bytes(int64_t{128} << 20);
    desired.mutable_boot()->set_type(type);
    desired.mutable_boot()->set_mode(mode);
    desired.set_image_sha256(Digest());
    desired.set_image_size_bytes(kDiskSize);
    desired.set_image_virtual_size_bytes(kDiskSize);
    desired.set_image_format("raw");
    return desired;
  }
  std::optional<v1::InstanceReport> WaitForPhase(const std::string& uid, v1::InstancePhase phase) {
    return gateway_.WaitFor(uid, [phase](const v1::InstanceReport& report) {
      return report.status().phase() == phase;
    });
  }

  const TempDir dir_;
  FakeGateway gateway_;
  const std::string disk_;
  pid_t agent_ = -1;
  std::filesystem::path log_;  // empty: this process's own
};

bool IsGone(const v1::InstanceReport& report) { return report.gone(); }

TEST_F(AgentTest, GuestSurvivesAKilledAgentAndIsAdoptedAndRemoved) {
  auto desired = Instance(kUid, v1::BOOT_TYPE_BIOS, v1::BOOT_MODE_LEGACY);
  gateway_.Want(desired);
  gateway_.BreakNextTransferAfter(size_t{256} << 10U);
  StartAgent();
  const auto running = WaitForPhase(kUid, v1::INSTANCE_RUNNING);
  ASSERT_TRUE(running);
  EXPECT_EQ(gateway_.peer_name(), "node1");
  const auto offsets = gateway_.transfer_offsets();
  ASSERT_EQ(offsets.size(), 2U) << "one broken transfer, one that goes on";
  EXPECT_GT(offsets[1], 0);
  ASSERT_TRUE(gateway_.WaitFor(kUid, [](const v1::InstanceReport& report) {
    return report.status().boot().measured().verdict() == v1::BOOT_UNMEASURED;
  }));
  const auto before = ProcessesNaming(dir_.path().string());
  ASSERT_FALSE(before.empty());

  KillAgent();
  EXPECT_EQ(ProcessesNaming(dir_.path().string()), before);
  StartAgent();  // its token is spent: it must not be needed
  ASSERT_TRUE(gateway_.WaitForHellos(2));
  const auto adopted = WaitForPhase(kUid, v1::INSTANCE_RUNNING);
  ASSERT_TRUE(adopted);
  EXPECT_EQ(gateway_.enrolments(), 1);
  EXPECT_EQ(adopted->status().started_at().seconds(), running->status().started_at().seconds());
  EXPECT_EQ(ProcessesNaming(dir_.path().string()), before);
  gateway_.OpenConsole("console-1", kUid);
  EXPECT_TRUE(gateway_.WaitForConsole("console-1"));

  desired.set_generation(2);
  desired.mutable_spec()->set_power(v1::POWER_STOPPED);
  desired.mutable_spec()->set_force_stop(true);
  gateway_.Want(desired);
  const auto stopped = WaitForPhase(kUid, v1::INSTANCE_STOPPED);
  ASSERT_TRUE(stopped);
  EXPECT_FALSE(stopped->status().last_exit().empty());

  desired.set_remove(true);
  gateway_.Want(desired);
  ASSERT_TRUE(gateway_.WaitFor(kUid, IsGone));
  EXPECT_TRUE(ProcessesNaming(dir_.path().string()).empty());
  EXPECT_FALSE(std::filesystem::exists(State() / "instances" / kUid));
  EXPECT_FALSE(std::filesystem::exists(dir_.path() / "r/instances" / kUid));
}

TEST_F(AgentTest, GuestThatCannotBeAdoptedNowRunsOnAndIsAdoptedLater) {
  gateway_.Want(Instance(kUid, v1::BOOT_TYPE_BIOS, v1::BOOT_MODE_LEGACY));
  StartAgent();
  ASSERT_TRUE(WaitForPhase(kUid, v1::INSTANCE_RUNNING));
  KillAgent();
  const auto before = ProcessesNaming(dir_.path().string());
  ASSERT_FALSE(before.empty());
  const auto socket = dir_.path() / "r/instances" / kUid / "qmp.sock";
  const auto away = dir_.path() / "away.sock";
  std::filesystem::rename(socket, away);
  StartAgent();
  const auto report = gateway_.WaitFor(kUid, [](const v1::InstanceReport& seen) {
    return seen.status().reason().find("tries again") != std::string::npos;
  });
  ASSERT_TRUE(report);
  EXPECT_EQ(report->status().phase(), v1::INSTANCE_RUNNING);
  EXPECT_EQ(ProcessesNaming(dir_.path().string()), before);
  std::filesystem::rename(away, socket);
  EXPECT_TRUE(gateway_.WaitFor(kUid, [](const v1::InstanceReport& seen) {
    return seen.status().phase() == v1::INSTANCE_RUNNING && seen.status().reason().empty();
  }));
  EXPECT_EQ(ProcessesNaming(dir_.path().string()), before);
}

TEST_F(AgentTest, AgentEndsInTheMiddleOfAStopAndTheNextOneGoesOn) {
  auto desired = Instance(kUid, v1::BOOT_TYPE_BIOS, v1::BOOT_MODE_LEGACY);
  gateway_.Want(desired);
  StartAgent();
  ASSERT_TRUE(WaitForPhase(kUid, v1::INSTANCE_RUNNING));
  const auto before = ProcessesNaming(dir_.path().string());
  desired.set_generation(2);
  desired.mutable_spec()->set_power(v1::POWER_STOPPED);
  desired.mutable_spec()->set_stop_timeout_seconds(3600);  // the guest does not look at its button
  gateway_.Want(desired);
  ASSERT_TRUE(WaitForPhase(kUid, v1::INSTANCE_STOPPING));
  ASSERT_EQ(kill(agent_, SIGTERM), 0);
  ASSERT_TRUE(AgentEnds());
  EXPECT_EQ(ProcessesNaming(dir_.path().string()), before);
  StartAgent();
  ASSERT_TRUE(gateway_.WaitForHellos(2));
  desired.set_generation(3);
  desired.mutable_spec()->set_force_stop(true);
  gateway_.Want(desired);
  EXPECT_TRUE(WaitForPhase(kUid, v1::INSTANCE_STOPPED));
}

TEST_F(AgentTest, FirmwareIsMeasuredWhileItRuns) {
  gateway_.Want(Instance(kUid, v1::BOOT_TYPE_UEFI, v1::BOOT_MODE_LEGACY));
  StartAgent();
  const auto report = gateway_.WaitFor(kUid, [](const v1::InstanceReport& seen) {
    return seen.status().boot().measured().secure_boot() == v1::SECURE_BOOT_OFF &&
           !seen.status().boot().measured().pcr7_computed().empty();
  });
  ASSERT_TRUE(report);
  const v1::BootMeasured& measured = report->status().boot().measured();
  EXPECT_EQ(measured.tpm_resets(), 1);
  EXPECT_GT(measured.extends(), 0);
  const auto agreed = gateway_.WaitFor(kUid, [](const v1::InstanceReport& seen) {
    const v1::BootMeasured& now = seen.status().boot().measured();
    return !now.pcrs().empty() && now.pcr7_measured() == now.pcr7_computed() &&
           now.pcrs(7).digest() == now.pcr7_measured();
  });
  EXPECT_TRUE(agreed) << "the TPM's own PCR 7 is what was recorded and computed";
}

v1::MakeQuote QuoteWanted(const std::string& id, const std::string& pcrs) {
  v1::MakeQuote wanted;
  wanted.set_request_id(id);
  wanted.set_instance_uid(kUid);
  wanted.set_nonce("a nonce");
  wanted.set_pcrs(pcrs);
  return wanted;
}

TEST_F(AgentTest, VtpmHasACertificateFromItsFirstStartAndSignsWhenAsked) {
  gateway_.Want(Instance(kUid, v1::BOOT_TYPE_UEFI, v1::BOOT_MODE_LEGACY));
  StartAgent();
  const auto report = gateway_.WaitFor(kUid, [](const v1::InstanceReport& seen) {
    return !seen.status().vtpm().ek_certificate().empty() &&
           !seen.status().boot().measured().pcr7_measured().empty();
  });
  ASSERT_TRUE(report);
  const v1::VtpmIdentity& vtpm = report->status().vtpm();
  EXPECT_EQ(vtpm.ak_name().substr(0, 4), "000b");
  EXPECT_EQ(tls::InspectPem(vtpm.ek_certificate())->common_name, "web1");
  const auto answer = gateway_.AskQuote(QuoteWanted("one", "sha256:7,0"));
  ASSERT_TRUE(answer);
  ASSERT_TRUE(answer->has_quote()) << answer->problem().detail();
  EXPECT_EQ(answer->quote().ak_public_pem(), vtpm.ak_public());
  EXPECT_EQ(answer->quote().ek_certificate(), vtpm.ek_certificate());
  EXPECT_EQ(answer->quote().pcr_selection(), "sha256:0,7");
  EXPECT_EQ(answer->quote().values_size(), 2);
  const auto malformed = gateway_.AskQuote(QuoteWanted("two", "sha256:99"));
  ASSERT_TRUE(malformed);
  EXPECT_EQ(malformed->problem().code(), "invalid_input");
  auto unknown = QuoteWanted("three", "sha256:0");
  unknown.set_instance_uid(kOther);
  const auto nowhere = gateway_.AskQuote(unknown);
  ASSERT_TRUE(nowhere);
  EXPECT_EQ(nowhere->problem().code(), "not_found");
}

TEST_F(AgentTest, GuestStartsWithoutACertificateAndGetsItLater) {
  gateway_.SetCertifies(false);
  gateway_.Want(Instance(kUid, v1::BOOT_TYPE_UEFI, v1::BOOT_MODE_LEGACY));
  StartAgent();
  const auto without = gateway_.WaitFor(kUid, [](const v1::InstanceReport& seen) {
    return seen.status().phase() == v1::INSTANCE_RUNNING && !seen.status().vtpm().note().empty();
  });
  ASSERT_TRUE(without);
  EXPECT_NE(without->status().vtpm().note().find("no certificates today"), std::string::npos);
  EXPECT_FALSE(without->status().vtpm().ek_public().empty());
  gateway_.SetCertifies(true);
  const auto with = gateway_.WaitFor(kUid, [](const v1::InstanceReport& seen) {
    return !seen.status().vtpm().ek_certificate().empty();
  });
  ASSERT_TRUE(with);
  EXPECT_NE(with->status().vtpm().note().find("after the next start"), std::string::npos);
  // The next start has it, and asks nobody.
  auto desired = Instance(kUid, v1::BOOT_TYPE_UEFI, v1::BOOT_MODE_LEGACY);
  desired.set_generation(2);
  desired.mutable_spec()->set_power(v1::POWER_STOPPED);
  desired.mutable_spec()->set_force_stop(true);
  gateway_.Want(desired);
  ASSERT_TRUE(WaitForPhase(kUid, v1::INSTANCE_STOPPED));
  desired.set_generation(3);
  desired.mutable_spec()->set_power(v1::POWER_RUNNING);
  gateway_.Want(desired);
  const auto again = gateway_.WaitFor(kUid, [](const v1::InstanceReport& seen) {
    return seen.status().phase() == v1::INSTANCE_RUNNING &&
           seen.status().observed_generation() == 3;
  });
  ASSERT_TRUE(again);
  EXPECT_EQ(again->status().vtpm().ek_certificate(), with->status().vtpm().ek_certificate());
  EXPECT_EQ(gateway_.vtpm_certificates(), 1);
}

std::string Lists(int seed) {
  return std::string(AsText(firmware::EncodeSignatureLists(
      {firmware::MakeSignature(firmware::SignatureType::kSha256, firmware::kGlobalVariableGuid,
                               Bytes(32, static_cast<std::byte>(seed)))})));
}

TEST_F(AgentTest, FirmwareMeasuresTheKeysOfTheControllerAndTheEvidenceIsKept) {
  auto desired = Instance(kUid, v1::BOOT_TYPE_UEFI, v1::BOOT_MODE_SECURE);
  v1::KeySetContent& keys = *desired.mutable_key_set();
  keys.set_pk(Lists(1));
  keys.set_kek(Lists(2));
  keys.set_db(Lists(3));
  keys.set_dbx(Lists(4));
  desired.set_key_set_name("prod");
  desired.set_key_set_version(2);
  gateway_.Want(desired);
  StartAgent();
  const auto report = gateway_.WaitFor(kUid, [](const v1::InstanceReport& seen) {
    const v1::BootMeasured& now = seen.status().boot().measured();
    return seen.status().phase() == v1::INSTANCE_FAILED ||
           (now.secure_boot() == v1::SECURE_BOOT_ON && !now.pcrs().empty());
  });
  ASSERT_TRUE(report);
  if (report->status().phase() == v1::INSTANCE_FAILED) {
    GTEST_SKIP() << "no Secure Boot on this host: " << report->status().reason();
  }
  EXPECT_EQ(report->status().boot().effective().key_set(), "prod");
  EXPECT_EQ(report->status().boot().effective().key_set_version(), 2);
  EXPECT_NE(report->status().boot().measured().verdict(), v1::BOOT_DIVERGED);
  const auto complete = [](const v1::BootEvidence& seen) {
    return seen.events_size() > 10 && !seen.prediction_problem().empty();
  };
  const auto evidence = gateway_.WaitForEvidence(kUid, complete);
  ASSERT_TRUE(evidence);
  EXPECT_EQ(evidence->keys().db(), keys.db());
  EXPECT_EQ(evidence->keys().dbx(), keys.dbx());
  EXPECT_NE(evidence->prediction_problem().find("no GPT"), std::string::npos);

  gateway_.ForgetEvidence();
  gateway_.DropSession();
  EXPECT_TRUE(gateway_.WaitForEvidence(kUid, complete)) << "told again after each connect";
  KillAgent();
  gateway_.ForgetEvidence();
  StartAgent();
  const auto adopted = gateway_.WaitForEvidence(kUid, complete);
  ASSERT_TRUE(adopted);
  EXPECT_EQ(adopted->prediction_problem(), evidence->prediction_problem());
  EXPECT_EQ(adopted->tpm_resets(), 1);

  // Other keys take effect with the next boot, which begins as the controller asks.
  desired.set_generation(2);
  desired.set_key_set_version(3);
  keys.set_dbx(Lists(5));
  desired.mutable_spec()->set_reboot_count(1);
  gateway_.Want(desired);
  const auto again = gateway_.WaitFor(kUid, [](const v1::InstanceReport& seen) {
    return seen.status().boot().effective().key_set_version() == 3 &&
           seen.status().phase() == v1::INSTANCE_RUNNING;
  });
  ASSERT_TRUE(again);
  EXPECT_NE(again->status().reason().find("version 3"), std::string::npos);
  EXPECT_FALSE(again->status().notes().empty());
  EXPECT_TRUE(gateway_.WaitForEvidence(
      kUid, [&](const v1::BootEvidence& seen) { return seen.keys().dbx() == keys.dbx(); }));
}

TEST_F(AgentTest, IsolationFollowsWhatIsAskedAndSurvivesTheAgent) {
  auto desired = Instance(kUid, v1::BOOT_TYPE_BIOS, v1::BOOT_MODE_LEGACY);
  desired.mutable_spec()->add_networks()->set_type("user");
  desired.set_isolate(true);
  gateway_.Want(desired);
  StartAgent();
  const auto isolated = [](bool down) {
    return [down](const v1::InstanceReport& seen) {
      return seen.status().phase() == v1::INSTANCE_RUNNING && seen.status().isolated() == down;
    };
  };
  ASSERT_TRUE(gateway_.WaitFor(kUid, isolated(true)));
  desired.set_isolate(false);
  gateway_.Want(desired);
  ASSERT_TRUE(gateway_.WaitFor(kUid, isolated(false)));
  KillAgent();
  desired.set_isolate(true);
  gateway_.Want(desired);
  StartAgent();
  EXPECT_TRUE(gateway_.WaitFor(kUid, isolated(true)));
}

TEST_F(AgentTest, HostWithoutSecureFirmwareRefusesSecureAndSaysWhy) {
  const auto empty = dir_.path() / "no-firmware";
  std::filesystem::create_directories(empty);
  gateway_.Want(Instance(kUid, v1::BOOT_TYPE_UEFI, v1::BOOT_MODE_SECURE));
  StartAgent({"--firmware-dir", empty.string()});
  const auto failed = WaitForPhase(kUid, v1::INSTANCE_FAILED);
  ASSERT_TRUE(failed);
  EXPECT_NE(failed->status().reason().find("firmware"), std::string::npos);
  const v1::HostCapabilities capabilities = gateway_.capabilities();
  ASSERT_GT(capabilities.traits_size(), 0);
  for (const std::string& trait : capabilities.traits()) {
    EXPECT_NE(trait, kTraitSecureBoot);
    EXPECT_NE(trait, kTraitUefi);
  }
}

TEST_F(AgentTest, DamagedStateOfOneInstanceHoldsUpNoOther) {
  gateway_.Want(Instance(kOther, v1::BOOT_TYPE_BIOS, v1::BOOT_MODE_LEGACY));
  const auto directory = State() / "instances" / kUid;
  std::filesystem::create_directories(directory);
  ASSERT_TRUE(WriteFileAtomically(directory / "instance.pb", AsBytes("rubbish"), 0600));
  StartAgent();
  ASSERT_TRUE(WaitForPhase(kOther, v1::INSTANCE_RUNNING));
  const auto failed = WaitForPhase(kUid, v1::INSTANCE_FAILED);
  ASSERT_TRUE(failed);
  EXPECT_NE(failed->status().reason().find("damaged"), std::string::npos);
  auto remove = Instance(kUid, v1::BOOT_TYPE_BIOS, v1::BOOT_MODE_LEGACY);
  remove.set_remove(true);
  gateway_.Want(remove);
  EXPECT_TRUE(gateway_.WaitFor(kUid, IsGone));
  EXPECT_FALSE(std::filesystem::exists(directory));
}

TEST_F(AgentTest, SecondAgentOnOneStateDirectoryIsRefused) {
  StartAgent();
  ASSERT_TRUE(gateway_.WaitForHellos(1));
  AgentConfig config = MakeConfig(State());
  const SystemClock clock;
  const auto second = Agent::Open(config, clock, [](LogLevel, const std::string&) {});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), ErrorCode::kConflict);
}

TEST_F(AgentTest, UnjoinedHostSaysHowToJoinAndSpentTokenIsDenied) {
  AgentConfig config = MakeConfig(State());
  const SystemClock clock;
  const auto sink = [](LogLevel, const std::string&) {};
  const auto unjoined = Agent::Open(config, clock, sink);
  ASSERT_FALSE(unjoined);
  EXPECT_EQ(unjoined.error().code(), ErrorCode::kNotFound);
  EXPECT_NE(unjoined.error().fix().find("join"), std::string::npos);
  const auto token = ReadJoinTokenFile(Token());
  ASSERT_TRUE(token);
  const auto other = dir_.path() / "other";
  const auto first = Enrol(other, "node1", *token, clock);
  ASSERT_TRUE(first) << first.error().Describe();
  config.join_token_file = Token();
  const auto spent = Agent::Open(config, clock, sink);
  ASSERT_FALSE(spent);
  EXPECT_EQ(spent.error().code(), ErrorCode::kDenied);

  const auto loaded = LoadIdentity(other, "node1");
  ASSERT_TRUE(loaded) << loaded.error().Describe();
  EXPECT_TRUE(CheckIdentity(*loaded, clock.Now()).valid);
  const auto later = clock.Now() + std::chrono::hours(24 * 31);
  EXPECT_FALSE(CheckIdentity(*loaded, later).valid);
  EXPECT_NE(CheckIdentity(*loaded, later).detail.find("expired"), std::string::npos);
  EXPECT_FALSE(LoadIdentity(other, "node2"));
  std::filesystem::remove(other / "identity/agent.key");
  EXPECT_EQ(LoadIdentity(other, "node1").error().code(), ErrorCode::kCorrupt);
}

TEST_F(AgentTest, ImageGoesWithTheLastInstanceThatNeedsIt) {
  auto first = Instance(kUid, v1::BOOT_TYPE_BIOS, v1::BOOT_MODE_LEGACY);
  auto second = Instance(kOther, v1::BOOT_TYPE_BIOS, v1::BOOT_MODE_LEGACY);
  gateway_.Want(first);
  gateway_.Want(second);
  StartAgent();
  ASSERT_TRUE(WaitForPhase(kUid, v1::INSTANCE_RUNNING));
  ASSERT_TRUE(WaitForPhase(kOther, v1::INSTANCE_RUNNING));
  const auto images = [this] {
    size_t count = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(State() / "blobs")) {
      count += entry.is_regular_file() && entry.file_size() == kDiskSize ? 1U : 0U;
    }
    return count;
  };
  EXPECT_EQ(images(), 1U);
  first.set_remove(true);
  gateway_.Want(first);
  ASSERT_TRUE(gateway_.WaitFor(kUid, IsGone));
  EXPECT_EQ(images(), 1U);
  second.set_remove(true);
  gateway_.Want(second);
  ASSERT_TRUE(gateway_.WaitFor(kOther, IsGone));
  EXPECT_EQ(images(), 0U);
}

TEST_F(AgentTest, GuestThatItsHostsRestartEndedDidNotEndByItself) {
  gateway_.Want(Instance(kUid, v1::BOOT_TYPE_BIOS, v1::BOOT_MODE_LEGACY));
  StartAgent();
  ASSERT_TRUE(WaitForPhase(kUid, v1::INSTANCE_RUNNING));
  KillAgent();
  for (const pid_t pid : ProcessesNaming(dir_.path().string())) {
    kill(pid, SIGKILL);
  }
  const InstancePaths paths = MakeInstancePaths(MakeConfig(State()), kUid);
  ASSERT_TRUE(WriteStateFile(paths.boot, "boot-id", "the boot before"));
  StartAgent();
  const auto crashed = WaitForPhase(kUid, v1::INSTANCE_CRASHED);
  ASSERT_TRUE(crashed);
  EXPECT_NE(crashed->status().reason().find("the host was restarted"), std::string::npos);
  EXPECT_FALSE(crashed->status().ended_by_itself());
}

Bytes KeyOf(const std::filesystem::path& state) {
  auto key = ReadWholeFile(state / "identity/agent.key", ByteCount::KiB(64));
  return key ? *std::move(key) : Bytes();
}

TEST_F(AgentTest, OldCertificateIsRenewedForTheSameKeyAndUsedForTheNextSession) {
  gateway_.SetCertificateAge(std::chrono::hours(24 * 25));
  const SystemClock clock;
  const auto token = ReadJoinTokenFile(Token());
  ASSERT_TRUE(token);
  const auto old = Enrol(State(), "node1", *token, clock);
  ASSERT_TRUE(old) << old.error().Describe();
  ASSERT_TRUE(CheckIdentity(*old, clock.Now()).renew_soon);
  const Bytes key = KeyOf(State());
  gateway_.SetCertificateAge(std::chrono::hours(0));
  StartAgent();
  ASSERT_TRUE(gateway_.WaitForGoodCertificate());
  const std::string first = gateway_.peer_certificate();
  gateway_.DropSession();
  ASSERT_TRUE(gateway_.WaitForHellos(2));
  EXPECT_NE(gateway_.peer_certificate(), first);
  EXPECT_EQ(gateway_.renewals(), 1);
  EXPECT_EQ(gateway_.enrolments(), 1);
  const auto stored = LoadIdentity(State(), "node1");
  ASSERT_TRUE(stored) << stored.error().Describe();
  EXPECT_FALSE(CheckIdentity(*stored, clock.Now()).renew_soon);
  EXPECT_EQ(KeyOf(State()), key);
}

TEST_F(AgentTest, NewTokenAfterExpiryKeepsTheHostsKey) {
  gateway_.SetCertificateAge(std::chrono::hours(24 * 25));
  const SystemClock clock;
  const auto token = ReadJoinTokenFile(Token());
  ASSERT_TRUE(token);
  ASSERT_TRUE(Enrol(State(), "node1", *token, clock));
  const Bytes key = KeyOf(State());
  ASSERT_FALSE(key.empty());
  gateway_.AllowAnotherEnrolment();
  ASSERT_TRUE(Enrol(State(), "node1", *token, clock));
  EXPECT_EQ(KeyOf(State()), key);
  EXPECT_EQ(gateway_.enrolments(), 2);
}

class AttestedAgentTest : public AgentTest {
 protected:
  AttestedAgentTest() { gateway_.SetAttested(true); }
  void StartAttested() { StartAgent({"--tpm", tpm_.text()}); }
  v1::RequestEvidence Request(const std::string& id) const {
    v1::RequestEvidence request;
    request.set_request_id(id);
    request.set_nonce("a nonce of 20 bytes ");
    request.set_pcrs("sha256:0,7+sha384:0");
    request.set_event_log(true);
    return request;
  }
  // Tells the agent that its host is trusted for so long.
  void GiveLease(std::chrono::seconds life) {
    const auto bound = gateway_.WaitForBinding();
    ASSERT_TRUE(bound);
    ByteWriter area;
    area.U16Be(static_cast<uint16_t>(bound->ak_public().size())).Raw(AsBytes(bound->ak_public()));
    const Bytes name = tpm::KeyName(area.bytes()).value();
    v1::LeaseClaims claims =
        MakeClaims("node1", CurrentBootId(), std::string(AsText(name)), SystemClock().Now(), life);
    claims.set_serial(std::to_string(++leases_));
    v1::TrustNotice notice;
    notice.set_level(v1::TRUST_TRUSTED);
    *notice.mutable_lease() = gateway_.Sign(claims);
    gateway_.Tell(notice);
  }
  v1::DesiredInstance Trusted() const {
    auto desired = Instance(kUid, v1::BOOT_TYPE_BIOS, v1::BOOT_MODE_LEGACY);
    desired.set_needs_lease(true);
    desired.mutable_spec()->set_pool("trusted");
    return desired;
  }
  InstancePaths Paths() const { return MakeInstancePaths(MakeConfig(State()), kUid); }
  // What the agent keeps, as it cannot tell anybody; nothing after a minute.
  std::optional<v1::InstanceStatus> WaitForStored(v1::InstancePhase phase) const {
    const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (std::chrono::steady_clock::now() < end) {
      const StoredInstance stored = LoadInstance(Paths(), kUid);
      if (stored.status && stored.status->phase() == phase) {
        return stored.status;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return std::nullopt;
  }
  tpm::SwtpmRig tpm_;
  int leases_ = 0;
};

TEST_F(AttestedAgentTest, BindsItsTpmAndAnswersWithAQuote) {
  StartAttested();
  const auto bound = gateway_.WaitForBinding();
  ASSERT_TRUE(bound);
  const auto evidence = gateway_.AskEvidence(Request("one"));
  ASSERT_FALSE(evidence.empty());
  const v1::EvidenceHeader& header = evidence.front().header();
  EXPECT_FALSE(header.quoted().empty()) << evidence.back().problem().detail();
  EXPECT_EQ(header.nonces(0), Request("one").nonce());
  ASSERT_EQ(header.banks_size(), 2);
  EXPECT_EQ(header.banks(1).values(0).size(), 48U);
  EXPECT_FALSE(header.facts().kernel_release().empty());
  EXPECT_EQ(header.boot_id(), CurrentBootId());

  KillAgent();
  gateway_.SetTakesTpms(true);
  StartAttested();
  ASSERT_TRUE(gateway_.WaitForHellos(2));
  EXPECT_FALSE(gateway_.AskEvidence(Request("two")).front().header().quoted().empty());
  EXPECT_EQ(gateway_.WaitForBinding()->ak_public(), bound->ak_public());
}

TEST_F(AttestedAgentTest, AgentWithoutTpmSaysWhyThereIsNoEvidence) {
  StartAgent({"--tpm", "none"});
  ASSERT_TRUE(gateway_.WaitForHellos(1));
  const auto evidence = gateway_.AskEvidence(Request("one"));
  ASSERT_EQ(evidence.size(), 2U);
  EXPECT_NE(evidence.back().problem().detail().find("--tpm none"), std::string::npos)
      << evidence.back().problem().detail();
}

TEST_F(AttestedAgentTest, InstanceThatNeedsALeaseWaitsForItAndStarts) {
  gateway_.Want(Trusted());
  StartAttested();
  const auto reason = gateway_.WaitForLeaseWanted(1);
  ASSERT_TRUE(reason);
  EXPECT_NE(reason->find("no live lease"), std::string::npos);
  EXPECT_TRUE(ProcessesNaming(dir_.path().string() + "/r/instances").empty());
  GiveLease(std::chrono::minutes(10));
  EXPECT_TRUE(WaitForPhase(kUid, v1::INSTANCE_RUNNING));
}

TEST_F(AttestedAgentTest, StartWithoutALeaseIsRefusedInWordsAndDoneWhenThereIsOne) {
  gateway_.Want(Trusted());
  StartAttested();
  const auto failed = WaitForPhase(kUid, v1::INSTANCE_FAILED);
  ASSERT_TRUE(failed);
  EXPECT_NE(failed->status().reason().find("no live lease"), std::string::npos);
  EXPECT_NE(failed->status().fix().find("TRUSTED"), std::string::npos);
  EXPECT_EQ(failed->status().observed_generation(), 1);
  KillAgent();  // the next agent knows what was refused
  StartAttested();
  ASSERT_TRUE(gateway_.WaitForHellos(2));
  GiveLease(std::chrono::minutes(10));
  EXPECT_TRUE(WaitForPhase(kUid, v1::INSTANCE_RUNNING));
}

TEST_F(AttestedAgentTest, CloneWithoutALeaseIsRefusedBeforeAnythingIsTakenOver) {
  auto clone = Trusted();
  clone.mutable_spec()->set_snapshot("before-upgrade");
  clone.mutable_snapshot()->set_variables_sha256(Digest());
  clone.mutable_snapshot()->set_tpm_sha256(Digest());
  gateway_.Want(clone);
  StartAttested();
  const auto failed = WaitForPhase(kUid, v1::INSTANCE_FAILED);
  ASSERT_TRUE(failed);
  EXPECT_NE(failed->status().reason().find("no live lease"), std::string::npos)
      << failed->status().reason();
  EXPECT_NE(failed->status().fix().find("TRUSTED"), std::string::npos);
  EXPECT_TRUE(ProcessesNaming(dir_.path().string() + "/r/instances").empty());
  EXPECT_TRUE(gateway_.transfer_offsets().empty());
  EXPECT_FALSE(std::filesystem::exists(Paths().root_disk));
  EXPECT_FALSE(std::filesystem::exists(Paths().tpm_dir));
}

// A controller that cannot be reached hands out no start. So the start is handed out while the
// lease lives and cannot be finished: the network goes while the image is fetched, and the agent
// tries again by itself until the lease is over.
TEST_F(AttestedAgentTest, StartIsRefusedWhenTheLeaseEndsWhileTheNetworkIsCut) {
  log_ = dir_.path() / "agent.log";
  gateway_.HoldTransfers();
  StartAttested();
  ASSERT_TRUE(gateway_.WaitForHellos(1));
  GiveLease(std::chrono::seconds(5));
  gateway_.Want(Trusted());
  ASSERT_TRUE(gateway_.CutOffInTransfer()) << "the lease was live";
  const auto status = WaitForStored(v1::INSTANCE_FAILED);
  ASSERT_TRUE(status);
  EXPECT_NE(status->reason().find("no live lease: the lease ended at"), std::string::npos)
      << status->reason();
  EXPECT_NE(status->reason().find("the controller has not been reached since"), std::string::npos)
      << status->reason();
  EXPECT_TRUE(ProcessesNaming(dir_.path().string() + "/r/instances").empty());
  const Bytes log = ReadWholeFile(log_, ByteCount::MiB(1)).value();
  std::string said = std::string(AsText(log)) + status->reason() + status->fix();
  std::ranges::transform(said, said.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  EXPECT_EQ(said.find("untrusted"), std::string::npos) << said;
}

TEST_F(AttestedAgentTest, LeaseHoldsOverARestartOfTheAgentAndItsEndStopsNoGuestButItsResume) {
  auto desired = Trusted();
  gateway_.Want(desired);
  StartAttested();
  ASSERT_TRUE(gateway_.WaitForLeaseWanted(1));
  GiveLease(std::chrono::minutes(10));
  ASSERT_TRUE(WaitForPhase(kUid, v1::INSTANCE_RUNNING));
  KillAgent();
  StartAttested();
  ASSERT_TRUE(gateway_.WaitForHellos(2));
  desired.set_generation(2);
  desired.mutable_spec()->set_power(v1::POWER_PAUSED);
  gateway_.Want(desired);
  ASSERT_TRUE(WaitForPhase(kUid, v1::INSTANCE_PAUSED));
  desired.set_generation(3);
  desired.mutable_spec()->set_power(v1::POWER_RUNNING);
  gateway_.Want(desired);
  ASSERT_TRUE(WaitForPhase(kUid, v1::INSTANCE_RUNNING)) << "the lease of the agent before holds";

  v1::TrustNotice none;
  none.set_level(v1::TRUST_STALE);
  none.set_detail("the last evidence is too old");
  gateway_.Tell(none);
  desired.set_generation(4);
  desired.mutable_spec()->set_power(v1::POWER_PAUSED);
  gateway_.Want(desired);
  ASSERT_TRUE(WaitForPhase(kUid, v1::INSTANCE_PAUSED));
  desired.set_generation(5);
  desired.mutable_spec()->set_power(v1::POWER_RUNNING);
  gateway_.Want(desired);
  const auto refused = gateway_.WaitFor(kUid, [](const v1::InstanceReport& seen) {
    return seen.status().reason().find("the last evidence is too old") != std::string::npos;
  });
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->status().phase(), v1::INSTANCE_PAUSED);
  GiveLease(std::chrono::minutes(10));
  EXPECT_TRUE(WaitForPhase(kUid, v1::INSTANCE_RUNNING));
}

}  // namespace
}  // namespace vallum::agent
