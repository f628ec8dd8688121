// SPDX-License-Identifier: Apache-2.0
#include "vm/instance_runner.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <mutex>

#include "vm/process.h"
#include "vm/process_files.h"
#include "vm/qmp_client.h"
#include "vm/test_guest.h"

namespace vallum::vm {
namespace {

using std::chrono::milliseconds;
using testing::Contains;
using testing::HasSubstr;

constexpr milliseconds kLong{30000};

// Collects events; waits for one of a kind.
class EventLog {
 public:
  EventCallback Callback() {
    return [this](const InstanceEvent& event) {
      const std::scoped_lock lock(mutex_);
      events_.push_back(event);
      changed_.notify_all();
    };
  }
  // The n-th event of that kind, from 1; empty after a long time.
  std::optional<InstanceEvent> Await(EventKind kind, size_t nth = 1) {
    std::unique_lock lock(mutex_);
    std::optional<InstanceEvent> found;
    changed_.wait_for(lock, kLong, [&] {
      size_t seen = 0;
      for (const InstanceEvent& event : events_) {
        seen += event.kind == kind ? 1U : 0U;
        if (event.kind == kind && seen == nth) {
          found = event;
          return true;
        }
      }
      return false;
    });
    return found;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<InstanceEvent> events_;
};

// The guest's serial port.
class Serial {
 public:
  explicit Serial(const VmSpec& spec) : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = MakeVmPaths(spec).serial_socket;
    memcpy(address.sun_path, path.data(), path.size());
    connected_ =
        connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }
  // True once the boot sector answers.
  bool AwaitGuest() {
    const auto end = std::chrono::steady_clock::now() + kLong;
    while (connected_ && std::chrono::steady_clock::now() < end) {
      std::array<char, 4096> buffer{};
      if (!WaitReadable(fd_.get(), milliseconds(200))) {
        Send('?');
        continue;
      }
      const ssize_t got = read(fd_.get(), buffer.data(), buffer.size());
      if (got <= 0) {
        return false;
      }
      if (memchr(buffer.data(), '!', static_cast<size_t>(got)) != nullptr) {
        return true;
      }
    }
    return false;
  }
  void Send(char letter) { ASSERT_EQ(send(fd_.get(), &letter, 1, MSG_NOSIGNAL), 1); }

 private:
  UniqueFd fd_;
  bool connected_ = false;
};

class InstanceRunnerTest : public testing::Test {
 protected:
  ~InstanceRunnerTest() override {
    runner_.reset();
    EXPECT_TRUE(InstanceRunner::CleanUp(spec_).has_value());
  }
  void Start() {
    auto started = InstanceRunner::Start(spec_, log_.Callback());
    ASSERT_TRUE(started.has_value()) << started.error().Describe();
    runner_ = *std::move(started);
  }

