// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/text.h"
#include "measure/extend_log.h"
#include "vtpm/daemon.h"

namespace vallum::vtpm {
namespace {

constexpr int kExitFailure = 1;
constexpr int kExitUsage = 2;

struct Arguments {
  std::string listen;
  std::string control;
  int listen_fd = -1;
  int control_fd = -1;
  std::string record;
  std::string banks = "sha256";
  std::string user;
  uint32_t connect_timeout = 120;
  uint32_t await_certificate = 0;
};

void Declare(CLI::App& app, Arguments& arguments) {
  auto* listen = app.add_option_group("QEMU's socket");
  listen->add_option("--listen", arguments.listen, "make a socket here for QEMU's chardev");
  listen->add_option("--listen-fd", arguments.listen_fd, "inherited listening socket for QEMU");
  listen->require_option(1);
  auto* control = app.add_option_group("control socket");
  control->add_option("--control", arguments.control, "make a socket here for the agent");
  control->add_option("--control-fd", arguments.control_fd, "inherited listening socket");
  control->require_option(1);
  app.add_option("--record", arguments.record, "file for what happens to PCRs")->required();
  app.add_option("--pcr-banks", arguments.banks, "active banks of a new TPM")
      ->capture_default_str();
  app.add_option("--user", arguments.user, "uid:gid to become, when started as root");
  app.add_option("--connect-timeout", arguments.connect_timeout, "seconds to wait for QEMU")
      ->check(CLI::Range(1, 86'400))
      ->capture_default_str();
  app.add_option("--await-certificate", arguments.await_certificate,
                 "milliseconds that QEMU waits for the EK certificate of a TPM without one")
      ->check(CLI::Range(0, 60'000))
      ->capture_default_str();
  app.footer("The swtpm command follows behind --, with --ctrl type=unixio,clientfd=N.");
}

Listener MakeListener(const std::string& path, int fd) {
  return path.empty() ? Listener(InheritedSocket{fd}) : Listener(SocketPath{path});
}

Result<DaemonOptions> MakeOptions(const Arguments& arguments, std::vector<std::string> swtpm) {
  DaemonOptions options;
  options.qemu = MakeListener(arguments.listen, arguments.listen_fd);
  options.control = MakeListener(arguments.control, arguments.control_fd);
  options.record_path = arguments.record;
  for (const std::string& name : Split(arguments.banks, ',')) {
    ASSIGN_OR_RETURN(const HashAlgorithm bank, measure::ParseBankName(name));
    options.pcr_banks.push_back(bank);
  }
  if (!arguments.user.empty()) {
    ASSIGN_OR_RETURN(options.user, ParseUserIds(arguments.user));
  }
  options.connect_timeout = std::chrono::seconds(arguments.connect_timeout);
  options.certificate_timeout = std::chrono::milliseconds(arguments.await_certificate);
  if (swtpm.empty()) {
    return InvalidInput("no swtpm command").WithFix("put it behind --");
  }
  options.swtpm_argv = std::move(swtpm);
  return options;
}

void Print(const std::string& text) { std::fprintf(stderr, "vallum-vtpm: %s\n", text.c_str()); }

void Print(const Error& error) {
  Print(error.Describe() + (error.fix().empty() ? "" : " (" + error.fix() + ")"));
}

int Main(int argc, char** argv) {
  // What is behind "--" is not ours to interpret.
  char** const end = argv + argc;
  char** const separator = std::find(argv, end, std::string_view("--"));
  std::vector<std::string> swtpm(separator == end ? end : separator + 1, end);
  CLI::App app("Sits between QEMU and swtpm and records what happens to the TPM's PCRs.");
  Arguments arguments;
  Declare(app, arguments);
  try {
    app.parse(static_cast<int>(separator - argv), argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  const auto options = MakeOptions(arguments, std::move(swtpm));
  if (!options.has_value()) {
    Print(options.error());
    return kExitUsage;
  }
  const SystemClock clock;
  const auto reason = RunDaemon(*options, clock);
  if (!reason.has_value()) {
    Print(reason.error());
    return kExitFailure;
  }
  Print("ended: " + *reason);
  return 0;
}

}  // namespace
}  // namespace vallum::vtpm

int main(int argc, char** argv) { return vallum::vtpm::Main(argc, argv); }
