// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <ostream>

#include "base/text.h"
#include "cli/commands.h"
#include "cli/context.h"
#include "tls/certificate.h"
#include "tls/file.h"

namespace vallum::cli {
namespace {

// --server, --ca and --token-file are the global options of the same names.
Result<void> Add(Tool* tool, const std::string& name) {
  if (tool->server.empty() || tool->ca_file.empty()) {
    return InvalidInput("a context needs --server and --ca")
        .WithFix("vallum context add " + Printable(name) +
                 " --server https://HOST:7443 --ca FILE --token-file FILE");
  }
  Context context{.server = tool->server, .ca_pem = {}};
  ASSIGN_OR_RETURN(const Bytes pem, tls::ReadSmallFile(tool->ca_file));
  context.ca_pem = std::string(AsText(pem));
  // Refuses an address or a CA that could never work.
  RETURN_IF_ERROR(http::Client::Create({.server = context.server, .ca_pem = context.ca_pem}));
  SecretBytes token;
  if (!tool->token_file.empty()) {
    ASSIGN_OR_RETURN(token, tls::ReadSecretFile(tool->token_file));
  }
  RETURN_IF_ERROR(ContextStore(tool->ConfigDir()).Put(name, context, token));
  tool->out() << "context " << Printable(name) << " added\n";
  return Ok();
}

Result<void> List(Tool* tool) {
  const ContextStore store(tool->ConfigDir());
  ASSIGN_OR_RETURN(const auto contexts, store.List());
  ASSIGN_OR_RETURN(const std::string current, store.Current());
  std::vector<Json> items;
  for (const auto& [name, context] : contexts) {
    items.push_back({{"name", name}, {"server", context.server}, {"current", name == current}});
  }
  static const std::vector<Column> kColumns = {
      {"NAME", "name"}, {"SERVER", "server"}, {"CURRENT", "current", Style::kBool}};
  return tool->Show(kColumns, items, Json{{"items", items}});
}

}  // namespace

void AddContextCommands(CLI::App* app, Tool* tool) {
  auto name = std::make_shared<std::string>();
  CLI::App* group = app->add_subcommand("context", "Controllers that this user works with");
  group->require_subcommand(1);
  CLI::App* add =
      group->add_subcommand("add", "Add or replace one; takes --server, --ca and --token-file");
  add->add_option("NAME", *name, "Its name")->required();
  add->callback([=] { tool->action = [=] { return Add(tool, *name); }; });
  CLI::App* use = group->add_subcommand("use", "Choose one");
  use->add_option("NAME", *name, "Its name")->required();
  use->callback([=] { tool->action = [=] { return ContextStore(tool->ConfigDir()).Use(*name); }; });
  CLI::App* remove = group->add_subcommand("remove", "Remove one with its token");
  remove->add_option("NAME", *name, "Its name")->required();
  remove->callback(
      [=] { tool->action = [=] { return ContextStore(tool->ConfigDir()).Remove(*name); }; });
  CLI::App* list = group->add_subcommand("list", "List all");
  list->callback([=] { tool->action = [=] { return List(tool); }; });
}

}  // namespace vallum::cli
