// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/units.h"
#include "formats/ova.h"
#include "formats/ovf_writer.h"
#include "formats/reader.h"
#include "formats/tar.h"
#include "formats/tar_writer.h"
#include "formats/test_support.h"

namespace vallum::formats {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

OvfExport MakeMachine() {
  OvfExport machine;
  machine.name = "web <1> & \"more\"";
  machine.firmware = OvfFirmware::kEfi;
  machine.secure_boot = true;
  machine.vtpm = true;
  machine.trusted_service = true;
  machine.cpus = 3;
  machine.memory = ByteCount::MiB(768).bytes();
  machine.disk = {.id = {}, .href = "web1.qcow2", .size = 9, .compression = {}};
  machine.disk_capacity = ByteCount::GiB(5).bytes();
  machine.vallum = {.key_set = "prod",
                    .key_set_version = 7,
                    .key_set_sha256 = std::string(64, 'a'),
                    .key_set_href = "web1-keys.json",
                    .variables_href = "web1-vars.fd",
                    .variable_origin = "SECURE prod 7",
                    .tpm_model = "tpm-crb",
                    .tpm_href = "web1-tpm.sealed"};
  for (const char* href : {"web1-keys.json", "web1-vars.fd", "web1-tpm.sealed"}) {
    machine.files.push_back({.id = {}, .href = href, .size = 4, .compression = {}});
  }
  return machine;
}

void Append(Bytes& archive, const std::string& name, ByteView content) {
  const auto header = MakeTarHeader(name, content.size());
  ASSERT_TRUE(header.has_value());
  archive.insert(archive.end(), header->begin(), header->end());
  archive.insert(archive.end(), content.begin(), content.end());
  archive.resize(archive.size() + TarPadding(content.size()));
}

Bytes MakeOva(const std::string& ovf) {
  Bytes archive;
  Append(archive, "web1.ovf", AsBytes(ovf));
  Append(archive, "web1.mf", AsBytes("SHA256(web1.ovf)= " + ToHex(Sha256(AsBytes(ovf))) + "\n"));
  Append(archive, "web1.qcow2", AsBytes("123456789"));
  for (const char* name : {"web1-keys.json", "web1-vars.fd", "web1-tpm.sealed"}) {
    Append(archive, name, AsBytes("abcd"));
  }
  archive.resize(archive.size() + kTarEnd);
  return archive;
}

TEST(OvaWriterTest, OwnReaderFindsEverythingThatWasWritten) {
  const auto ovf = WriteOvf(MakeMachine());
  ASSERT_TRUE(ovf.has_value());
  const Bytes archive = MakeOva(*ovf);
  const auto ova = ParseOva(MemoryReader(archive));
  ASSERT_TRUE(ova.has_value()) << ova.error().Describe();
  EXPECT_EQ(ova->ovf.name, "web <1> & \"more\"");
  EXPECT_EQ(ova->ovf.firmware, OvfFirmware::kEfi);
  EXPECT_EQ(ova->ovf.secure_boot, true);
  EXPECT_TRUE(ova->ovf.vtpm);
  EXPECT_TRUE(ova->ovf.trusted_service);
  EXPECT_EQ(ova->ovf.cpus, 3U);
  EXPECT_EQ(ova->ovf.memory, ByteCount::MiB(768).bytes());
  ASSERT_EQ(ova->ovf.disks.size(), 1U);
  EXPECT_EQ(ova->ovf.disks[0].href, "web1.qcow2");
  EXPECT_EQ(ova->ovf.disks[0].capacity, ByteCount::GiB(5).bytes());
  EXPECT_THAT(ova->ovf.not_understood, IsEmpty());
  const OvfVallum& ours = ova->ovf.vallum;
  EXPECT_EQ(ours.key_set, "prod");
  EXPECT_EQ(ours.key_set_version, 7U);
  EXPECT_EQ(ours.key_set_sha256, std::string(64, 'a'));
  EXPECT_EQ(ours.key_set_href, "web1-keys.json");
  EXPECT_EQ(ours.variables_href, "web1-vars.fd");
  EXPECT_EQ(ours.variable_origin, "SECURE prod 7");
  EXPECT_EQ(ours.tpm_model, "tpm-crb");
  EXPECT_EQ(ours.tpm_href, "web1-tpm.sealed");
}

TEST(OvaWriterTest, GnuTarListsTheArchive) {
  testing::TempDir dir;
  testing::WriteFile(dir.File("a.ova"), MakeOva(*WriteOvf(MakeMachine())));
  EXPECT_THAT(testing::MustRun("tar -tf " + dir.File("a.ova")), HasSubstr("web1-vars.fd"));
}

TEST(OvaWriterTest, MachineWithoutSecureBootOrVtpmIsWrittenAsThat) {
  OvfExport machine = MakeMachine();
  machine.firmware = OvfFirmware::kBios;
  machine.secure_boot = false;
  machine.vtpm = false;
  machine.trusted_service = false;
  machine.vallum = {};
  machine.files.clear();
  const auto ovf = ParseOvf(AsBytes(*WriteOvf(machine)));
  ASSERT_TRUE(ovf.has_value()) << ovf.error().Describe();
  EXPECT_EQ(ovf->firmware, OvfFirmware::kBios);
  EXPECT_FALSE(ovf->secure_boot.value_or(false));
  EXPECT_FALSE(ovf->vtpm);
  EXPECT_FALSE(ovf->trusted_service);
}

TEST(OvaWriterTest, NameThatLeavesThePackageIsRefused) {
  OvfExport machine = MakeMachine();
  machine.disk.href = "../disk";
  EXPECT_FALSE(WriteOvf(machine).has_value());
  EXPECT_FALSE(MakeTarHeader("../disk", 1).has_value());
  EXPECT_FALSE(MakeTarHeader(std::string(101, 'a'), 1).has_value());
}

std::string Envelope(const std::string& machine) {
  return "<ovf:Envelope xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1/\" "
         "xmlns:v=\"urn:vallum:ovf:1\" xmlns:o=\"urn:other\"><VirtualSystem>" +
         machine + "</VirtualSystem></ovf:Envelope>";
}

TEST(OvaWriterTest, BiosTypeOfOvirtSaysFirmwareAndSecureBoot) {
  const auto secure = ParseOvf(AsBytes(Envelope("<BiosType>4</BiosType>")));
  ASSERT_TRUE(secure.has_value()) << secure.error().Describe();
  EXPECT_EQ(secure->firmware, OvfFirmware::kEfi);
  EXPECT_EQ(secure->secure_boot, true);
  EXPECT_EQ(ParseOvf(AsBytes(Envelope("<BiosType>3</BiosType>")))->secure_boot, false);
  EXPECT_EQ(ParseOvf(AsBytes(Envelope("<BiosType>2</BiosType>")))->firmware, OvfFirmware::kBios);
  EXPECT_FALSE(ParseOvf(AsBytes(Envelope("<BiosType>9</BiosType>"))).has_value());
}

TEST(OvaWriterTest, ElementsOfOthersWithOurNamesMeanNothing) {
  const auto ovf = ParseOvf(AsBytes(Envelope("<o:Tpm o:href=\"a\" o:model=\"tpm-crb\"/>")));
  ASSERT_TRUE(ovf.has_value());
  EXPECT_EQ(ovf->vallum.tpm_href, "");
  EXPECT_FALSE(ParseOvf(AsBytes(Envelope("<v:Tpm v:href=\"/etc/passwd\"/>"))).has_value());
}

TEST(OvaWriterTest, DeviceThatIsNotTakenOverIsNamed) {
  const auto ovf = ParseOvf(AsBytes(
      Envelope("<Item><ElementName>net 1</ElementName><ResourceType>10</ResourceType></Item>")));
  ASSERT_TRUE(ovf.has_value());
  EXPECT_THAT(ovf->not_understood, ElementsAre(HasSubstr("\"net 1\" of type 10")));
}

}  // namespace
}  // namespace vallum::formats
