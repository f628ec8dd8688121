// SPDX-License-Identifier: Apache-2.0
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <ostream>
#include <string>
#include <system_error>

#include "base/bytes.h"
#include "base/text.h"
#include "cli/commands.h"

namespace vallum::cli {
namespace {

// More than any published update; the server's limit on bodies is near it.
constexpr uintmax_t kMaxUpdateBytes = uintmax_t{512} << 10U;

Result<std::string> ReadUpdate(const std::string& path) {
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) return ErrnoError(error.value(), "read " + path);
  if (size > kMaxUpdateBytes) {
    return InvalidInput(Printable(path) + " has " + std::to_string(size) +
                        " bytes: too large for an update of dbx or SBAT");
  }
  std::ifstream file(path, std::ios::binary);
  std::string content((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file && !file.eof()) return Unavailable("reading " + Printable(path) + " failed");
  return content;
}

Result<void> CheckUpdate(Tool* tool, const std::string& path) {
  ASSIGN_OR_RETURN(const std::string content, ReadUpdate(path));
  ASSIGN_OR_RETURN(const Json reply, tool->Call(http::Method::kPost, "/v1/keysets/check-update",
                                                {{"update", ToBase64(AsBytes(content))}}));
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