  TestDir dir_;
  VmSpec spec_ = MakeTestSpec(dir_);
  EventLog log_;
  std::unique_ptr<InstanceRunner> runner_;
};

TEST_F(InstanceRunnerTest, StartedGuestRunsAndStopsAtItsPowerButton) {
  Start();
  EXPECT_TRUE(log_.Await(EventKind::kRunning).has_value());
  EXPECT_EQ(runner_->state(), RunState::kRunning);
  ASSERT_TRUE(Serial(spec_).AwaitGuest());
  auto report = runner_->Stop(kLong);
  ASSERT_TRUE(report.has_value()) << report.error().Describe();
  EXPECT_EQ(report->cause, ExitCause::kStopped);
  EXPECT_EQ(report->process_status, "exit status 0");
  EXPECT_EQ(runner_->state(), RunState::kExited);
  EXPECT_FALSE(std::filesystem::exists(MakeVmPaths(spec_).qmp_socket));
  EXPECT_THAT(ReadLastLines(MakeVmPaths(spec_).serial_log, 100), Contains(HasSubstr("!")));
}

TEST_F(InstanceRunnerTest, LinksGoDownAndUpAndMayBeDownFromTheStart) {
  spec_.nics = {{.id = "net0", .mac = "52:54:00:00:00:01", .network = UserNetwork{}}};
  spec_.links = LinkState::kDown;
  Start();
  for (const LinkState state : {LinkState::kUp, LinkState::kDown, LinkState::kDown}) {
    const auto set = runner_->SetLinks(state);
    EXPECT_TRUE(set.has_value()) << set.error().Describe();
  }
  ASSERT_TRUE(runner_->ForceStop().has_value());
  EXPECT_FALSE(runner_->SetLinks(LinkState::kUp).has_value());
}

TEST_F(InstanceRunnerTest, DiskIsFlushedAndAnUnknownOneIsSaid) {
  Start();
  const auto flushed = runner_->Flush("root");
  EXPECT_TRUE(flushed.has_value()) << flushed.error().Describe();
  const auto unknown = runner_->Flush("nothing");
  ASSERT_FALSE(unknown.has_value());
  EXPECT_THAT(unknown.error().Describe(), HasSubstr("nothing"));
}

TEST_F(InstanceRunnerTest, GuestThatPowersOffIsNoCrash) {
  Start();
  Serial serial(spec_);
  ASSERT_TRUE(serial.AwaitGuest());
  serial.Send('p');
  const auto event = log_.Await(EventKind::kExited);
  ASSERT_TRUE(event.has_value());
  ASSERT_TRUE(event->exit.has_value());
  EXPECT_EQ(event->exit->cause, ExitCause::kGuestShutdown);
}

TEST_F(InstanceRunnerTest, KilledQemuIsACrashWithTheSignalInWords) {
  Start();
  ASSERT_EQ(kill(runner_->qemu_pid(), SIGKILL), 0);
  const auto report = runner_->WaitForExit(kLong);
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(report->cause, ExitCause::kCrashed);
  EXPECT_EQ(report->process_status, "signal 9 (Killed)");
  EXPECT_THAT(report->Describe(), HasSubstr("QEMU ended unasked: signal 9 (Killed)"));
  const auto late = runner_->Pause();
  ASSERT_FALSE(late.has_value());
  EXPECT_EQ(late.error().code(), ErrorCode::kConflict);
}

TEST_F(InstanceRunnerTest, GuestThatIgnoresThePowerButtonIsEndedByForce) {
  Start();  // in its BIOS: nobody looks at the button
  const auto report = runner_->Stop(milliseconds(1));
  ASSERT_TRUE(report.has_value()) << report.error().Describe();
  EXPECT_EQ(report->cause, ExitCause::kForced);
}

TEST_F(InstanceRunnerTest, InterruptedStopLeavesTheGuest) {
  Start();  // in its BIOS: nobody looks at the button
  std::stop_source interrupt;
  interrupt.request_stop();
  const auto report = runner_->Stop(std::chrono::hours(1), interrupt.get_token());
  ASSERT_FALSE(report.has_value());
  EXPECT_EQ(report.error().code(), ErrorCode::kUnavailable);
  EXPECT_EQ(runner_->state(), RunState::kRunning);
  EXPECT_TRUE(Process::Open(MakeVmPaths(spec_).qemu_identity, {}).has_value());
}

TEST_F(InstanceRunnerTest, LogsStayBoundedWhileEventsNeverCease) {
  Start();
  const std::string log = MakeVmPaths(spec_).serial_log;
  ASSERT_TRUE(runner_->Pause().has_value());  // the first look at the logs is over
  std::filesystem::resize_file(log, uintmax_t{9} << 20U);
  const auto end = std::chrono::steady_clock::now() + kLong;
  // Each makes an event, so the monitor never rests for long.
  while (std::filesystem::file_size(log) > uintmax_t{8} << 20U) {
    ASSERT_LT(std::chrono::steady_clock::now(), end);
    ASSERT_TRUE(runner_->Pause().has_value());
    ASSERT_TRUE(runner_->Resume().has_value());
  }
}

TEST_F(InstanceRunnerTest, UnreadableIdentityIsKeptAndItsGuestToo) {
  Start();
  runner_.reset();
  const std::filesystem::path identity = MakeVmPaths(spec_).qemu_identity;
  const std::filesystem::path kept = identity.string() + ".kept";
  std::filesystem::rename(identity, kept);
  std::filesystem::create_symlink(identity.filename(),
                                  identity);  // to itself: neither there nor not
  EXPECT_FALSE(InstanceRunner::CleanUp(spec_).has_value());
  EXPECT_TRUE(std::filesystem::exists(MakeVmPaths(spec_).qmp_socket));
  std::filesystem::rename(kept, identity);
  EXPECT_TRUE(Process::Open(identity, {}).has_value());
}

TEST_F(InstanceRunnerTest, RunningGuestWithoutItsMonitorSocketIsUnavailableNotGone) {
  Start();
  runner_.reset();
  std::filesystem::remove(MakeVmPaths(spec_).qmp_socket);
  const auto adopted = InstanceRunner::Adopt(spec_, nullptr);
  ASSERT_FALSE(adopted.has_value());
  EXPECT_EQ(adopted.error().code(), ErrorCode::kUnavailable);
  EXPECT_TRUE(Process::Open(MakeVmPaths(spec_).qemu_identity, {}).has_value());
}

TEST_F(InstanceRunnerTest, PausedGuestGoesOnAfterResume) {
  Start();
  ASSERT_TRUE(runner_->Pause().has_value());
  EXPECT_EQ(runner_->state(), RunState::kPaused);
  EXPECT_TRUE(log_.Await(EventKind::kPaused).has_value());
  ASSERT_TRUE(runner_->Resume().has_value());
  EXPECT_EQ(runner_->state(), RunState::kRunning);
  EXPECT_TRUE(Serial(spec_).AwaitGuest());
}

TEST_F(InstanceRunnerTest, RebootByPowerButtonKeepsTheProcess) {
  Start();
  {
    Serial serial(spec_);
    ASSERT_TRUE(serial.AwaitGuest());
  }
  const pid_t pid = runner_->qemu_pid();
  ASSERT_TRUE(runner_->Reboot(kLong).has_value());
  EXPECT_TRUE(log_.Await(EventKind::kReset).has_value());
  EXPECT_TRUE(Serial(spec_).AwaitGuest());
  EXPECT_EQ(runner_->state(), RunState::kRunning);
  EXPECT_EQ(runner_->qemu_pid(), pid);
}

TEST_F(InstanceRunnerTest, GuestsOwnResetIsReported) {
  Start();
  Serial serial(spec_);
  ASSERT_TRUE(serial.AwaitGuest());
  serial.Send('r');
  const auto event = log_.Await(EventKind::kReset);
  ASSERT_TRUE(event.has_value());
  EXPECT_EQ(event->detail, "guest-reset");
}

TEST_F(InstanceRunnerTest, PanickedGuestIsKeptAndCanBeReset) {
  Start();
  Serial serial(spec_);
  ASSERT_TRUE(serial.AwaitGuest());
  serial.Send('x');
  ASSERT_TRUE(log_.Await(EventKind::kGuestPanicked).has_value());
  EXPECT_EQ(runner_->state(), RunState::kPanicked);
  ASSERT_TRUE(runner_->Reboot(milliseconds(0)).has_value());
  ASSERT_TRUE(log_.Await(EventKind::kRunning, 2).has_value());
  EXPECT_TRUE(serial.AwaitGuest());
}

TEST_F(InstanceRunnerTest, SecondStartOfARunningInstanceIsRefused) {
  Start();
  const auto second = InstanceRunner::Start(spec_, nullptr);
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code(), ErrorCode::kConflict);
  EXPECT_EQ(runner_->state(), RunState::kRunning);
}

TEST_F(InstanceRunnerTest, TwoInstancesShareOneBaseImage) {
  Start();
  TestDir other_dir;
  VmSpec other = MakeTestSpec(other_dir);
  other.disks[0].base = spec_.disks[0].base;
  auto second = InstanceRunner::Start(other, nullptr);
  ASSERT_TRUE(second.has_value()) << second.error().Describe();
  EXPECT_TRUE(Serial(other).AwaitGuest());
  EXPECT_TRUE((*second)->ForceStop().has_value());
}

TEST_F(InstanceRunnerTest, UnusableVariableStoreIsRefusedInQemusWords) {
  const std::string code = "/usr/share/OVMF/OVMF_CODE_4M.fd";
  if (!std::filesystem::exists(code)) {
    GTEST_SKIP() << "ovmf is not installed";
  }
  spec_.machine = Machine::kQ35;
  spec_.firmware = UefiFirmware{.code_path = code,
                                .vars_path = dir_.path() + "/no-such-vars.fd",
                                .protection = VariableProtection::kNone};
  const auto started = InstanceRunner::Start(spec_, nullptr);
  ASSERT_FALSE(started.has_value());
  EXPECT_THAT(started.error().Describe(),
              testing::AllOf(HasSubstr("QEMU did not start (exit status 1)"),
                             HasSubstr("no-such-vars.fd"), HasSubstr("No such file")));
  EXPECT_FALSE(Process::Open(MakeVmPaths(spec_).qemu_identity, {}).has_value());
}

TEST_F(InstanceRunnerTest, GuestIsAdoptedAfterItsAgentWasKilled) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  const pid_t agent = fork();
  if (agent == 0) {
    auto runner = InstanceRunner::Start(spec_, nullptr);
    const char started = runner.has_value() ? 'y' : 'n';
    static_cast<void>(!write(ends[1], &started, 1));
    pause();  // until killed
    _exit(0);
  }
  close(ends[1]);
  char started = 'n';
  ASSERT_EQ(read(ends[0], &started, 1), 1);
  close(ends[0]);
  ASSERT_EQ(started, 'y');
  ASSERT_EQ(kill(agent, SIGKILL), 0);
  ASSERT_EQ(waitpid(agent, nullptr, 0), agent);

