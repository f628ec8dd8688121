// SPDX-License-Identifier: Apache-2.0
#include "measure/event_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "measure/device_path.h"
#include "measure/event_content.h"
#include "measure/event_describe.h"
#include "measure/event_digest.h"
#include "measure/event_log_builder.h"

namespace vallum::measure {
namespace {

using firmware::kGlobalVariableGuid;
using firmware::kSecurityDatabaseGuid;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;

Bytes Utf16(std::string_view text) {
  Bytes out;
  for (const char c : text) {
    out.push_back(static_cast<std::byte>(c));
    out.push_back(std::byte{0});
  }
  return out;
}

Bytes Node(uint8_t type, uint8_t subtype, const Bytes& data) {
  ByteWriter out;
  out.U8(type).U8(subtype).U16Le(static_cast<uint16_t>(4 + data.size())).Raw(data);
  return std::move(out).Take();
}

Bytes Join(std::initializer_list<Bytes> parts) {
  Bytes out;
  for (const Bytes& part : parts) out.insert(out.end(), part.begin(), part.end());
  return out;
}

Bytes Hex(std::string_view hex) { return *FromHex(hex); }

// PciRoot(0x0)/Pci(0x1,0x2)/HD(...)/\EFI\x.efi
Bytes DiskPath() {
  ByteWriter disk;
  disk.U32Le(1).U64Le(2048).U64Le(1000).Raw(kGlobalVariableGuid.bytes).U8(2).U8(2);
  return Join({Node(2, 1, Hex("d041030a00000000")), Node(1, 1, Hex("0201")),
               Node(4, 1, disk.bytes()), Node(4, 4, Utf16(std::string_view("\\EFI\\x.efi\0", 11))),
               Node(0x7f, 0xff, {})});
}

Bytes LoadOptionValue() {
  ByteWriter out;
  const Bytes path = DiskPath();
  out.U32Le(1).U16Le(static_cast<uint16_t>(path.size()));
  out.Raw(Utf16(std::string_view("debian\0", 7))).Raw(path).U8(9);
  return std::move(out).Take();
}

// What DescribeEvent says of one event.
std::string Describe(EventType type, ByteView data, uint32_t index = 4) {
  EventLogBuilder made({kBank});
  made.Add(index, type, data);
  const auto log = EventLog::Parse(made.bytes(), EventLogKind::kTpm);
  return DescribeEvent(*log, log->events()[1]);
}

ContentCheck Check(EventType type, ByteView data, ByteView hashed) {
  EventLogBuilder made({kBank});
  made.Add(4, type, data, hashed);
  const auto log = EventLog::Parse(made.bytes(), EventLogKind::kTpm);
  BankHasher hasher(kBank);
  const ContentCheck alone = CheckContent(*log, log->events()[1], hasher);
  // One among others is judged no differently.
  const std::vector<ContentCheck> all = CheckContent(*log, std::array<size_t, 3>{0, 1, 1}, hasher);
  EXPECT_THAT(all, ElementsAre(ContentCheck::kNotCovered, alone, alone));
  return alone;
}

TEST(EventData, VariableIsReadWithItsExactName) {
  const Bytes data = EncodeVariableData("db", kSecurityDatabaseGuid, Bytes(3));
  const auto variable = ParseVariableEvent(data);
  ASSERT_TRUE(variable.has_value());
  EXPECT_EQ(variable->name, "db");
  EXPECT_EQ(variable->vendor, kSecurityDatabaseGuid);
  EXPECT_EQ(variable->data.size(), 3U);
  EXPECT_EQ(variable->size, data.size());
  const auto other = EncodeVariableData(std::string_view("d\0b", 3), kSecurityDatabaseGuid, {});
  EXPECT_EQ(ParseVariableEvent(other)->name, "d\\u0000b");
}

TEST(EventData, VariableLongerThanItsEventIsRefused) {
  Bytes data = EncodeVariableData("db", kSecurityDatabaseGuid, Bytes(3));
  data.pop_back();
  EXPECT_FALSE(ParseVariableEvent(data).has_value());
  for (const size_t offset : {size_t{16}, size_t{24}}) {
    Bytes huge = EncodeVariableData("db", kSecurityDatabaseGuid, Bytes(3));
    for (size_t i = 0; i < 8; ++i) huge[offset + i] = std::byte{0xff};
    EXPECT_FALSE(ParseVariableEvent(huge).has_value()) << offset;
  }
  EXPECT_FALSE(ParseVariableEvent(Bytes(31)).has_value());
}

TEST(EventData, BootOrderIsAListOfNumbers) {
  EXPECT_THAT(*ParseBootOrder(Hex("01000a00")), ElementsAre(1, 10));
  EXPECT_FALSE(ParseBootOrder(Hex("010000")).has_value());
}

TEST(EventData, LoadOptionHasDescriptionPathAndRest) {
  const Bytes value = LoadOptionValue();
  const auto option = ParseLoadOption(value);
  ASSERT_TRUE(option.has_value());
  EXPECT_EQ(option->description, "debian");
  EXPECT_EQ(DevicePathToText(option->device_path),
            "PciRoot(0x0)/Pci(0x1,0x2)/HD(1,GPT,8be4df61-93ca-11d2-aa0d-00e098032b8c,0x800,"
            "0x3e8)/\\EFI\\x.efi");
  EXPECT_EQ(option->optional_data.size(), 1U);
  EXPECT_FALSE(ParseLoadOption(ByteView(value).first(value.size() - 2)).has_value());
  EXPECT_FALSE(ParseLoadOption(ByteView(value).first(10)).has_value());  // no end of the text
}

TEST(EventData, ImageLoadWithAPathBeyondItsEndIsRefused) {
  ByteWriter out;
  out.U64Le(1).U64Le(2).U64Le(3).U64Le(DiskPath().size()).Raw(DiskPath());
  const auto image = ParseImageLoadEvent(out.bytes());
  ASSERT_TRUE(image.has_value());
  EXPECT_EQ(image->size, 2U);
  EXPECT_EQ(image->device_path.size(), DiskPath().size());
  EXPECT_FALSE(ParseImageLoadEvent(ByteView(out.bytes()).first(out.size() - 1)).has_value());
}

Bytes GptData(uint64_t count, uint32_t entry_size) {
  ByteWriter out;
  out.Raw(AsBytes("EFI PART")).Zeros(48).Raw(kGlobalVariableGuid.bytes).Zeros(12);
  out.U32Le(entry_size).U32Le(0).U64Le(count);
  out.Raw(kSecurityDatabaseGuid.bytes).Raw(kGlobalVariableGuid.bytes).U64Le(34).U64Le(99);
  out.U64Le(0).Raw(Utf16("ESP")).Zeros(72 - 6);
  return std::move(out).Take();
}

TEST(EventData, GptPartitionsAreRead) {
  const auto gpt = ParseGptEvent(GptData(1, 128));
  ASSERT_TRUE(gpt.has_value()) << gpt.error().Describe();
  EXPECT_EQ(gpt->disk, kGlobalVariableGuid);
  ASSERT_EQ(gpt->partitions.size(), 1U);
  EXPECT_EQ(gpt->partitions[0].name, "ESP");
  EXPECT_EQ(gpt->partitions[0].first_block, 34U);
}

TEST(EventData, GptWithMorePartitionsThanDataIsRefused) {
  EXPECT_FALSE(ParseGptEvent(GptData(2, 128)).has_value());
  EXPECT_FALSE(ParseGptEvent(GptData(UINT64_MAX, 128)).has_value());
  EXPECT_FALSE(ParseGptEvent(GptData(1, 0)).has_value());
}

TEST(EventData, FirmwareBlobsHaveABaseAndASize) {
  EXPECT_EQ(ParseFirmwareBlob(Hex("00000e0000000000"
                                  "0000010000000000"))
                ->base,
            0xe0000U);
  const auto blob = ParseFirmwareBlob2(Join({Hex("02"), ToBytes(AsBytes("Fv")), Bytes(16)}));
  ASSERT_TRUE(blob.has_value());
  EXPECT_EQ(blob->description, "Fv");
  EXPECT_FALSE(ParseFirmwareBlob2(Hex("ff00")).has_value());
}

TEST(EventData, HandoffTablesBeyondTheirEventAreRefused) {
  ByteWriter out;
  out.U64Le(1).Raw(kGlobalVariableGuid.bytes).U64Le(5);
  EXPECT_THAT(ParseHandoffTables(out.bytes())->tables, ElementsAre(kGlobalVariableGuid));
  EXPECT_FALSE(ParseHandoffTables(ByteView(out.bytes()).first(30)).has_value());
}

TEST(EventData, SeparatorsAreToldApart) {
  EXPECT_EQ(ParseSeparator(Hex("00000000")), SeparatorKind::kNormal);
  EXPECT_EQ(ParseSeparator(Hex("ffffffff")), SeparatorKind::kNormal);
  EXPECT_EQ(ParseSeparator(Hex("01000000")), SeparatorKind::kError);
  EXPECT_EQ(ParseSeparator(AsBytes("WBCL")), SeparatorKind::kWindows);
  EXPECT_EQ(ParseSeparator(Hex("0000000000")), SeparatorKind::kOther);
}

TEST(EventData, LoadersFormsOfEvIplAreToldApart) {
  const auto grub = ParseIplEvent(AsBytes(std::string_view("grub_cmd: set a=b\0", 18)));
  EXPECT_EQ(grub.kind, IplKind::kGrubCommand);
  EXPECT_EQ(grub.text, "set a=b");
  EXPECT_EQ(ParseIplEvent(AsBytes("kernel_cmdline: /vmlinuz ro")).kind, IplKind::kCommandLine);
  const auto shim = ParseIplEvent(AsBytes(std::string_view("MokList\0", 8)));
  EXPECT_EQ(shim.kind, IplKind::kText);
  EXPECT_EQ(shim.text, "MokList");
  const auto systemd = ParseIplEvent(Utf16(std::string_view("quiet\0", 6)));
  EXPECT_EQ(systemd.kind, IplKind::kUtf16Text);
  EXPECT_EQ(systemd.text, "quiet");
  EXPECT_EQ(ParseIplEvent(Hex("00ff80")).kind, IplKind::kOther);
}

TEST(EventData, CcelTableSaysWhereTheLogLies) {
  ByteWriter out;
  out.Raw(AsBytes("CCEL")).U32Le(56).Zeros(28).U8(2).U8(0).U16Le(0).U64Le(262144).U64Le(0x1000);
  Bytes table = out.bytes();
  unsigned sum = 0;
  for (const std::byte b : table) sum += std::to_integer<unsigned>(b);
  table[9] = static_cast<std::byte>(256 - sum % 256);
  const auto parsed = ParseCcelTable(table);
  ASSERT_TRUE(parsed.has_value()) << parsed.error().Describe();
  EXPECT_EQ(parsed->type, 2);
  EXPECT_EQ(parsed->log_size, 262144U);
  EXPECT_EQ(parsed->log_address, 0x1000U);
  Bytes damaged = table;
  damaged[50] ^= std::byte{1};
  EXPECT_EQ(ParseCcelTable(damaged).error().code(), ErrorCode::kCorrupt);
  EXPECT_EQ(ParseCcelTable(ByteView(table).first(55)).error().code(), ErrorCode::kCorrupt);
  EXPECT_EQ(ParseCcelTable(AsBytes("APIC")).error().code(), ErrorCode::kInvalidInput);
}

TEST(DevicePath, NodesAreWrittenAsUefiShellsDo) {
  struct Case {
    Bytes node;
    std::string_view text;
  };
  for (const Case& each : {
           Case{Node(2, 1, Hex("d041080a01000000")), "PcieRoot(0x1)"},
           Case{Node(2, 1, Hex("d041020a01000000")), "Acpi(PNP0A02,0x1)"},
           Case{Node(3, 5, Hex("0102")), "USB(0x1,0x2)"},
           Case{Node(3, 18, Hex("0100ffff0000")), "Sata(0x1,0xffff,0x0)"},
           Case{Node(3, 2, Hex("01000200")), "Scsi(0x1,0x2)"},
           Case{Node(3, 23, Hex("010000000102030405060708")), "NVMe(0x1,08-07-06-05-04-03-02-01)"},
           Case{Node(3, 24, ToBytes(AsBytes("https://a/b"))), "Uri(https://a/b)"},
           Case{Node(4, 7, ToBytes(kGlobalVariableGuid.bytes)),
                "Fv(8be4df61-93ca-11d2-aa0d-00e098032b8c)"},
           Case{Node(4, 8,
                     Hex("00000000"
                         "1000000000000000"
                         "2000000000000000")),
                "Offset(0x10,0x20)"},
           Case{Node(1, 4, Join({ToBytes(kGlobalVariableGuid.bytes), Hex("0102")})),
                "VenHw(8be4df61-93ca-11d2-aa0d-00e098032b8c,0102)"},
           Case{Node(9, 9, Hex("0102")), "Path(9,9,0102)"},
           Case{Node(1, 1, Hex("01")), "Path(1,1,01)"},  // too short for what it is
       }) {
    EXPECT_EQ(DevicePathToText(each.node), each.text);
  }
}

TEST(DevicePath, MacAndAddressesAreReadable) {
  Bytes mac = Hex("525400123456");
  mac.resize(32);
  mac.push_back(std::byte{1});
  Bytes ipv4 =
      Hex("00000000"
          "c0a80001");
  ipv4.resize(15);
  EXPECT_EQ(DevicePathToText(Join({Node(3, 11, mac), Node(3, 12, ipv4)})),
            "MAC(525400123456,0x1)/IPv4(192.168.0.1)");
}

TEST(DevicePath, NodesThatDoNotHoldTogetherEndTheText) {
  EXPECT_EQ(DevicePathToText(Hex("0101")), "... (a node is cut off)");
  EXPECT_EQ(DevicePathToText(Hex("01010300")), "... (a node of 3 bytes in 4)");
  EXPECT_EQ(DevicePathToText(Hex("0101ff00")), "... (a node of 255 bytes in 4)");
  EXPECT_EQ(DevicePathToText({}), "");
}

TEST(DevicePath, TextIsBoundedAndPrintable) {
  Bytes path;
  for (int i = 0; i < 1000; ++i) {
    const Bytes node = Node(3, 24, ToBytes(AsBytes("\x1b[31m")));
    path.insert(path.end(), node.begin(), node.end());
  }
  const std::string text = DevicePathToText(path);
  EXPECT_LE(text.size(), kMaxDevicePathText + 10);
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
}

TEST(EventContent, DigestOfTheDataMatches) {
  for (const EventType type : {EventType::kSeparator, EventType::kEfiAction,
                               EventType::kVariableDriverConfig, EventType::kGptEvent}) {
    EXPECT_TRUE(DigestCoversData(type));
    EXPECT_EQ(Check(type, Bytes(4), Bytes(4)), ContentCheck::kMatches);
    EXPECT_EQ(Check(type, Bytes(4), Bytes(5)), ContentCheck::kDiffers);
  }
}

TEST(EventContent, DigestOfAProgramSaysNothingOfTheEvent) {
  EXPECT_EQ(Check(EventType::kBootServicesApplication, Bytes(4), Bytes(5)),
            ContentCheck::kNotCovered);
  EXPECT_EQ(Check(EventType::kIpl, AsBytes("/boot/grub.cfg"), Bytes(5)), ContentCheck::kNotCovered);
}

TEST(EventContent, BootVariableMayBeHashedByItsValueAlone) {
  const Bytes data = EncodeVariableData("BootOrder", kGlobalVariableGuid, Bytes(2));
  EXPECT_EQ(Check(EventType::kVariableBoot, data, Bytes(2)), ContentCheck::kMatches);
  EXPECT_EQ(Check(EventType::kVariableBoot, data, data), ContentCheck::kMatches);
  EXPECT_EQ(Check(EventType::kVariableBoot, data, Bytes(3)), ContentCheck::kDiffers);
  EXPECT_EQ(Check(EventType::kVariableDriverConfig, data, Bytes(2)), ContentCheck::kDiffers);
}

TEST(EventContent, GrubsCommandsAreHashedWithoutTheirPrefix) {
  const ByteView logged = AsBytes(std::string_view("grub_cmd: ls\0", 13));
  EXPECT_EQ(Check(EventType::kIpl, logged, AsBytes("ls")), ContentCheck::kMatches);
  EXPECT_EQ(Check(EventType::kIpl, logged, AsBytes("rm")), ContentCheck::kDiffers);
}

TEST(EventContent, GrubsClosingZeroPrefixAndLastByteMayBeHashed) {
  const std::string_view all("grub_cmd ls\0x", 13);
  for (const std::string_view hashed : {all, all.substr(9), all.substr(9, 3), all.substr(9, 2)}) {
    EXPECT_EQ(Check(EventType::kIpl, AsBytes(all), AsBytes(hashed)), ContentCheck::kMatches);
  }
  EXPECT_EQ(Check(EventType::kIpl, AsBytes(all), AsBytes("l")), ContentCheck::kDiffers);
}

TEST(EventContent, ErrorSeparatorMayLogAReason) {
  EXPECT_EQ(Check(EventType::kSeparator, AsBytes("TPM error"), Hex("01000000")),
            ContentCheck::kNotCovered);
}

TEST(EventContent, EachBankIsJudgedByItself) {
  EventLogBuilder made({HashAlgorithm::kSha1, kBank});
  made.AddText(4, EventType::kEfiAction, "a");
  Bytes bytes = made.bytes();
  bytes[bytes.size() - 6] ^= std::byte{1};  // the last byte of the SHA-256 digest
  const auto log = EventLog::Parse(bytes, EventLogKind::kTpm);
  ASSERT_TRUE(log.has_value()) << log.error().Describe();
  const ContentReport report = CheckContents(*log);
  EXPECT_EQ(report.checked, 2U);
  EXPECT_THAT(report.mismatches, ElementsAre(ContentMismatch{.event = 1, .bank = kBank}));
  EXPECT_THAT(DescribeMismatch(*log, report.mismatches[0]), HasSubstr("event 1 (EV_EFI_ACTION"));
}

TEST(EventDescription, NamesWhatEachEventSays) {
  const auto variable = [](std::string_view name, const Bytes& value) {
    return EncodeVariableData(name, kGlobalVariableGuid, value);
  };
  EXPECT_EQ(Describe(EventType::kVariableBoot, variable("BootOrder", Hex("01000a00"))),
            "BootOrder: 0001, 000A");
  EXPECT_THAT(Describe(EventType::kVariableBoot, variable("Boot0001", LoadOptionValue())),
              HasSubstr("Boot0001: \"debian\" PciRoot(0x0)/"));
  EXPECT_THAT(Describe(EventType::kVariableDriverConfig, variable("PK", OneKey())),
              HasSubstr("PK: 1 entry: X.509"));
  EXPECT_THAT(Describe(EventType::kGptEvent, GptData(1, 128)), HasSubstr("1 partition: ESP"));
  EXPECT_EQ(Describe(EventType::kIpl, AsBytes("grub_cmd: ls")), "GRUB ran: ls");
  EXPECT_EQ(Describe(EventType::kIpl, Utf16(std::string_view(".linux\0", 7)), 11),
            "section of the unified kernel image: .linux");
  EXPECT_EQ(Describe(EventType::kIpl, Utf16(std::string_view("root=/dev/vda1 ro\0", 18)), 12),
            "kernel parameters: root=/dev/vda1 ro");
  EXPECT_EQ(Describe(EventType::kIpl, Utf16(std::string_view("Credentials initrd\0", 19)), 12),
            "files beside the unified kernel image: Credentials initrd");
  EXPECT_EQ(Describe(EventType::kIpl, Utf16(std::string_view("System extension initrd\0", 24)), 13),
            "extensions beside the unified kernel image: System extension initrd");
  EXPECT_EQ(Describe(EventType::kEventTag, Hex("ed223b8f"
                                               "02000000"
                                               "6162")),
            "the kernel's command line: \"ab\"");
  EXPECT_EQ(Describe(EventType::kSeparator, Bytes(4)), "the part before it is complete");
}

TEST(EventDescription, MalformedAndForeignDataAreShownAsBytes) {
  EXPECT_THAT(Describe(EventType::kVariableBoot, Hex("0102")),
              HasSubstr("malformed (UEFI_VARIABLE_DATA: truncated"));
  EXPECT_EQ(Describe(static_cast<EventType>(0x40e), Hex("0102")), "2 bytes: 0102");
  EXPECT_EQ(EventTypeName(static_cast<EventType>(0x40e)), "0x0000040e");
  EXPECT_EQ(EventTypeName(EventType::kHcrtmEvent), "EV_EFI_HCRTM_EVENT");
}

TEST(EventDescription, IsOneBoundedPrintableLine) {
  const std::string hostile = "grub_cmd: \x1b[2J\n" + std::string(5000, 'x');
  const std::string text = Describe(EventType::kIpl, AsBytes(hostile));
  EXPECT_LE(text.size(), kMaxEventDescription + 3);
  EXPECT_EQ(text.find('\n'), std::string::npos);
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace vallum::measure
