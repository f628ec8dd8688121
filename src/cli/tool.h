// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <iosfwd>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "cli/output.h"
#include "http/client.h"

namespace CLI {
class App;
}

namespace vallum::cli {

// What the program gets from outside; a test gives its own.
struct Environment {
  std::function<std::optional<std::string>(const char*)> variable;
  std::ostream* out = nullptr;
  std::ostream* err = nullptr;
  int in_fd = 0;
  int out_fd = 1;
  bool terminal = false;  // err, where progress goes, is one
  const Clock* clock = nullptr;
  std::string inspector;  // path of vallum-inspect
};

// One invocation: global options, the connection to the controller, and how results are shown. The
// command that the arguments name puts its work into `action`.
class Tool {
 public:
  explicit Tool(Environment environment) : environment_(std::move(environment)) {}

  // Global options, filled by the argument parser.
  std::string context;
  std::string server;
  std::string ca_file;
  std::string token_file;
  std::string output = "table";
  bool no_color = false;
  int64_t timeout_seconds = 600;

  std::function<Result<void>()> action;
  // Of an action that did what was asked, when what it found is to be told by the exit status.
  int exit_code = 0;

  const Environment& environment() const { return environment_; }
  std::ostream& out() const { return *environment_.out; }
  std::ostream& err() const { return *environment_.err; }
  WallTime now() const { return environment_.clock->Now(); }
  std::chrono::seconds timeout() const { return std::chrono::seconds(timeout_seconds); }
  std::filesystem::path ConfigDir() const;

  // The connection, made at the first use. Errors: kInvalidInput (no context), those of the files.
  Result<http::Client*> Connect();

  // One exchange with a JSON answer; an answer of 400 and up is its problem as an error.
  Result<Json> Call(http::Method method, const std::string& target, const Json& body = nullptr,
                    const std::string& content_type = "application/json");
  // All items of a list, page after page.
  Result<Json> CallList(const std::string& plural, const std::string& query);

  // Shows resources in the chosen format.
  Result<void> Show(const std::vector<Column>& columns, const std::vector<Json>& items,
                    const Json& full);
  Result<OutputFormat> Format() const { return ParseOutputFormat(output); }
  // True if a human reads: table or wide.
  bool ForPeople() const { return output == "table" || output == "wide"; }

  // Follows an operation to its end. Errors: its own; kUnavailable when the time is up.
  Result<void> WaitForOperation(const Json& operation);
  // One line of progress: rewritten in place on a terminal, a line per change elsewhere.
  void Progress(const std::string& line);
  void EndProgress();

 private:
  Environment environment_;
  std::unique_ptr<http::Client> client_;
  std::string last_progress_;
  MonotonicTime last_progress_time_;
};

// Builds all commands into the app.
void AddCommands(CLI::App* app, Tool* tool);

// Runs the program. args: without the program's name. Returns the exit code.
int Run(const std::vector<std::string>& args, Environment environment);

}  // namespace vallum::cli
