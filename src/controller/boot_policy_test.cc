// SPDX-License-Identifier: Apache-2.0
#include "controller/boot_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace vallum::controller {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr auto kBios = v1::BOOT_TYPE_BIOS;
constexpr auto kUefi = v1::BOOT_TYPE_UEFI;
constexpr auto kLegacy = v1::BOOT_MODE_LEGACY;
constexpr auto kSecure = v1::BOOT_MODE_SECURE;

BootInputs MakeInputs(Properties request, Properties image = {}, Properties flavor = {}) {
  BootInputs inputs;
  inputs.request_properties = std::move(request);
  inputs.image_name = "debian12";
  inputs.image_properties = std::move(image);
  inputs.flavor_name = "small";
  inputs.flavor_extra_specs = std::move(flavor);
  inputs.secure_hosts = SecureHosts::kSome;
  return inputs;
}

// ---- every row that resolves ----

struct Row {
  std::string name;
  Properties request;
  Properties image;
  Properties flavor;
  v1::BootType type;
  v1::BootMode mode;
  std::string origin;
};

class ResolvedTest : public testing::TestWithParam<Row> {};

TEST_P(ResolvedTest, ResolvesAsTheTableSays) {
  const Row& row = GetParam();
  const Result<BootPolicy> policy = ResolveBoot(MakeInputs(row.request, row.image, row.flavor));
  ASSERT_TRUE(policy.has_value()) << policy.error().Describe();
  EXPECT_EQ(policy->requested.type(), row.type);
  EXPECT_EQ(policy->requested.mode(), row.mode);
  EXPECT_THAT(policy->requested.origin(), HasSubstr(row.origin));
}

