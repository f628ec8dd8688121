// SPDX-License-Identifier: Apache-2.0
#include "cli/context.h"

#include <toml++/toml.h>

#include <sstream>
#include <system_error>

#include "base/ids.h"
#include "base/text.h"
#include "tls/file.h"

namespace vallum::cli {

struct ContextStore::Config {
  std::string current;
  std::map<std::string, Context> contexts;
};

namespace {

Error NoSuchContext(std::string_view name) {
  return NotFound("no context '" + Printable(name) + "'")
      .WithFix("vallum context list shows those that exist; vallum context add makes one");
}

}  // namespace

Result<ContextStore::Config> ContextStore::Load() const {
  const std::filesystem::path path = dir_ / "config.toml";
  Result<Bytes> text = tls::ReadSmallFile(path);
  if (!text.has_value()) {
    if (text.error().code() == ErrorCode::kNotFound) return Config{};
    return std::move(text).error();
  }
  toml::table table;
  try {
    table = toml::parse(AsText(*text));
  } catch (const toml::parse_error& error) {
    return Corrupt(path.string() + " line " + std::to_string(error.source().begin.line) + ": " +
                   std::string(error.description()))
        .WithFix("correct the line, or remove the file and add the contexts again");
  }
  Config config;
  config.current = table["current"].value_or(std::string());
  if (const toml::table* contexts = table["contexts"].as_table(); contexts != nullptr) {
    for (const auto& [name, node] : *contexts) {
      const toml::table* entry = node.as_table();
      if (entry == nullptr) continue;
      config.contexts[std::string(name.str())] =
          Context{.server = (*entry)["server"].value_or(std::string()),
                  .ca_pem = (*entry)["ca"].value_or(std::string())};
    }
  }
  return config;
}

Result<void> ContextStore::Save(const Config& config) const {
  std::error_code error;
  std::filesystem::create_directories(dir_, error);
  if (error) return ErrnoError(error.value(), "create directory " + dir_.string());
  toml::table contexts;
  for (const auto& [name, context] : config.contexts) {
    contexts.insert(name, toml::table{{"server", context.server}, {"ca", context.ca_pem}});
  }
  std::ostringstream text;
  text << toml::table{{"current", config.current}, {"contexts", std::move(contexts)}} << "\n";
  return tls::WriteFileAtomically(dir_ / "config.toml", AsBytes(text.str()), 0600);
}

std::filesystem::path ContextStore::TokenPath(std::string_view name) const {
  return dir_ / (std::string(name) + ".token");
}

Result<std::map<std::string, Context>> ContextStore::List() const {
  ASSIGN_OR_RETURN(Config config, Load());
  return std::move(config.contexts);
}

Result<std::string> ContextStore::Current() const {
  ASSIGN_OR_RETURN(Config config, Load());
  return std::move(config.current);
}

Result<Context> ContextStore::Get(std::string_view name) const {
  ASSIGN_OR_RETURN(Config config, Load());
  const auto it = config.contexts.find(std::string(name));
  if (it == config.contexts.end()) return NoSuchContext(name);
  return it->second;
}

Result<SecretBytes> ContextStore::Token(std::string_view name) const {
  RETURN_IF_ERROR(ValidateName("context", name));
  return tls::ReadSecretFile(TokenPath(name));
}

Result<void> ContextStore::Put(const std::string& name, const Context& context,
                               const SecretBytes& token) const {
  RETURN_IF_ERROR(ValidateName("context", name));
  ASSIGN_OR_RETURN(Config config, Load());
  config.contexts[name] = context;
  if (config.current.empty()) config.current = name;
  RETURN_IF_ERROR(Save(config));
  if (token.empty()) return Ok();
  return tls::WriteFileAtomically(TokenPath(name),
                                  token.Reveal(SecretAccess("storing a context's token")), 0600);
}

Result<void> ContextStore::Use(const std::string& name) const {
  ASSIGN_OR_RETURN(Config config, Load());
  if (!config.contexts.contains(name)) return NoSuchContext(name);
  config.current = name;
  return Save(config);
}

Result<void> ContextStore::Remove(const std::string& name) const {
  ASSIGN_OR_RETURN(Config config, Load());
  if (config.contexts.erase(name) == 0) return NoSuchContext(name);
  if (config.current == name) config.current.clear();
  RETURN_IF_ERROR(Save(config));
  std::error_code ignored;
  std::filesystem::remove(TokenPath(name), ignored);
  return Ok();
}

}  // namespace vallum::cli
