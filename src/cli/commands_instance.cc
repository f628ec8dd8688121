// SPDX-License-Identifier: Apache-2.0
#include <memory>

#include "base/text.h"
#include "cli/commands.h"
#include "cli/key_set_source.h"
#include "tls/file.h"

namespace vallum::cli {
namespace {

constexpr size_t kMaxSeedFile = 256 * 1024;

Result<std::string> Choose(const std::string& value, const std::string& option,
                           const std::vector<std::pair<std::string, std::string>>& choices) {
  std::vector<std::string> names;
  for (const auto& [name, result] : choices) {
    if (ToLower(value) == name) return result;
    names.push_back(name);
  }
  return InvalidInput("--" + option + " '" + Printable(value) + "' is unknown")
      .WithFix("use one of " + Join(names, ", "));
}

Result<Json> Networks(const std::vector<std::string>& words) {
  Json networks = Json::array();
  for (const std::string& word : words) {
    if (word == "none" || word == "user") {
      networks.push_back({{"type", word}});
    } else if (word.starts_with("bridge=") && word.size() > 7) {
      networks.push_back({{"type", "bridge"}, {"bridge", word.substr(7)}});
    } else {
      return InvalidInput("--network '" + Printable(word) + "' is unknown")
          .WithFix("use none, user or bridge=NAME");
    }
  }
  return networks;
}

Result<Json> Seed(const InstanceOptions& options) {
  Json seed = Json::object();
  if (!options.user_data.empty()) {
    ASSIGN_OR_RETURN(const Bytes text, tls::ReadSmallFile(options.user_data, kMaxSeedFile));
    seed["userData"] = std::string(AsText(text));
  }
  for (const std::string& file : options.ssh_keys) {
    ASSIGN_OR_RETURN(const Bytes text, tls::ReadSmallFile(file, kMaxSeedFile));
    if (AsText(text).find("PRIVATE KEY") != std::string_view::npos) {
      return InvalidInput(Printable(file) + " is a private key")
          .WithFix("give the public one, usually " + Printable(file) + ".pub");
    }
    seed["sshAuthorizedKeys"].push_back(std::string(Trim(AsText(text))));
  }
  if (!options.hostname.empty()) seed["hostname"] = options.hostname;
  return seed;
}

Result<Json> Boot(const InstanceOptions& options) {
  Json boot = Json::object();
  if (!options.boot_type.empty()) {
    ASSIGN_OR_RETURN(boot["type"],
                     Choose(options.boot_type, "boot-type",
                            {{"bios", "BOOT_TYPE_BIOS"}, {"uefi", "BOOT_TYPE_UEFI"}}));
  }
  if (!options.boot_mode.empty()) {
    ASSIGN_OR_RETURN(boot["mode"],
                     Choose(options.boot_mode, "boot-mode",
                            {{"legacy", "BOOT_MODE_LEGACY"}, {"secure", "BOOT_MODE_SECURE"}}));
  }
  return boot;
}

struct CreateOptions {
  std::string name;
  InstanceOptions instance;
  bool wait = false;
};
struct ActionOptions {
  std::string name;
  bool force = false;
  bool wait = false;
};

Follow FollowOf(bool wait) { return wait ? Follow::kWait : Follow::kReturn; }

Result<void> Create(Tool* tool, const CreateOptions& options) {
  ASSIGN_OR_RETURN(const Json labels, KeyValues(options.instance.labels, "--label"));
  ASSIGN_OR_RETURN(const Json spec, InstanceSpec(options.instance));
  const Json body = {{"metadata", {{"name", options.name}, {"labels", labels}}}, {"spec", spec}};
  ASSIGN_OR_RETURN(const Json answer, tool->Call(http::Method::kPost, "/v1/instances", body));
  return FinishOperation(tool, answer, FollowOf(options.wait), "create instance " + options.name);
}

Result<void> Act(Tool* tool, const std::string& verb, const ActionOptions& options) {
  const std::string path = ResourcePath(KindOf("instance"), options.name);
  const Json body = verb == "stop" ? Json{{"force", options.force}} : Json::object();
  const bool remove = verb == "delete";
  ASSIGN_OR_RETURN(const Json answer,
                   remove ? tool->Call(http::Method::kDelete, path)
                          : tool->Call(http::Method::kPost, path + "/" + verb, body));
  return FinishOperation(tool, answer, FollowOf(options.wait), verb + " instance " + options.name);
}

void AddAction(CLI::App* group, Tool* tool, const std::string& verb, const std::string& about) {
  auto options = std::make_shared<ActionOptions>();
  CLI::App* command = group->add_subcommand(verb, about);
  command->add_option("NAME", options->name, "Its name")->required();
  command->add_flag("--wait", options->wait, "Return when it is done");
  if (verb == "stop") command->add_flag("--force", options->force, "Do not ask the guest");
  command->callback([=] { tool->action = [=] { return Act(tool, verb, *options); }; });
}

std::string Line(const std::string& name, const std::string& value) {
  if (value.empty() || value == "-") return {};
  return "  " + name + std::string(name.size() < 14 ? 14 - name.size() : 1, ' ') +
         Printable(value) + "\n";
}

std::string Lines(const std::string& name, const Json& list) {
  std::string out;
  if (!list.is_array()) return out;
  for (const Json& item : list) {
    if (item.is_string()) out += Line(name, item.get<std::string>());
  }
  return out;
}

std::string TypeAndMode(const Json& boot) {
  return FriendlyEnum(TextAt(boot, "type")) + "/" + FriendlyEnum(TextAt(boot, "mode"));
}

std::string VersionedKeySet(const Json& object) {
  const int64_t version = NumberAt(object, "keySetVersion");
  return TextAt(object, "keySet") + (version == 0 ? "" : " version " + std::to_string(version));
}

std::string DescribeBoot(const Json& boot) {
  std::string out;
  if (const Json requested = At(boot, "requested"); !requested.is_null()) {
    out += "boot requested\n" + Line("type/mode", TypeAndMode(requested)) +
           Line("by", TextAt(requested, "origin")) + Lines("warning", At(requested, "warnings"));
  }
  if (const Json effective = At(boot, "effective"); !effective.is_null()) {
    out += "boot effective\n" + Line("type/mode", TypeAndMode(effective)) +
           Line("firmware", TextAt(effective, "firmware")) +
           Line("sha256", TextAt(effective, "firmwareSha256")) +
           Line("descriptor", TextAt(effective, "descriptorPath")) +
           Line("machine", TextAt(effective, "machine")) +
           Line("smm", TextAt(effective, "smm") == "true" ? "on" : "off") +
           Line("key set", VersionedKeySet(effective)) +
           Line("vtpm", TextAt(effective, "tpmModel")) +
           Line("accelerator", TextAt(effective, "accelerator"));
  }
  if (const Json measured = At(boot, "measured"); !measured.is_null()) {
    out += "boot measured\n" + Line("verdict", FriendlyEnum(TextAt(measured, "verdict"))) +
           Line("secure boot", FriendlyEnum(TextAt(measured, "secureBoot"))) +
           Line("pcr 7", TextAt(measured, "pcr7Measured")) +
           Line("computed", TextAt(measured, "pcr7Computed")) +
           Line("extends", TextAt(measured, "extends")) + DescribeVerdict(measured);
  }
  return out;
}

}  // namespace

void AddInstanceOptions(CLI::App* command, InstanceOptions* options) {
  command->add_option("--image", options->image, "Image to start from");
  command->add_option("--flavor", options->flavor, "Size");
  command->add_option("--pool", options->pool, "Pool of hosts (default: default)");
  command->add_option("--host", options->host, "This host only");
  command->add_option("--near", options->near,
                      "Instance on whose host it is to be as well; repeatable");
  command->add_option("--apart-from", options->apart_from,
                      "Instance on whose host it is not to be; repeatable");
  command->add_option("--boot-type", options->boot_type, "bios or uefi");
  command->add_option("--boot-mode", options->boot_mode, "legacy or secure");
  command->add_option("--secure-boot", options->secure_boot, "required, optional or disabled");
  command->add_option("--key-set", options->key_set,
                      "Keys of its firmware: NAME or NAME@VERSION (default: microsoft, or none "
                      "without Secure Boot)");
  command->add_option("--network", options->networks, "none, user or bridge=NAME; repeatable");
  command->add_option("--user-data", options->user_data, "File for cloud-init");
  command->add_option("--ssh-key", options->ssh_keys, "File with a public key; repeatable");
  command->add_option("--hostname", options->hostname, "Of the guest (default: the name)");
  command->add_option("--tpm", options->tpm, "tpm-crb, tpm-tis or none");
  command->add_flag("--trusted", options->trusted, "It may run in trusted pools only");
  command->add_flag("--allow-untrusted", options->allow_untrusted,
                    "With --trusted: in any pool all the same; recorded");
  command->add_option("--label", options->labels, "key=value; repeatable");
  command->add_option("--property", options->properties, "key=value; repeatable");
}

Result<Json> InstanceSpec(const InstanceOptions& options) {
  Json spec = {{"image", options.image}, {"flavor", options.flavor}};
  if (!options.pool.empty()) spec["pool"] = options.pool;
  if (!options.host.empty()) spec["host"] = options.host;
  ASSIGN_OR_RETURN(const Json boot, Boot(options));
  if (!boot.empty()) spec["boot"] = boot;
  if (!options.key_set.empty()) {
    ASSIGN_OR_RETURN(const KeySetName key_set, ParseKeySetName(options.key_set));
    spec["keySet"] = key_set.name;
    if (key_set.version != 0) spec["keySetVersion"] = key_set.version;
  }
  ASSIGN_OR_RETURN(Json properties, KeyValues(options.properties, "--property"));
  if (!options.secure_boot.empty()) {
    ASSIGN_OR_RETURN(
        properties["os_secure_boot"],
        Choose(options.secure_boot, "secure-boot",
               {{"required", "required"}, {"optional", "optional"}, {"disabled", "disabled"}}));
  }
  if (!properties.empty()) spec["properties"] = properties;
  ASSIGN_OR_RETURN(const Json networks, Networks(options.networks));
  if (!networks.empty()) spec["networks"] = networks;
  ASSIGN_OR_RETURN(const Json seed, Seed(options));
  if (!seed.empty()) spec["seed"] = seed;
  if (!options.tpm.empty()) {
    ASSIGN_OR_RETURN(spec["tpmModel"],
                     Choose(options.tpm, "tpm",
                            {{"tpm-crb", "tpm-crb"}, {"tpm-tis", "tpm-tis"}, {"none", "none"}}));
  }
  if (!options.near.empty()) spec["near"] = options.near;
  if (!options.apart_from.empty()) spec["apartFrom"] = options.apart_from;
  if (options.trusted) spec["trustedService"] = true;
  if (options.allow_untrusted) spec["allowUntrusted"] = true;
  return spec;
}

std::string DescribeInstance(const Json& instance, WallTime now) {
  std::string out = "instance " + Printable(TextAt(instance, "metadata.name")) + "\n";
  out += Line("phase", FriendlyEnum(TextAt(instance, "status.phase"))) +
         Line("reason", TextAt(instance, "status.reason")) +
         Line("fix", TextAt(instance, "status.fix")) +
         Line("progress", TextAt(instance, "status.progressMessage")) +
         Line("host", TextAt(instance, "status.host")) +
         Line("network", TextAt(instance, "status.isolated") == "true"
                             ? "off: a boot diverged, and none was verified since"
                             : "") +
         Line("image", TextAt(instance, "spec.image")) +
         Line("snapshot", TextAt(instance, "spec.snapshot")) +
         Line("flavor", TextAt(instance, "spec.flavor")) +
         Line("pool", TextAt(instance, "spec.pool")) +
         Line("key set", VersionedKeySet(At(instance, "spec"))) +
         Line("db also", TextAt(instance, "spec.properties.os_secure_boot_signature")) +
         Line("labels", TextAt(instance, "metadata.labels")) +
         Line("uid", TextAt(instance, "metadata.uid")) +
         Line("created", FriendlyAge(TextAt(instance, "metadata.createTime"), now)) +
         Line("started", FriendlyAge(TextAt(instance, "status.startedAt"), now)) +
         Line("last exit", TextAt(instance, "status.lastExit")) +
         Line("notes", TextAt(instance, "status.notes"));
  out += DescribeBoot(At(instance, "status.boot"));
  if (const Json vtpm = At(instance, "status.vtpm"); !vtpm.is_null()) {
    const bool certified = !TextAt(vtpm, "ekCertificate").empty();
    out += "vtpm\n" + Line("ak name", TextAt(vtpm, "akName")) +
           Line("ek certificate", certified ? "issued" : "none yet") +
           Line("note", TextAt(vtpm, "note"));
  }
  return out;
}

void AddInstanceCommands(CLI::App* group, Tool* tool) {
  auto options = std::make_shared<CreateOptions>();
  CLI::App* create = group->add_subcommand("create", "Create and start one");
  create->add_option("NAME", options->name, "Its name")->required();
  AddInstanceOptions(create, &options->instance);
  create->get_option("--image")->required();
  create->get_option("--flavor")->required();
  create->add_flag("--wait", options->wait, "Return when it runs");
  create->callback([=] { tool->action = [=] { return Create(tool, *options); }; });
  AddCloneCommand(group, tool);
  AddUnitCommands(group, tool);
  AddWaitCommand(group, tool);
  AddBootCommands(group, tool);
  AddQuoteCommand(group, tool);
  AddKeysOfInstanceCommands(group, tool);
  AddAction(group, tool, "start", "Start a stopped one");
  AddAction(group, tool, "stop", "Ask the guest to shut down");
  AddAction(group, tool, "reboot",
            "Reset it at once, as its reset button would, without asking the guest");
  AddAction(group, tool, "pause", "Stop its CPUs");
  AddAction(group, tool, "resume", "Let its CPUs run again");
  AddAction(group, tool, "delete", "Delete it with its disk and its TPM");
}

}  // namespace vallum::cli
