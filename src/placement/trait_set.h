// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace vallum::placement {

// The names of traits that Vallum itself asks for; a host may have any others as well.
inline constexpr std::string_view kTraitSecureBoot = "COMPUTE_SECURITY_UEFI_SECURE_BOOT";
inline constexpr std::string_view kTraitTpm20 = "COMPUTE_SECURITY_TPM_2_0";
inline constexpr std::string_view kTraitTpmCrb = "COMPUTE_SECURITY_TPM_CRB";
inline constexpr std::string_view kTraitTpmTis = "COMPUTE_SECURITY_TPM_TIS";
inline constexpr std::string_view kTraitSmm = "VALLUM_SMM";
inline constexpr std::string_view kTraitUefi = "VALLUM_FIRMWARE_UEFI";

// A set of trait names. Well-known names are bits, so that asking whether a host has what is
// required costs one AND; the others are kept sorted. A value; copyable.
class TraitSet {
 public:
  TraitSet() = default;
  explicit TraitSet(const std::vector<std::string>& names);

  void Insert(std::string_view name);
  bool Contains(std::string_view name) const;
  bool ContainsAll(const TraitSet& required) const;
  bool ContainsAny(const TraitSet& forbidden) const;
  // The first name of `required`, in the order of Names(), that this set lacks.
  std::optional<std::string> FirstMissing(const TraitSet& required) const;
  // The first name of `forbidden`, in the order of Names(), that this set has.
  std::optional<std::string> FirstCommon(const TraitSet& forbidden) const;
  // Well-known names first, in a fixed order; then the others, sorted.
  std::vector<std::string> Names() const;

 private:
  uint64_t known_ = 0;
  std::vector<std::string> others_;
};

}  // namespace vallum::placement