const std::vector<Row> kResolved = {
    {"Nothing", {}, {}, {}, kUefi, kLegacy, "default: UEFI, LEGACY"},
    // CloudStack
    {"CsBios", {{"boottype", "BIOS"}}, {}, {}, kBios, kLegacy, "request: boottype=BIOS"},
    {"CsLower", {{"boottype", "uefi"}, {"bootmode", "legacy"}}, {}, {}, kUefi, kLegacy, "request"},
    {"CsLegacy",
     {{"boottype", "UEFI"}, {"bootmode", "LEGACY"}},
     {},
     {},
     kUefi,
     kLegacy,
     "request: bootmode=LEGACY"},
    {"CsSecure",
     {{"boottype", "UEFI"}, {"bootmode", "SECURE"}},
     {},
     {},
     kUefi,
     kSecure,
     "request: bootmode=SECURE"},
    {"CsModeOnly", {{"bootmode", "SECURE"}}, {}, {}, kUefi, kSecure, "request: bootmode=SECURE"},
    {"CsBiosLegacy",
     {{"boottype", "BIOS"}, {"bootmode", "LEGACY"}},
     {},
     {},
     kBios,
     kLegacy,
     "request"},
    {"CsImageUefi", {}, {{"boottype", "UEFI"}}, {}, kUefi, kLegacy, "image debian12: boottype"},
    // Nova
    {"NovaUefi", {{"hw_firmware_type", "uefi"}}, {}, {}, kUefi, kLegacy, "request"},
    {"NovaImageBios",
     {},
     {{"hw_firmware_type", "bios"}},
     {},
     kBios,
     kLegacy,
     "image debian12: hw_firmware_type=bios"},
    {"NovaImageRequired",
     {},
     {{"os_secure_boot", "required"}},
     {},
     kUefi,
     kSecure,
     "image debian12: os_secure_boot=required"},
    {"NovaImageOptional",
     {},
     {{"os_secure_boot", "optional"}},
     {},
     kUefi,
     kSecure,
     "image debian12: os_secure_boot=optional"},
    {"NovaImageDisabled",
     {},
     {{"os_secure_boot", "disabled"}},
     {},
     kUefi,
     kLegacy,
     "image debian12: os_secure_boot=disabled"},
    {"NovaRequestRequired", {{"os_secure_boot", "REQUIRED"}}, {}, {}, kUefi, kSecure, "request"},
    {"NovaFlavorRequired",
     {},
     {},
     {{"os:secure_boot", "required"}},
     kUefi,
     kSecure,
     "flavor small: os:secure_boot=required"},
    // LXD
    {"LxdSecure", {{"boot.mode", "uefi-secureboot"}}, {}, {}, kUefi, kSecure, "boot.mode"},
    {"LxdNoSecure", {{"boot.mode", "uefi-nosecureboot"}}, {}, {}, kUefi, kLegacy, "boot.mode"},
    {"LxdBios", {{"boot.mode", "bios"}}, {}, {}, kBios, kLegacy, "boot.mode=bios"},
    {"LxdImageSecure", {}, {{"boot.mode", "uefi-secureboot"}}, {}, kUefi, kSecure, "image"},
    // Incus
    {"IncusTrue", {{"security.secureboot", "true"}}, {}, {}, kUefi, kSecure, "security.secureboot"},
    {"IncusFalse",
     {{"security.secureboot", "false"}},
     {},
     {},
     kUefi,
     kLegacy,
     "security.secureboot"},
    // oVirt
    {"OvirtI440", {{"bios.type", "Q35_SEA_BIOS"}}, {}, {}, kBios, kLegacy, "bios.type"},
    {"OvirtOvmf", {{"bios.type", "q35_ovmf"}}, {}, {}, kUefi, kLegacy, "bios.type"},
    {"OvirtSecure", {{"bios.type", "q35_secure_boot"}}, {}, {}, kUefi, kSecure, "bios.type"},
    {"OvirtSeaI440", {{"bios.type", "i440fx_sea_bios"}}, {}, {}, kBios, kLegacy, "bios.type"},
    // machine
    {"HypervGen2",
     {},
     {{"hw_machine_type", "hyperv-gen2"}},
     {},
     kUefi,
     kLegacy,
     "hw_machine_type=hyperv-gen2"},
    {"Q35", {}, {{"hw_machine_type", "pc-q35-7.2"}}, {}, kUefi, kLegacy, "default"},
    // precedence: flavor, image, request
    {"FlavorOverImageDisabled",
     {},
     {{"os_secure_boot", "disabled"}},
     {{"os:secure_boot", "required"}},
     kUefi,
     kSecure,
     "flavor small"},
    {"FlavorBeforeImage",
     {},
     {{"os_secure_boot", "required"}},
     {{"os:secure_boot", "required"}},
     kUefi,
     kSecure,
     "flavor small"},
    {"ImageBeforeRequest",
     {{"bootmode", "SECURE"}},
     {{"os_secure_boot", "required"}},
     {},
     kUefi,
     kSecure,
     "image debian12"},
    {"RequestStrengthens",
     {{"bootmode", "SECURE"}},
     {{"os_secure_boot", "optional"}},
     {},
     kUefi,
     kSecure,
     "request"},
    {"RequestStrengthensDisabled",
     {{"bootmode", "SECURE"}},
     {{"os_secure_boot", "disabled"}},
     {},
     kUefi,
     kSecure,
     "request"},
    {"RequestDeclinesOptional",
     {{"boottype", "UEFI"}, {"bootmode", "LEGACY"}},
     {{"os_secure_boot", "optional"}},
     {},
     kUefi,
     kLegacy,
     "request: bootmode=LEGACY"},
    {"OptionalWithBios",
     {{"boottype", "BIOS"}},
     {{"os_secure_boot", "optional"}},
     {},
     kBios,
     kLegacy,
     "image debian12"},
    // values that mean "nothing"
    {"NoKernel",
     {},
     {{"kernel_id", "nokernel"}, {"ramdisk_id", "nokernel"}},
     {},
     kUefi,
     kLegacy,
     "default"},
    {"NoEncryption", {}, {{"hw_mem_encryption", "false"}}, {}, kUefi, kLegacy, "default"},
    {"Unrelated", {{"colour", "blue"}}, {{"os_distro", "debian"}}, {}, kUefi, kLegacy, "default"},
};

INSTANTIATE_TEST_SUITE_P(Table, ResolvedTest, testing::ValuesIn(kResolved),
                         [](const auto& row) { return row.param.name; });

