// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <ostream>

#include "base/exit_code.h"
#include "base/text.h"
#include "cli/commands.h"

namespace vallum::cli {
namespace {

constexpr int kBadInput = 2;

void AddGlobalOptions(CLI::App* app, Tool* tool) {
  app->add_option("-c,--context", tool->context, "Which controller (see context list)");
  app->add_option("--server", tool->server, "Its address, instead of the context's");
  app->add_option("--ca", tool->ca_file, "File with its CA certificate");
  app->add_option("--token-file", tool->token_file, "File with the token (mode 0600)");
  app->add_option("-o,--output", tool->output, "table, wide, json, yaml or csv");
  app->add_option("--timeout", tool->timeout_seconds, "Seconds that --wait waits (default 600)")
      ->check(CLI::PositiveNumber);
  app->add_flag("--no-color", tool->no_color, "No escape sequences, not even on a terminal");
}

// "vallum snapshot create": what was recognized of the command.
std::string CommandName(const CLI::App& app) {
  std::string name = app.get_name();
  for (const CLI::App* at = &app; !at->get_subcommands().empty();) {
    at = at->get_subcommands().front();
    name += " " + at->get_name();
  }
  return name;
}

int PrintError(const Tool& tool, const Error& error) {
  tool.err() << "error: " << Printable(error.Describe(), 4000) << "\n";
  if (!error.fix().empty()) tool.err() << "fix: " << Printable(error.fix(), 4000) << "\n";
  return ExitCode(error.code());
}

}  // namespace

void AddCommands(CLI::App* app, Tool* tool) {
  app->require_subcommand(1);
  // Global options may stand behind the command too.
  app->fallthrough();
  AddGlobalOptions(app, tool);
  for (const Kind& kind : Kinds()) {
    CLI::App* group = app->add_subcommand(kind.name, kind.about);
    group->require_subcommand(1);
    AddResourceCommands(group, tool, kind);
    if (kind.name == "pool") AddPoolCommands(group, tool);
    if (kind.name == "host") {
      AddHostCommands(group, tool);
      AddHostTrustCommands(group, tool);
    }
    if (kind.name == "image") AddImageCommands(group, tool);
    if (kind.name == "flavor") AddFlavorCommands(group, tool);
    if (kind.name == "instance") AddInstanceCommands(group, tool);
    if (kind.name == "snapshot") AddSnapshotCommands(group, tool);
    if (kind.name == "token") AddTokenCommands(group, tool);
    if (kind.name == "keyset") AddKeySetCommands(group, tool);
    if (kind.name == "rollout") AddRolloutCommands(group, tool);
    if (kind.name == "policy") AddPolicyCommands(group, tool);
    if (kind.name == "tpmauthority") AddTpmAuthorityCommands(group, tool);
    if (kind.name == "allowlist") AddAllowListCommands(group, tool);
  }
  AddEventLogCommands(app, tool);
  AddAttestCommands(app, tool);
  AddConsoleCommand(app, tool);
  AddScheduleCommands(app, tool);
  AddContextCommands(app, tool);
  AddHelpCommands(app, tool);
}

int Run(const std::vector<std::string>& args, Environment environment) {
  Tool tool(std::move(environment));
  CLI::App app("Vallum: virtual machines whose boot is checked", "vallum");
  AddCommands(&app, &tool);
  try {
    // CLI11 takes the arguments from the back.
    app.parse(std::vector<std::string>(args.rbegin(), args.rend()));
  } catch (const CLI::CallForHelp&) {
    // The help of the command that was named last, with its whole name.
    tool.out() << app.help();
    return 0;
  } catch (const CLI::ParseError& error) {
    tool.err() << "error: " << Printable(error.what(), 1000) << "\n"
               << "fix: see " << CommandName(app) << " --help\n";
    return kBadInput;
  }
  if (const auto format = tool.Format(); !format.has_value()) {
    return PrintError(tool, format.error());
  }
  const Result<void> result = tool.action();
  tool.out().flush();
  return result.has_value() ? tool.exit_code : PrintError(tool, result.error());
}

}  // namespace vallum::cli
