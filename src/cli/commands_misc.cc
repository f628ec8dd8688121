// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <ostream>

#include "base/text.h"
#include "base/units.h"
#include "cli/commands.h"

namespace vallum::cli {
namespace {

struct PoolOptions {
  std::string name, description;
  double cpu_overcommit = 0;
  double memory_overcommit = 0;
  std::string on_diverged, accept_signed_updates;
  bool trusted = false;       // of create
  std::string trusted_state;  // of update
  bool allow_untrusted = false;
  std::string attestation_policy, on_untrusted;
  std::optional<int32_t> lease_seconds, attest_interval, stale_grace, unknown_grace;
  std::vector<std::string> labels;
};
struct FlavorOptions {
  std::string name, memory, disk, description;
  int vcpus = 1;
  std::vector<std::string> labels, properties;
};
struct HostOptions {
  std::string name, maintenance;
  bool explain = false;
};

std::string Upper(std::string word) {
  std::transform(word.begin(), word.end(), word.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
  return word;
}

// What was said of boots; what was not said is left as it is.
Result<void> AddBootPolicy(const PoolOptions& options, Json& spec) {
  if (!options.on_diverged.empty()) {
    if (options.on_diverged != "report" && options.on_diverged != "isolate" &&
        options.on_diverged != "stop") {
      return InvalidInput("--on-diverged '" + Printable(options.on_diverged) + "' is unknown")
          .WithFix("use report, isolate or stop");
    }
    spec["onDiverged"] = "ON_DIVERGED_" + Upper(options.on_diverged);
  }
  if (!options.accept_signed_updates.empty()) {
    if (options.accept_signed_updates != "true" && options.accept_signed_updates != "false") {
      return InvalidInput("--accept-signed-updates '" + Printable(options.accept_signed_updates) +
                          "' is neither true nor false");
    }
    spec["acceptSignedUpdates"] = options.accept_signed_updates == "true";
  }
  return Ok();
}

// The same of trust.
Result<void> AddTrustPolicy(const PoolOptions& options, Json& spec) {
  if (!options.attestation_policy.empty()) {
    spec["attestationPolicy"] =
        options.attestation_policy == "none" ? "" : options.attestation_policy;
  }
  if (!options.on_untrusted.empty()) {
    if (options.on_untrusted != "stop" && options.on_untrusted != "move" &&
        options.on_untrusted != "report") {
      return InvalidInput("--on-untrusted '" + Printable(options.on_untrusted) + "' is unknown")
          .WithFix("use stop, move or report");
    }
    spec["onUntrusted"] = "ON_UNTRUSTED_" + Upper(options.on_untrusted);
  }
  if (options.lease_seconds) spec["leaseSeconds"] = *options.lease_seconds;
  if (options.attest_interval) spec["attestIntervalSeconds"] = *options.attest_interval;
  if (options.stale_grace) spec["staleGraceSeconds"] = *options.stale_grace;
  if (options.unknown_grace) spec["unknownGraceSeconds"] = *options.unknown_grace;
  if (options.trusted_state.empty()) return Ok();
  if (options.trusted_state != "true" && options.trusted_state != "false") {
    return InvalidInput("--trusted '" + Printable(options.trusted_state) +
                        "' is neither true nor false");
  }
  spec["trustedService"] = options.trusted_state == "true";
  return Ok();
}

Result<void> UpdatePool(Tool* tool, const PoolOptions& options) {
  Json spec = Json::object();
  RETURN_IF_ERROR(AddBootPolicy(options, spec));
  RETURN_IF_ERROR(AddTrustPolicy(options, spec));
  if (!options.description.empty()) spec["description"] = options.description;
  if (options.cpu_overcommit > 0) spec["cpuOvercommit"] = options.cpu_overcommit;
  if (options.memory_overcommit > 0) spec["memoryOvercommit"] = options.memory_overcommit;
  if (spec.empty()) {
    return InvalidInput("nothing to change was given").WithFix("see vallum pool update --help");
  }
  const Kind& kind = KindOf("pool");
  ASSIGN_OR_RETURN(const Json answer,
                   tool->Call(http::Method::kPatch,
                              ResourcePath(kind, options.name) +
                                  (options.allow_untrusted ? "?allowUntrusted=true" : ""),
                              Json{{"spec", spec}}, "application/merge-patch+json"));
  return ShowWritten(tool, kind, answer, "pool " + options.name + " changed");
}

Result<void> CreatePool(Tool* tool, const PoolOptions& options) {
  ASSIGN_OR_RETURN(const Json labels, KeyValues(options.labels, "--label"));
  Json spec = {{"description", options.description}};
  if (options.cpu_overcommit > 0) spec["cpuOvercommit"] = options.cpu_overcommit;
  if (options.memory_overcommit > 0) spec["memoryOvercommit"] = options.memory_overcommit;
  RETURN_IF_ERROR(AddBootPolicy(options, spec));
  RETURN_IF_ERROR(AddTrustPolicy(options, spec));
  if (options.trusted) spec["trustedService"] = true;
  const Json body = {{"metadata", {{"name", options.name}, {"labels", labels}}}, {"spec", spec}};
  ASSIGN_OR_RETURN(const Json answer, tool->Call(http::Method::kPost, "/v1/pools", body));
  return ShowWritten(tool, KindOf("pool"), answer, "pool " + options.name + " created");
}

// The protobuf mapping writes 64-bit numbers as strings.
Result<Json> Size(const std::string& text, const std::string& option) {
  ASSIGN_OR_RETURN_CONTEXT(const ByteCount size, ParseByteCount(text), "reading " + option);
  return Json(std::to_string(size.bytes()));
}

Result<void> CreateFlavor(Tool* tool, const FlavorOptions& options) {
  ASSIGN_OR_RETURN(const Json labels, KeyValues(options.labels, "--label"));
  Json spec = {{"vcpus", options.vcpus}, {"description", options.description}};
  ASSIGN_OR_RETURN(spec["memoryBytes"], Size(options.memory, "--memory"));
  if (!options.disk.empty()) {
    ASSIGN_OR_RETURN(spec["diskBytes"], Size(options.disk, "--disk"));
  }
  ASSIGN_OR_RETURN(spec["extraSpecs"], KeyValues(options.properties, "--extra-spec"));
  const Json body = {{"metadata", {{"name", options.name}, {"labels", labels}}}, {"spec", spec}};
  ASSIGN_OR_RETURN(const Json answer, tool->Call(http::Method::kPost, "/v1/flavors", body));
  return ShowWritten(tool, KindOf("flavor"), answer, "flavor " + options.name + " created");
}

Result<void> ShowHost(Tool* tool, const HostOptions& options) {
  const Kind& kind = KindOf("host");
  ASSIGN_OR_RETURN(const Json answer,
                   tool->Call(http::Method::kGet, ResourcePath(kind, options.name)));
  RETURN_IF_ERROR(tool->Show(kind.columns, {answer}, answer));
  if (options.explain && tool->ForPeople()) {
    tool->out() << "\n" << DescribeTrust(answer, tool->now()) << DescribeHost(answer, tool->now());
  }
  return Ok();
}

Result<void> SetMaintenance(Tool* tool, const HostOptions& options) {
  if (options.maintenance != "on" && options.maintenance != "off") {
    return InvalidInput("'" + Printable(options.maintenance) + "' is neither on nor off");
  }
  const Kind& kind = KindOf("host");
  ASSIGN_OR_RETURN(const Json answer,
                   tool->Call(http::Method::kPatch, ResourcePath(kind, options.name),
                              Json{{"spec", {{"maintenance", options.maintenance == "on"}}}},
                              "application/merge-patch+json"));
  return ShowWritten(tool, kind, answer,
                     "host " + options.name + ": maintenance " + options.maintenance);
}

Result<void> Explain(Tool* tool, const InstanceOptions& options) {
  ASSIGN_OR_RETURN(const Json spec, InstanceSpec(options));
  ASSIGN_OR_RETURN(const Json answer,
                   tool->Call(http::Method::kPost, "/v1/schedule/explain", Json{{"spec", spec}}));
  const Json hosts = At(answer, "hosts");
  const std::vector<Json> items(hosts.begin(), hosts.end());
  static const std::vector<Column> kColumns = {{"HOST", "host"},
                                               {"FITS", "fits", Style::kBool},
                                               {"FAILS AT", "requirement"},
                                               {"DETAIL", "detail"},
                                               {"SCORE", "score", Style::kNumber, true}};
  RETURN_IF_ERROR(tool->Show(kColumns, items, answer));
  if (tool->ForPeople()) {
    const std::string chosen = TextAt(answer, "chosen");
    tool->out() << (chosen.empty() ? "no host fits" : "chosen: " + Printable(chosen)) << "\n";
  }
  return Ok();
}

}  // namespace

std::string DescribeHost(const Json& host, WallTime /*now*/) {
  std::string out = "traits: " + Printable(TextAt(host, "status.capabilities.traits"), 4000) + "\n";
  const Json probes = At(host, "status.capabilities.probes");
  if (!probes.is_array()) return out;
  for (const Json& probe : probes) {
    out += std::string(TextAt(probe, "ok") == "true" ? "  ok    " : "  FAIL  ") +
           Printable(TextAt(probe, "name")) + ": " + Printable(TextAt(probe, "detail"), 500) + "\n";
  }
  return out;
}

void AddPoolCommands(CLI::App* group, Tool* tool) {
  auto options = std::make_shared<PoolOptions>();
  CLI::App* create = group->add_subcommand("create", "Create one");
  CLI::App* update = group->add_subcommand("update", "Change it; what is not given stays");
  for (CLI::App* command : {create, update}) {
    command->add_option("NAME", options->name, "Its name")->required();
    command->add_option("--description", options->description, "For people");
    command->add_option("--cpu-overcommit", options->cpu_overcommit,
                        "CPUs promised per CPU, 1 to 64 (4)");
    command->add_option("--memory-overcommit", options->memory_overcommit,
                        "Memory promised per byte that is there, 1 (default) to 10");
    command->add_option("--on-diverged", options->on_diverged,
                        "What happens to an instance whose boot diverges: report (default), "
                        "isolate or stop");
    command->add_option("--accept-signed-updates", options->accept_signed_updates,
                        "true: a program replaced by one whose signer its keys accept is no "
                        "divergence");
    command->add_option("--attestation-policy", options->attestation_policy,
                        "The policy that its hosts are judged by; none takes it away");
    command->add_option("--on-untrusted", options->on_untrusted,
                        "What happens to the instances of an untrusted host: stop (default), "
                        "move (they start again on a trusted one) or report");
    command->add_option("--lease-seconds", options->lease_seconds,
                        "Seconds that a verdict lets a host start instances (600); more than "
                        "--attest-interval, better by 100");
    command->add_option("--attest-interval", options->attest_interval,
                        "Seconds between two attestations of a host (240)");
    command->add_option("--stale-grace", options->stale_grace,
                        "Seconds of silence after which instances leave a connected host; 0 "
                        "(default): they stay");
    command->add_option("--unknown-grace", options->unknown_grace,
                        "The same for a host of which nothing can be said, such as one without an "
                        "active policy; 0 (default): they stay");
  }
  update->add_option("--trusted", options->trusted_state,
                     "true: only attested hosts run instances here; or false");
  update->add_flag("--allow-untrusted", options->allow_untrusted,
                   "Even while trusted instances are in it; recorded");
  create->footer("Example:\n  vallum pool create gold --trusted --attestation-policy gold");
  create->add_flag("--trusted", options->trusted, "Only attested hosts run instances here");
  create->add_option("--label", options->labels, "key=value; repeatable");
  create->callback([=] { tool->action = [=] { return CreatePool(tool, *options); }; });
  update->callback([=] { tool->action = [=] { return UpdatePool(tool, *options); }; });
  update->footer(
      "Examples:\n  vallum pool update gold --on-diverged isolate --accept-signed-updates true\n"
      "  vallum pool update gold --trusted true --attestation-policy gold --on-untrusted report");
}

void AddFlavorCommands(CLI::App* group, Tool* tool) {
  auto options = std::make_shared<FlavorOptions>();
  CLI::App* create = group->add_subcommand("create", "Create one");
  create->add_option("NAME", options->name, "Its name")->required();
  create->add_option("--vcpus", options->vcpus, "Virtual CPUs")->required();
  create->add_option("--memory", options->memory, "Such as 512M or 4G")->required();
  create->add_option("--disk", options->disk, "Size of the root disk (default: the image's)");
  create->add_option("--extra-spec,--property", options->properties,
                     "Extra spec such as os:secure_boot=required; repeatable");
  create->add_option("--description", options->description, "For people");
  create->add_option("--label", options->labels, "key=value; repeatable");
  create->callback([=] { tool->action = [=] { return CreateFlavor(tool, *options); }; });
}

void AddHostCommands(CLI::App* group, Tool* tool) {
  auto options = std::make_shared<HostOptions>();
  CLI::App* show = group->add_subcommand("show", "Show one");
  show->add_option("NAME", options->name, "Its name")->required();
  show->add_flag("--explain", options->explain,
                 "With its TPM, why it is trusted or not, its traits and what each probe found");
  show->callback([=] { tool->action = [=] { return ShowHost(tool, *options); }; });
  CLI::App* maintenance = group->add_subcommand("maintenance", "Place no new instances on it");
  maintenance->add_option("NAME", options->name, "Its name")->required();
  maintenance->add_option("STATE", options->maintenance, "on or off")->required();
  maintenance->footer("Example:\n  vallum host maintenance node7 on");
  maintenance->callback([=] { tool->action = [=] { return SetMaintenance(tool, *options); }; });
}

void AddScheduleCommands(CLI::App* app, Tool* tool) {
  auto options = std::make_shared<InstanceOptions>();
  CLI::App* group = app->add_subcommand("schedule", "Placement of instances");
  group->require_subcommand(1);
  CLI::App* explain =
      group->add_subcommand("explain", "Per host, the first requirement that it fails");
  AddInstanceOptions(explain, options.get());
  explain->footer(
      "Example:\n  vallum schedule explain --pool gold --image debian12 --flavor small");
  explain->callback([=] { tool->action = [=] { return Explain(tool, *options); }; });
}

}  // namespace vallum::cli
