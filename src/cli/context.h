// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/secret_bytes.h"

namespace vallum::cli {

// Where a controller is and how it is trusted.
struct Context {
  std::string server;  // "https://host:port"
  std::string ca_pem;
};

// The contexts of one user: <dir>/config.toml, and for each a file with its token (0600). A value
// of the directory; every call reads and writes the files.
class ContextStore {
 public:
  explicit ContextStore(std::filesystem::path dir) : dir_(std::move(dir)) {}

  // By name, in order. Errors: kCorrupt (unreadable file, with the line).
  Result<std::map<std::string, Context>> List() const;
  // The chosen one; empty if none.
  Result<std::string> Current() const;
  // Errors: kNotFound with the fix.
  Result<Context> Get(std::string_view name) const;
  // Errors: kNotFound, kDenied (readable by others).
  Result<SecretBytes> Token(std::string_view name) const;

  // Adds or replaces; the first one becomes the current one. token may be empty: none is stored.
  Result<void> Put(const std::string& name, const Context& context, const SecretBytes& token) const;
  Result<void> Use(const std::string& name) const;
  Result<void> Remove(const std::string& name) const;

 private:
  struct Config;
  Result<Config> Load() const;
  Result<void> Save(const Config& config) const;
  std::filesystem::path TokenPath(std::string_view name) const;
  std::filesystem::path dir_;
};

}  // namespace vallum::cli
