// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <memory>
#include <string>
#include <thread>

#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/kinds.h"
#include "cli/output.h"
#include "cli/tool.h"

namespace vallum::cli {
namespace {

constexpr std::chrono::milliseconds kPollInterval{200};

struct WaitOptions {
  std::string name;
  std::string condition = "running";
};

enum class Progress { kGoesOn, kReached };

// An end that the condition cannot be reached from any more.
Error EndedInstead(const Json& instance, const std::string& wanted) {
  std::string message = "instance " + Printable(TextAt(instance, "metadata.name")) + " is " +
                        FriendlyEnum(TextAt(instance, "status.phase")) + ", not " + wanted;
  const std::string reason = TextAt(instance, "status.reason");
  const std::string exit = TextAt(instance, "status.lastExit");
  if (!reason.empty() && reason != "-") message += ": " + Printable(reason, 500);
  if (!exit.empty() && exit != "-") message += " (" + Printable(exit, 500) + ")";
  return Corrupt(std::move(message)).WithFix(TextAt(instance, "status.fix"));
}

bool HasEnded(const std::string& phase) {
  return phase == "INSTANCE_STOPPED" || phase == "INSTANCE_CRASHED" || phase == "INSTANCE_FAILED";
}

Result<Progress> CheckPhase(const Json& instance, const std::string& wanted) {
  const std::string phase = TextAt(instance, "status.phase");
  if (phase == (wanted == "running" ? "INSTANCE_RUNNING" : "INSTANCE_STOPPED")) {
    return Progress::kReached;
  }
  if (HasEnded(phase)) return EndedInstead(instance, wanted);
  return Progress::kGoesOn;
}

// VERIFIED is the one good verdict; every other is an error that says what was found.
Result<Progress> CheckVerdict(const Json& instance) {
  const Json measured = At(instance, "status.boot.measured");
  const std::string verdict = TextAt(measured, "verdict");
  if (verdict == "BOOT_VERIFIED") return Progress::kReached;
  if (verdict == "BOOT_REFUSED" || verdict == "BOOT_DIVERGED" || verdict == "BOOT_UNMEASURED") {
    std::string message = "the boot of instance " + Printable(TextAt(instance, "metadata.name")) +
                          " is " + FriendlyEnum(verdict);
    if (const Json reasons = At(measured, "reasons"); reasons.is_array()) {
      for (const Json& reason : reasons) {
        if (reason.is_string()) message += "; " + Printable(reason.get<std::string>(), 500);
      }
    }
    return Corrupt(std::move(message));
  }
  if (HasEnded(TextAt(instance, "status.phase"))) return EndedInstead(instance, "verified");
  return Progress::kGoesOn;
}

Result<void> Wait(Tool* tool, const WaitOptions& options) {
  const std::string& wanted = options.condition;
  if (wanted != "running" && wanted != "stopped" && wanted != "boot-verdict") {
    return InvalidInput("--for " + Printable(wanted, 40) + " is none of the conditions")
        .WithFix("use running, stopped or boot-verdict");
  }
  const std::string path = "/v1/instances/" + http::PercentEncode(options.name);
  const MonotonicTime end = tool->environment().clock->Monotonic() + tool->timeout();
  while (true) {
    ASSIGN_OR_RETURN(const Json instance, tool->Call(http::Method::kGet, path));
    const Result<Progress> progress =
        wanted == "boot-verdict" ? CheckVerdict(instance) : CheckPhase(instance, wanted);
    if (!progress.has_value() || *progress == Progress::kReached) tool->EndProgress();
    RETURN_IF_ERROR(progress);
    if (*progress == Progress::kReached) {
      tool->out() << "instance " << Printable(options.name) << " is "
                  << (wanted == "boot-verdict" ? "verified" : wanted) << "\n";
      return Ok();
    }
    const std::string extends = TextAt(instance, "status.boot.measured.extends");
    tool->Progress("instance " + Printable(options.name) + ": " +
                   FriendlyEnum(TextAt(instance, "status.phase")) + ", " +
                   (extends.empty() || extends == "-" ? "0" : extends) + " measurements");
    if (tool->environment().clock->Monotonic() >= end) {
      tool->EndProgress();
      return Unavailable("instance " + Printable(options.name) + " is not " + wanted + " after " +
                         std::to_string(tool->timeout_seconds) + " s")
          .WithFix("vallum instance show " + Printable(options.name) + ", or a longer --timeout");
    }
    std::this_thread::sleep_for(kPollInterval);
  }
}

}  // namespace

void AddWaitCommand(CLI::App* group, Tool* tool) {
  auto options = std::make_shared<WaitOptions>();
  CLI::App* command = group->add_subcommand("wait", "Wait for a state or for the boot's verdict");
  command->add_option("NAME", options->name, "Its name")->required();
  command->add_option("--for", options->condition, "running (default), stopped or boot-verdict");
  command->callback([=] { tool->action = [=] { return Wait(tool, *options); }; });
}

}  // namespace vallum::cli