// ---- every row that is refused ----

struct Refusal {
  std::string name;
  Properties request;
  Properties image;
  Properties flavor;
  std::vector<std::string> named;  // all of these are in the message
  std::string fix;
};

class RefusedTest : public testing::TestWithParam<Refusal> {};

TEST_P(RefusedTest, NamesBothSettingsBothValuesAndTheFix) {
  const Refusal& row = GetParam();
  const Result<BootPolicy> policy = ResolveBoot(MakeInputs(row.request, row.image, row.flavor));
  ASSERT_FALSE(policy.has_value());
  EXPECT_EQ(policy.error().code(), ErrorCode::kInvalidInput);
  for (const std::string& words : row.named) {
    EXPECT_THAT(policy.error().message(), HasSubstr(words));
  }
  EXPECT_THAT(policy.error().fix(), HasSubstr(row.fix));
}

const std::vector<Refusal> kRefused = {
    {"ImageRequiredRequestBios",
     {{"boottype", "BIOS"}},
     {{"os_secure_boot", "required"}},
     {},
     {"os_secure_boot=required (image debian12) conflicts with boottype=BIOS (request)"},
     "use boottype=UEFI bootmode=SECURE, or an image without the requirement"},
    {"ImageRequiredRequestLegacy",
     {{"boottype", "UEFI"}, {"bootmode", "LEGACY"}},
     {{"os_secure_boot", "required"}},
     {},
     {"os_secure_boot=required (image debian12)", "bootmode=LEGACY (request)"},
     "an image without the requirement"},
    {"FlavorRequiredRequestLegacy",
     {{"boottype", "UEFI"}, {"bootmode", "LEGACY"}},
     {},
     {{"os:secure_boot", "required"}},
     {"os:secure_boot=required (flavor small)", "bootmode=LEGACY (request)"},
     "a flavor without the requirement"},
    {"FlavorRequiredRequestBios",
     {{"boottype", "BIOS"}},
     {},
     {{"os:secure_boot", "required"}},
     {"os:secure_boot=required (flavor small)", "boottype=BIOS (request)"},
     "a flavor"},
    {"FlavorRequiredImageBios",
     {},
     {{"hw_firmware_type", "bios"}},
     {{"os:secure_boot", "required"}},
     {"os:secure_boot=required (flavor small)", "hw_firmware_type=bios (image debian12)"},
     "an image that boots with UEFI"},
    {"FlavorRequiredIncusFalse",
     {{"security.secureboot", "false"}},
     {},
     {{"os:secure_boot", "required"}},
     {"security.secureboot=false (request)", "flavor small"},
     ""},
    {"FlavorRequiredLxdNoSecure",
     {{"boot.mode", "uefi-nosecureboot"}},
     {},
     {{"os:secure_boot", "required"}},
     {"boot.mode=uefi-nosecureboot (request)"},
     ""},
    {"ImageRequiredOvirtOvmf",
     {{"bios.type", "q35_ovmf"}},
     {{"os_secure_boot", "required"}},
     {},
     {"bios.type=q35_ovmf (request)", "os_secure_boot=required (image debian12)"},
     ""},
    {"ImageItself",
     {},
     {{"os_secure_boot", "required"}, {"hw_firmware_type", "bios"}},
     {},
     {"os_secure_boot=required (image debian12)", "hw_firmware_type=bios (image debian12)"},
     "UEFI"},
    {"RequestItselfBiosSecure",
     {{"boottype", "BIOS"}, {"bootmode", "SECURE"}},
     {},
     {},
     {"bootmode=SECURE (request)", "boottype=BIOS (request)"},
     "UEFI"},
    {"RequestTwoTypes",
     {{"boottype", "BIOS"}, {"hw_firmware_type", "uefi"}},
     {},
     {},
     {"boottype=BIOS (request)", "hw_firmware_type=uefi (request)"},
     "keep one"},
    {"RequestTwoModes",
     {{"bootmode", "SECURE"}, {"security.secureboot", "false"}},
     {},
     {},
     {"bootmode=SECURE (request)", "security.secureboot=false (request)"},
     "keep one"},
    {"ImageUefiRequestBios",
     {{"boottype", "BIOS"}},
     {{"hw_firmware_type", "uefi"}},
     {},
     {"hw_firmware_type=uefi (image debian12)", "boottype=BIOS (request)"},
     "boottype=UEFI"},
    {"ImageBiosRequestUefi",
     {{"hw_firmware_type", "uefi"}},
     {{"hw_firmware_type", "bios"}},
     {},
     {"hw_firmware_type=bios (image debian12)", "hw_firmware_type=uefi (request)"},
     "boottype=BIOS"},
    {"HypervGen2Bios",
     {{"boottype", "BIOS"}},
     {{"hw_machine_type", "hyperv-gen2"}},
     {},
     {"hw_machine_type=hyperv-gen2 (image debian12)", "boottype=BIOS (request)"},
     "UEFI"},
    {"SecureOnPc",
     {{"bootmode", "SECURE"}},
     {{"hw_machine_type", "pc"}},
     {},
     {"bootmode=SECURE (request)", "hw_machine_type=pc (image debian12)"},
     "q35"},
    {"CloudStackUefiAlone",
     {{"boottype", "UEFI"}},
     {},
     {},
     {"boottype=UEFI (request)", "bootmode"},
     "bootmode=SECURE or bootmode=LEGACY"},
    {"SecureWithoutTpm",
     {{"bootmode", "SECURE"}, {"tpm_enabled", "false"}},
     {},
     {},
     {"tpm_enabled=false (request)", "bootmode=SECURE"},
     "LEGACY"},
    {"TwoTpmModels",
     {{"hw_tpm_model", "tpm-tis"}},
     {{"hw_tpm_model", "tpm-crb"}},
     {},
     {"hw_tpm_model=tpm-crb (image debian12)", "hw_tpm_model=tpm-tis (request)"},
     "keep one"},
    {"TpmNeededByImage",
     {{"tpm_enabled", "false"}},
     {{"hw_tpm_version", "2.0"}},
     {},
     {"hw_tpm_version=2.0 (image debian12)", "tpm_enabled=false (request)"},
     "keep one"},
    {"Tpm12",
     {},
     {{"hw_tpm_version", "1.2"}},
     {},
     {"TPM 1.2 is not supported", "hw_tpm_version=1.2 (image debian12)"},
     "2.0"},
    {"FlavorKeyOnImage",
     {},
     {{"os:secure_boot", "required"}},
     {},
     {"extra spec of flavors"},
     "os_secure_boot"},
    // values that a setting does not have are never coerced
    {"BadBoottype", {{"boottype", "efi"}}, {}, {}, {"boottype=efi (request)"}, "BIOS or UEFI"},
    {"BadBootmode", {{"bootmode", "on"}}, {}, {}, {"bootmode=on"}, "SECURE or LEGACY"},
    {"BadOsSecureBoot", {}, {{"os_secure_boot", "true"}}, {}, {"os_secure_boot=true"}, "required"},
    {"BadFirmwareType", {}, {{"hw_firmware_type", "ovmf"}}, {}, {"hw_firmware_type=ovmf"}, "UEFI"},
    {"BadLxd", {{"boot.mode", "secure"}}, {}, {}, {"boot.mode=secure"}, "uefi-secureboot"},
    {"BadOvirt", {{"bios.type", "ovmf"}}, {}, {}, {"bios.type=ovmf"}, "q35_ovmf"},
    {"BadIncus",
     {{"security.secureboot", "1"}},
     {},
     {},
     {"security.secureboot=1"},
     "true or false"},
    {"BadMachine", {}, {{"hw_machine_type", "virt"}}, {}, {"hw_machine_type=virt"}, "q35"},
    {"BadTpmVersion", {}, {{"hw_tpm_version", "3.0"}}, {}, {"hw_tpm_version=3.0"}, "2.0"},
    {"BadTpmModel", {{"virtual.tpm.model", "crb"}}, {}, {}, {"virtual.tpm.model=crb"}, "tpm-crb"},
    {"BadTpmEnabled", {{"tpm_enabled", "yes"}}, {}, {}, {"tpm_enabled=yes"}, "true or false"},
    {"Empty", {{"boottype", ""}}, {}, {}, {"boottype="}, "BIOS or UEFI"},
    // what cannot be given is refused, not dropped
    {"MemoryEncryption", {}, {{"hw_mem_encryption", "true"}}, {}, {"memory encryption"}, "leave"},
    {"EncryptionModel",
     {},
     {{"hw_mem_encryption_model", "amd-sev"}},
     {},
     {"memory encryption"},
     ""},
    {"Stateless", {}, {{"hw_firmware_stateless", "true"}}, {}, {"without variables"}, ""},
    {"Kernel", {}, {{"kernel_id", "1234"}}, {}, {"kernel outside the disk"}, ""},
    {"Signature",
     {},
     {{"os_secure_boot_signature", "My Keys"}},
     {},
     {"os_secure_boot_signature=My Keys"},
     "base64"},
    {"SignatureOnFlavor", {}, {}, {{"os_secure_boot_signature", "mykeys"}}, {"flavor"}, "image"},
};

