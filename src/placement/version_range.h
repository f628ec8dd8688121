// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace vallum::placement {

// "7.2.22": what is left out at the end is 0.
struct Version {
  std::array<uint32_t, 4> parts = {};
  friend auto operator<=>(const Version&, const Version&) = default;
};

// Reads the version that a text begins with, as in "7.2.22 (Debian 1:7.2+dfsg-7)"; nullopt: it
// begins with none. Pure.
std::optional<Version> ReadVersion(std::string_view text);

inline constexpr size_t kMaxVersionConditions = 8;
inline constexpr size_t kMaxVersionRangeSize = 200;

// Which versions will do: conditions that all have to hold, as in ">=7.2,<9". Without any, every
// version will. A value; copyable.
class VersionRange {
 public:
  VersionRange() = default;

  // Parses conditions with commas between them: an operator of ==, =, !=, <, <=, >, >= and a
  // version of up to four numbers; spaces around them mean nothing.
  //   text: untrusted. Empty is not a range.
  // Errors: kInvalidInput. Source: OpenStack Glance, "Useful image properties",
  // hypervisor_version_requires. Pure.
  static Result<VersionRange> Parse(std::string_view text);

  bool Contains(const Version& version) const;
  bool empty() const { return conditions_.empty(); }
  // As it was parsed, without the spaces.
  const std::string& words() const { return words_; }

 private:
  enum class Relation { kEqual, kNotEqual, kLess, kAtMost, kMore, kAtLeast };
  struct Condition {
    Relation relation = Relation::kEqual;
    Version version;
  };
  static std::optional<Condition> ParseCondition(std::string_view text);
  static bool Holds(const Condition& condition, const Version& version);

  std::vector<Condition> conditions_;
  std::string words_;
};

}  // namespace vallum::placement
