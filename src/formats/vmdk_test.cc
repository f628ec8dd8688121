// SPDX-License-Identifier: Apache-2.0
#include "formats/vmdk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "formats/fields.h"
#include "formats/reader.h"
#include "formats/test_support.h"
#include "formats/vmdk_descriptor.h"
#include "formats/vmdk_disk.h"
#include "formats/vmdk_tables.h"

namespace vallum::formats {
namespace {

using ::testing::HasSubstr;
using testing::MustRun;
using testing::PutBe64;
using testing::PutLe32;
using testing::PutLe64;
using testing::PutText;
using testing::QemuImgCreate;
using testing::ReadFile;
using testing::TempDir;
using testing::WriteFile;

constexpr size_t kSector = 512;
constexpr size_t kDescriptorBytes = 20 * kSector;

Result<VmdkImage> Parse(ByteView file) { return ParseVmdk(MemoryReader(file)); }

void ExpectRefused(ByteView file, const std::string& reason) {
  const Result<VmdkImage> result = Parse(file);
  ASSERT_FALSE(result.has_value()) << reason;
  EXPECT_EQ(result.error().code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(result.error().Describe(), HasSubstr(reason));
  EXPECT_THAT(result.error().Describe(), ::testing::Not(HasSubstr("\n")));
  EXPECT_FALSE(result.error().fix().empty()) << result.error().Describe();
}

// Some of it random, some compressible, some zero; not a whole number of grains.
const Bytes& Source() {
  static const Bytes source = [] {
    Bytes out(3 << 20);
    std::mt19937_64 random(5);
    for (size_t i = 0; i < out.size(); i += 8) {
      const size_t kind = i / 50000 % 3;
      PutBe64(out, i, kind == 0 ? random() : kind == 1 ? i / 4096 : 0);
    }
    out.resize(out.size() - 512);
    return out;
  }();
  return source;
}

Bytes Convert(const std::string& options) {
  const TempDir dir;
  WriteFile(dir.File("raw"), Source());
  MustRun("qemu-img convert -f raw -O vmdk -o " + options + " " + dir.File("raw") + " " +
          dir.File("disk.vmdk"));
  return ReadFile(dir.File("disk.vmdk"));
}

const Bytes& Plain() {
  static const Bytes image = QemuImgCreate("vmdk", "", "8M");
  return image;
}
const Bytes& Sparse() {
  static const Bytes image = Convert("subformat=monolithicSparse");
  return image;
}
const Bytes& QemuStream() {
  static const Bytes image = Convert("subformat=streamOptimized");
  return image;
}

std::string Descriptor(const Bytes& image) {
  const std::string_view area = AsText(ByteView(image).subspan(kSector, kDescriptorBytes));
  return std::string(area.substr(0, area.find('\0')));
}
void SetDescriptor(Bytes& image, const std::string& text) {
  std::fill_n(image.begin() + kSector, kDescriptorBytes, std::byte{0});
  PutText(image, kSector, text);
}
void Replace(Bytes& image, const std::string& from, const std::string& to) {
  std::string text = Descriptor(image);
  const size_t at = text.find(from);
  ASSERT_NE(at, std::string::npos) << from;
  SetDescriptor(image, text.replace(at, from.size(), to));
}

void AppendMarker(Bytes& out, uint64_t value, uint32_t type) {
  const size_t at = out.size();
  out.resize(at + kSector);
  PutLe64(out, at, value);
  PutLe32(out, at + 12, type);
}

// What VMware's exporters write and qemu-img does not: grains, each table after its grains, then
// the directory, the footer and the end of the stream. Grains of zeroes are left out.
Bytes MakeStreamWithFooter(const Bytes& content) {
  constexpr size_t kGrain = 65536;
  const uint64_t capacity = content.size() / kSector;
  const size_t grains = (content.size() - 1) / kGrain + 1;
  Bytes out(128 * kSector);
  PutText(out, 0, "KDMV");
  PutLe32(out, 4, 3);
  PutLe32(out, 8, 0x30001);
  PutLe64(out, 12, capacity);
  PutLe64(out, 20, kGrain / kSector);
  PutLe64(out, 28, 1);
  PutLe64(out, 36, 20);
  PutLe32(out, 44, 512);
  PutLe64(out, 56, kVmdkDirectoryAtEnd);
  PutLe64(out, 64, 128);
  PutText(out, 73, std::string("\n \r\n\1", 5));
  SetDescriptor(out,
                "# Disk DescriptorFile\nversion=1\nCID=5a3e0001\nparentCID=ffffffff\n"
                "createType=\"streamOptimized\"\n\n# Extent description\nRDONLY " +
                    std::to_string(capacity) +
                    " SPARSE \"generated-stream.vmdk\"\n\n#DDB\nddb.adapterType = \"lsilogic\"\n");
  std::vector<uint32_t> directory;
  for (size_t first = 0; first < grains; first += 512) {
    Bytes table(2048);
    for (size_t i = first; i < std::min(grains, first + 512); ++i) {
      Bytes grain(content.begin() + static_cast<std::ptrdiff_t>(i * kGrain),
                  content.begin() +
                      static_cast<std::ptrdiff_t>(std::min(content.size(), (i + 1) * kGrain)));
      grain.resize(kGrain);
      if (std::ranges::all_of(grain, [](std::byte b) { return b == std::byte{0}; })) continue;
      uLongf size = compressBound(kGrain);
      Bytes packed(size);
      EXPECT_EQ(compress(reinterpret_cast<Bytef*>(packed.data()), &size,
                         reinterpret_cast<const Bytef*>(grain.data()), kGrain),
                Z_OK);
      const size_t at = out.size();
      PutLe32(table, (i - first) * 4, static_cast<uint32_t>(at / kSector));
      out.resize(at + (12 + size + kSector - 1) / kSector * kSector);
      PutLe64(out, at, i * (kGrain / kSector));
      PutLe32(out, at + 8, static_cast<uint32_t>(size));
      std::copy_n(packed.begin(), size, out.begin() + static_cast<std::ptrdiff_t>(at + 12));
    }
    AppendMarker(out, 4, kVmdkGrainTable);
    directory.push_back(static_cast<uint32_t>(out.size() / kSector));
    out.insert(out.end(), table.begin(), table.end());
  }
  const size_t directory_sectors = (directory.size() * 4 - 1) / kSector + 1;
  AppendMarker(out, directory_sectors, kVmdkGrainDirectory);
  const size_t directory_at = out.size();
  out.resize(directory_at + directory_sectors * kSector);
  for (size_t i = 0; i < directory.size(); ++i) PutLe32(out, directory_at + i * 4, directory[i]);
  AppendMarker(out, 1, kVmdkFooter);
  const size_t footer = out.size();
  out.resize(footer + kSector);
  std::copy_n(out.begin(), kSector, out.begin() + static_cast<std::ptrdiff_t>(footer));
  PutLe64(out, footer + 56, directory_at / kSector);
  AppendMarker(out, 0, kVmdkEndOfStream);
  return out;
}

const Bytes& FooterStream() {
  static const Bytes image = MakeStreamWithFooter(Source());
  return image;
}
size_t Footer(const Bytes& image) { return image.size() - 2 * kSector; }
size_t Directory(const Bytes& image) {
  const bool at_end = U64Le(image, 56) == kVmdkDirectoryAtEnd;
  return static_cast<size_t>(U64Le(image, (at_end ? Footer(image) : 0) + 56)) * kSector;
}
size_t FirstTable(const Bytes& image) { return U32Le(image, Directory(image)) * kSector; }
size_t FirstGrain(const Bytes& image) { return U32Le(image, FirstTable(image)) * kSector; }
size_t RedundantTable(const Bytes& image) {
  return U32Le(image, static_cast<size_t>(U64Le(image, 48)) * kSector) * kSector;
}

struct HostileCase {
  std::string name;
  const Bytes& (*valid)();
  std::function<void(Bytes&)> damage;
  std::string reason;
};
class HostileVmdk : public ::testing::TestWithParam<HostileCase> {};

TEST_P(HostileVmdk, IsRefusedWithItsReason) {
  Bytes image = GetParam().valid();
  const auto valid = Parse(image);
  ASSERT_TRUE(valid.has_value()) << valid.error().Describe();
  GetParam().damage(image);
  ExpectRefused(image, GetParam().reason);
}

std::function<void(Bytes&)> Put32(size_t at, uint32_t value) {
  return [=](Bytes& i) { PutLe32(i, at, value); };
}
std::function<void(Bytes&)> Put64(size_t at, uint64_t value) {
  return [=](Bytes& i) { PutLe64(i, at, value); };
}

INSTANTIATE_TEST_SUITE_P(
    Header, HostileVmdk,
    ::testing::Values(
        HostileCase{"Magic", Plain, Put32(0, 0), "no magic"},
        HostileCase{"Cowd", Plain, [](Bytes& i) { PutText(i, 0, "COWD"); }, "COWD"},
        HostileCase{"SeSparse", Plain, Put64(0, 0xcafebabe), "SE sparse"},
        HostileCase{"Version0", Plain, Put32(4, 0), "unknown version 0"},
        HostileCase{"Version4", Plain, Put32(4, 4), "unknown version 4"},
        HostileCase{"UnknownFlag", Plain, Put32(8, 0x13), "unknown flags 0x10"},
        HostileCase{"NoNewLineTest", Plain, Put32(8, 2), "newline test"},
        HostileCase{"NewLinesChanged", Plain, [](Bytes& i) { i[75] = std::byte{'\n'}; },
                    "newline test"},
        HostileCase{"ZeroedGrainsOfVersion1", Plain, Put32(8, 7), "zeroed grains"},
        HostileCase{"Compression2", Plain, [](Bytes& i) { i[77] = std::byte{2}; },
                    "unknown compression 2"},
        HostileCase{"CompressionWithoutFlag", Plain, [](Bytes& i) { i[77] = std::byte{1}; },
                    "disagree"},
        HostileCase{"CompressedWithoutMarkers", Plain, Put32(8, 0x10003), "disagree"},
        HostileCase{"MarkersAlone", Plain, Put32(8, 0x20003), "disagree"},
        HostileCase{"Dirty", Plain, [](Bytes& i) { i[72] = std::byte{1}; }, "dirty"},
        HostileCase{"GrainSize0", Plain, Put64(20, 0), "grain size 0"},
        HostileCase{"GrainSizeOdd", Plain, Put64(20, 0xd80), "grain size"},
        HostileCase{"GrainSizeSmall", Plain, Put64(20, 8), "grain size 8"},
        HostileCase{"GrainSizeHuge", Plain, Put64(20, uint64_t{1} << 63U), "grain size"},
        HostileCase{"TableEntries", Plain, Put32(44, 1024), "1024 entries"},
        HostileCase{"Capacity0", Plain, Put64(12, 0), "external extents"},
        HostileCase{"CapacityHuge", Plain, Put64(12, ~uint64_t{0}), "L1 size too big"},
        HostileCase{"CapacityOther", Plain, Put64(12, 16385), "the header (offset 12) 16385"},
        HostileCase{"OverheadPastFile", Plain, Put64(64, 129), "truncated"},
        HostileCase{"OverheadInDescriptor", Plain, Put64(64, 20), "descriptor (20 sectors"},
        HostileCase{"NoDescriptor", Plain, Put64(28, 0), "external extents"},
        HostileCase{"DescriptorElsewhere", Plain, Put64(28, 60), "must start at sector 1"},
        HostileCase{"DescriptorHuge", Plain, Put64(36, ~uint64_t{0}), "must start at sector 1"},
        HostileCase{"DirectoryPastFile", Plain, Put64(56, uint64_t{1} << 40U), "grain directory"},
        HostileCase{"DirectoryAtEndOfNoStream", Plain, Put64(56, kVmdkDirectoryAtEnd),
                    "grain directory"},
        HostileCase{"DirectoryInDescriptor", Plain, Put64(56, 2), "grain table"},
        HostileCase{"DirectoryInHeader", Plain, Put64(56, 0), "entry 0"},
        HostileCase{"RedundantPastFile", Plain, Put64(48, 1000), "redundant grain directory"},
        HostileCase{"RedundantIsTheDirectory", Plain, Put64(48, 26), "overlap"},
        HostileCase{"PartOfASector", Plain, [](Bytes& i) { i.resize(i.size() + 1); },
                    "whole sectors"}),
    [](const auto& row) { return row.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Tables, HostileVmdk,
    ::testing::Values(
        HostileCase{"TablePastFile", Sparse, [](Bytes& i) { PutLe32(i, Directory(i), 0x7fffffff); },
                    "grain table"},
        HostileCase{"TableInDescriptor", Sparse, [](Bytes& i) { PutLe32(i, Directory(i), 3); },
                    "overlap"},
        HostileCase{"TableInHeader", Sparse, [](Bytes& i) { PutLe32(i, Directory(i), 0); },
                    "redundant copy"},
        HostileCase{"TableIsItsCopy", Sparse,
                    [](Bytes& i) {
                      PutLe32(i, Directory(i), static_cast<uint32_t>(RedundantTable(i) / kSector));
                    },
                    "overlap"},
        HostileCase{"CopiesDiffer", Sparse,
                    [](Bytes& i) { PutLe32(i, RedundantTable(i) + 4 * 40, 0); }, "redundant copy"},
        HostileCase{"GrainPastFile", Sparse,
                    [](Bytes& i) {
                      PutLe32(i, FirstTable(i), 0x7fffffff);
                      PutLe32(i, RedundantTable(i), 0x7fffffff);
                    },
                    "truncated"},
        HostileCase{"GrainInMetadata", Sparse,
                    [](Bytes& i) {
                      PutLe32(i, FirstTable(i), 1);
                      PutLe32(i, RedundantTable(i), 1);
                    },
                    "inside the metadata"},
        HostileCase{"GrainInTableBehindTheMetadata", Sparse,
                    [](Bytes& i) {
                      PutLe64(i, 64, 21);
                      PutLe32(i, FirstTable(i), 22);
                      PutLe32(i, RedundantTable(i), 22);
                    },
                    "inside a table"},
        HostileCase{"OneGrainEverywhere", Sparse,
                    [](Bytes& i) {
                      for (size_t g = 0; g < 48; ++g) {
                        PutLe32(i, FirstTable(i) + 4 * g, 128);
                        PutLe32(i, RedundantTable(i) + 4 * g, 128);
                      }
                      i.resize(256 * kSector);
                    },
                    "48 grains"},
        HostileCase{"MarkerOfAnotherGrain", QemuStream,
                    [](Bytes& i) { PutLe64(i, FirstGrain(i), 128); }, "disk sector 128"},
        HostileCase{"CompressedSize0", QemuStream,
                    [](Bytes& i) { PutLe32(i, FirstGrain(i) + 8, 0); }, "0 compressed bytes"},
        HostileCase{"CompressedSizeHuge", QemuStream,
                    [](Bytes& i) { PutLe32(i, FirstGrain(i) + 8, 131073); },
                    "131073 compressed bytes"},
        HostileCase{"CompressedSizePastFile", QemuStream,
                    [](Bytes& i) { i.resize(FirstGrain(i) + 1024); }, "truncated"}),
    [](const auto& row) { return row.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Footer, HostileVmdk,
    ::testing::Values(
        HostileCase{"Missing", FooterStream, [](Bytes& i) { i.resize(Footer(i) - kSector); },
                    "no footer at the end"},
        HostileCase{"NoEndOfStream", FooterStream, [](Bytes& i) { i.resize(i.size() - kSector); },
                    "no footer at the end"},
        HostileCase{"EndNotZero", FooterStream, [](Bytes& i) { i.back() = std::byte{1}; },
                    "no footer at the end"},
        HostileCase{"SomethingBehind", FooterStream, [](Bytes& i) { i.resize(i.size() + kSector); },
                    "no footer at the end"},
        HostileCase{"MarkerType", FooterStream,
                    [](Bytes& i) { PutLe32(i, Footer(i) - kSector + 12, 2); },
                    "no marker of type 3"},
        HostileCase{"Magic", FooterStream, [](Bytes& i) { PutLe32(i, Footer(i), 0); },
                    "about magic"},
        HostileCase{"Version", FooterStream, [](Bytes& i) { PutLe32(i, Footer(i) + 4, 1); },
                    "about version"},
        HostileCase{"Capacity", FooterStream, [](Bytes& i) { PutLe64(i, Footer(i) + 12, 1 << 20); },
                    "about capacity"},
        HostileCase{"GrainSize", FooterStream, [](Bytes& i) { PutLe64(i, Footer(i) + 20, 64); },
                    "about grainSize"},
        HostileCase{"DescriptorOffset", FooterStream,
                    [](Bytes& i) { PutLe64(i, Footer(i) + 28, 2); }, "about descriptorOffset"},
        HostileCase{"Compression", FooterStream, [](Bytes& i) { i[Footer(i) + 77] = std::byte{0}; },
                    "about compressAlgorithm"},
        HostileCase{"Padding", FooterStream, [](Bytes& i) { i[Footer(i) + 200] = std::byte{1}; },
                    "about padding"},
        HostileCase{"DirectoryNowhere", FooterStream,
                    [](Bytes& i) { PutLe64(i, Footer(i) + 56, kVmdkDirectoryAtEnd); },
                    "does not say"},
        HostileCase{"DirectoryInHeader", FooterStream,
                    [](Bytes& i) { PutLe64(i, Footer(i) + 56, 0); }, "no marker of type 2"},
        HostileCase{"DirectoryMarker", FooterStream,
                    [](Bytes& i) { PutLe32(i, Directory(i) - kSector + 12, 1); },
                    "no marker of type 2"},
        HostileCase{"DirectoryMarkerSize", FooterStream,
                    [](Bytes& i) { PutLe64(i, Directory(i) - kSector, 7); }, "no marker of type 2"},
        HostileCase{"TableMarker", FooterStream,
                    [](Bytes& i) { PutLe32(i, FirstTable(i) - kSector + 12, 3); },
                    "no marker of type 1"},
        HostileCase{"GrainInTable", FooterStream,
                    [](Bytes& i) {
                      const auto last = static_cast<uint32_t>(Directory(i) / kSector - 1);
                      PutLe64(i, (size_t{last}) * kSector, 0);
                      PutLe32(i, FirstTable(i), last);
                    },
                    "no marker of type 2"}),
    [](const auto& row) { return row.param.name; });

std::function<void(Bytes&)> Text(const std::string& from, const std::string& to) {
  return [=](Bytes& i) { Replace(i, from, to); };
}
std::function<void(Bytes&)> Line(const std::string& line) {
  return [=](Bytes& i) { SetDescriptor(i, Descriptor(i) + line + "\n"); };
}

INSTANTIATE_TEST_SUITE_P(
    Descriptor, HostileVmdk,
    ::testing::Values(
        HostileCase{"NoSignature", Plain, Text("# Disk DescriptorFile", "# Disk"),
                    "does not begin with"},
        HostileCase{"Parent", Plain, Text("parentCID=ffffffff", "parentCID=12345678"),
                    "parentCID=12345678; an image must not read other files"},
        HostileCase{"ParentHint", Plain, Line("parentFileNameHint=\"/etc/passwd\""),
                    "parentFileNameHint=\"/etc/passwd\""},
        HostileCase{"ParentHintInComment", Plain, Line("# parentFileNameHint=\"/etc/passwd\""),
                    "parent: "},
        HostileCase{"ParentHintInValue", Plain, Line("ddb.x = \"parentFileNameHint=/etc/passwd\""),
                    "parent: "},
        HostileCase{"ParentUuid", Plain,
                    Line("ddb.uuid.parent=\"01234567-0000-0000-0000-000000000000\""), "parent: "},
        HostileCase{"ChangeTracking", Plain, Line("changeTrackPath=\"x-ctk.vmdk\""),
                    "change tracking file"},
        HostileCase{"UnknownKey", Plain, Line("keyID = \"x\""), "unknown key"},
        HostileCase{"KeyTwice", Plain, Line("CID=12345678"), "a key twice"},
        HostileCase{"NoCid", Plain, Text("\nCID=", "\n#CID="), "does not say CID"},
        HostileCase{"CidNotHex", Plain, Text("\nCID=", "\nCID=x"), "content identifier"},
        HostileCase{"NoVersion", Plain, Text("version=1", "#"), "does not say version"},
        HostileCase{"Version4", Plain, Text("version=1", "version=4"), "unknown version"},
        HostileCase{"Encoding", Plain, Line("encoding=\"UTF-16\""), "unknown encoding"},
        HostileCase{"NotUtf8", Plain, Line("ddb.x = \"\xff\""), "not UTF-8"},
        HostileCase{"ControlCharacter", Plain, Line("ddb.x = \"\x1b[2J\""), "control character"},
        HostileCase{"Unreadable", Plain, Line("hello"), "unreadable line"},
        HostileCase{"UnreadableValue", Plain, Line("ddb.x = \"a\"b\""), "unreadable value"},
        HostileCase{"NotEnded", Plain,
                    [](Bytes& i) {
                      const std::string text = Descriptor(i);
                      SetDescriptor(i, text + std::string(kDescriptorBytes - text.size(), '#'));
                    },
                    "no zero byte"},
        HostileCase{"CreateTypeOther", Plain, Text("monolithicSparse", "streamOptimized"),
                    "createType \"streamOptimized\""},
        HostileCase{"CreateTypeFlat", Plain, Text("monolithicSparse", "monolithicFlat"),
                    "external extents: createType \"monolithicFlat\""},
        HostileCase{"CreateTypeUnknown", Plain, Text("monolithicSparse", "x"), "createType \"x\""},
        HostileCase{"CreateTypeOfStream", QemuStream, Text("streamOptimized", "monolithicSparse"),
                    "createType \"monolithicSparse\""},
        HostileCase{"FlatExtent", Plain, Text("SPARSE \"image\"", "FLAT \"/etc/passwd\" 0"),
                    "external extent: createType \"monolithicSparse\" puts the data into FLAT "
                    "\"/etc/passwd\""},
        HostileCase{"AbsoluteExtent", Plain, Text("\"image\"", "\"/etc/passwd\""),
                    "external extent"},
        HostileCase{"RelativeExtent", Plain, Text("\"image\"", "\"../image\""), "external extent"},
        HostileCase{"WindowsExtent", Plain, Text("\"image\"", "\"c:\\image\""), "external extent"},
        HostileCase{"UrlExtent", Plain, Text("\"image\"", "\"nbd:unix\""), "external extent"},
        HostileCase{"SecondExtent", Plain, Line("RW 1 SPARSE \"other.vmdk\""), "names 2"},
        HostileCase{"NoExtent", Plain, Text("RW ", "#"), "names 0"},
        HostileCase{"NoAccess", Plain, Text("RW ", "NOACCESS "), "external extent"},
        HostileCase{"ExtentOffset", Plain, Text("\"image\"", "\"image\" 0"), "external extent"},
        HostileCase{"ExtentUnreadable", Plain, Text("\"image\"", "\"image"), "unreadable extent"},
        HostileCase{"ExtentSize", Plain, Text("RW 16384", "RW 16000"), "says 16000 sectors"},
        HostileCase{"ExtentSizeHuge", Plain, Text("RW 16384", "RW 99999999999999999999"),
                    "unreadable extent"}),
    [](const auto& row) { return row.param.name; });

TEST(VmdkDescriptorFile, IsRefusedNamingItsExtent) {
  const std::string head = "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n";
  struct Case {
    std::string create_type;
    std::string extent;
    std::string reason;
  };
  for (const Case& c : {Case{"monolithicFlat", "RW 2048 FLAT \"/etc/passwd\" 0",
                             "puts the data into FLAT \"/etc/passwd\" (offset 92)"},
                        Case{"monolithicFlat", "RW 2048 FLAT \"disk-flat.vmdk\" 0", "disk-flat"},
                        Case{"twoGbMaxExtentSparse", "RW 1 SPARSE \"a-s001.vmdk\"", "a-s001.vmdk"},
                        Case{"vmfs", "RW 1 VMFS \"a-flat.vmdk\"", "VMFS"},
                        Case{"vmfsSparse", "RW 1 VMFSSPARSE \"a-delta.vmdk\"", "VMFSSPARSE"},
                        Case{"seSparse", "RW 1 SESPARSE \"a-sesparse.vmdk\"", "SESPARSE"},
                        Case{"custom", "RW 1 ZERO", "ZERO"},
                        Case{"fullDevice", "RW 1 FLAT \"/dev/sda\" 0", "/dev/sda"},
                        Case{"vmfsRaw", "RW 1 VMFSRAW \"x\"", "VMFSRAW"}}) {
    const std::string text = head + "createType=\"" + c.create_type + "\"\n" + c.extent + "\n";
    ExpectRefused(AsBytes(text), "external extent: createType \"" + c.create_type + "\"");
    ExpectRefused(AsBytes(text), c.reason);
  }
  ExpectRefused(AsBytes(head + "createType=\"vmfs\"\n"), "external extents");
  ExpectRefused(AsBytes("# a comment\n\nversion=1\nRW 1 FLAT \"/etc/passwd\" 0\n"), "VMDK");
  ExpectRefused(AsBytes(head + "parentFileNameHint=\"base.vmdk\"\n"), "parent: ");
  ExpectRefused(AsBytes("version=1\n\x1b[2J"), "\\x1b[2J");
}

TEST(VmdkDescriptorFile, OfQemuIsRefusedAndSoIsEachExtent) {
  for (const std::string subformat :
       {"monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"}) {
    const TempDir dir;
    MustRun("qemu-img create -q -f vmdk -o subformat=" + subformat + " " + dir.File("a.vmdk") +
            " 1M");
    ExpectRefused(ReadFile(dir.File("a.vmdk")), "createType \"" + subformat + "\"");
    if (subformat == "twoGbMaxExtentSparse") {
      ExpectRefused(ReadFile(dir.File("a-s001.vmdk")), "one extent of a disk of several files");
    }
  }
}

TEST(VmdkDescriptor, WhatOtherWritersSayIsAccepted) {
  for (const std::string line :
       {"encoding=\"windows-1252\"", "isNativeSnapshot=\"no\"", "encoding=\"GBK\"",
        "ddb.uuid.image=\"01234567-89ab-cdef-0123-456789abcdef\"",
        "ddb.uuid.parent=\"00000000-0000-0000-0000-000000000000\"",
        "ddb.comment = \"gr\xc3\xbc\xc3\x9f\"", "\tddb.a = \"b\"\r"}) {
    Bytes image = Plain();
    SetDescriptor(image, Descriptor(image) + line + "\n");
    const auto parsed = Parse(image);
    EXPECT_TRUE(parsed.has_value()) << parsed.error().Describe();
  }
  Bytes image = Plain();
  Replace(image, "\"image\"", "\"\"");  // FreeBSD's mkimg
  EXPECT_TRUE(Parse(image).has_value());
  // DiscUtils rounds the capacity up to a whole grain.
  Replace(image, "RW 16384", "RW 16300");
  EXPECT_TRUE(Parse(image).has_value());
}

struct BenignCase {
  std::string options;
  std::string create_type;
};
class BenignVmdk : public ::testing::TestWithParam<BenignCase> {};

void ExpectReadsAs(const Bytes& image, const Bytes& content) {
  const MemoryReader reader(image);
  const auto disk = VmdkDisk::Open(reader);
  ASSERT_TRUE(disk.has_value()) << disk.error().Describe();
  const auto all = ReadBytesAt(*disk, 0, static_cast<size_t>(disk->size()));
  ASSERT_TRUE(all.has_value()) << all.error().Describe();
  EXPECT_TRUE(*all == content);
  const auto part = ReadBytesAt(*disk, 65530, 5000);
  ASSERT_TRUE(part.has_value());
  EXPECT_TRUE(std::equal(part->begin(), part->end(), content.begin() + 65530));
  // What NextData skips is zero.
  for (uint64_t at = 0; at < content.size();) {
    const auto next = disk->NextData(at);
    ASSERT_TRUE(next.has_value());
    const uint64_t end = next->value_or(content.size());
    EXPECT_TRUE(std::all_of(content.begin() + static_cast<std::ptrdiff_t>(at),
                            content.begin() + static_cast<std::ptrdiff_t>(end),
                            [](std::byte b) { return b == std::byte{0}; }));
    at = std::max(end, at) + 512;
  }
}

// Facts equal those of qemu-img info, and every byte of the disk equals what qemu reads.
TEST_P(BenignVmdk, AgreesWithQemu) {
  const Bytes image = Convert(GetParam().options);
  const auto parsed = Parse(image);
  ASSERT_TRUE(parsed.has_value()) << parsed.error().Describe();
  EXPECT_EQ(VmdkSubformatName(parsed->subformat), GetParam().create_type);
  EXPECT_GT(parsed->data_grains, 0U);
  const TempDir dir;
  WriteFile(dir.File("a.vmdk"), image);
  const std::string info = MustRun("qemu-img info -f vmdk --output=json " + dir.File("a.vmdk"));
  EXPECT_THAT(info, HasSubstr("\"virtual-size\": " + std::to_string(parsed->virtual_size)));
  EXPECT_THAT(info, HasSubstr("\"cluster-size\": " + std::to_string(parsed->cluster_size)));
  EXPECT_THAT(info, HasSubstr("\"create-type\": \"" + GetParam().create_type + "\""));
  EXPECT_THAT(info, HasSubstr("\"cid\": " + std::to_string(parsed->descriptor.cid)));
  ExpectReadsAs(image, Source());
}

INSTANTIATE_TEST_SUITE_P(
    Options, BenignVmdk,
    ::testing::Values(
        BenignCase{"subformat=monolithicSparse", "monolithicSparse"},
        BenignCase{"subformat=monolithicSparse,zeroed_grain=on", "monolithicSparse"},
        BenignCase{"subformat=monolithicSparse,adapter_type=lsilogic", "monolithicSparse"},
        BenignCase{"subformat=monolithicSparse,adapter_type=ide,compat6=on", "monolithicSparse"},
        BenignCase{"subformat=monolithicSparse,hwversion=14,toolsversion=11", "monolithicSparse"},
        BenignCase{"subformat=streamOptimized", "streamOptimized"},
        BenignCase{"subformat=streamOptimized,adapter_type=buslogic", "streamOptimized"},
        BenignCase{"subformat=streamOptimized,zeroed_grain=on", "streamOptimized"}));

TEST(Vmdk, ZeroedGrainsReadAsQemuReadsThem) {
  const TempDir dir;
  const std::string file = dir.File("a.vmdk");
  WriteFile(dir.File("raw"), Source());
  MustRun("qemu-img convert -f raw -O vmdk -o zeroed_grain=on " + dir.File("raw") + " " + file);
  MustRun("qemu-io -f vmdk -c 'write -z 0 256k' -c 'write -z 1M 64k' " + file);
  MustRun("qemu-img convert -f vmdk -O raw " + file + " " + dir.File("raw"));
  const Bytes image = ReadFile(file);
  const auto parsed = Parse(image);
  ASSERT_TRUE(parsed.has_value()) << parsed.error().Describe();
  EXPECT_EQ(parsed->zero_grains, 5U);
  EXPECT_EQ(parsed->header.version, 2U);
  ExpectReadsAs(image, ReadFile(dir.File("raw")));
}

TEST(Vmdk, StreamWithFooterReadsAsQemuReadsIt) {
  const TempDir dir;
  Bytes content = Source();
  content.resize(70 << 20);  // three grain tables, one of them without data
  std::fill_n(content.begin() + (65 << 20), 4096, std::byte{7});
  for (const Bytes& source : {Source(), content}) {
    const Bytes image = MakeStreamWithFooter(source);
    WriteFile(dir.File("a.vmdk"), image);
    MustRun("qemu-img convert -f vmdk -O raw " + dir.File("a.vmdk") + " " + dir.File("raw"));
    EXPECT_TRUE(ReadFile(dir.File("raw")) == source);
    const auto parsed = Parse(image);
    ASSERT_TRUE(parsed.has_value()) << parsed.error().Describe();
    EXPECT_TRUE(parsed->has_footer);
    EXPECT_EQ(parsed->subformat, VmdkSubformat::kStreamOptimized);
    EXPECT_EQ(parsed->descriptor.extents.front().name, "generated-stream.vmdk");
    EXPECT_EQ(parsed->descriptor.adapter_type, "lsilogic");
    ExpectReadsAs(image, source);
  }
}

// Behind the last grain of a stream qemu-img leaves zeroes that belong to nothing.
Bytes WithoutTail(Bytes stream) {
  while (stream.size() > 2 * kSector &&
         std::all_of(stream.end() - kSector, stream.end(),
                     [](std::byte b) { return b == std::byte{0}; })) {
    stream.resize(stream.size() - kSector);
  }
  return stream;
}

TEST(Vmdk, EveryTruncationIsRefused) {
  const Bytes stream = WithoutTail(QemuStream());
  ASSERT_TRUE(Parse(stream).has_value());
  for (const Bytes* image : {&Plain(), &Sparse(), &stream, &FooterStream()}) {
    std::vector<size_t> sizes = {0, 1, 4, 72, 79, 511, 512, 513};
    for (size_t size = 1024; size < image->size(); size += size < 65536 ? 512 : 5 * 512) {
      sizes.push_back(size);
    }
    sizes.push_back(image->size() - 512);
    sizes.push_back(image->size() - 1);
    for (const size_t size : sizes) {
      const auto result = Parse(ByteView(*image).first(size));
      ASSERT_FALSE(result.has_value()) << size << " of " << image->size();
      EXPECT_EQ(result.error().code(), ErrorCode::kInvalidInput);
    }
  }
}

TEST(Vmdk, FlippedBitsNeverCrash) {
  std::mt19937_64 random(1);
  const std::vector<const Bytes*> images = {&Sparse(), &QemuStream(), &FooterStream()};
  for (int round = 0; round < 1500; ++round) {
    Bytes image = *images[static_cast<size_t>(round) % images.size()];
    const size_t start = round % 4 == 0 ? Directory(image) : 0;
    const size_t range =
        round % 2 == 0 ? std::min<size_t>(4096, image.size() - start) : image.size() - start;
    for (int i = 0; i < 3; ++i) {
      image[start + random() % range] ^= static_cast<std::byte>(1U << (random() % 8));
    }
    const MemoryReader reader(image);
    const auto disk = VmdkDisk::Open(reader);
    if (disk.has_value()) static_cast<void>(ReadUpTo(*disk, 0, 1 << 20));
  }
}

TEST(Vmdk, LargeHolesCostBoundedReadingOnceAndNothingAfter) {
  // All of its tables are there, as holes.
  const TempDir dir;
  MustRun("qemu-img create -q -f vmdk " + dir.File("a.vmdk") + " 256G");
  const Bytes file = ReadFile(dir.File("a.vmdk"));
  const MemoryReader memory(file);
  const testing::CountingReader counted(memory);
  const auto disk = VmdkDisk::Open(counted);
  ASSERT_TRUE(disk.has_value()) << disk.error().Describe();
  EXPECT_EQ(disk->size(), uint64_t{256} << 30U);
  EXPECT_LE(counted.bytes(), 3 * file.size());
  const uint64_t before = counted.bytes();
  const auto next = disk->NextData(0);
  ASSERT_TRUE(next.has_value());
  EXPECT_FALSE(next->has_value());
  EXPECT_EQ(counted.bytes(), before);
}

TEST(Vmdk, MoreThanTheLimitIsRefusedBeforeItIsRead) {
  Bytes image = Plain();
  PutLe64(image, 12, kVmdkMaxGrainTables * 512 * 128 + 1);
  const MemoryReader memory(image);
  const testing::CountingReader counted(memory);
  EXPECT_FALSE(ParseVmdk(counted).has_value());
  EXPECT_LE(counted.bytes(), kVmdkMaxDescriptorSectors * kSector);
}

TEST(VmdkDisk, DamagedCompressedDataIsAnError) {
  for (const size_t at : {size_t{0}, size_t{40}}) {
    Bytes image = QemuStream();
    std::fill_n(image.begin() + static_cast<std::ptrdiff_t>(FirstGrain(image) + 12 + at), 20,
                std::byte{0xff});
    const MemoryReader reader(image);
    const auto disk = VmdkDisk::Open(reader);
    ASSERT_TRUE(disk.has_value());
    const auto read = ReadBytesAt(*disk, 0, 512);
    ASSERT_FALSE(read.has_value());
    EXPECT_EQ(read.error().code(), ErrorCode::kInvalidInput);
  }
}

TEST(VmdkDisk, AGrainThatUnpacksToMoreOrLessIsAnError) {
  for (const size_t size : {size_t{65535}, size_t{65537}, size_t{20} << 20U}) {
    Bytes image = FooterStream();
    const Bytes zeroes(size);
    uLongf packed = compressBound(size);
    Bytes out(packed);
    ASSERT_EQ(compress2(reinterpret_cast<Bytef*>(out.data()), &packed,
                        reinterpret_cast<const Bytef*>(zeroes.data()), size, 9),
              Z_OK);
    ASSERT_LT(packed, 50000U);  // fits where the random data of the first grain was
    const size_t at = FirstGrain(image);
    PutLe32(image, at + 8, static_cast<uint32_t>(packed));
    std::copy_n(out.begin(), packed, image.begin() + static_cast<std::ptrdiff_t>(at + 12));
    const MemoryReader reader(image);
    const auto disk = VmdkDisk::Open(reader);
    ASSERT_TRUE(disk.has_value()) << disk.error().Describe();
    EXPECT_FALSE(ReadBytesAt(*disk, 0, 512).has_value()) << size;
  }
}

TEST(VmdkDisk, ReadsPastTheEndAreErrors) {
  const MemoryReader reader(Plain());
  const auto disk = VmdkDisk::Open(reader);
  ASSERT_TRUE(disk.has_value());
  EXPECT_FALSE(ReadBytesAt(*disk, disk->size() - 1, 2).has_value());
  EXPECT_FALSE(ReadBytesAt(*disk, ~uint64_t{0}, 2).has_value());
}

TEST(VmdkVectors, AreJudgedAsTheManifestSays) {
  const std::string dir = testing::VectorsDir();
  if (dir.empty()) GTEST_SKIP() << "the shared vectors are not here";
  struct Case {
    std::string file;
    uint64_t virtual_size;
    std::string refused;
  };
  for (const Case& c : {Case{"ext2.vmdk", 4194304, ""}, Case{"gen/plain.vmdk", 8388608, ""},
                        Case{"gen/stream.vmdk", 1048576, ""},
                        Case{"gen/vmdk-flat-etc-passwd.vmdk", 0, "external extent"},
                        Case{"invalid-qcow-large-memory.img", 0, "VMDK"}}) {
    const Bytes file = ReadFile(dir + "/images/" + c.file);
    const MemoryReader memory(file);
    const testing::CountingReader counted(memory);
    const auto parsed = ParseVmdk(counted);
    EXPECT_LE(counted.bytes(), 3 * file.size() + 65536) << c.file;
    if (!c.refused.empty()) {
      ExpectRefused(file, c.refused);
      continue;
    }
    ASSERT_TRUE(parsed.has_value()) << c.file << ": " << parsed.error().Describe();
    EXPECT_EQ(parsed->virtual_size, c.virtual_size);
    EXPECT_EQ(parsed->cluster_size, 65536U);
    const TempDir temp;
    MustRun("qemu-img convert -f vmdk -O raw " + dir + "/images/" + c.file + " " +
            temp.File("raw"));
    ExpectReadsAs(file, ReadFile(temp.File("raw")));
  }
}

}  // namespace
}  // namespace vallum::formats
