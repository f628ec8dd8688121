// SPDX-License-Identifier: Apache-2.0
#include "formats/ovf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "formats/ova.h"

namespace vallum::formats {
namespace {

using ::testing::HasSubstr;

// As VMware exports it.
constexpr char kValid[] = R"(<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
    xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
    xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
    xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References>
    <File ovf:href="disk-1.vmdk" ovf:id="file1" ovf:size="70000"/>
  </References>
  <DiskSection>
    <Info>Disks</Info>
    <Disk ovf:capacity="8" ovf:capacityAllocationUnits="byte * 2^30" ovf:diskId="vmdisk1"
        ovf:fileRef="file1"
        ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
  </DiskSection>
  <VirtualSystem ovf:id="vm">
    <Info>A virtual machine</Info>
    <Name>web &amp; more</Name>
    <VirtualHardwareSection>
      <Info>Hardware</Info>
      <System><vssd:Name xmlns:vssd="urn:x">not this one</vssd:Name></System>
      <Item>
        <rasd:AllocationUnits>hertz * 10^6</rasd:AllocationUnits>
        <rasd:ResourceType>3</rasd:ResourceType>
        <rasd:VirtualQuantity>2</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>
        <rasd:ResourceType>4</rasd:ResourceType>
        <rasd:VirtualQuantity>4096</rasd:VirtualQuantity>
      </Item>
      <Item ovf:required="false">
        <rasd:ResourceSubType>vmware.vtpm</rasd:ResourceSubType>
        <rasd:ResourceType>1</rasd:ResourceType>
      </Item>
      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>
      <vmw:Config ovf:required="false" vmw:key="bootOptions.efiSecureBootEnabled" vmw:value="true"/>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
)";

Result<OvfEnvelope> Parse(const std::string& xml) { return ParseOvf(AsBytes(xml)); }

std::string With(const std::string& what, const std::string& by) {
  std::string xml = kValid;
  const size_t at = xml.find(what);
  EXPECT_NE(at, std::string::npos) << what;
  return xml.replace(at, what.size(), by);
}

void ExpectRefused(const std::string& xml, const std::string& why,
                   ErrorCode code = ErrorCode::kInvalidInput) {
  const auto ovf = Parse(xml);
  ASSERT_FALSE(ovf.has_value()) << why;
  EXPECT_EQ(ovf.error().code(), code);
  EXPECT_THAT(ovf.error().Describe(), HasSubstr(why));
  EXPECT_FALSE(ovf.error().fix().empty());
}

TEST(Ovf, MachineAndDisksAreRead) {
  const auto ovf = Parse(kValid);
  ASSERT_TRUE(ovf.has_value()) << ovf.error().Describe();
  ASSERT_EQ(ovf->files.size(), 1U);
  EXPECT_EQ(ovf->files[0].size, 70000U);
  ASSERT_EQ(ovf->disks.size(), 1U);
  EXPECT_EQ(ovf->disks[0].href, "disk-1.vmdk");
  EXPECT_EQ(ovf->disks[0].capacity, uint64_t{8} << 30U);
  EXPECT_THAT(ovf->disks[0].format, HasSubstr("#streamOptimized"));
  EXPECT_EQ(ovf->name, "web & more");
  EXPECT_EQ(ovf->firmware, OvfFirmware::kEfi);
  EXPECT_EQ(ovf->secure_boot, true);
  EXPECT_TRUE(ovf->vtpm);
  EXPECT_EQ(ovf->cpus, 2U);
  EXPECT_EQ(ovf->memory, uint64_t{4} << 30U);
}

TEST(Ovf, WhatIsNotSaidStaysUnknown) {
  const auto ovf = Parse(
      R"(<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/2"><VirtualSystem/></Envelope>)");
  ASSERT_TRUE(ovf.has_value()) << ovf.error().Describe();
  EXPECT_EQ(ovf->firmware, OvfFirmware::kUnspecified);
  EXPECT_FALSE(ovf->secure_boot.has_value());
  EXPECT_FALSE(ovf->vtpm);
  EXPECT_EQ(ovf->memory, 0U);
}

TEST(Ovf, UnitsAreRead) {
  for (const auto& [unit, bytes] :
       {std::pair("byte", 8ULL), std::pair("byte * 2^20", 8ULL << 20U),
        std::pair("byte*10^9", 8'000'000'000ULL), std::pair("MegaBytes", 8ULL << 20U)}) {
    const auto ovf = Parse(With("byte * 2^30", unit));
    ASSERT_TRUE(ovf.has_value()) << ovf.error().Describe();
    EXPECT_EQ(ovf->disks[0].capacity, bytes) << unit;
  }
  for (const std::string unit : {"byte * 2^99", "byte * 3^4", "pages", "byte * 2^-1"}) {
    ExpectRefused(With("byte * 2^30", unit), "a disk capacity of");
  }
}

TEST(Ovf, CapacityThatIsNoNumberOrTooLargeIsRefused) {
  for (const std::string capacity : {"", "-1", "8x", "0x10", "18446744073709551615", "70000"}) {
    ExpectRefused(With("capacity=\"8\"", "capacity=\"" + capacity + "\""), "a disk capacity of");
  }
  ExpectRefused(With(">4096<", ">many<"), "a memory of");
  ExpectRefused(With(">2<", ">99999<"), "a processor count of");
}

TEST(Ovf, ExternalFilesAreRefusedByName) {
  for (const std::string href :
       {"http://example.com/d.vmdk", "https://example.com/d.vmdk", "file:///etc/shadow",
        "/etc/shadow", "../d.vmdk", "a/../../d.vmdk", "a\\d.vmdk", "", "%2e%2e/d.vmdk", "d?x"}) {
    ExpectRefused(With("disk-1.vmdk", href), "is external: \"");
  }
}

TEST(Ovf, AttributeOfAnotherNamespaceDoesNotCount) {
  const auto ovf = Parse(With("ovf:href=\"disk-1.vmdk\"", "ovf:href=\"a\" href=\"/etc/b\""));
  ASSERT_TRUE(ovf.has_value()) << ovf.error().Describe();
  EXPECT_EQ(ovf->files[0].href, "a");
}

TEST(Ovf, ParentsAndChunksAreRefused) {
  ExpectRefused(With("ovf:fileRef", "ovf:parentRef=\"base\" ovf:fileRef"), "parentRef");
  EXPECT_TRUE(Parse(With("ovf:fileRef", "ovf:parentRef=\"\" ovf:fileRef")).has_value());
  ExpectRefused(With("ovf:size", "ovf:chunkSize=\"7\" ovf:size"), "chunks");
}

TEST(Ovf, DanglingAndRepeatedIdsAreRefused) {
  ExpectRefused(With("ovf:fileRef=\"file1\"", "ovf:fileRef=\"file2\""), "which there is not",
                ErrorCode::kCorrupt);
  ExpectRefused(With("</References>", R"(<File ovf:href="b" ovf:id="file1"/></References>)"),
                "two files with the id", ErrorCode::kCorrupt);
  ExpectRefused(
      With("</DiskSection>", R"(<Disk ovf:capacity="1" ovf:diskId="vmdisk1"/></DiskSection>)"),
      "two disks with the id", ErrorCode::kCorrupt);
}

TEST(Ovf, DocumentTypesAreRefused) {
  ExpectRefused(With("<Envelope", "<!DOCTYPE Envelope><Envelope"), "DTD");
  ExpectRefused(
      With("<Envelope", R"(<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><Envelope)"),
      "DTD");
  ExpectRefused(With("<Envelope", R"(<!DOCTYPE x SYSTEM "file:///etc/passwd"><Envelope)"), "DTD");
  ExpectRefused(With("web &amp; more", "&unknown;"), "no well-formed XML");
}

TEST(Ovf, OtherDocumentsAreRefused) {
  ExpectRefused("", "no well-formed XML");
  ExpectRefused("<html/>", "no OVF envelope");
  ExpectRefused("<Envelope/>", "no OVF envelope");
  ExpectRefused(With("</Envelope>", ""), "no well-formed XML");
  ExpectRefused(R"(<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"/>)",
                "no virtual machine");
}

TEST(Ovf, SeveralMachinesAreRefused) {
  ExpectRefused(With("</Envelope>", "<VirtualSystem/></Envelope>"), "several virtual machines");
  ExpectRefused(With("</Envelope>", "<VirtualSystemCollection/></Envelope>"), "a collection");
}

TEST(Ovf, LimitsHold) {
  std::string deep;
  for (int i = 0; i < 40; ++i) deep += "<a>";
  ExpectRefused(With("<Info>Disks</Info>", deep), "nested too deep");
  std::string many;
  for (size_t i = 0; i <= kOvfMaxElements; ++i) many += "<a/>";
  ExpectRefused(With("<Info>Disks</Info>", many), "too many elements");
  ExpectRefused(With("web", std::string(kOvfMaxText + 1, 'x')), "a text that is too long");
  ExpectRefused(kValid + std::string(kOvfMaxBytes, ' '), "a descriptor of");
  EXPECT_TRUE(Parse(With("<Info>Disks</Info>", "<Info>" + std::string(90000, 'x') + "</Info>"))
                  .has_value());
}

TEST(Ovf, UnknownFirmwareIsRefused) {
  ExpectRefused(With("vmw:value=\"efi\"", "vmw:value=\"coreboot\""), "unknown firmware");
  EXPECT_EQ(Parse(With("vmw:value=\"efi\"", "vmw:value=\"bios\""))->firmware, OvfFirmware::kBios);
}

TEST(Ovf, ManifestIsRead) {
  const std::string sha1(40, 'a');
  const std::string sha256(64, 'b');
  const auto digests = ParseOvfManifest(
      AsBytes("SHA256(x.ovf)= " + sha256 + "\r\nSHA1 (disk (1).vmdk) = " + sha1 + "\n\n"));
  ASSERT_TRUE(digests.has_value()) << digests.error().Describe();
  ASSERT_EQ(digests->size(), 2U);
  EXPECT_EQ((*digests)[0].file, "x.ovf");
  EXPECT_EQ((*digests)[1].file, "disk (1).vmdk");
  EXPECT_EQ((*digests)[1].algorithm, HashAlgorithm::kSha1);
  EXPECT_EQ(ToHex((*digests)[1].digest), sha1);
}

TEST(Ovf, ManifestLineThatIsNoDigestIsRefused) {
  const std::string sha256(64, 'b');
  for (const std::string& line : std::vector<std::string>{
           "hello", "MD5(a)= 0123456789abcdef0123456789abcdef", "SHA256(a)= 1234",
           "SHA256(a)= " + std::string(64, 'x'), "SHA256 a = " + sha256, "SHA256)a(= " + sha256}) {
    const auto digests = ParseOvfManifest(AsBytes(line));
    ASSERT_FALSE(digests.has_value()) << line;
    EXPECT_THAT(digests.error().Describe(), HasSubstr("line 1"));
  }
  const std::string line = "SHA256(a)= " + sha256 + "\n";
  EXPECT_FALSE(ParseOvfManifest(AsBytes(line + line)).has_value());
}

TEST(Ovf, FlippedBitsAndCutsNeverCrash) {
  std::mt19937_64 random(9);
  for (int i = 0; i < 3000; ++i) {
    std::string xml = kValid;
    for (int k = 0; k < 2; ++k) {
      char& c = xml[random() % xml.size()];
      c = static_cast<char>(c ^ 1 << random() % 8);
    }
    if (random() % 4 == 0) xml.resize(random() % xml.size());
    static_cast<void>(Parse(xml));
  }
}

}  // namespace
}  // namespace vallum::formats
