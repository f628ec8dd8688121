// SPDX-License-Identifier: Apache-2.0
#include "firmware/sbat.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <system_error>
#include <utility>

#include "base/text.h"

namespace vallum::firmware {
namespace {

constexpr size_t kSectionColumns = 6;
constexpr size_t kLevelColumns = 2;
constexpr size_t kDatestampSize = 10;
constexpr std::string_view kLevelBegin = "sbat,";

// shim ends a row at carriage return, line feed or zero, and reads on after each.
Result<std::vector<std::vector<std::string>>> Rows(std::string_view what, std::string_view text,
                                                   size_t min_columns) {
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  constexpr std::string_view kRowEnds("\r\n\0", 3);
  if (text.size() > kMaxSbatBytes) {
    return Exhausted(fmt::format("{} of {} bytes, above {}", what, text.size(), kMaxSbatBytes));
  }
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  std::vector<std::vector<std::string>> rows;
  while (!text.empty()) {
    const std::string_view row = text.substr(0, text.find_first_of(kRowEnds));
    text.remove_prefix(std::min(row.size() + 1, text.size()));
    if (row.empty()) continue;
    if (rows.size() == kMaxSbatRows) {
      return Exhausted(fmt::format("{} with more than {} rows", what, kMaxSbatRows));
    }
    std::vector<std::string> fields = Split(row, ',');
    if (fields.size() < min_columns ||
        std::any_of(fields.begin(), fields.begin() + static_cast<std::ptrdiff_t>(min_columns),
                    [](const std::string& field) { return field.empty(); })) {
      return InvalidInput(fmt::format("{}: row {} (\"{}\") has not {} fields", what,
                                      rows.size() + 1, Printable(row), min_columns));
    }
    rows.push_back(std::move(fields));
  }
  if (rows.empty()) return InvalidInput(fmt::format("{} without rows", what));
  return rows;
}

Result<uint32_t> Generation(std::string_view what, std::string_view text) {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > kMaxSbatGeneration) {
    return InvalidInput(fmt::format("{}: \"{}\" is no generation", what, Printable(text)))
        .WithFix("write a number of 0 to 65535");
  }
  return value;
}

bool IsDatestamp(std::string_view text) {
  return text.size() == kDatestampSize &&
         std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

// The numbers of the first row, "sbat,1,2025021800": which level is the newer.
struct LevelVersion {
  uint32_t version = 0;
  std::string datestamp;
};
Result<LevelVersion> VersionOf(std::string_view text) {
  const std::string_view row = text.substr(0, text.find_first_of("\r\n"));
  const std::vector<std::string> fields = Split(row, ',');
  if (!text.starts_with(kLevelBegin) || fields.size() < 3 || !IsDatestamp(fields[2])) {
    return InvalidInput("the revocation level does not begin with \"sbat,<version>,<date>\"");
  }
  ASSIGN_OR_RETURN(const uint32_t version, Generation("the revocation level", fields[1]));
  return LevelVersion{version, fields[2]};
}

}  // namespace

Result<std::vector<SbatComponent>> ParseSbat(ByteView section) {
  constexpr std::string_view kWhat = ".sbat";
  ASSIGN_OR_RETURN(auto rows, Rows(kWhat, AsText(section), kSectionColumns));
  std::vector<SbatComponent> components;
  for (std::vector<std::string>& fields : rows) {
    ASSIGN_OR_RETURN(const uint32_t generation, Generation(kWhat, fields[1]));
    components.push_back({std::move(fields[0]), generation, std::move(fields[2]),
                          std::move(fields[3]), std::move(fields[4]), std::move(fields[5])});
  }
  return components;
}

Result<SbatLevel> ParseSbatLevel(std::string_view text) {
  constexpr std::string_view kWhat = "revocation level";
  ASSIGN_OR_RETURN(LevelVersion version, VersionOf(text));
  ASSIGN_OR_RETURN(auto rows, Rows(kWhat, text, kLevelColumns));
  SbatLevel level;
  level.datestamp = std::move(version.datestamp);
  for (std::vector<std::string>& fields : rows) {
    ASSIGN_OR_RETURN(const uint32_t generation, Generation(kWhat, fields[1]));
    level.revocations.push_back({std::move(fields[0]), generation});
  }
  return level;
}

Result<std::string> AppliedSbatLevel(std::string_view variable, std::span<const Bytes> built_in,
                                     SbatPolicy policy) {
  if (built_in.empty()) return std::string(variable);
  const std::string_view candidate =
      AsText(policy == SbatPolicy::kLatest ? built_in.back() : built_in.front());
  ASSIGN_OR_RETURN_CONTEXT(const LevelVersion wanted, VersionOf(candidate), "reading .sbatlevel");
  // shim replaces a variable that it cannot read.
  const Result<LevelVersion> present = VersionOf(variable);
  const bool keep = present.has_value() &&
                    (present->version > wanted.version || present->datestamp >= wanted.datestamp);
  return std::string(keep ? variable : candidate);
}

SbatVerdict CheckSbat(std::optional<ByteView> section, const SbatLevel& level, SbatNeed need) {
  SbatVerdict verdict;
  if (!section.has_value() || section->empty()) {
    verdict.allowed = need == SbatNeed::kOptional;
    if (!verdict.allowed) {
      verdict.reasons.emplace_back(
          "it has no section .sbat, which shim demands; use a build that carries one");
    }
    return verdict;
  }
  const Result<std::vector<SbatComponent>> components = ParseSbat(*section);
  if (!components.has_value()) {
    verdict.reasons.push_back(components.error().Describe());
    return verdict;
  }
  for (const SbatComponent& component : *components) {
    // The first row that names the component decides.
    const auto revocation =
        std::ranges::find(level.revocations, component.name, &SbatRevocation::name);
    if (revocation != level.revocations.end() && component.generation < revocation->generation) {
      verdict.reasons.push_back(fmt::format(
          "its component {} has generation {}, revoked below {} by the level of {}; use a build "
          "with {} of generation {} or later",
          Printable(component.name), component.generation, revocation->generation, level.datestamp,
          Printable(component.name), revocation->generation));
    }
  }
  verdict.allowed = verdict.reasons.empty();
  return verdict;
}

}  // namespace vallum::firmware
