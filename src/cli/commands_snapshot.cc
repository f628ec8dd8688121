// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <memory>
#include <string>

#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/kinds.h"
#include "cli/output.h"
#include "cli/tool.h"

namespace vallum::cli {
namespace {

struct SnapshotOptions {
  std::string instance, name, description;
  bool wait = false;
};
struct CloneOptions {
  std::string source, name, tpm = "new", pool, snapshot;
  bool allow_untrusted = false;
  bool stopped = false;
  bool wait = true;
};

// "web1" taken on 2026-05-04 at 09:15:30 UTC is "web1-20260504-091530".
std::string DefaultName(const std::string& instance, WallTime now) {
  std::string digits = FormatTime(now);
  std::erase_if(digits, [](char c) { return c < '0' || c > '9'; });
  // A name has at most 63 characters.
  return instance.substr(0, 47) + "-" + digits.substr(0, 8) + "-" + digits.substr(8, 6);
}

Result<void> Create(Tool* tool, const SnapshotOptions& options) {
  const std::string name =
      options.name.empty() ? DefaultName(options.instance, tool->now()) : options.name;
  const Json body = {
      {"metadata", {{"name", name}}},
      {"spec", {{"instance", options.instance}, {"description", options.description}}}};
  ASSIGN_OR_RETURN(const Json answer, tool->Call(http::Method::kPost, "/v1/snapshots", body));
  return FinishOperation(tool, answer, options.wait ? Follow::kWait : Follow::kReturn,
                         "take snapshot " + name + " of instance " + options.instance);
}

Result<void> Clone(Tool* tool, const CloneOptions& options) {
  ASSIGN_OR_RETURN(const std::string origin, TpmOriginOf(options.tpm));
  std::string snapshot = options.snapshot;
  if (snapshot.empty()) {
    ASSIGN_OR_RETURN(snapshot,
                     TakeTemporarySnapshot(tool, options.source, "clone-" + options.name));
  }
  Json spec = {{"snapshot", snapshot},
               {"tpmOrigin", origin},
               {"power", options.stopped ? "POWER_STOPPED" : "POWER_RUNNING"}};
  if (!options.pool.empty()) spec["pool"] = options.pool;
  if (options.allow_untrusted) spec["allowUntrusted"] = true;
  const Json body = {{"metadata", {{"name", options.name}}}, {"spec", spec}};
  Result<Json> answer = tool->Call(http::Method::kPost, "/v1/instances", body);
  if (!answer.has_value()) {
    // Nothing is left of a clone that was refused.
    if (options.snapshot.empty()) {
      static_cast<void>(
          tool->Call(http::Method::kDelete, ResourcePath(KindOf("snapshot"), snapshot)));
    }
    return std::move(answer).error();
  }
  RETURN_IF_ERROR(FinishOperation(tool, *answer, Follow::kWait,
                                  "clone " + options.source + " as " + options.name));
  if (tool->ForPeople()) tool->out() << TpmOriginWords(origin, options.source);
  return Ok();
}

}  // namespace

Result<std::string> TpmOriginOf(const std::string& word) {
  if (ToLower(word) == "new") return std::string("TPM_ORIGIN_NEW");
  if (ToLower(word) == "copy") return std::string("TPM_ORIGIN_COPY");
  return InvalidInput("--tpm '" + Printable(word) + "' is unknown")
      .WithFix("use new (a vTPM of its own) or copy (the identity and secrets of the source)");
}

std::string TpmOriginWords(const std::string& origin, const std::string& source) {
  if (origin == "TPM_ORIGIN_COPY") {
    return "its vTPM is a copy of that of " + Printable(source) +
           ": same endorsement key, same secrets, and its EK certificate names " +
           Printable(source) +
           ".\nWhoever asks the TPM sees one machine in two: let only one of them run.\n";
  }
  return "its vTPM is new: keys that were sealed to the TPM of " + Printable(source) +
         " do not open here\n(LUKS with systemd-cryptenroll, BitLocker: have the recovery key at "
         "hand, then enrol again).\n";
}

Result<std::string> TakeTemporarySnapshot(Tool* tool, const std::string& instance,
                                          const std::string& wanted) {
  const std::string name = wanted.substr(0, 63);
  const Json body = {{"metadata", {{"name", name}}},
                     {"spec", {{"instance", instance}, {"temporary", true}}}};
  ASSIGN_OR_RETURN(const Json answer, tool->Call(http::Method::kPost, "/v1/snapshots", body));
  RETURN_IF_ERROR(tool->WaitForOperation(answer));
  return name;
}

void AddSnapshotCommands(CLI::App* group, Tool* tool) {
  auto options = std::make_shared<SnapshotOptions>();
  CLI::App* create = group->add_subcommand(
      "create", "Take one of a stopped instance: disk, variable store and vTPM as one");
  create->add_option("INSTANCE", options->instance, "The instance")->required();
  create->add_option("--name", options->name, "Its name (default: instance and time)");
  create->add_option("--description", options->description, "For people");
  create->add_flag("--wait", options->wait, "Return when it is taken");
  create->callback([=] { tool->action = [=] { return Create(tool, *options); }; });
}

void AddCloneCommand(CLI::App* group, Tool* tool) {
  auto options = std::make_shared<CloneOptions>();
  CLI::App* clone = group->add_subcommand(
      "clone", "Make another of a stopped one: own uid, MACs and seed, same disk and boot entries");
  clone->add_option("SOURCE", options->source, "The stopped instance")->required();
  clone->add_option("NEW", options->name, "Name of the clone")->required();
  clone->add_option("--tpm", options->tpm,
                    "new (default): a vTPM of its own; keys sealed to the source's (LUKS, "
                    "BitLocker) do not open in the clone without their recovery key. copy: the "
                    "source's identity and secrets; to whoever asks their TPM both are one "
                    "machine, so only one should run");
  clone->add_option("--snapshot", options->snapshot, "Take this snapshot of it, not a new one");
  clone->add_option("--pool", options->pool, "Pool of hosts (default: the source's)");
  clone->add_flag("--allow-untrusted", options->allow_untrusted,
                  "A trusted one may go into a pool that is not; recorded");
  clone->add_flag("--stopped", options->stopped, "Do not start it");
  clone->add_flag("--wait", options->wait, "Return when it is made; it always does");
  clone->callback([=] { tool->action = [=] { return Clone(tool, *options); }; });
}

}  // namespace vallum::cli
