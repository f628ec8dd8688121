// SPDX-License-Identifier: Apache-2.0
// A fleet of simulated hosts against the real controller: the real protocol, quotes by keys in
// software, the agent's own channel and its pauses between attempts.
//   fleet_bench [HOSTS [PROCESSES]]    10000 hosts in 4 processes unless told otherwise
// Prints verifications per second of the controller's CPU, its memory for each host, how long reads
// of the API take while all hosts are judged anew and while nothing happens, and how long after a
// restart of the controller every host has a new lease. The controller has one core of its own
// where there are two.
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <memory>
#include <new>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "api_load.h"
#include "base/check.h"
#include "base/clock.h"
#include "controller_process.h"
#include "fleet_board.h"
#include "fleet_hosts.h"
#include "fleet_reference.h"
#include "fleet_setup.h"
#include "tls/authority.h"

namespace vallum::bench {
namespace {

using Steady = std::chrono::steady_clock;

constexpr int kControllerCpu = 0;
constexpr int kReaderCpu = 1;
// The controller and the reader come first: in truth each host has a machine of its own.
constexpr int kFleetNice = 5;
constexpr int kIdleSeconds = 10;
constexpr size_t kSmallFleet = 200;  // that it works is all that it shows, so it is quick
constexpr int kListsPerSecond = 10;
constexpr int kGetsPerSecond = 50;
constexpr int kJoinPerSecond = 1000;
constexpr std::chrono::minutes kPatience{5};
// What systemd gives a service that asks for nothing.
constexpr rlim_t kServiceFiles = 1024;

double Since(Steady::time_point begin) {
  return std::chrono::duration<double>(Steady::now() - begin).count();
}

int64_t WallNs() { return SystemClock().Now().time_since_epoch() / std::chrono::nanoseconds(1); }

void UseCpu(int cpu) {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  CPU_SET(static_cast<size_t>(cpu), &cpus);
  sched_setaffinity(0, sizeof cpus, &cpus);
}

void LimitFiles(rlim_t wanted) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = std::min(wanted, limit.rlim_max);
  setrlimit(RLIMIT_NOFILE, &limit);
}

// A directory on a real disk, removed at the end.
class StateDir {
 public:
  StateDir() {
    std::string name = "/var/tmp/vallum-fleet-XXXXXX";
    CHECK(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~StateDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  StateDir(const StateDir&) = delete;
  StateDir& operator=(const StateDir&) = delete;
  std::filesystem::path state() const { return path_ / "state"; }

 private:
  std::filesystem::path path_;
};

// The processes that are the hosts; killed at the end.
class FleetProcesses {
 public:
  FleetProcesses(const std::vector<FleetSeed>& seeds, int processes, const FleetTarget& target,
                 FleetBoard& board) {
    for (int i = 0; i < processes; ++i) {
      std::vector<FleetSeed> part;
      for (size_t s = static_cast<size_t>(i); s < seeds.size();
           s += static_cast<size_t>(processes)) {
        part.push_back(seeds[s]);
      }
      const pid_t pid = fork();
      CHECK(pid >= 0);
      if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        LimitFiles(RLIM_INFINITY);
        CHECK(nice(kFleetNice) != -1);
        RunFleet(std::move(part), target, board,
                 static_cast<int>(seeds.size() * 1000 / kJoinPerSecond));
      }
      pids_.push_back(pid);
    }
  }
  ~FleetProcesses() {
    for (const pid_t pid : pids_) kill(pid, SIGKILL);
    for (const pid_t pid : pids_) waitpid(pid, nullptr, 0);
  }
  FleetProcesses(const FleetProcesses&) = delete;
  FleetProcesses& operator=(const FleetProcesses&) = delete;

 private:
  std::vector<pid_t> pids_;
};

// Reads of the API, side by side: a page of a list, one host.
class Reads {
 public:
  explicit Reads(const NewClient& new_client)
      : list_(new_client, "/v1/hosts?limit=100", kListsPerSecond),
        one_(new_client, "/v1/hosts/" + FleetHostName(0), kGetsPerSecond) {}
  void Print(const char* when) {
    Print(when, "100 hosts", list_.Stop());
    Print(when, "one host", one_.Stop());
  }

 private:
  static void Print(const char* when, const char* what, const Latency& latency) {
    std::printf(
        "  API %s, GET %s: p50 %.2f ms, p99 %.2f ms, longest %.1f ms (%zu reads, %zu failed)\n",
        when, what, latency.p50_ms, latency.p99_ms, latency.max_ms, latency.requests,
        latency.failed);
  }
  ApiLoad list_;
  ApiLoad one_;
};

class Bench {
 public:
  Bench(size_t hosts, int processes)
      : hosts_(hosts),
        processes_(processes),
        two_cpus_(std::thread::hardware_concurrency() >= 2),
        controller_(Program(), dir_.state(), two_cpus_ ? kControllerCpu : -1),
        board_(MakeBoard()) {}

