// SPDX-License-Identifier: Apache-2.0
#include "controller/placement_settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace vallum::controller {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

struct Owners {
  v1::Image image;
  v1::Flavor flavor;
  v1::InstanceSpec spec;
  Result<void> Store() { return StorePlacementSettings(&image, &flavor, spec); }
  void OfImage(const std::string& key, const std::string& value) {
    (*image.mutable_spec()->mutable_properties())[key] = value;
  }
  void OfFlavor(const std::string& key, const std::string& value) {
    (*flavor.mutable_spec()->mutable_extra_specs())[key] = value;
  }
  void OfRequest(const std::string& key, const std::string& value) {
    (*spec.mutable_properties())[key] = value;
  }
};

Owners MakeValidOwners() {
  Owners owners;
  owners.image.mutable_metadata()->set_name("debian12");
  owners.flavor.mutable_metadata()->set_name("small");
  return owners;
}

TEST(PlacementSettingsTest, TraitsAreRequiredOrForbiddenByTheirNames) {
  const auto settings = ReadPlacementSettings(
      "request", {{"trait:CUSTOM_RACK_A", "required"}, {"trait:HW_CPU_X86_AMD_SEV", "Forbidden"}});
  ASSERT_TRUE(settings.has_value());
  EXPECT_THAT(settings->required.Names(), ElementsAre("CUSTOM_RACK_A"));
  EXPECT_THAT(settings->forbidden.Names(), ElementsAre("HW_CPU_X86_AMD_SEV"));
}

TEST(PlacementSettingsTest, SettingsOfOtherPurposesAreLeftAlone) {
  const auto settings =
      ReadPlacementSettings("request", {{"os_secure_boot", "required"}, {"traits", "x"}});
  ASSERT_TRUE(settings.has_value());
  EXPECT_THAT(settings->required.Names(), IsEmpty());
  EXPECT_FALSE(DecidesPlacement("os_secure_boot"));
  EXPECT_TRUE(DecidesPlacement("Hypervisor_Type"));
}

TEST(PlacementSettingsTest, KvmIsQemuWithTheAcceleratorKvm) {
  const auto settings = ReadPlacementSettings("request", {{"img_hv_type", "KVM"}});
  ASSERT_TRUE(settings.has_value());
  EXPECT_EQ(settings->hypervisor_type, "qemu");
  EXPECT_EQ(settings->accelerator, "kvm");
}

struct Row {
  const char* key;
  const char* value;
  const char* message;
};

class BrokenPlacementSettingTest : public testing::TestWithParam<Row> {};

