// SPDX-License-Identifier: Apache-2.0
#include "placement/version_range.h"

#include <array>
#include <charconv>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/text.h"

namespace vallum::placement {
namespace {

struct Reading {
  Version version;
  std::string_view rest;
};

std::optional<Reading> TakeVersion(std::string_view text) {
  Reading out;
  for (size_t i = 0; i < out.version.parts.size(); ++i) {
    const auto [end, error] =
        std::from_chars(text.data(), text.data() + text.size(), out.version.parts.at(i));
    if (error != std::errc()) return std::nullopt;
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    const bool more = text.size() > 1 && text[0] == '.' && text[1] >= '0' && text[1] <= '9';
    if (!more || i + 1 == out.version.parts.size()) break;
    text.remove_prefix(1);
  }
  out.rest = text;
  return out;
}

}  // namespace

std::optional<Version> ReadVersion(std::string_view text) {
  const std::optional<Reading> read = TakeVersion(text);
  return read ? std::optional(read->version) : std::nullopt;
}

std::optional<VersionRange::Condition> VersionRange::ParseCondition(std::string_view text) {
  // The longer before what it begins with.
  static constexpr std::array<std::pair<std::string_view, Relation>, 7> kOperators = {
      {{"==", Relation::kEqual},
       {"!=", Relation::kNotEqual},
       {"<=", Relation::kAtMost},
       {">=", Relation::kAtLeast},
       {"<", Relation::kLess},
       {">", Relation::kMore},
       {"=", Relation::kEqual}}};
  for (const auto& [sign, relation] : kOperators) {
    if (!text.starts_with(sign)) continue;
    const std::optional<Reading> read = TakeVersion(Trim(text.substr(sign.size())));
    if (!read || !read->rest.empty()) return std::nullopt;
    return Condition{.relation = relation, .version = read->version};
  }
  return std::nullopt;
}

Result<VersionRange> VersionRange::Parse(std::string_view text) {
  constexpr const char* kFix = "write it like >=7.2 or >=7.2,<9";
  if (text.size() > kMaxVersionRangeSize) {
    return InvalidInput("a range of versions of " + std::to_string(text.size()) +
                        " bytes, at most " + std::to_string(kMaxVersionRangeSize) + " are taken")
        .WithFix(kFix);
  }
  const std::vector<std::string> parts = Split(text, ',');
  if (parts.size() > kMaxVersionConditions) {
    return InvalidInput("a range of versions with " + std::to_string(parts.size()) +
                        " conditions, at most " + std::to_string(kMaxVersionConditions) +
                        " are taken")
        .WithFix(kFix);
  }
  VersionRange range;
  for (const std::string& part : parts) {
    const std::optional<Condition> condition = ParseCondition(Trim(part));
    if (!condition) {
      return InvalidInput("\"" + Printable(text) + "\" is not a range of versions").WithFix(kFix);
    }
    range.conditions_.push_back(*condition);
  }
  for (const char c : text) {
    if (static_cast<unsigned char>(c) > ' ') range.words_ += c;
  }
  return range;
}

bool VersionRange::Holds(const Condition& condition, const Version& version) {
  switch (condition.relation) {
    case Relation::kEqual:
      return version == condition.version;
    case Relation::kNotEqual:
      return version != condition.version;
    case Relation::kLess:
      return version < condition.version;
    case Relation::kAtMost:
      return version <= condition.version;
    case Relation::kMore:
      return version > condition.version;
    case Relation::kAtLeast:
      return version >= condition.version;
  }
  return false;
}

bool VersionRange::Contains(const Version& version) const {
  for (const Condition& condition : conditions_) {
    if (!Holds(condition, version)) return false;
  }
  return true;
}

}  // namespace vallum::placement
