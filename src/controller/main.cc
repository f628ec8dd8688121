// SPDX-License-Identifier: Apache-2.0
// vallum-controller: parses its flags, opens what it stands on, and waits for the end.
#include <absl/synchronization/mutex.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/exit_code.h"
#include "base/text.h"
#include "controller/config_file.h"
#include "controller/controller.h"
#include "controller/rest.h"
#include "images/confined_converter.h"
#include "images/confined_inspector.h"
#include "images/installed_key_sets.h"
#include "store/blob_store.h"
#include "store/sqlite_store.h"
#include "tls/authority.h"
#include "tls/file.h"
#include "tls/session_tickets.h"

namespace vallum::controller {
namespace {

struct Flags {
  std::string state_dir = "/var/lib/vallum-controller";
  std::string listen = "127.0.0.1:7443";
  std::string agent_listen = "0.0.0.0:7444";
  std::string advertise = "localhost";
  std::vector<std::string> names;
  std::string inspector;
  Attestor::Options attestor;
};

constexpr std::chrono::seconds kStopGrace{3};
constexpr std::chrono::hours kRenewInterval{24};
constexpr size_t kMaxStageSize = 10'000;

void AddFlags(CLI::App& app, Flags& flags) {
  app.config_formatter(std::make_shared<ConfigFile>());
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.set_config("--config", "",
                 "TOML file; names are those of these flags, and stage_size in [attestation] is "
                 "attestation-stage-size; unknown names are errors");
  app.add_option("--state-dir", flags.state_dir, "where everything is kept")->capture_default_str();
  app.add_option("--listen", flags.listen, "address:port of the REST API")->capture_default_str();
  app.add_option("--agent-listen", flags.agent_listen, "address:port that agents dial")
      ->capture_default_str();
  app.add_option("--advertise", flags.advertise,
                 "name or address, with or without :port, that agents are told to dial")
      ->capture_default_str();
  app.add_option("--tls-name", flags.names, "further names and addresses in the TLS certificate");
  app.add_option("--inspector", flags.inspector, "vallum-inspect (default: beside this program)");
  app.add_option("--attestation-first-stage-size", flags.attestor.first_stage_size,
                 "hosts that are asked for evidence at once after a start")
      ->check(CLI::Range(size_t{1}, kMaxStageSize))
      ->capture_default_str();
  app.add_option("--attestation-stage-size", flags.attestor.stage_size,
                 "hosts that are asked at once later on")
      ->check(CLI::Range(size_t{1}, kMaxStageSize))
      ->capture_default_str();
  app.add_option("--attestation-rate", flags.attestor.requests_per_second,
                 "hosts that are asked in a second at most; 0: as many as the stages let")
      ->check(CLI::Range(0.0, 10'000.0))
      ->capture_default_str();
}

bool IsAddress(const std::string& name) {
  return name.find(':') != std::string::npos ||
         name.find_first_not_of("0123456789.") == std::string::npos;
}

// The name without the port; "[::1]:7444" and "host:7444" have one.
std::string HostOf(const std::string& endpoint) {
  if (endpoint.starts_with('[')) {
    return endpoint.substr(1, endpoint.find(']') - 1);
  }
  const size_t colon = endpoint.find(':');
  const bool one_colon = colon != std::string::npos && colon == endpoint.rfind(':');
  return one_colon ? endpoint.substr(0, colon) : endpoint;
}

tls::ServerNames ServerNamesOf(const Flags& flags) {
  tls::ServerNames names{.dns_names = {"localhost"}, .ip_addresses = {"127.0.0.1", "::1"}};
  std::vector<std::string> more = flags.names;
  more.push_back(HostOf(flags.advertise));
  for (const std::string& name : more) {
    std::vector<std::string>& list = IsAddress(name) ? names.ip_addresses : names.dns_names;
    if (std::find(list.begin(), list.end(), name) == list.end()) {
      list.push_back(name);
    }
  }
  return names;
}

std::string EndpointOf(const Flags& flags) {
  const std::string host = HostOf(flags.advertise);
  if (host.size() != flags.advertise.size()) {
    return flags.advertise;
  }
  const std::string port = flags.agent_listen.substr(flags.agent_listen.rfind(':') + 1);
  return (host.find(':') == std::string::npos ? host : "[" + host + "]") + ":" + port;
}

std::string InspectorOf(const Flags& flags) {
  if (!flags.inspector.empty()) return flags.inspector;
  return images::InspectorBesideThisProgram();
}

Controller::Options OptionsOf(const Flags& flags, const std::vector<firmware::KeySet>& key_sets) {
  Controller::Options options;
  options.state_dir = flags.state_dir;
  options.gateway.listen = flags.agent_listen;
  options.gateway.names = ServerNamesOf(flags);
  options.agent_endpoint = EndpointOf(flags);
  options.key_sets = key_sets;
  options.inspector = InspectorOf(flags);
  options.attestor = flags.attestor;
  options.reconciler.on_error = [](const Error& error) {
    spdlog::warn("will be tried again: {}", error.DebugString());
  };
  return options;
}

// Each agent holds a connection open, and a service begins with a soft limit of 1,024 descriptors,
// which the kernel keeps for programs that use select(2); this one does not.
void RaiseFileLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
    spdlog::warn("the limit of open files stays low: {}", std::strerror(errno));
  }
}

Result<void> MakeStateDir(const std::filesystem::path& dir) {
  std::error_code error;
  std::filesystem::create_directories(dir.parent_path(), error);
  if (mkdir(dir.c_str(), 0700) != 0 && errno != EEXIST) {
    return ErrnoError(errno, "making " + dir.string());
  }
  return Ok();
}

// Serves until SIGTERM or SIGINT, with a fresh TLS certificate each day.
// Errors: kUnavailable (the store's watch has ended: a restart reads everything anew, and nothing
// that was acknowledged is lost).
Result<void> Serve(const sigset_t& signals, const View& view, const std::function<void()>& renew) {
  auto renewed = std::chrono::steady_clock::now();
  while (view.healthy()) {
    const timespec limit{.tv_sec = 1, .tv_nsec = 0};
    if (sigtimedwait(&signals, nullptr, &limit) > 0) {
      return Ok();
    }
    if (std::chrono::steady_clock::now() - renewed >= kRenewInterval) {
      renew();
      renewed = std::chrono::steady_clock::now();
    }
  }
  return Unavailable("the controller no longer follows its store").WithFix("start it again");
}

// The API's certificate; agents' connections keep the one of the start.
void RenewCertificate(tls::CertificateAuthority& authority, const tls::ServerNames& names,
                      Rest& rest) {
  const Result<tls::Credentials> fresh = authority.IssueServer(names);
  const Result<void> replaced =
      fresh.has_value() ? rest.ReplaceCredentials(*fresh) : Result<void>(fresh.error());
  if (!replaced.has_value()) {
    spdlog::warn("the API keeps its old certificate: {}", replaced.error().DebugString());
  }
}

Result<void> Run(const Flags& flags, const sigset_t& signals) {
  const SystemClock clock;
  const std::filesystem::path dir = flags.state_dir;
  RETURN_IF_ERROR(MakeStateDir(dir));
  RETURN_IF_ERROR(tls::SendNoSessionTickets());
  ASSIGN_OR_RETURN(const auto store, store::SqliteStore::Open({.path = dir / "store.db"}, clock));
  ASSIGN_OR_RETURN(const auto blobs, store::BlobStore::Open({.directory = dir / "blobs"}, clock));
  ASSIGN_OR_RETURN(const auto authority,
                   tls::CertificateAuthority::LoadOrCreate(dir / "ca", clock));
  // For people, who hand it to their clients.
  RETURN_IF_ERROR(
      tls::WriteFileAtomically(dir / "ca.pem", AsBytes(authority->certificate_pem()), 0644));
  images::InstalledKeySets key_sets = images::FindInstalledKeySets();
  for (const std::string& missing : key_sets.missing) spdlog::warn("{}", missing);
  const Controller::Options options = OptionsOf(flags, key_sets.sets);
  ASSIGN_OR_RETURN(const tls::Credentials credentials,
                   authority->IssueServer(options.gateway.names));
  ASSIGN_OR_RETURN(
      const auto controller,
      Controller::Start(
          options, {.store = *store, .blobs = *blobs, .authority = *authority, .clock = clock}));
  const images::ConfinedInspector inspector({.program = InspectorOf(flags)});
  const images::ConfinedConverter converter({.program = InspectorOf(flags), .timeout = {}});
  ASSIGN_OR_RETURN(
      const auto rest,
      Rest::Start({.listen = flags.listen, .limits = {}, .key_sets = std::move(key_sets.sets)},
                  *controller, inspector, converter, credentials));
  spdlog::info("the API is served on port {}, agents on port {}; the admin token is in {}",
               rest->port(), controller->gateway().port(), (dir / "admin.token").string());
  const Result<void> ended = Serve(signals, controller->view(), [&] {
    RenewCertificate(*authority, options.gateway.names, *rest);
  });
  spdlog::info("stopping; instances go on running");
  rest->Stop(kStopGrace);
  return ended;
}

int Main(int argc, char** argv) {
  CLI::App app("Vallum's controller: API, state and scheduling", "vallum-controller");
  app.footer(
      "Example:\n  vallum-controller --state-dir /var/lib/vallum --advertise "
      "controller.example.org");
  Flags flags;
  AddFlags(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // Zero for --help; every other fault of the command line is one of the input.
    return app.exit(error) == 0 ? 0 : ExitCode(ErrorCode::kInvalidInput);
  }
  // Tokens and keys pass through this process: no core dumps, and files for its user only.
  prctl(PR_SET_DUMPABLE, 0);
  umask(077);
  std::signal(SIGPIPE, SIG_IGN);
  spdlog::set_default_logger(spdlog::stderr_logger_mt("vallum-controller"));
  RaiseFileLimit();
  // Debian builds abseil so that each lock of a mutex looks for deadlocks: a twentieth of what a
  // fleet of agents costs, and for gRPC's mutexes alone.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  // Before any thread is made, so that none of them is interrupted.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  const Result<void> done = Run(flags, signals);
  if (!done.has_value()) {
    spdlog::error("{}", done.error().DebugString());
    if (!done.error().fix().empty()) {
      spdlog::error("to fix it: {}", done.error().fix());
    }
    return ExitCode(done.error().code());
  }
  return 0;
}

}  // namespace
}  // namespace vallum::controller

int main(int argc, char** argv) { return vallum::controller::Main(argc, argv); }
