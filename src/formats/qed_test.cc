// SPDX-License-Identifier: Apache-2.0
#include "formats/qed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <string>

#include "base/bytes.h"
#include "formats/reader.h"
#include "formats/test_support.h"

namespace vallum::formats {
namespace {

using ::testing::HasSubstr;
using testing::MustRun;
using testing::PutLe32;
using testing::PutLe64;
using testing::ReadFile;
using testing::TempDir;

Result<QedImage> Parse(ByteView file) { return ParseQed(MemoryReader(file)); }

const Bytes& Plain() {
  static const Bytes image = testing::QemuImgCreate("qed", "", "1M");
  return image;
}

struct HostileCase {
  std::string name;
  std::function<void(Bytes&)> damage;
  std::string reason;
};
class HostileQed : public ::testing::TestWithParam<HostileCase> {};

TEST_P(HostileQed, IsRefusedWithItsReason) {
  Bytes image = Plain();
  ASSERT_TRUE(Parse(image).has_value()) << Parse(image).error().Describe();
  GetParam().damage(image);
  const auto result = Parse(image);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(result.error().Describe(), HasSubstr(GetParam().reason));
  EXPECT_FALSE(result.error().fix().empty());
}

std::function<void(Bytes&)> Put32(size_t at, uint32_t value) {
  return [=](Bytes& i) { PutLe32(i, at, value); };
}
std::function<void(Bytes&)> Put64(size_t at, uint64_t value) {
  return [=](Bytes& i) { PutLe64(i, at, value); };
}
std::function<void(Bytes&)> Backing(uint32_t offset, uint32_t size) {
  return [=](Bytes& i) {
    PutLe64(i, 16, 1);
    PutLe32(i, 56, offset);
    PutLe32(i, 60, size);
  };
}

INSTANTIATE_TEST_SUITE_P(
    Rows, HostileQed,
    ::testing::Values(
        HostileCase{"Magic", Put32(0, 0), "no magic"},
        HostileCase{"ClusterSize0", Put32(4, 0), "clusters of 0"},
        HostileCase{"ClusterSizeOdd", Put32(4, 65535), "clusters of 65535"},
        HostileCase{"ClusterSizeHuge", Put32(4, uint32_t{1} << 31U), "clusters of 2147483648"},
        HostileCase{"Table0", Put32(8, 0), "tables of 0"},
        HostileCase{"Table3", Put32(8, 3), "tables of 3"},
        HostileCase{"TableHuge", Put32(8, uint32_t{1} << 31U), "tables of 2147483648"},
        HostileCase{"TablePastFile", Put32(8, 16), "truncated: the L1 table"},
        HostileCase{"Header0", Put32(12, 0), "the header says 0 bytes"},
        HostileCase{"HeaderPastFile", Put32(12, 0xffffffff), "the header says"},
        HostileCase{"UnknownFeature", Put64(16, 8), "unknown features 0x8"},
        HostileCase{"L1InHeader", Put64(40, 0), "the L1 table at offset 0"},
        HostileCase{"L1Unaligned", Put64(40, 65537), "the L1 table at offset 65537"},
        HostileCase{"L1PastFile", Put64(40, ~uint64_t{0xffff}), "truncated: the L1 table"},
        HostileCase{"VirtualSize0", Put64(48, 0), "virtual size 0"},
        HostileCase{"VirtualSizeOdd", Put64(48, 511), "virtual size 511"},
        HostileCase{"VirtualSizeHuge", Put64(48, ~uint64_t{511}), "virtual size"},
        HostileCase{"BackingNameInHeader", Backing(0, 10), "backing file name"},
        HostileCase{"BackingNameBehindHeader", Backing(65530, 7), "backing file name"},
        HostileCase{"BackingNameHuge", Backing(64, 0xffffffff), "backing file name"},
        HostileCase{"Short", [](Bytes& i) { i.resize(63); }, "truncated"},
        HostileCase{"HeaderAlone", [](Bytes& i) { i.resize(65536); }, "truncated"}),
    [](const auto& row) { return row.param.name; });

TEST(Qed, FactsEqualThoseOfQemu) {
  for (const std::string options : {"", "-o cluster_size=4096,table_size=2",
                                    "-o cluster_size=1M,table_size=4", "-o table_size=16"}) {
    const TempDir dir;
    MustRun("qemu-img create -q -f qed " + options + " " + dir.File("a") + " 5M");
    const auto parsed = Parse(ReadFile(dir.File("a")));
    ASSERT_TRUE(parsed.has_value()) << parsed.error().Describe();
    const std::string info = MustRun("qemu-img info -f qed --output=json " + dir.File("a"));
    EXPECT_THAT(info, HasSubstr("\"virtual-size\": " + std::to_string(parsed->virtual_size)));
    EXPECT_THAT(info, HasSubstr("\"cluster-size\": " + std::to_string(parsed->cluster_size)));
    EXPECT_FALSE(parsed->backing_file.has_value());
    EXPECT_FALSE(parsed->needs_check);
  }
}

TEST(Qed, TheBackingFileAndTheStateAreSaid) {
  Bytes image = testing::QemuImgCreate("qed", "-u -b /etc/passwd -F raw", "1M");
  const auto parsed = Parse(image);
  ASSERT_TRUE(parsed.has_value()) << parsed.error().Describe();
  EXPECT_EQ(parsed->backing_file, "/etc/passwd");
  PutLe64(image, 16, 3);
  EXPECT_TRUE(Parse(image)->needs_check);
}

TEST(Qed, FlippedBitsNeverCrash) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 3000; ++round) {
    Bytes head(Plain().begin(), Plain().begin() + 4096);
    for (int i = 0; i < 3; ++i) head[random() % 64] ^= static_cast<std::byte>(1U << random() % 8);
    const testing::SparseReader file(head, Plain().size());
    const testing::CountingReader counted(file);
    static_cast<void>(ParseQed(counted));
    EXPECT_LE(counted.bytes(), 64 + kQedMaxBackingName);
  }
}

TEST(QedVectors, AreJudgedAsTheManifestSays) {
  const std::string dir = testing::VectorsDir();
  if (dir.empty()) GTEST_SKIP() << "the shared vectors are not here";
  const auto parsed = Parse(ReadFile(dir + "/images/gen/plain.qed"));
  ASSERT_TRUE(parsed.has_value()) << parsed.error().Describe();
  EXPECT_EQ(parsed->virtual_size, 1048576U);
  EXPECT_EQ(parsed->cluster_size, 65536U);
}

}  // namespace
}  // namespace vallum::formats
