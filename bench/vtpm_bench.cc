// SPDX-License-Identifier: Apache-2.0
// Latency of TPM2_PCR_Read as QEMU sees it: through vallum-vtpm and straight from swtpm, in turns,
// in one run; and what it costs to make a new TPM. Usage: vtpm_bench [rounds]
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "vtpm/channel.h"
#include "vtpm/control_message.h"
#include "vtpm/daemon.h"
#include "vtpm/provision.h"
#include "vtpm/swtpm.h"
#include "vtpm/tpm_command.h"
#include "vtpm/unique_fd.h"

namespace vallum::vtpm {
namespace {

using Steady = std::chrono::steady_clock;
using Micros = std::chrono::duration<double, std::micro>;
constexpr std::chrono::milliseconds kTimeout{10'000};
constexpr size_t kBatch = 500;

std::vector<std::string> SwtpmArgv(const std::string& state) {
  std::filesystem::create_directories(state);
  return {"swtpm",      "socket",       "--tpm2", "--ctrl",  "type=unixio,clientfd=3",
          "--tpmstate", "dir=" + state, "--log",  "level=0", "--seccomp",
          "action=kill"};
}

Bytes Exchange(int fd, const Bytes& message) {
  CHECK(write(fd, message.data(), message.size()) == static_cast<ssize_t>(message.size()));
  Bytes answer(4096);
  const ssize_t count = read(fd, answer.data(), answer.size());
  CHECK(count > 0);
  answer.resize(static_cast<size_t>(count));
  return answer;
}

UniqueFd Connect(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  CHECK(path.size() < sizeof(address.sun_path));
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const auto deadline = Steady::now() + kTimeout;
  while (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    CHECK(Steady::now() < deadline);
  }
  return fd;
}

// Sends CMD_SET_DATAFD with one end of a new pair; returns the other.
UniqueFd GiveDataChannel(int control) {
  int fds[2];
  CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
  const UniqueFd given(fds[1]);
  CHECK(SendWithDescriptor(control, MakeControlRequest(ControlCommand::kSetDataFd), fds[1])
            .has_value());
  Bytes answer(4);
  CHECK(read(control, answer.data(), answer.size()) == 4);
  return UniqueFd(fds[0]);
}

void PowerOn(int control, int data) {
  CHECK(Exchange(control, MakeControlInit()) == MakeControlResult(0));
  const Bytes started = Exchange(data, MakeStartup(measure::StartupType::kClear));
  CHECK(ResponseCode(started).value_or(~0U) == kTpmSuccess);
}

void Measure(int data, std::vector<double>& samples) {
  const Bytes command = MakePcrRead(HashAlgorithm::kSha256, {PcrIndex::Of<7>()});
  for (size_t i = 0; i < kBatch; ++i) {
    const auto before = Steady::now();
    static_cast<void>(Exchange(data, command));
    samples.push_back(Micros(Steady::now() - before).count());
  }
}

double Percentile(std::vector<double>& samples, double fraction) {
  std::ranges::sort(samples);
  return samples[static_cast<size_t>(fraction * static_cast<double>(samples.size() - 1))];
}

enum class Preparation { kNone, kBanks, kBanksAndKeys };

// Time from nothing, or from an earlier state, to a TPM that QEMU can use.
double MakeTpm(const std::string& state, Preparation preparation) {
  const auto before = Steady::now();
  auto swtpm = Swtpm::Start(SwtpmArgv(state), kTimeout);
  CHECK(swtpm.has_value());
  if (preparation != Preparation::kNone) {
    CHECK(swtpm->PowerOn(kTimeout).has_value());
    CHECK(AllocateBanks(*swtpm, {HashAlgorithm::kSha256}, kTimeout).has_value());
    if (preparation == Preparation::kBanksAndKeys) {
      CHECK(EnsureIdentity(*swtpm, kTimeout).has_value());
    }
    CHECK(swtpm->PowerOff(kTimeout).has_value());
  }
  CHECK(swtpm->Control(MakeControlInit(), kTimeout).has_value());
  const double taken = Micros(Steady::now() - before).count() / 1000;
  swtpm->End(kTimeout);
  return taken;
}

void BenchNewTpm(const std::string& directory) {
  std::vector<double> plain;
  std::vector<double> chosen;
  std::vector<double> known;
  std::vector<double> again;
  for (int i = 0; i < 11; ++i) {
    const std::string number = std::to_string(i);
    plain.push_back(MakeTpm(directory + "/plain" + number, Preparation::kNone));
    chosen.push_back(MakeTpm(directory + "/chosen" + number, Preparation::kBanks));
    known.push_back(MakeTpm(directory + "/known" + number, Preparation::kBanksAndKeys));
    again.push_back(MakeTpm(directory + "/known" + number, Preparation::kBanksAndKeys));
  }
  std::printf(
      "new TPM, start of swtpm included: %.1f ms; with only SHA-256 active: %.1f ms; and with its "
      "keys made: %.1f ms (p99 %.1f); the next start, keys found: %.1f ms\n",
      Percentile(plain, 0.5), Percentile(chosen, 0.5), Percentile(known, 0.5), Percentile(known, 1),
      Percentile(again, 0.5));
}

void BenchLatency(const std::string& directory, size_t rounds) {
  DaemonOptions options;
  options.qemu = SocketPath{directory + "/q"};
  options.control = SocketPath{directory + "/c"};
  options.record_path = directory + "/record";
  options.pcr_banks = {HashAlgorithm::kSha256};
  options.swtpm_argv = SwtpmArgv(directory + "/relayed");
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    const SystemClock clock;
    _exit(RunDaemon(options, clock).has_value() ? 0 : 1);
  }
  UniqueFd control = Connect(directory + "/q");
  UniqueFd relayed = GiveDataChannel(control.get());
  PowerOn(control.get(), relayed.get());
  auto swtpm = Swtpm::Start(SwtpmArgv(directory + "/direct"), kTimeout);
  CHECK(swtpm.has_value());
  PowerOn(swtpm->control_fd(), swtpm->data_fd());

  std::vector<double> direct_samples;
  std::vector<double> relayed_samples;
  for (size_t i = 0; i < rounds; ++i) {
    Measure(swtpm->data_fd(), direct_samples);
    Measure(relayed.get(), relayed_samples);
  }
  const double direct = Percentile(direct_samples, 0.5);
  const double through = Percentile(relayed_samples, 0.5);
  std::printf(
      "TPM2_PCR_Read: direct %.1f us (p99 %.1f), through vallum-vtpm %.1f us (p99 %.1f), "
      "ratio %.2f\n",
      direct, Percentile(direct_samples, 0.99), through, Percentile(relayed_samples, 0.99),
      through / direct);
  control.Reset();
  relayed.Reset();
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
}

}  // namespace
}  // namespace vallum::vtpm

int main(int argc, char** argv) {
  char name[] = "/tmp/vtpm-bench-XXXXXX";
  CHECK(mkdtemp(name) != nullptr);
  const std::string directory = name;
  vallum::vtpm::BenchNewTpm(directory);
  const size_t rounds = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 20;
  vallum::vtpm::BenchLatency(directory, std::max<size_t>(rounds, 1));
  std::filesystem::remove_all(directory);
  return 0;
}