  auto adopted = InstanceRunner::Adopt(spec_, log_.Callback());
  ASSERT_TRUE(adopted.has_value()) << adopted.error().Describe();
  runner_ = *std::move(adopted);
  EXPECT_TRUE(log_.Await(EventKind::kRunning).has_value());
  ASSERT_TRUE(Serial(spec_).AwaitGuest());
  const auto report = runner_->Stop(kLong);
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(report->cause, ExitCause::kStopped);
  EXPECT_THAT(report->process_status, HasSubstr("unknown"));
}

TEST_F(InstanceRunnerTest, PowerOffWhileNobodyWatchedIsKnownAtAdoption) {
  Start();
  runner_.reset();  // the guest goes on
  {
    Serial serial(spec_);
    ASSERT_TRUE(serial.AwaitGuest());
    serial.Send('p');
    auto qmp = QmpClient::Dial(MakeVmPaths(spec_).qmp_socket);
    ASSERT_TRUE(qmp.has_value());
    ASSERT_TRUE((*qmp)->Handshake(kLong).has_value());
    // Until the event, or the state when it came before the handshake.
    for (std::string status; status != "shutdown";) {
      auto reply = (*qmp)->Execute("query-status", Json::object(), kLong);
      ASSERT_TRUE(reply.has_value());
      status = (*reply)["status"].get<std::string>();
    }
  }
  auto adopted = InstanceRunner::Adopt(spec_, log_.Callback());
  ASSERT_TRUE(adopted.has_value()) << adopted.error().Describe();
  runner_ = *std::move(adopted);
  const auto event = log_.Await(EventKind::kExited);
  ASSERT_TRUE(event.has_value());
  EXPECT_EQ(event->exit->cause, ExitCause::kGuestShutdown);
}

