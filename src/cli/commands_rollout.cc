// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <chrono>
#include <memory>
#include <ostream>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/key_set_source.h"

namespace vallum::cli {
namespace {

constexpr std::chrono::milliseconds kPollInterval{500};

struct RolloutOptions {
  std::string key_set, name;
  std::vector<std::string> instances;
  int canaries = 1;
  bool dry_run = false;
  bool include_unbootable = false;
  bool wait = false;
};

const std::vector<Column>& InstanceColumns() {
  static const std::vector<Column> kColumns = {{"INSTANCE", "instance"},
                                               {"STATE", "state"},
                                               {"CANARY", "canary", Style::kBool},
                                               {"FROM", "fromKeySet"},
                                               {"VERSION", "fromVersion", Style::kNumber},
                                               {"DETAIL", "detail"}};
  return kColumns;
}

Result<void> ShowRollout(Tool* tool, const Json& rollout) {
  if (!tool->ForPeople()) return tool->Show(KindOf("rollout").columns, {rollout}, rollout);
  const std::string name = TextAt(rollout, "metadata.name");
  tool->out() << "rollout " << (name.empty() ? "(not started)" : Printable(name)) << " of key set "
              << Printable(TextAt(rollout, "spec.keySet")) << " version "
              << NumberAt(rollout, "spec.version") << ": "
              << FriendlyEnum(TextAt(rollout, "status.state"));
  if (const std::string reason = TextAt(rollout, "status.reason"); !reason.empty()) {
    tool->out() << ", " << Printable(reason, 1000);
  }
  tool->out() << "\n";
  std::vector<Json> instances;
  for (const Json& one : At(rollout, "status.instances")) instances.push_back(one);
  return tool->Show(InstanceColumns(), instances, rollout);
}

bool IsUnderWay(const Json& rollout) {
  const std::string state = TextAt(rollout, "status.state");
  return state == "ROLLOUT_CANARY" || state == "ROLLOUT_ROLLING" || state == "ROLLOUT_RETURNING";
}

std::string ProgressLine(const Json& rollout) {
  size_t verified = 0;
  size_t all = 0;
  for (const Json& one : At(rollout, "status.instances")) {
    if (TextAt(one, "state") == "skipped") continue;
    ++all;
    if (TextAt(one, "state") == "verified") ++verified;
  }
  return "rollout " + TextAt(rollout, "metadata.name") + ": " +
         FriendlyEnum(TextAt(rollout, "status.state")) + ", " + std::to_string(verified) + " of " +
         std::to_string(all) + " verified";
}

// Errors: kConflict when it was taken back; kUnavailable when the time is up.
Result<void> Follow(Tool* tool, Json rollout) {
  const std::string path = ResourcePath(KindOf("rollout"), TextAt(rollout, "metadata.name"));
  const MonotonicTime end = tool->environment().clock->Monotonic() + tool->timeout();
  while (IsUnderWay(rollout)) {
    tool->Progress(ProgressLine(rollout));
    if (tool->environment().clock->Monotonic() >= end) {
      tool->EndProgress();
      return Unavailable("rollout " + TextAt(rollout, "metadata.name") + " is still under way")
          .WithFix(
              "instances that run take their keys at their next reboot; `vallum rollout show` "
              "says which are waited for");
    }
    std::this_thread::sleep_for(kPollInterval);
    ASSIGN_OR_RETURN(rollout, tool->Call(http::Method::kGet, path));
  }
  tool->EndProgress();
  RETURN_IF_ERROR(ShowRollout(tool, rollout));
  if (TextAt(rollout, "status.state") == "ROLLOUT_DONE") return Ok();
  return Conflict("rollout " + TextAt(rollout, "metadata.name") + " is " +
                  FriendlyEnum(TextAt(rollout, "status.state")) + ": " +
                  TextAt(rollout, "status.reason"));
}

Result<void> Start(Tool* tool, const RolloutOptions& options) {
  ASSIGN_OR_RETURN(const KeySetName name, ParseKeySetName(options.key_set));
  Json spec = {{"keySet", name.name}, {"version", name.version}, {"canaries", options.canaries}};
  for (const std::string& words : options.instances) {
    for (const std::string& word : Split(words, ',')) {
      if (!word.empty()) spec["instances"].push_back(word);
    }
  }
  if (options.include_unbootable) spec["includeUnbootable"] = true;
  const Json body = {{"metadata", {{"name", options.name}}}, {"spec", spec}};
  ASSIGN_OR_RETURN(const Json answer,
                   tool->Call(http::Method::kPost,
                              options.dry_run ? "/v1/rollouts?dryRun=true" : "/v1/rollouts", body));
  if (options.wait && !options.dry_run) return Follow(tool, answer);
  return ShowRollout(tool, answer);
}

}  // namespace

void AddKeySetRolloutCommand(CLI::App* group, Tool* tool) {
  auto options = std::make_shared<RolloutOptions>();
  CLI::App* command = group->add_subcommand(
      "rollout", "Bring instances to a version, a few first; taken back when a boot goes bad");
  command
      ->add_option("NAME", options->key_set, "The key set, or NAME@VERSION (default: the newest)")
      ->required();
  command->add_option("--instances", options->instances,
                      "These, with commas; default: all that use the key set");
  command
      ->add_option("--canaries", options->canaries,
                   "How many take it first (default 1); 0: all at once")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--name", options->name, "Of the roll-out (default: made of the key set's)");
  command->add_flag("--include-unbootable", options->include_unbootable,
                    "Also those that the check says would stop booting");
  command->add_flag("--dry-run", options->dry_run, "Only say which, and which would stop booting");
  command->add_flag("--wait", options->wait,
                    "Return when it has ended; fails if it was taken back");
  command->footer(
      "vallum keyset rollout prod@3 --dry-run\n"
      "vallum keyset rollout prod@3 --canaries 2 --wait --timeout 3600");
  command->callback([=] { tool->action = [=] { return Start(tool, *options); }; });
}

void AddRolloutCommands(CLI::App* group, Tool* tool) {
  auto name = std::make_shared<std::string>();
  const auto path = [=] { return ResourcePath(KindOf("rollout"), *name); };
  CLI::App* show = group->add_subcommand("show", "Show how far it is, instance by instance");
  show->add_option("NAME", *name, "Its name")->required();
  show->callback([=] {
    tool->action = [=]() -> Result<void> {
      ASSIGN_OR_RETURN(const Json rollout, tool->Call(http::Method::kGet, path()));
      return ShowRollout(tool, rollout);
    };
  });
  CLI::App* stop = group->add_subcommand("stop", "Set no more instances; nothing is taken back");
  stop->add_option("NAME", *name, "Its name")->required();
  stop->callback([=] {
    tool->action = [=]() -> Result<void> {
      ASSIGN_OR_RETURN(const Json rollout, tool->Call(http::Method::kPost, path() + "/stop"));
      return ShowWritten(tool, KindOf("rollout"), rollout, "rollout " + *name + " stopped");
    };
  });
}

}  // namespace vallum::cli