  bool Run() {
    Empty();
    std::vector<FleetSeed> seeds = Setup();
    PrintReference(seeds.front());
    const FleetTarget target{.endpoint = controller_.agent_endpoint(), .ca_pem = CaPem()};
    const FleetProcesses fleet(seeds, processes_, target, board_);
    if (two_cpus_) UseCpu(kReaderCpu);
    return Join() && Idle() && Rejudge(seeds.front().tpm) && Restart();
  }

 private:
  static std::filesystem::path Program() {
    return std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path() /
           "bin/vallum-controller";
  }
  static FleetBoard& MakeBoard() {
    void* memory = mmap(nullptr, sizeof(FleetBoard), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    return *new (memory) FleetBoard();
  }
  NewClient Clients() const {
    return [this] { return controller_.NewClient(); };
  }
  std::string CaPem() const;
  void Launch() {
    const Result<void> spawned = controller_.Spawn();
    CHECK(spawned.has_value());
    AwaitApi();
  }
  void AwaitApi() {
    const Result<void> answers = controller_.AwaitApi();
    if (!answers.has_value()) std::fprintf(stderr, "%s\n", answers.error().Describe().c_str());
    CHECK(answers.has_value());
  }

  // Makes the CA, the token and the store, and shows what a controller without hosts takes.
  void Empty() {
    Launch();
    empty_bytes_ = controller_.ResidentBytes();
    controller_.Stop();
  }
  std::vector<FleetSeed> Setup() {
    const Steady::time_point begin = Steady::now();
    auto seeds = MakeFleet(dir_.state(), hosts_);
    if (!seeds.has_value()) std::fprintf(stderr, "%s\n", seeds.error().Describe().c_str());
    CHECK(seeds.has_value());
    std::printf("%zu hosts in %d processes, written to the store directly in %.1f s\n", hosts_,
                processes_, Since(begin));
    std::printf("controller on %s, readers on %s, hosts behind them on any\n",
                two_cpus_ ? "core 0" : "any core", two_cpus_ ? "core 1" : "any core");
    return *std::move(seeds);
  }
  void PrintReference(const FleetSeed& seed) {
    reference_ = MeasureReference(dir_.state(), seed);
    std::printf(
        "OpenSSL alone, on one core: verify a quote %.3f ms (%.0f/s), sign a lease %.3f ms, the "
        "server's part of a handshake %.3f ms (%.0f/s)\n",
        reference_.verify_ms, 1000 / reference_.verify_ms, reference_.sign_ms,
        reference_.handshake_ms, 1000 / reference_.handshake_ms);
  }

  // Waits until every host has a lease of the round; says when it was so, or that it never was.
  bool AwaitLeases(Steady::time_point begin, double& all_connected, double& all_leased) {
    const auto count = static_cast<int64_t>(hosts_);
    all_connected = 0;
    while (board_.leased < count) {
      if (all_connected == 0 && board_.sessions == count) all_connected = Since(begin);
      if (Steady::now() - begin > kPatience) {
        std::printf("  after %.0f s: %lld of %zu connected, %lld have their lease\n", Since(begin),
                    static_cast<long long>(board_.sessions.load()), hosts_,
                    static_cast<long long>(board_.leased.load()));
        return false;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    all_leased = Since(begin);
    if (all_connected == 0) all_connected = all_leased;
    return true;
  }

  bool Join() {
    Launch();
    const int64_t loaded = controller_.ResidentBytes();
    const double cpu = controller_.CpuSeconds();
    board_.BeginRound(WallNs(), 1);
    board_.go = true;
    double connected = 0;
    double leased = 0;
    const bool all = AwaitLeases(Steady::now(), connected, leased);
    std::printf(
        "join, %d a second: all connected after %.1f s, all trusted after %.1f s, "
        "controller %.1f CPU s; %lld attempts in vain\n",
        kJoinPerSecond, connected, leased, controller_.CpuSeconds() - cpu,
        static_cast<long long>(board_.dials_lost.load()));
    if (!all) return false;
    std::this_thread::sleep_for(std::chrono::seconds(2));
    const int64_t now = controller_.ResidentBytes();
    const auto each = [&](int64_t bytes) {
      return static_cast<double>(bytes) / 1024 / static_cast<double>(hosts_);
    };
    std::printf(
        "memory: %.1f MiB without hosts, %.1f MiB with all: %.1f KiB a host, of which "
        "%.1f stored and %.1f connected; %lld threads\n",
        static_cast<double>(empty_bytes_) / 1048576, static_cast<double>(now) / 1048576,
        each(now - empty_bytes_), each(loaded - empty_bytes_), each(now - loaded),
        static_cast<long long>(controller_.Threads()));
    return true;
  }

  bool Idle() {
    const double cpu = controller_.CpuSeconds();
    const Steady::time_point begin = Steady::now();
    Reads reads(Clients());
    std::this_thread::sleep_for(std::chrono::seconds(hosts_ < kSmallFleet ? 1 : kIdleSeconds));
    idle_share_ = (controller_.CpuSeconds() - cpu) / Since(begin);
    std::printf("idle, but for heartbeats and reads: %.2f of a core\n", idle_share_);
    reads.Print("idle");
    return true;
  }

  // A new version of the policy: every host is asked at once.
  bool Rejudge(const controller::SoftwareHost& tpm) {
    const auto client = controller_.NewClient();
    CHECK(client.has_value());
    http::ClientRequest put;
    put.method = http::Method::kPut;
    put.target = std::string("/v1/attestationpolicies/") + kFleetPolicy;
    put.body = nlohmann::json{{"metadata", {{"name", kFleetPolicy}}},
                              {"spec", {{"document", NextPolicyDocument(tpm, 2)}}}}
                   .dump();
    http::ClientRequest activate;
    activate.method = http::Method::kPost;
    activate.target = put.target + "/activate";
    const auto written = (*client)->Send(put);
    if (written.has_value() && written->status != 200) std::printf("%s\n", written->body.c_str());
    CHECK(written.has_value() && written->status == 200);
    board_.BeginRound(WallNs(), 2);
    const double cpu = controller_.CpuSeconds();
    Reads reads(Clients());
    const Steady::time_point begin = Steady::now();
    const auto active = (*client)->Send(activate);
    CHECK(active.has_value() && active->status == 200);
    double connected = 0;
    double leased = 0;
    const bool all = AwaitLeases(begin, connected, leased);
    const double spent = controller_.CpuSeconds() - cpu;
    const double net = spent - idle_share_ * leased;
    std::printf(
        "judged anew, by a new version of the policy: %.1f s, controller %.2f CPU s: %.0f "
        "verifications a second of a core; without heartbeats and reads %.2f CPU s: %.0f\n",
        leased, spent, static_cast<double>(hosts_) / spent, net, static_cast<double>(hosts_) / net);
    reads.Print("meanwhile");
    return all;
  }

  bool Restart() {
    Reads reads(Clients());
    const PoolWatch pool(Clients(), kFleetPool);
    while (pool.up() < 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    controller_.Stop();
    board_.BeginRound(WallNs(), 2);
    const Steady::time_point begin = Steady::now();
    const Result<void> spawned = controller_.Spawn();
    CHECK(spawned.has_value());
    AwaitApi();
    const double ready = Since(begin);
    const int64_t lost = board_.dials_lost;
    const double ready_cpu = controller_.CpuSeconds();
    double connected = 0;
    double leased = 0;
    const bool all = AwaitLeases(begin, connected, leased);
    const double spent = controller_.CpuSeconds();
    std::printf(
        "restart: API ready after %.2f s (%.2f CPU s), all connected after %.1f s, all "
        "leased anew after %.1f s, controller %.2f CPU s (aimed at: 10), %.2f without "
        "heartbeats and reads; at least %d of %zu hosts UP; %lld attempts in vain\n",
        ready, ready_cpu, connected, leased, spent, spent - idle_share_ * leased, pool.least_up(),
        hosts_, static_cast<long long>(board_.dials_lost - lost));
    reads.Print("meanwhile");
    const double floor = (reference_.handshake_ms + reference_.verify_ms + reference_.sign_ms) *
                         static_cast<double>(hosts_) / 1000;
    std::printf("  handshakes, signatures of quotes and leases alone: %.2f CPU s, ratio %.1f\n",
                floor, spent / floor);
    return all && pool.least_up() > 0;
  }

  const size_t hosts_;
  const int processes_;
  const bool two_cpus_;
  StateDir dir_;
  ControllerProcess controller_;
  FleetBoard& board_;
  FleetReference reference_;
  int64_t empty_bytes_ = 0;
  double idle_share_ = 0;  // of a core, for heartbeats and reads
};

std::string Bench::CaPem() const {
  const SystemClock clock;
  return tls::CertificateAuthority::Load(dir_.state() / "ca", clock).value()->certificate_pem();
}

int Main(int argc, char** argv) {
  const long hosts = argc > 1 ? std::strtol(argv[1], nullptr, 10) : 10'000;
  const long processes = argc > 2 ? std::strtol(argv[2], nullptr, 10) : 4;
  if (argc > 3 || hosts < 1 || hosts > 99'999 || processes < 1 || processes > 64) {
    std::fprintf(stderr, "usage: fleet_bench [HOSTS [PROCESSES]]\n");
    return 2;
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  // The controller is started as a service is, and has to raise its limit itself.
  LimitFiles(kServiceFiles);
  return Bench(static_cast<size_t>(hosts), static_cast<int>(processes)).Run() ? 0 : 1;
}

}  // namespace
}  // namespace vallum::bench

int main(int argc, char** argv) { return vallum::bench::Main(argc, argv); }