TEST_F(InstanceRunnerTest, NothingIsAdoptedWhereNothingRuns) {
  const auto adopted = InstanceRunner::Adopt(spec_, nullptr);
  ASSERT_FALSE(adopted.has_value());
  EXPECT_EQ(adopted.error().code(), ErrorCode::kNotFound);
}

TEST_F(InstanceRunnerTest, LimitsWithoutACgroupAreSaidInTheNotes) {
  spec_.limits.pids_max = 100;
  Start();
  EXPECT_THAT(runner_->notes(), Contains(HasSubstr("limits not applied")));
}

TEST_F(InstanceRunnerTest, QemuRunsAsTheInstancesUser) {
  if (getuid() != 0) {
    GTEST_SKIP() << "needs root to change the user";
  }
  spec_.run_as = RunAs{.uid = 65534, .gid = 65534, .groups = {}};
  ASSERT_EQ(chmod(dir_.path().c_str(), 0755), 0);
  ASSERT_EQ(chown(spec_.disks[0].path.c_str(), 65534, 65534), 0);
  Start();
  const auto status = ReadSmallFile("/proc/" + std::to_string(runner_->qemu_pid()) + "/status");
  ASSERT_TRUE(status.has_value());
  EXPECT_THAT(*status, HasSubstr("Uid:\t65534\t65534\t65534\t65534"));
  EXPECT_THAT(*status, HasSubstr("Groups:\t \n"));
  EXPECT_THAT(*status, HasSubstr("NoNewPrivs:\t1"));
  EXPECT_THAT(*status, HasSubstr("Seccomp:\t2"));
  EXPECT_THAT(*status, HasSubstr("CapEff:\t0000000000000000"));
  EXPECT_TRUE(Serial(spec_).AwaitGuest());
  // What the guest's user can replace must not decide which process is signalled.
  struct stat directory{};
  const std::filesystem::path identity = MakeVmPaths(spec_).qemu_identity;
  ASSERT_EQ(stat(identity.parent_path().c_str(), &directory), 0);
  EXPECT_EQ(directory.st_uid, 0U);
  EXPECT_TRUE(Process::Open(identity, spec_.run_as).has_value());
}