INSTANTIATE_TEST_SUITE_P(Table, RefusedTest, testing::ValuesIn(kRefused),
                         [](const auto& row) { return row.param.name; });

// ---- the rest ----

TEST(BootPolicyTest, TypedRequestConflictsLikeItsSpellings) {
  BootInputs inputs = MakeInputs({}, {{"os_secure_boot", "required"}});
  inputs.request.set_type(kBios);
  const Result<BootPolicy> policy = ResolveBoot(inputs);
  ASSERT_FALSE(policy.has_value());
  EXPECT_THAT(policy.error().message(), HasSubstr("boot.type=BIOS (request)"));
}

TEST(BootPolicyTest, TypedRequestAndPropertyMustAgree) {
  BootInputs inputs = MakeInputs({{"bootmode", "LEGACY"}});
  inputs.request.set_mode(kSecure);
  EXPECT_FALSE(ResolveBoot(inputs).has_value());
}

TEST(BootPolicyTest, TypedModeCompletesBoottype) {
  BootInputs inputs = MakeInputs({{"boottype", "UEFI"}});
  inputs.request.set_mode(kSecure);
  const Result<BootPolicy> policy = ResolveBoot(inputs);
  ASSERT_TRUE(policy.has_value());
  EXPECT_EQ(policy->requested.mode(), kSecure);
}

