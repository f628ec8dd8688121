// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/result.h"

namespace vallum::attest {

inline constexpr size_t kMaxPolicyText = size_t{8} << 20U;
inline constexpr size_t kMaxPolicyValues = 400000;
inline constexpr size_t kMaxPolicyDepth = 12;

// A TOML or JSON document with the lines of its tables and values, for messages. Owns what its
// nodes look at. Immutable once parsed; thread-safe.
class PolicyDocument {
 public:
  // Text that begins with '{' is JSON, other text is TOML: neither can begin as the other does.
  //   text: untrusted.
  // Errors: kInvalidInput (neither; a date; a name twice; a limit above), with the line if known.
  static Result<PolicyDocument> Parse(std::string_view text);

  const nlohmann::json& root() const { return *root_; }
  // "pcr.4.rule (line 12)": as messages name a place.
  std::string PlaceOf(const std::string& path) const;

 private:
  friend class TomlReader;
  PolicyDocument() = default;

  std::unique_ptr<nlohmann::json> root_ = std::make_unique<nlohmann::json>();
  std::map<std::string, uint32_t> lines_;
};

// A table of a document. Every reader fails with the path of what is wrong. Looks into its
// document.
class PolicyTable {
 public:
  explicit PolicyTable(const PolicyDocument& document);

  const std::string& path() const { return path_; }
  bool Has(const char* key) const { return json_->contains(key); }
  std::vector<std::string> Keys() const;
  Error Wrong(const std::string& key, std::string_view what) const;
  // Errors: kInvalidInput (a key that is not in the list).
  Result<void> AllowOnly(std::initializer_list<std::string_view> keys) const;

  // Errors of all: kInvalidInput (absent, or of another kind).
  Result<PolicyTable> Table(const std::string& key) const;
  Result<std::vector<PolicyTable>> Tables(const std::string& key) const;  // absent: none
  Result<std::string> Text(const std::string& key) const;
  Result<std::vector<std::string>> Texts(const std::string& key) const;  // absent: none
  Result<uint64_t> Number(const std::string& key) const;
  // A list of whole numbers. Absent: none.
  Result<std::vector<uint64_t>> Numbers(const std::string& key) const;
  // Hexadecimal of the digest's size.
  Result<Bytes> Digest(const std::string& key, HashAlgorithm bank) const;
  Result<std::vector<Bytes>> Digests(const std::string& key, HashAlgorithm bank) const;
  // The position of the text among the words; absent: 0.
  Result<size_t> Choice(const std::string& key, std::span<const std::string_view> words) const;

 private:
  PolicyTable(const PolicyDocument& document, const nlohmann::json& json, std::string path)
      : document_(&document), json_(&json), path_(std::move(path)) {}
  std::string PathOf(const std::string& key) const;
  Result<const nlohmann::json*> Find(const std::string& key) const;
  Result<Bytes> DigestOf(const std::string& key, HashAlgorithm bank, const std::string& hex) const;

  const PolicyDocument* document_;
  const nlohmann::json* json_;
  std::string path_;
};

}  // namespace vallum::attest