TEST_P(BrokenPlacementSettingTest, IsRefusedByItsNameValueAndOwner) {
  const auto settings =
      ReadPlacementSettings("image debian12", {{GetParam().key, GetParam().value}});
  ASSERT_FALSE(settings.has_value());
  EXPECT_EQ(settings.error().code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(settings.error().Describe(), HasSubstr(GetParam().message));
  EXPECT_FALSE(settings.error().fix().empty());
}

INSTANTIATE_TEST_SUITE_P(
    Table, BrokenPlacementSettingTest,
    testing::Values(Row{"trait:CUSTOM_A", "preferred",
                        "trait:CUSTOM_A=preferred (image debian12) is not a value"},
                    Row{"trait:", "required", "names no trait"},
                    Row{"trait:custom_a", "required", "names no trait"},
                    Row{"trait:bridge:br0", "required", "names no trait"},
                    Row{"hypervisor_type", "", "is not the type"},
                    Row{"hypervisor_type", "a\nb", "is not the type"},
                    Row{"hypervisor_version_requires", "7.2", "is not a range of versions"},
                    Row{"img_hv_requested_version", ">=x", "img_hv_requested_version"}));

TEST(StoredPlacementSettingsTest, WhatImageAndFlavorAskIsKeptBesideWhatTheRequestAsks) {
  Owners owners = MakeValidOwners();
  owners.OfImage("img_hv_requested_version", ">= 7.2");
  owners.OfImage("os_secure_boot", "required");
  owners.OfFlavor("trait:CUSTOM_RACK_A", "required");
  owners.OfRequest("trait:CUSTOM_RACK_B", "FORBIDDEN");
  owners.OfRequest("boottype", "UEFI");
  ASSERT_TRUE(owners.Store().has_value());
  EXPECT_THAT(
      owners.spec.properties(),
      UnorderedElementsAre(Pair("hypervisor_version_requires", ">=7.2"),
                           Pair("trait:CUSTOM_RACK_A", "required"),
                           Pair("trait:CUSTOM_RACK_B", "forbidden"), Pair("boottype", "UEFI")));
}

TEST(StoredPlacementSettingsTest, RangesOfTwoOwnersHoldBoth) {
  Owners owners = MakeValidOwners();
  owners.OfImage("hypervisor_version_requires", ">=7.2");
  owners.OfRequest("hypervisor_version_requires", "<9");
  ASSERT_TRUE(owners.Store().has_value());
  EXPECT_EQ(owners.spec.properties().at("hypervisor_version_requires"), ">=7.2,<9");
}

TEST(StoredPlacementSettingsTest, StoringAgainChangesNothing) {
  Owners owners = MakeValidOwners();
  owners.OfImage("hypervisor_version_requires", ">=7.2");
  owners.OfFlavor("trait:CUSTOM_RACK_A", "required");
  ASSERT_TRUE(owners.Store().has_value());
  const v1::InstanceSpec once = owners.spec;
  ASSERT_TRUE(owners.Store().has_value());
  EXPECT_EQ(owners.spec.properties().size(), once.properties().size());
  EXPECT_EQ(owners.spec.properties().at("hypervisor_version_requires"), ">=7.2");
}

TEST(StoredPlacementSettingsTest, RequestCannotForbidWhatTheImageRequires) {
  Owners owners = MakeValidOwners();
  owners.OfImage("trait:CUSTOM_RACK_A", "required");
  owners.OfRequest("trait:CUSTOM_RACK_A", "forbidden");
  const auto stored = owners.Store();
  ASSERT_FALSE(stored.has_value());
  EXPECT_EQ(stored.error().message(),
            "trait:CUSTOM_RACK_A=required (image debian12) conflicts with "
            "trait:CUSTOM_RACK_A=forbidden (request)");
}

TEST(StoredPlacementSettingsTest, TwoTypesOfHypervisorConflict) {
  Owners owners = MakeValidOwners();
  owners.OfImage("hypervisor_type", "qemu");
  owners.OfFlavor("hypervisor_type", "xen");
  EXPECT_THAT(owners.Store().error().message(), HasSubstr("hypervisor_type=xen (flavor small)"));
}

TEST(NeighboursTest, OfEveryKindAreTakenByName) {
  v1::InstanceSpec spec;
  spec.add_near("db1");
  spec.add_apart_from("web2");
  EXPECT_TRUE(CheckNeighbours("web1", spec).has_value());
}

TEST(NeighboursTest, InstanceItselfIsNone) {
  v1::InstanceSpec spec;
  spec.add_apart_from("web1");
  EXPECT_THAT(CheckNeighbours("web1", spec).error().message(), HasSubstr("apart_from=web1"));
}

TEST(NeighboursTest, OneNameIsNotBothNearAndApart) {
  v1::InstanceSpec spec;
  spec.add_near("db1");
  spec.add_apart_from("db1");
  EXPECT_THAT(CheckNeighbours("web1", spec).error().message(),
              HasSubstr("near=db1 (request) conflicts with apart_from=db1"));
}

TEST(NeighboursTest, WhatIsNoNameIsRefused) {
  v1::InstanceSpec spec;
  spec.add_near("Not/A/Name");
  EXPECT_EQ(CheckNeighbours("web1", spec).error().code(), ErrorCode::kInvalidInput);
}

TEST(NeighboursTest, MoreThanTheLimitAreRefused) {
  v1::InstanceSpec spec;
  for (int i = 0; i < kMaxNeighbours; ++i) spec.add_near("db" + std::to_string(i));
  EXPECT_TRUE(CheckNeighbours("web1", spec).has_value());
  spec.add_near("one-more");
  EXPECT_FALSE(CheckNeighbours("web1", spec).has_value());
}

}  // namespace
}  // namespace vallum::controller