TEST(BootPolicyTest, OptionalWithoutASecureHostIsLegacyAndSaysSo) {
  BootInputs inputs = MakeInputs({}, {{"os_secure_boot", "optional"}});
  inputs.secure_hosts = SecureHosts::kNone;
  const Result<BootPolicy> policy = ResolveBoot(inputs);
  ASSERT_TRUE(policy.has_value());
  EXPECT_EQ(policy->requested.mode(), kLegacy);
  EXPECT_THAT(policy->requested.warnings(), Contains(HasSubstr("no host of the pool")));
}

TEST(BootPolicyTest, RequiredStaysSecureWithoutASecureHost) {
  BootInputs inputs = MakeInputs({}, {{"os_secure_boot", "required"}});
  inputs.secure_hosts = SecureHosts::kNone;
  const Result<BootPolicy> policy = ResolveBoot(inputs);
  ASSERT_TRUE(policy.has_value());
  EXPECT_EQ(policy->requested.mode(), kSecure);
}

TEST(BootPolicyTest, OtherFlavorValuesAreIgnoredWithAWarning) {
  for (const std::string value : {"optional", "disabled", "true", "nonsense"}) {
    const Result<BootPolicy> policy = ResolveBoot(MakeInputs({}, {}, {{"os:secure_boot", value}}));
    ASSERT_TRUE(policy.has_value());
    EXPECT_EQ(policy->requested.mode(), kLegacy);
    EXPECT_THAT(policy->requested.warnings(), Contains(HasSubstr("os:secure_boot=" + value)));
  }
}

