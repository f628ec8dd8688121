// SPDX-License-Identifier: Apache-2.0
#include "placement/trait_set.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace vallum::placement {
namespace {

// The order is the one in which a missing trait is reported: the cause before what follows from it.
constexpr std::array kKnown = {
    std::string_view("VALLUM_FIRMWARE_BIOS"),
    kTraitUefi,
    kTraitSmm,
    kTraitSecureBoot,
    kTraitTpm20,
    kTraitTpmCrb,
    kTraitTpmTis,
    std::string_view("VALLUM_ACCEL_KVM"),
    std::string_view("VALLUM_ACCEL_TCG"),
    std::string_view("COMPUTE_SECURITY_STATELESS_FIRMWARE"),
    std::string_view("HW_CPU_X86_AMD_SEV"),
    std::string_view("HW_CPU_X86_AMD_SEV_ES"),
    std::string_view("HW_CPU_X86_AMD_SEV_SNP"),
};
static_assert(kKnown.size() <= 64);

uint64_t KnownBit(std::string_view name) {
  for (size_t i = 0; i < kKnown.size(); ++i) {
    if (kKnown[i] == name) {
      return uint64_t{1} << i;
    }
  }
  return 0;
}

}  // namespace

TraitSet::TraitSet(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    Insert(name);
  }
}

void TraitSet::Insert(std::string_view name) {
  if (const uint64_t bit = KnownBit(name); bit != 0) {
    known_ |= bit;
    return;
  }
  const auto at = std::lower_bound(others_.begin(), others_.end(), name);
  if (at == others_.end() || *at != name) {
    others_.insert(at, std::string(name));
  }
}

bool TraitSet::Contains(std::string_view name) const {
  if (const uint64_t bit = KnownBit(name); bit != 0) {
    return (known_ & bit) != 0;
  }
  return std::binary_search(others_.begin(), others_.end(), name);
}

bool TraitSet::ContainsAll(const TraitSet& required) const {
  return (required.known_ & ~known_) == 0 &&
         std::includes(others_.begin(), others_.end(), required.others_.begin(),
                       required.others_.end());
}

std::optional<std::string> TraitSet::FirstMissing(const TraitSet& required) const {
  if (const uint64_t missing = required.known_ & ~known_; missing != 0) {
    return std::string(kKnown.at(static_cast<size_t>(std::countr_zero(missing))));
  }
  for (const std::string& name : required.others_) {
    if (!std::binary_search(others_.begin(), others_.end(), name)) {
      return name;
    }
  }
  return std::nullopt;
}

bool TraitSet::ContainsAny(const TraitSet& forbidden) const {
  if ((known_ & forbidden.known_) != 0) return true;
  for (const std::string& name : forbidden.others_) {
    if (std::binary_search(others_.begin(), others_.end(), name)) return true;
  }
  return false;
}

std::optional<std::string> TraitSet::FirstCommon(const TraitSet& forbidden) const {
  for (std::string& name : forbidden.Names()) {
    if (Contains(name)) return std::move(name);
  }
  return std::nullopt;
}

std::vector<std::string> TraitSet::Names() const {
  std::vector<std::string> names;
  for (size_t i = 0; i < kKnown.size(); ++i) {
    if ((known_ & (uint64_t{1} << i)) != 0) {
      names.emplace_back(kKnown[i]);
    }
  }
  names.insert(names.end(), others_.begin(), others_.end());
  return names;
}

}  // namespace vallum::placement
