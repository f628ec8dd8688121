// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/text.h"
#include "measure/ima_allow_list.h"

namespace vallum::measure {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxDepth = 8;
constexpr size_t kMaxKeyText = size_t{1} << 20U;
// Of a runtime policy, and the last of the allow lists before it.
constexpr uint64_t kPolicyVersion = 1;
constexpr uint64_t kLastAllowListVersion = 6;
constexpr std::array<HashAlgorithm, 4> kLogHashes = {
    HashAlgorithm::kSha1, HashAlgorithm::kSha256, HashAlgorithm::kSha384, HashAlgorithm::kSha512};

constexpr std::string_view kKeyringPrefix = "%keyring:";

//   digest: hexadecimal, with or without the name of its algorithm before it ("sha256:").
Result<void> AddDigest(ImaDigestTableBuilder& table, std::string_view name,
                       std::string_view digest) {
  const size_t colon = digest.find(':');
  std::optional<ImaHash> hash;
  if (colon != std::string_view::npos) hash = ImaHashFromName(digest.substr(0, colon));
  const auto bytes = FromHex(hash.has_value() ? digest.substr(colon + 1) : digest);
  if (!bytes.has_value() || (hash.has_value() && bytes->size() != ImaHashSize(*hash))) {
    return InvalidInput(
        fmt::format("'{}' is no digest of {}", Printable(digest, 80), Printable(name)));
  }
  return table.Add(name, *bytes);
}

// Keeps what a policy says while it is read: a document of 100,000 paths is never held as a tree.
// What the members of nlohmann's SAX interface are named is not ours to choose.
class PolicyReader {
 public:
  PolicyReader() = default;

  Result<SharedImaAllowList> Finish() && {
    if (!has_digests_) {
      return InvalidInput("neither 'digests' nor 'hashes': this is no runtime policy of Keylime");
    }
    if (version_.has_value() &&
        (*version_ == 0 || *version_ > (old_names_ ? kLastAllowListVersion : kPolicyVersion))) {
      return InvalidInput(fmt::format("meta.version {} is not known", *version_));
    }
    RETURN_IF_ERROR(AddKeys());
    return std::move(builder_).Build();
  }
  const std::optional<Error>& error() const { return error_; }

  // NOLINTBEGIN(readability-identifier-naming): nlohmann::json_sax
  bool null() { return Keep(Value(Kind::kNull, "")); }
  bool boolean(bool /*value*/) { return Keep(Value(Kind::kOther, "")); }
  bool number_integer(int64_t /*value*/) { return Keep(Value(Kind::kOther, "")); }
  bool number_unsigned(uint64_t value) {
    number_ = value;
    return Keep(Value(Kind::kNumber, ""));
  }
  bool number_float(double /*value*/, const std::string& /*text*/) {
    return Keep(Value(Kind::kOther, ""));
  }
  bool string(std::string& value) { return Keep(Value(Kind::kString, value)); }
  bool binary(Json::binary_t& /*value*/) { return Keep(Value(Kind::kOther, "")); }
  bool start_object(size_t /*size*/) { return Open(Kind::kObject); }
  bool end_object() { return Close(); }
  bool start_array(size_t /*size*/) { return Open(Kind::kArray); }
  bool end_array() { return Close(); }
  bool key(std::string& name) {
    keys_.back() = name;
    return true;
  }
  bool parse_error(size_t at, const std::string& /*token*/, const std::exception& /*what*/) {
    error_ = InvalidInput(fmt::format("no JSON at byte {}", at));
    return false;
  }
  // NOLINTEND(readability-identifier-naming)

 private:
  enum class Kind { kNull, kNumber, kString, kOther, kObject, kArray };

  // keys_ holds the member's name at each depth, "" in an array; the top level is keys_[0].
  bool Open(Kind kind) {
    if (keys_.size() == kMaxDepth) {
      return Keep(Result<void>(InvalidInput(fmt::format("deeper than {} levels", kMaxDepth))));
    }
    if (!Keep(Value(kind, ""))) {
      return false;
    }
    keys_.emplace_back();
    arrays_.push_back(kind == Kind::kArray);
    return true;
  }

  bool Close() {
    keys_.pop_back();
    arrays_.pop_back();
    return true;
  }

  bool Keep(Result<void> result) {
    if (!result.has_value()) {
      error_ = std::move(result).error();
    }
    return result.has_value();
  }

