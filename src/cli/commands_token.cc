// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <ostream>

#include "base/text.h"
#include "cli/commands.h"
#include "tls/file.h"

namespace vallum::cli {
namespace {

struct TokenOptions {
  std::string name, role, tenant, pool, out, description;
  int64_t expires_hours = 0;
};

Result<std::string> RoleEnum(const std::string& role) {
  for (const char* known : {"admin", "operator", "auditor", "tenant", "join"}) {
    if (role != known) continue;
    std::string upper = "ROLE_" + role;
    for (char& c : upper) {
      if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    }
    return upper;
  }
  return InvalidInput("--role '" + Printable(role) + "' is unknown")
      .WithFix("use admin, operator, auditor, tenant or join");
}

Result<void> Create(Tool* tool, const TokenOptions& options) {
  Json spec = {{"description", options.description}};
  ASSIGN_OR_RETURN(spec["role"], RoleEnum(options.role));
  if (!options.tenant.empty()) spec["tenant"] = options.tenant;
  if (!options.pool.empty()) spec["pool"] = options.pool;
  if (options.expires_hours > 0) {
    spec["expireTime"] = FormatTime(tool->now() + std::chrono::hours(options.expires_hours));
  }
  const Json body = {{"metadata", {{"name", options.name}}}, {"spec", spec}};
  ASSIGN_OR_RETURN(Json answer, tool->Call(http::Method::kPost, "/v1/tokens", body));
  const std::string secret = TextAt(answer, "status.secret");
  if (secret.empty()) return Internal("the server's answer holds no secret");
  if (options.out.empty()) {
    // Alone on standard output, so that it can go straight into a pipe.
    if (!tool->ForPeople()) return tool->Show(KindOf("token").columns, {answer}, answer);
    tool->out() << Printable(secret, 64 * 1024) << "\n";
    return Ok();
  }
  RETURN_IF_ERROR(tls::WriteFileAtomically(options.out, AsBytes(secret + "\n"), 0600));
  answer["status"].erase("secret");
  return ShowWritten(tool, KindOf("token"), answer,
                     "token " + options.name + " created, secret written to " + options.out);
}

}  // namespace

void AddTokenCommands(CLI::App* group, Tool* tool) {
  auto options = std::make_shared<TokenOptions>();
  CLI::App* create = group->add_subcommand("create", "Create one; its secret is shown once");
  create->add_option("NAME", options->name, "Its name")->required();
  create->add_option("--role", options->role, "admin, operator, auditor, tenant or join")
      ->required();
  create->add_option("--tenant", options->tenant, "With --role tenant");
  create->add_option("--pool", options->pool, "With --role join: the host's pool");
  create->add_option("--expires", options->expires_hours, "Hours that it is valid");
  create->add_option("--out", options->out, "Write the secret to this file (mode 0600)");
  create->add_option("--description", options->description, "For people");
  create->footer("Example:\n  vallum token create node7 --role join --pool gold --out node7.join");
  create->callback([=] { tool->action = [=] { return Create(tool, *options); }; });
}

}  // namespace vallum::cli
