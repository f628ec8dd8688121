// SPDX-License-Identifier: Apache-2.0
#include "cli/key_set_source.h"

#include <charconv>
#include <string>

#include "base/error.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/key_set_files.h"
#include "images/installed_key_sets.h"

namespace vallum::cli {

Result<KeySetName> ParseKeySetName(const std::string& word) {
  const size_t at = word.find('@');
  KeySetName out{.name = word.substr(0, at), .version = 0};
  if (at == std::string::npos) return out;
  const char* begin = word.data() + at + 1;
  const char* end = word.data() + word.size();
  const auto parsed = std::from_chars(begin, end, out.version);
  if (parsed.ec != std::errc() || parsed.ptr != end || out.version < 1) {
    return InvalidInput("'" + Printable(word, 100) + "' is no key set")
        .WithFix("write NAME, or NAME@VERSION with a number from 1");
  }
  return out;
}

Result<firmware::KeySet> FetchKeys(Tool* tool, const std::string& word) {
  ASSIGN_OR_RETURN(const KeySetName name, ParseKeySetName(word));
  std::string path = ResourcePath(KindOf("keyset"), name.name);
  if (name.version != 0) path += "/versions/" + std::to_string(name.version);
  ASSIGN_OR_RETURN(const Json answer, tool->Call(http::Method::kGet, path));
  return KeysOfContent(At(answer, name.version != 0 ? "content" : "spec.content"), word);
}

Result<firmware::KeySet> ReadKeys(Tool* tool, const std::string& word) {
  if (word.find('/') == std::string::npos) return FetchKeys(tool, word);
  return images::ReadKeySetFile(word);
}

}  // namespace vallum::cli
