// SPDX-License-Identifier: Apache-2.0
// Other keys, and another boot mode, for an instance that exists.
#include <memory>
#include <ostream>
#include <string>

#include "base/error.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/key_set_source.h"

namespace vallum::cli {
namespace {

struct KeysOptions {
  std::string name, key_set, mode;
  bool force = false;
};

// What was changed and from when on; a warning of the pre-flight comes first.
Result<void> ShowChange(Tool* tool, const Json& instance) {
  if (!tool->ForPeople()) return tool->Show(KindOf("instance").columns, {instance}, instance);
  for (const Json& warning : At(instance, "status.boot.requested.warnings")) {
    if (warning.is_string()) {
      tool->out() << "warning: " << Printable(warning.get<std::string>(), 1000) << "\n";
    }
  }
  const std::string key_set = TextAt(instance, "spec.keySet");
  const bool runs = TextAt(instance, "status.phase") == "INSTANCE_RUNNING" ||
                    TextAt(instance, "status.phase") == "INSTANCE_PAUSED";
  tool->out() << "instance " << Printable(TextAt(instance, "metadata.name")) << " boots "
              << FriendlyEnum(TextAt(instance, "spec.boot.mode")) << " with key set "
              << Printable(key_set) << " version " << NumberAt(instance, "spec.keySetVersion")
              << (runs ? " from its next reboot on (`vallum instance reboot`)"
                       : " when it next starts")
              << "\n";
  return Ok();
}

Result<void> Change(Tool* tool, const KeysOptions& options, const Json& spec) {
  const std::string path = ResourcePath(KindOf("instance"), options.name);
  ASSIGN_OR_RETURN(const Json answer,
                   tool->Call(http::Method::kPatch, path + (options.force ? "?force=true" : ""),
                              Json{{"spec", spec}}, "application/merge-patch+json"));
  return ShowChange(tool, answer);
}

Result<Json> KeysSpec(const std::string& word) {
  ASSIGN_OR_RETURN(const KeySetName name, ParseKeySetName(word));
  return Json{{"keySet", name.name}, {"keySetVersion", name.version}};
}

Result<void> SetBoot(Tool* tool, const KeysOptions& options) {
  Json spec = Json::object();
  if (!options.key_set.empty()) {
    ASSIGN_OR_RETURN(spec, KeysSpec(options.key_set));
  }
  const std::string mode = ToLower(options.mode);
  if (mode != "secure" && mode != "legacy") {
    return InvalidInput("'" + Printable(options.mode, 40) + "' is no boot mode")
        .WithFix("use secure or legacy");
  }
  spec["boot"] = {{"mode", mode == "secure" ? "BOOT_MODE_SECURE" : "BOOT_MODE_LEGACY"}};
  return Change(tool, options, spec);
}

void AddForce(CLI::App* command, KeysOptions* options) {
  command->add_flag("--force", options->force,
                    "Also when the image would not start with these keys");
}

}  // namespace

void AddKeysOfInstanceCommands(CLI::App* group, Tool* tool) {
  auto keys = std::make_shared<KeysOptions>();
  CLI::App* set_keyset =
      group->add_subcommand("set-keyset", "Give it other keys, from its next start or reboot on");
  set_keyset->add_option("NAME", keys->name, "Its name")->required();
  set_keyset->add_option("KEYSET", keys->key_set, "NAME, or NAME@VERSION (default: the newest)")
      ->required();
  AddForce(set_keyset, keys.get());
  set_keyset->footer("vallum instance set-keyset web1 prod@3");
  set_keyset->callback([=] {
    tool->action = [=]() -> Result<void> {
      ASSIGN_OR_RETURN(const Json spec, KeysSpec(keys->key_set));
      return Change(tool, *keys, spec);
    };
  });

  auto boot = std::make_shared<KeysOptions>();
  CLI::App* set_boot = group->add_subcommand(
      "set-boot", "Turn Secure Boot of a stopped one on or off, as its flavor and image allow");
  set_boot->add_option("NAME", boot->name, "Its name")->required();
  set_boot->add_option("MODE", boot->mode, "secure or legacy")->required();
  set_boot->add_option("--key-set", boot->key_set,
                       "NAME or NAME@VERSION (default: microsoft with secure, none with legacy)");
  AddForce(set_boot, boot.get());
  set_boot->footer("vallum instance set-boot web1 secure --key-set prod");
  set_boot->callback([=] { tool->action = [=] { return SetBoot(tool, *boot); }; });
}

}  // namespace vallum::cli
