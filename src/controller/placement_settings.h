// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "controller/boot_policy.h"
#include "placement/trait_set.h"
#include "placement/version_range.h"
#include "vallum/v1/resources.pb.h"

namespace vallum::controller {

// What properties and extra specs ask of a host. Spellings: docs/placement.md.
struct PlacementSettings {
  placement::TraitSet required;
  placement::TraitSet forbidden;
  std::string hypervisor_type;  // "qemu", or any other in lower case; empty: any
  std::string accelerator;      // "kvm" with hypervisor_type=kvm
  placement::VersionRange hypervisor_versions;
};

// Whether a property, in whatever case, says where to place.
bool DecidesPlacement(std::string_view key);

// Reads the settings of one owner; ignores those that are not about placement.
//   owner: "image debian12", "flavor small", "request"; for the message.
// Errors: kInvalidInput (a value that the setting does not have; an unlikely trait). Pure.
Result<PlacementSettings> ReadPlacementSettings(const std::string& owner,
                                                const Properties& properties);

// Writes what request, image and flavor ask of a host into the properties of the spec, so that a
// later change of either changes no instance. All of it holds at once.
//   image, flavor: may be nullptr.
// Errors: kInvalidInput (as above; two owners that contradict each other, naming both). Pure.
Result<void> StorePlacementSettings(const v1::Image* image, const v1::Flavor* flavor,
                                    v1::InstanceSpec& spec);

inline constexpr int kMaxNeighbours = 64;

// Checks near and apart_from of a new instance by themselves.
// Errors: kInvalidInput (too many; no name; itself; one name in both). Pure.
Result<void> CheckNeighbours(const std::string& instance, const v1::InstanceSpec& spec);

}  // namespace vallum::controller