TEST(BootPolicyTest, ModeSpellingsOnAFlavorAreIgnoredWithAWarning) {
  for (const std::string key : {"boottype", "bootmode", "os_secure_boot", "security.secureboot",
                                "boot.mode", "bios.type", "hw_firmware_type"}) {
    const Result<BootPolicy> policy = ResolveBoot(MakeInputs({}, {}, {{key, "required"}}));
    ASSERT_TRUE(policy.has_value()) << key;
    EXPECT_THAT(policy->requested.warnings(), Contains(HasSubstr(key))) << key;
  }
}

TEST(BootPolicyTest, OverruledImageIsWarnedAbout) {
  const Result<BootPolicy> policy =
      ResolveBoot(MakeInputs({{"bootmode", "SECURE"}}, {{"os_secure_boot", "disabled"}}));
  ASSERT_TRUE(policy.has_value());
  EXPECT_THAT(policy->requested.warnings(), Contains(HasSubstr("may not be signed")));
}

TEST(BootPolicyTest, SecureRequiresTheTraitsOfSecureHosts) {
  const Result<BootPolicy> policy = ResolveBoot(MakeInputs({{"bootmode", "SECURE"}}));
  ASSERT_TRUE(policy.has_value());
  EXPECT_EQ(policy->machine, "q35");
  EXPECT_EQ(policy->tpm_model, "tpm-crb");
  EXPECT_EQ(policy->required_traits,
            (std::vector<std::string>{"VALLUM_FIRMWARE_UEFI", "VALLUM_SMM",
                                      "COMPUTE_SECURITY_UEFI_SECURE_BOOT",
                                      "COMPUTE_SECURITY_TPM_2_0", "COMPUTE_SECURITY_TPM_CRB"}));
}

TEST(BootPolicyTest, BiosHasNoTpmUnlessAskedFor) {
  const Result<BootPolicy> plain = ResolveBoot(MakeInputs({{"boottype", "BIOS"}}));
  ASSERT_TRUE(plain.has_value());
  EXPECT_EQ(plain->tpm_model, "none");
  EXPECT_THAT(plain->required_traits, IsEmpty());
  const Result<BootPolicy> asked =
      ResolveBoot(MakeInputs({{"boottype", "BIOS"}, {"hw_tpm_version", "2.0"}}));
  ASSERT_TRUE(asked.has_value());
  EXPECT_EQ(asked->tpm_model, "tpm-crb");
}

TEST(BootPolicyTest, TpmModelsAreTakenFromEverySpelling) {
  for (const std::string key : {"hw_tpm_model", "virtual.tpm.model"}) {
    const Result<BootPolicy> policy =
        ResolveBoot(MakeInputs({{key, "TPM-TIS"}}, {{"tpm_enabled", "true"}}));
    ASSERT_TRUE(policy.has_value()) << key;
    EXPECT_EQ(policy->tpm_model, "tpm-tis");
    EXPECT_THAT(policy->required_traits, Contains("COMPUTE_SECURITY_TPM_TIS"));
    EXPECT_THAT(policy->required_traits, Not(Contains("COMPUTE_SECURITY_TPM_CRB")));
  }
  BootInputs inputs = MakeInputs({});
  inputs.request_tpm_model = "none";
  const Result<BootPolicy> none = ResolveBoot(inputs);
  ASSERT_TRUE(none.has_value());
  EXPECT_EQ(none->tpm_model, "none");
  inputs.request_tpm_model = "tpm-2";
  EXPECT_FALSE(ResolveBoot(inputs).has_value());
}

TEST(BootPolicyTest, RequestMayAddATpmToAnImageThatHasNone) {
  const Result<BootPolicy> policy =
      ResolveBoot(MakeInputs({{"hw_tpm_model", "tpm-tis"}}, {{"tpm_enabled", "false"}}));
  ASSERT_TRUE(policy.has_value());
  EXPECT_EQ(policy->tpm_model, "tpm-tis");
}

TEST(BootPolicyTest, ImagePropertiesAreCheckedAlone) {
  EXPECT_TRUE(CheckImageProperties("debian12", {{"os_secure_boot", "required"}}).has_value());
  EXPECT_FALSE(CheckImageProperties("debian12", {{"os_secure_boot", "on"}}).has_value());
}

}  // namespace
}  // namespace vallum::controller