  Error Unexpected() const {
    std::string path;
    for (const std::string& key : keys_) {
      path += (path.empty() || key.empty() ? "" : ".") + Printable(key, 80);
    }
    return InvalidInput(fmt::format("'{}' is not what a runtime policy has there", path));
  }

  // A value at the present place.
  Result<void> Value(Kind kind, std::string_view text) {
    if (keys_.empty()) {
      return kind == Kind::kObject ? Ok() : Result<void>(InvalidInput("no object"));
    }
    const std::string& top = keys_.front();
    if (arrays_.front()) {
      return Unexpected();
    }
    if (top == "digests" || top == "hashes") {
      has_digests_ = true;
      old_names_ |= top == "hashes";
      return Digests(builder_.files(), kind, text);
    }
    if (top == "keyrings") {
      return Digests(builder_.keyrings(), kind, text);
    }
    if (top == "ima-buf") {
      return Digests(builder_.buffers(), kind, text);
    }
    if (top == "excludes" || top == "exclude") {
      return Texts(kind, text, 1,
                   [this](std::string_view pattern) { return builder_.AddExclude(pattern); });
    }
    if (top == "ima") {
      return Ima(kind, text);
    }
    if (top == "verification-keys") {
      return VerificationKeys(kind, text);
    }
    if (top == "meta") {
      if (keys_.size() == 2 && keys_[1] == "version") {
        if (kind != Kind::kNumber) return Unexpected();
        version_ = number_;
      }
      return Ok();
    }
    if (top == "release" || top == "timestamp") {
      return Ok();
    }
    return Unexpected();
  }

  // {name: [hex, ...]}
  Result<void> Digests(ImaDigestTableBuilder& table, Kind kind, std::string_view text) {
    switch (keys_.size()) {
      case 1:
        return kind == Kind::kObject ? Ok() : Result<void>(Unexpected());
      case 2:
        return kind == Kind::kArray ? table.AddName(keys_[1]) : Result<void>(Unexpected());
      case 3:
        return kind == Kind::kString ? AddDigest(table, keys_[1], text)
                                     : Result<void>(Unexpected());
      default:
        return Unexpected();
    }
  }

  // A list of texts at a depth; null is no list, and says nothing.
  template <typename Add>
  Result<void> Texts(Kind kind, std::string_view text, size_t depth, Add add) {
    if (keys_.size() == depth) {
      return kind == Kind::kArray || kind == Kind::kNull ? Ok() : Result<void>(Unexpected());
    }
    return keys_.size() == depth + 1 && kind == Kind::kString ? add(text)
                                                              : Result<void>(Unexpected());
  }

  Result<void> Ima(Kind kind, std::string_view text) {
    if (keys_.size() == 1) {
      return kind == Kind::kObject || kind == Kind::kNull ? Ok() : Result<void>(Unexpected());
    }
    const std::string& member = keys_[1];
    if (member == "ignored_keyrings") {
      return Texts(kind, text, 2,
                   [this](std::string_view name) { return builder_.IgnoreKeyring(name); });
    }
    if (member == "log_hash_alg" && kind == Kind::kString) {
      const auto* const hash = std::ranges::find(kLogHashes, text, HashAlgorithmName);
      if (hash == kLogHashes.end()) {
        return InvalidInput(fmt::format("ima.log_hash_alg '{}' is not known", Printable(text, 32)));
      }
      builder_.SetLogHash(*hash);
      return Ok();
    }
    if (member == "dm_policy") {
      return kind == Kind::kNull
                 ? Ok()
                 : Result<void>(InvalidInput("ima.dm_policy is not supported")
                                    .WithFix("set it to null and list the digests of "
                                             "device-mapper's buffers under ima-buf"));
    }
    return Unexpected();
  }

  // A text that is again JSON, {"pubkeys": [base64 of DER], "keyids": [...]}; or that very object.
  Result<void> VerificationKeys(Kind kind, std::string_view text) {
    if (kind == Kind::kString && (keys_.size() == 1 || keys_[1] == "pubkeys")) {
      if (text.size() + key_text_.size() > kMaxKeyText) {
        return Exhausted(fmt::format("verification-keys of more than {} bytes", kMaxKeyText));
      }
      key_text_ += text;
      if (keys_.size() == 1) {
        return Ok();
      }
      key_text_.clear();
      return AddPublicKey(text);
    }
    return Ok();
  }

