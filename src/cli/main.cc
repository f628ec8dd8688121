// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <iostream>

#include "cli/tool.h"
#include "images/confined_inspector.h"

int main(int argc, char** argv) {
  // A reader of our output that went away is an error of write, not a signal.
  std::signal(SIGPIPE, SIG_IGN);
  const vallum::SystemClock clock;
  vallum::cli::Environment environment;
  environment.variable = [](const char* name) -> std::optional<std::string> {
    const char* value = std::getenv(name);
    if (value == nullptr) return std::nullopt;
    return std::string(value);
  };
  environment.out = &std::cout;
  environment.err = &std::cerr;
  environment.in_fd = STDIN_FILENO;
  environment.out_fd = STDOUT_FILENO;
  environment.terminal = ::isatty(STDERR_FILENO) == 1;
  environment.clock = &clock;
  environment.inspector = vallum::images::InspectorBesideThisProgram();
  return vallum::cli::Run(std::vector<std::string>(argv + 1, argv + argc), std::move(environment));
}
