// SPDX-License-Identifier: Apache-2.0
#include "images/ova_json.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <string>

#include "base/bytes.h"
#include "base/error.h"
#include "formats/ovf_writer.h"
#include "formats/tar_writer.h"
#include "formats/test_support.h"

namespace vallum::images {
namespace {

using ::testing::HasSubstr;

Bytes Archive(const std::string& ovf, const std::string& second) {
  Bytes out;
  for (const auto& [name, content] :
       {std::pair(std::string("m.ovf"), ovf), std::pair(second, std::string("123456789"))}) {
    const Bytes header = *formats::MakeTarHeader(name, content.size());
    out.insert(out.end(), header.begin(), header.end());
    const ByteView bytes = AsBytes(content);
    out.insert(out.end(), bytes.begin(), bytes.end());
    out.resize(out.size() + formats::TarPadding(content.size()));
  }
  out.resize(out.size() + formats::kTarEnd);
  return out;
}

std::string Ovf() {
  formats::OvfExport machine;
  machine.name = "m";
  machine.firmware = formats::OvfFirmware::kEfi;
  machine.secure_boot = true;
  machine.vtpm = true;
  machine.memory = 1 << 30;
  machine.disk = {.id = {}, .href = "m.qcow2", .size = 9, .compression = {}};
  machine.disk_capacity = 4096;
  return *formats::WriteOvf(machine);
}

Result<std::string> Describe(const Bytes& archive) {
  formats::testing::TempDir dir;
  formats::testing::WriteFile(dir.File("ova"), archive);
  const int fd = open(dir.File("ova").c_str(), O_RDONLY | O_CLOEXEC);
  Result<std::string> document = DescribeOva(VALLUM_BIN_DIR "/vallum-inspect", fd);
  close(fd);
  return document;
}

TEST(OvaJson, ConfinedChildTellsWhatTheDescriptorSays) {
  const auto document = Describe(Archive(Ovf(), "m.qcow2"));
  ASSERT_TRUE(document.has_value()) << document.error().Describe();
  const auto json = nlohmann::json::parse(*document);
  EXPECT_EQ(json["firmware"], "efi");
  EXPECT_EQ(json["secureBoot"], true);
  EXPECT_EQ(json["vtpm"], true);
  EXPECT_EQ(json["memory"], 1 << 30);
  EXPECT_EQ(json["members"][1]["name"], "m.qcow2");
  EXPECT_EQ(json["members"][1]["size"], 9);
}

TEST(OvaJson, RefusalOfTheChildIsPassedOnInItsWords) {
  const auto document = Describe(Archive("<!DOCTYPE x>" + Ovf(), "m.qcow2"));
  ASSERT_FALSE(document.has_value());
  EXPECT_EQ(document.error().code(), ErrorCode::kInvalidInput);
}

TEST(OvaJson, FileThatIsNotInTheArchiveIsRefused) {
  const auto document = Describe(Archive(Ovf(), "other"));
  ASSERT_FALSE(document.has_value());
  EXPECT_THAT(document.error().message(), HasSubstr("m.qcow2"));
}

TEST(OvaJson, SomethingElseThanAnArchiveIsRefused) {
  EXPECT_FALSE(Describe(Bytes(4096, std::byte{0x41})).has_value());
}

}  // namespace
}  // namespace vallum::images
