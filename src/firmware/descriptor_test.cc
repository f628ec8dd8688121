// SPDX-License-Identifier: Apache-2.0
#include "firmware/descriptor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

namespace vallum::firmware {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

json MakeValidJson() {
  return json{{"description", "UEFI"},
              {"interface-types", {"uefi"}},
              {"mapping",
               {{"device", "flash"},
                {"executable", {{"filename", "/code.fd"}, {"format", "raw"}}},
                {"nvram-template", {{"filename", "/vars.fd"}, {"format", "raw"}}}}},
              {"targets", {{{"architecture", "x86_64"}, {"machines", {"pc-q35-*"}}}}},
              {"features", {"secure-boot", "requires-smm", "enrolled-keys"}},
              {"tags", json::array()}};
}

Bytes Text(const json& object) { return ToBytes(AsBytes(object.dump())); }

FirmwareDescriptor Make(std::vector<std::string> features, std::string source) {
  json object = MakeValidJson();
  object["features"] = std::move(features);
  return *ParseDescriptor(source, Text(object));
}

TEST(Descriptor, FlashIsSplitUnlessItSaysOtherwise) {
  const auto parsed = ParseDescriptor("a.json", Text(MakeValidJson()));
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(parsed->mapping.mode, FlashMode::kSplit);
  EXPECT_EQ(parsed->mapping.executable, (FirmwareFile{"/code.fd", "raw"}));
  EXPECT_EQ(parsed->mapping.nvram_template, (FirmwareFile{"/vars.fd", "raw"}));
  EXPECT_TRUE(parsed->HasFeature("enrolled-keys"));
}

TEST(Descriptor, StatelessAndCombinedFlashNeedNoTemplate) {
  for (const auto& [text, mode] : {std::pair("stateless", FlashMode::kStateless),
                                   std::pair("combined", FlashMode::kCombined)}) {
    json object = MakeValidJson();
    object["mapping"]["mode"] = text;
    object["mapping"].erase("nvram-template");
    const auto parsed = ParseDescriptor("a.json", Text(object));
    ASSERT_TRUE(parsed.has_value()) << text;
    EXPECT_EQ(parsed->mapping.mode, mode);
  }
}

TEST(Descriptor, MemoryAndKernelMappingsNameOneFile) {
  for (const auto& [text, device] :
       {std::pair("memory", MappingDevice::kMemory), std::pair("kernel", MappingDevice::kKernel)}) {
    json object = MakeValidJson();
    object["mapping"] = {{"device", text}, {"filename", "/bios.bin"}};
    const auto parsed = ParseDescriptor("a.json", Text(object));
    ASSERT_TRUE(parsed.has_value()) << text;
    EXPECT_EQ(parsed->mapping.device, device);
    EXPECT_EQ(parsed->mapping.executable.path, "/bios.bin");
  }
}

TEST(Descriptor, UnknownMembersAndFeaturesAreKeptOutOfTheWay) {
  json object = MakeValidJson();
  object["novelty"] = 7;
  object["features"].push_back("host-uefi-vars");
  EXPECT_TRUE(ParseDescriptor("a.json", Text(object)).has_value());
}

TEST(Descriptor, EachMissingOrWrongMemberIsRefusedByName) {
  for (const char* member :
       {"description", "interface-types", "mapping", "targets", "features", "tags"}) {
    for (const bool remove : {true, false}) {
      json object = MakeValidJson();
      if (remove) {
        object.erase(member);
      } else {
        object[member] = 7;
      }
      const auto parsed = ParseDescriptor("a.json", Text(object));
      ASSERT_FALSE(parsed.has_value()) << member;
      EXPECT_THAT(parsed.error().message(), HasSubstr(member));
    }
  }
}

TEST(Descriptor, BytesThatAreNoJsonObjectAreRefused) {
  const std::string deep(2000, '[');
  for (const std::string& text :
       {std::string("{"), std::string("[]"), std::string("\xff\xfe"), deep}) {
    EXPECT_EQ(ParseDescriptor("a.json", AsBytes(text)).error().code(), ErrorCode::kInvalidInput);
  }
  EXPECT_EQ(ParseDescriptor("a.json", Bytes(kMaxDescriptorSize + 1)).error().code(),
            ErrorCode::kExhausted);
}

TEST(Descriptor, UnknownDeviceInterfaceOrModeIsRefused) {
  json device = MakeValidJson();
  device["mapping"]["device"] = "tape";
  json interface = MakeValidJson();
  interface["interface-types"] = {"dos"};
  json mode = MakeValidJson();
  mode["mapping"]["mode"] = "odd";
  for (const json& object : {device, interface, mode}) {
    EXPECT_FALSE(ParseDescriptor("a.json", Text(object)).has_value()) << object.dump();
  }
}

TEST(Precedence, EarlierFolderMasksLaterOneAndTheRestIsSortedByName) {
  json mine = MakeValidJson();
  mine["description"] = "mine";
  const std::vector<DescriptorFile> files = {
      {"/usr/share/qemu/firmware", "60-b.json", Text(MakeValidJson())},
      {"/usr/share/qemu/firmware", "50-a.json", Text(MakeValidJson())},
      {"/etc/qemu/firmware", "60-b.json", Text(mine)},
      {"/etc/qemu/firmware", "readme.txt", Text(mine)},
      {"/elsewhere", "10-x.json", Text(mine)}};
  const DescriptorSet set = ResolveDescriptors(DescriptorDirectories(""), files);
  ASSERT_EQ(set.descriptors.size(), 3U);
  EXPECT_EQ(set.descriptors[0].source, "/usr/share/qemu/firmware/50-a.json");
  EXPECT_EQ(set.descriptors[1].source, "/etc/qemu/firmware/60-b.json");
  EXPECT_EQ(set.descriptors[1].description, "mine");
  EXPECT_EQ(set.descriptors[2].source, kBuiltinSource);
}

TEST(Precedence, EmptyFileMasksAndAddsNothing) {
  const std::vector<DescriptorFile> files = {
      {"/home/me/.config/qemu/firmware", "50-a.json", {}},
      {"/usr/share/qemu/firmware", "50-a.json", Text(MakeValidJson())}};
  const DescriptorSet set = ResolveDescriptors(DescriptorDirectories("/home/me/.config"), files);
  ASSERT_EQ(set.descriptors.size(), 1U);
  EXPECT_EQ(set.descriptors[0].source, kBuiltinSource);
  EXPECT_TRUE(set.problems.empty());
}

TEST(Precedence, BrokenFileIsReportedAndStillMasks) {
  const std::vector<DescriptorFile> files = {
      {"/etc/qemu/firmware", "50-a.json", ToBytes(AsBytes("{"))},
      {"/usr/share/qemu/firmware", "50-a.json", Text(MakeValidJson())}};
  const DescriptorSet set = ResolveDescriptors(DescriptorDirectories(""), files);
  EXPECT_EQ(set.descriptors.size(), 1U);
  ASSERT_EQ(set.problems.size(), 1U);
  EXPECT_THAT(set.problems[0], HasSubstr("/etc/qemu/firmware/50-a.json"));
}

TEST(Select, SecureWithEnrolledKeysTakesTheFirstThatHasAll) {
  const std::vector<FirmwareDescriptor> list = {
      Make({"secure-boot", "requires-smm"}, "blank"),
      Make({"secure-boot", "requires-smm", "enrolled-keys"}, "first"),
      Make({"secure-boot", "requires-smm", "enrolled-keys"}, "second")};
  FirmwareQuery query;
  query.secure_boot = SecureBootSupport::kRequired;
  query.keys = KeyEnrolment::kEnrolled;
  EXPECT_EQ(SelectFirmware(list, query)->source, "first");
  query.keys = KeyEnrolment::kBlank;
  EXPECT_EQ(SelectFirmware(list, query)->source, "blank");
}

TEST(Select, SecureBootWithoutSmmIsNeverChosen) {
  FirmwareQuery query;
  query.secure_boot = SecureBootSupport::kRequired;
  const auto chosen = SelectFirmware({Make({"secure-boot", "enrolled-keys"}, "no-smm")}, query);
  ASSERT_FALSE(chosen.has_value());
  EXPECT_EQ(chosen.error().code(), ErrorCode::kNotFound);
  EXPECT_THAT(chosen.error().message(), HasSubstr("no-smm lacks requires-smm"));
}

TEST(Select, LegacyPrefersFirmwareWithoutSecureBootThenBlankKeys) {
  const FirmwareDescriptor enrolled =
      Make({"secure-boot", "requires-smm", "enrolled-keys"}, "enrolled");
  const FirmwareDescriptor blank = Make({"secure-boot", "requires-smm"}, "blank");
  const FirmwareDescriptor plain = Make({"acpi-s3"}, "plain");
  const FirmwareQuery query;
  EXPECT_EQ(SelectFirmware({enrolled, blank, plain}, query)->source, "plain");
  EXPECT_EQ(SelectFirmware({enrolled, blank}, query)->source, "blank");
  EXPECT_FALSE(SelectFirmware({enrolled}, query).has_value());
}

TEST(Select, MachineAndArchitectureMustFit) {
  const std::vector<FirmwareDescriptor> list = {Make({}, "q35-only")};
  for (const char* machine : {"q35", "pc-q35-7.2"}) {
    FirmwareQuery query;
    query.machine = machine;
    EXPECT_TRUE(SelectFirmware(list, query).has_value()) << machine;
  }
  for (const char* machine : {"pc", "pc-i440fx-7.2", "microvm"}) {
    FirmwareQuery query;
    query.machine = machine;
    EXPECT_FALSE(SelectFirmware(list, query).has_value()) << machine;
  }
  FirmwareQuery arm;
  arm.architecture = "aarch64";
  EXPECT_FALSE(SelectFirmware(list, arm).has_value());
}

TEST(Select, StatelessFirmwareIsNoPlaceForVariables) {
  json object = MakeValidJson();
  object["mapping"]["mode"] = "stateless";
  const auto descriptor = ParseDescriptor("stateless", Text(object));
  ASSERT_TRUE(descriptor.has_value());
  FirmwareQuery query;
  query.secure_boot = SecureBootSupport::kRequired;
  EXPECT_FALSE(SelectFirmware({*descriptor}, query).has_value());
}

TEST(Select, BiosIsTheOneInsideQemu) {
  FirmwareQuery query;
  query.type = FirmwareType::kBios;
  const auto chosen = SelectFirmware({Make({}, "uefi"), BuiltinBios()}, query);
  ASSERT_TRUE(chosen.has_value());
  EXPECT_EQ(chosen->source, kBuiltinSource);
  EXPECT_EQ(chosen->mapping.executable.path, "");
}

TEST(Select, DebiansOwnDescriptorsGiveTheFilesWithMicrosoftsKeys) {
  const std::string directory = "/usr/share/qemu/firmware";
  std::vector<DescriptorFile> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    std::ifstream in(entry.path(), std::ios::binary);
    std::ostringstream text;
    text << in.rdbuf();
    files.push_back({directory, entry.path().filename(), ToBytes(AsBytes(text.str()))});
  }
  if (files.empty()) {
    GTEST_SKIP() << "package ovmf is not installed";
  }
  const DescriptorSet set = ResolveDescriptors(DescriptorDirectories(""), files);
  EXPECT_TRUE(set.problems.empty());
  FirmwareQuery query;
  query.secure_boot = SecureBootSupport::kRequired;
  query.keys = KeyEnrolment::kEnrolled;
  const auto chosen = SelectFirmware(set.descriptors, query);
  ASSERT_TRUE(chosen.has_value());
  EXPECT_EQ(chosen->mapping.executable.path, "/usr/share/OVMF/OVMF_CODE_4M.ms.fd");
  EXPECT_EQ(chosen->mapping.nvram_template.path, "/usr/share/OVMF/OVMF_VARS_4M.ms.fd");
  EXPECT_EQ(SelectFirmware(set.descriptors, FirmwareQuery{})->mapping.executable.path,
            "/usr/share/OVMF/OVMF_CODE_4M.fd");
}

}  // namespace
}  // namespace vallum::firmware
