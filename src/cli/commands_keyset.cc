// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/key_set_files.h"
#include "cli/key_set_source.h"
#include "cli/local_image.h"
#include "images/installed_key_sets.h"

namespace vallum::cli {
namespace {

// More than any published update; the server's limit on bodies is near it.
constexpr size_t kMaxUpdateBytes = size_t{512} << 10U;

struct WriteOptions {
  std::string name, from, from_store, description;
  std::vector<std::string> labels;
  KeySetFiles files;
};

Result<void> CheckUpdate(Tool* tool, const std::string& path) {
  ASSIGN_OR_RETURN(const Bytes content, ReadInputFile(path, kMaxUpdateBytes));
  ASSIGN_OR_RETURN(const Json reply, tool->Call(http::Method::kPost, "/v1/keysets/check-update",
                                                {{"update", ToBase64(content)}}));
  std::vector<Json> affected;
  for (const Json& item : At(reply, "affected")) affected.push_back(item);
  static const std::vector<Column> kColumns = {{"IMAGE", "image"},
                                               {"KEY SET", "keySet"},
                                               {"BOOTABLE", "bootable"},
                                               {"INSTANCES", "instances"},
                                               {"BECAUSE", "reasons"}};
  RETURN_IF_ERROR(tool->Show(kColumns, affected, reply));
  if (!tool->ForPeople()) return Ok();
  tool->out() << Printable(TextAt(reply, "update"), 600) << "\n"
              << NumberAt(reply, "imagesChecked") << " images checked, " << affected.size()
              << " would stop booting\n";
  for (const Json& unknown : At(reply, "unknown")) {
    if (unknown.is_string()) {
      tool->out() << "not known: " << Printable(unknown.get<std::string>(), 400) << "\n";
    }
  }
  return Ok();
}

// What the files are added to.
Result<firmware::KeySet> BaseOf(Tool* tool, const WriteOptions& options) {
  if (!options.from.empty() && !options.from_store.empty()) {
    return InvalidInput("--from and --from-store both say what to begin with")
        .WithFix("use one of them");
  }
  if (!options.from_store.empty()) return images::ReadKeySetFile(options.from_store);
  if (!options.from.empty()) return FetchKeys(tool, options.from);
  return firmware::KeySet{};
}

Result<void> Create(Tool* tool, const WriteOptions& options) {
  ASSIGN_OR_RETURN(const Json labels, KeyValues(options.labels, "--label"));
  ASSIGN_OR_RETURN(firmware::KeySet keys, BaseOf(tool, options));
  RETURN_IF_ERROR(AddFiles(options.files, keys));
  const Json body = {
      {"metadata", {{"name", options.name}, {"labels", labels}}},
      {"spec", {{"description", options.description}, {"content", ContentOf(keys)}}}};
  ASSIGN_OR_RETURN(const Json answer, tool->Call(http::Method::kPost, "/v1/keysets", body));
  return ShowWritten(tool, KindOf("keyset"), answer, "keyset " + options.name + " created");
}

Result<void> Update(Tool* tool, const WriteOptions& options) {
  const Kind& kind = KindOf("keyset");
  const std::string path = ResourcePath(kind, options.name);
  ASSIGN_OR_RETURN(const Json current, tool->Call(http::Method::kGet, path));
  ASSIGN_OR_RETURN(firmware::KeySet keys, BaseOf(tool, options));
  if (options.from.empty() && options.from_store.empty()) {
    ASSIGN_OR_RETURN(keys, KeysOfContent(At(current, "spec.content"), options.name));
  }
  RETURN_IF_ERROR(AddFiles(options.files, keys));
  Json content = ContentOf(keys);
  // A merge patch keeps what it does not name.
  for (const KeyVariable& variable : KeyVariables()) {
    if (!content.contains(variable.option)) content[variable.option] = nullptr;
  }
  Json spec = {{"content", content}};
  if (!options.description.empty()) spec["description"] = options.description;
  ASSIGN_OR_RETURN(const Json answer, tool->Call(http::Method::kPatch, path, Json{{"spec", spec}},
                                                 "application/merge-patch+json"));
  const int64_t before = NumberAt(current, "status.version");
  const int64_t after = NumberAt(answer, "status.version");
  return ShowWritten(tool, kind, answer,
                     before == after
                         ? "keyset " + options.name + ": its keys are the same as before"
                         : "keyset " + options.name + " has version " + std::to_string(after) +
                               "; instances keep theirs until `" + "vallum keyset rollout " +
                               options.name + "`");
}

std::string DescribeVersions(const Json& key_set, WallTime now) {
  std::string out = "versions\n";
  for (const Json& version : At(key_set, "status.versions")) {
    const std::string user = TextAt(version, "user");
    out += "  " + std::to_string(NumberAt(version, "version")) + "  " +
           TextAt(version, "sha256").substr(0, 16) + "  " +
           FriendlyAge(TextAt(version, "createTime"), now) +
           (user.empty() ? "" : "  by " + Printable(user, 63)) + "\n";
  }
  return out;
}

Result<std::string> DescribeUsers(Tool* tool, const std::string& name) {
  ASSIGN_OR_RETURN(
      const Json answer,
      tool->CallList("instances", "fields=" + http::PercentEncode("spec.keySet=" + name)));
  std::string out;
  for (const Json& instance : answer["items"]) {
    out += "  " + Printable(TextAt(instance, "metadata.name"), 63) + "  version " +
           std::to_string(NumberAt(instance, "spec.keySetVersion")) + "  " +
           FriendlyEnum(TextAt(instance, "status.phase")) + "\n";
  }
  return out.empty() ? "used by no instance\n" : "used by\n" + out;
}

Result<void> Show(Tool* tool, const std::string& word) {
  const Kind& kind = KindOf("keyset");
  ASSIGN_OR_RETURN(const KeySetName name, ParseKeySetName(word));
  ASSIGN_OR_RETURN(const Json answer,
                   tool->Call(http::Method::kGet, ResourcePath(kind, name.name)));
  if (!tool->ForPeople()) return tool->Show(kind.columns, {answer}, answer);
  ASSIGN_OR_RETURN(const firmware::KeySet keys, FetchKeys(tool, word));
  const int64_t version = name.version != 0 ? name.version : NumberAt(answer, "status.version");
  tool->out() << "keyset " << Printable(name.name) << " version " << version
              << (TextAt(answer, "status.builtIn") == "true" ? " (comes with the controller)" : "")
              << "\n";
  if (const std::string text = TextAt(answer, "spec.description"); !text.empty()) {
    tool->out() << Printable(text, 4096) << "\n";
  }
  tool->out() << DescribeKeys(keys) << DescribeVersions(answer, tool->now());
  for (const Json& finding : At(answer, "status.findings")) {
    if (finding.is_string()) {
      tool->out() << "finding: " << Printable(finding.get<std::string>(), 1000) << "\n";
    }
  }
  ASSIGN_OR_RETURN(const std::string users, DescribeUsers(tool, name.name));
  tool->out() << users;
  return Ok();
}

void AddFileOptions(CLI::App* command, WriteOptions* options) {
  command->add_option("NAME", options->name, "Its name")->required();
  command->add_option("--from", options->from,
                      "Begin with the keys of another key set: NAME or NAME@VERSION");
  command->add_option("--from-store", options->from_store,
                      "Begin with the keys of a variable store (OVMF_VARS*.fd)");
  KeySetFiles& files = options->files;
  command->add_option("--clear", files.clear,
                      "Empty a variable first: pk, kek, db, dbx, dbt, dbr, mok, mokx; repeatable");
  command->add_option("--pk", files.pk,
                      "File with the platform key; replaces the one that is there");
  command->add_option("--kek", files.kek, "File for KEK; repeatable");
  command->add_option("--db", files.db, "File for db: whose programs may start; repeatable");
  command->add_option("--dbx", files.dbx, "File for dbx: what may not start; repeatable");
  command->add_option("--dbt", files.dbt, "File for dbt: whose timestamps count; repeatable");
  command->add_option("--mok", files.mok, "File for MokList: what shim starts besides; repeatable");
  command->add_option("--mokx", files.mokx,
                      "File for MokListX: what shim does not start; repeatable");
  command->add_option("--db-hash", files.db_hashes,
                      "Authenticode SHA-256 of a program that may start; repeatable");
  command->add_option("--dbx-hash", files.dbx_hashes,
                      "Authenticode SHA-256 of a program that may not; repeatable");
  command->add_option("--sbat-level", files.sbat_level, "File with an SBAT level (CSV)");
  command->add_option("--description", options->description, "For people");
}

}  // namespace

void AddKeySetCommands(CLI::App* group, Tool* tool) {
  auto created = std::make_shared<WriteOptions>();
  CLI::App* create = group->add_subcommand(
      "create", "Make one from files: PEM, DER, signature lists (.esl), signed updates (.auth)");
  AddFileOptions(create, created.get());
  create->add_option("--label", created->labels, "key=value; repeatable");
  create->footer(
      "vallum keyset create prod --pk PK.pem --kek KEK.pem --db db.pem --dbx dbxupdate_x64.bin\n"
      "vallum keyset create strict --from microsoft --clear db --db our-loader-ca.pem");
  create->callback([=] { tool->action = [=] { return Create(tool, *created); }; });

  auto updated = std::make_shared<WriteOptions>();
  CLI::App* update =
      group->add_subcommand("update", "Add to its newest version; the result is a new version");
  AddFileOptions(update, updated.get());
  update->footer("vallum keyset update prod --dbx dbxupdate_x64.bin --sbat-level level.csv");
  update->callback([=] { tool->action = [=] { return Update(tool, *updated); }; });

  auto shown = std::make_shared<std::string>();
  CLI::App* show = group->add_subcommand("show", "Show its keys, versions and who uses it");
  show->add_option("NAME", *shown, "Its name, or NAME@VERSION")->required();
  show->callback([=] { tool->action = [=] { return Show(tool, *shown); }; });

  auto path = std::make_shared<std::string>();
  CLI::App* check = group->add_subcommand(
      "check-update", "List the images and instances that an update would stop from booting");
  check->add_option("FILE", *path, "dbx update (.auth or signature lists) or SBAT level (CSV)")
      ->required();
  check->callback([=] { tool->action = [=] { return CheckUpdate(tool, *path); }; });

  AddKeySetCompareCommands(group, tool);
  AddKeySetRolloutCommand(group, tool);
}

}  // namespace vallum::cli
