// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <memory>
#include <ostream>
#include <string>

#include "base/bytes.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/local_image.h"

namespace vallum::cli {
namespace {

// More than any published update; the server's limit on bodies is near it.
constexpr size_t kMaxUpdateBytes = size_t{512} << 10U;

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

}  // namespace

void AddKeySetCommands(CLI::App* app, Tool* tool) {
  CLI::App* group = app->add_subcommand("keyset", "Keys under which images start");
  group->require_subcommand(1);
  auto path = std::make_shared<std::string>();
  CLI::App* check = group->add_subcommand(
      "check-update", "List the images and instances that an update would stop from booting");
  check->add_option("FILE", *path, "dbx update (.auth or signature lists) or SBAT level (CSV)")
      ->required();
  check->callback([=] { tool->action = [=] { return CheckUpdate(tool, *path); }; });
}

}  // namespace vallum::cli