  Result<void> AddPublicKey(std::string_view base64) {
    const auto der = FromBase64(base64);
    if (!der.has_value()) {
      return InvalidInput("a verification key that is not base64");
    }
    return builder_.AddKey(*der);
  }

  Result<void> AddKeys() {
    const std::string_view text = Trim(key_text_);
    if (text.empty() || text == "[]" || text == "{}") {
      return Ok();
    }
    if (text.starts_with("-----BEGIN ")) {
      return builder_.AddKey(AsBytes(text));
    }
    const Json keys = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!keys.is_object() || !keys.contains("pubkeys") || !keys["pubkeys"].is_array()) {
      return InvalidInput("verification-keys is neither PEM nor an object with pubkeys");
    }
    for (const Json& key : keys["pubkeys"]) {
      if (!key.is_string()) {
        return InvalidInput("verification-keys: a key that is no text");
      }
      RETURN_IF_ERROR(AddPublicKey(key.get_ref<const std::string&>()));
    }
    return Ok();
  }

  ImaAllowListBuilder builder_;
  std::vector<std::string> keys_;
  std::vector<bool> arrays_;
  std::string key_text_;
  std::optional<uint64_t> version_;
  uint64_t number_ = 0;
  bool has_digests_ = false;
  bool old_names_ = false;
  std::optional<Error> error_;
};

Result<void> CheckSize(std::string_view text) {
  if (text.size() > kMaxAllowListInput) {
    return Exhausted(
        fmt::format("an allow list of {} bytes; {} are accepted", text.size(), kMaxAllowListInput));
  }
  return Ok();
}

// coreutils begins a line with a backslash when it wrote \\, \n or \r for such a character.
Result<std::string> Unescape(std::string_view path) {
  std::string out;
  for (size_t i = 0; i < path.size(); ++i) {
    if (path[i] != '\\') {
      out += path[i];
      continue;
    }
    ++i;
    const char c = i < path.size() ? path[i] : '\0';
    if (c != '\\' && c != 'n' && c != 'r') {
      return InvalidInput("an unknown escape in a name");
    }
    out += c == 'n' ? '\n' : c == 'r' ? '\r' : '\\';
  }
  return out;
}

Result<void> AddLine(ImaAllowListBuilder& builder, std::string_view line) {
  const bool escaped = line.starts_with('\\');
  line.remove_prefix(escaped ? 1 : 0);
  const size_t space = std::min(line.find(' '), line.size());
  const std::string_view digest = line.substr(0, space);
  std::string_view path = line.substr(std::min(space + 1, line.size()));
  // sha256sum's second space, or '*'; Keylime's flat lists have neither, and only there a keyring
  // is no file of such a name.
  const bool flat = !escaped && !path.starts_with(' ') && !path.starts_with('*');
  if (flat && path.starts_with(kKeyringPrefix)) {
    return AddDigest(builder.keyrings(), path.substr(kKeyringPrefix.size()), digest);
  }
  path.remove_prefix(path.starts_with(' ') || path.starts_with('*') ? 1 : 0);
  if (path.empty()) {
    return InvalidInput("no digest, spaces and a path");
  }
  std::string name(path);
  if (escaped) {
    ASSIGN_OR_RETURN(name, Unescape(path));
  }
  // As kernels write it to the log (ima_write_template_field_data).
  std::ranges::replace(name, ' ', '_');
  return AddDigest(builder.files(), name, digest);
}

}  // namespace

Result<SharedImaAllowList> ImportKeylimePolicy(std::string_view json) {
  RETURN_IF_ERROR(CheckSize(json));
  PolicyReader reader;
  const bool read = Json::sax_parse(json.begin(), json.end(), &reader);
  if (!read) {
    return reader.error().has_value() ? *reader.error() : InvalidInput("no JSON");
  }
  return std::move(reader).Finish();
}

Result<SharedImaAllowList> ImportDigestList(std::string_view text) {
  RETURN_IF_ERROR(CheckSize(text));
  ImaAllowListBuilder builder;
  size_t number = 0;
  while (!text.empty()) {
    ++number;
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    line.remove_suffix(line.ends_with('\r') ? 1 : 0);
    if (line.empty() || line.starts_with('#')) {
      continue;
    }
    RETURN_IF_ERROR(AddLine(builder, line)).context(fmt::format("reading line {}", number));
  }
  return std::move(builder).Build();
}

}  // namespace vallum::measure