class InstanceWithVtpmTest : public InstanceRunnerTest {
 protected:
  void SetUp() override {
    const std::string vtpm = std::string(VALLUM_BIN_DIR) + "/vallum-vtpm";
    const std::string swtpm = "/usr/bin/swtpm";
    if (!std::filesystem::exists(vtpm) || !std::filesystem::exists(swtpm)) {
      GTEST_SKIP() << "needs " << vtpm << " and " << swtpm;
    }
    spec_.vtpm = Vtpm{.model = TpmModel::kTis,
                      .vtpm_program = vtpm,
                      .swtpm_program = swtpm,
                      .state_dir = dir_.path() + "/tpm",
                      .record_path = dir_.path() + "/extends"};
    ASSERT_EQ(mkdir(spec_.vtpm->state_dir.c_str(), 0700), 0);
  }
};

TEST_F(InstanceWithVtpmTest, VtpmRecordsTheFirmwareAndEndsWithQemu) {
  Start();
  ASSERT_TRUE(Serial(spec_).AwaitGuest());
  auto vtpm = Process::Open(MakeVmPaths(spec_).vtpm_identity, {});
  ASSERT_TRUE(vtpm.has_value()) << vtpm.error().Describe();
  EXPECT_GT(std::filesystem::file_size(spec_.vtpm->record_path), 0U);  // SeaBIOS extends PCRs
  const auto report = runner_->Stop(kLong);
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(report->cause, ExitCause::kStopped);
  EXPECT_TRUE((*vtpm)->HasEnded());
}

TEST_F(InstanceWithVtpmTest, LossOfTheVtpmIsReported) {
  Start();
  auto vtpm = Process::Open(MakeVmPaths(spec_).vtpm_identity, {});
  ASSERT_TRUE(vtpm.has_value());
  ASSERT_TRUE((*vtpm)->Signal(SIGKILL).has_value());
  const auto event = log_.Await(EventKind::kVtpmLost);
  ASSERT_TRUE(event.has_value());
  EXPECT_THAT(event->detail, HasSubstr("signal 9 (Killed)"));
}

TEST_F(InstanceWithVtpmTest, VtpmThatCannotStartIsToldInItsWords) {
  spec_.vtpm->swtpm_program = "/no/such/swtpm";
  const auto started = InstanceRunner::Start(spec_, nullptr);
  ASSERT_FALSE(started.has_value());
  EXPECT_THAT(started.error().Describe(), HasSubstr("/no/such/swtpm"));
}

}  // namespace
}  // namespace vallum::vm
