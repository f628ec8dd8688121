// SPDX-License-Identifier: Apache-2.0
#include "formats/parallels.h"

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
using testing::PutText;
using testing::ReadFile;
using testing::TempDir;

Result<ParallelsImage> Parse(ByteView file) { return ParseParallels(MemoryReader(file)); }

const Bytes& Plain() {
  static const Bytes image = testing::QemuImgCreate("parallels", "", "5M");
  return image;
}

struct HostileCase {
  std::string name;
  std::function<void(Bytes&)> damage;
  std::string reason;
};
class HostileParallels : public ::testing::TestWithParam<HostileCase> {};

TEST_P(HostileParallels, IsRefusedWithItsReason) {
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
void MakeOld(Bytes& image) { PutText(image, 0, "WithoutFreeSpace"); }

INSTANTIATE_TEST_SUITE_P(
    Rows, HostileParallels,
    ::testing::Values(
        HostileCase{"Magic", Put32(0, 0), "no magic"},
        HostileCase{"Version1", Put32(16, 1), "unknown version 1"},
        HostileCase{"Version3", Put32(16, 3), "unknown version 3"},
        HostileCase{"Cluster0", Put32(28, 0), "clusters of 0 bytes"},
        HostileCase{"ClusterHuge", Put32(28, 0xffffffff), "clusters of 2199023255040 bytes"},
        HostileCase{"TableTooSmall", Put32(32, 4), "covers 8192"},
        HostileCase{"TablePastFile", Put32(32, 0xffffffff), "truncated: the block allocation"},
        HostileCase{"VirtualSize0", Put64(36, 0), "0 sectors"},
        HostileCase{"VirtualSizeHuge", Put64(36, ~uint64_t{0}), "sectors at offset 36"},
        HostileCase{"VirtualSizeHugeInOld",
                    [](Bytes& i) {
                      MakeOld(i);
                      PutLe64(i, 36, uint64_t{1} << 32U);
                    },
                    "up to 4294967295"},
        HostileCase{"State", Put32(44, 1), "unknown state 0x1"},
        HostileCase{"NoData", Put32(48, 0), "the data at sector 0"},
        HostileCase{"DataUnaligned", Put32(48, 100), "the data at sector 100"},
        HostileCase{"DataPastFile", Put32(48, 4096), "truncated: the data"},
        HostileCase{"Short", [](Bytes& i) { i.resize(63); }, "truncated"},
        HostileCase{"HeaderAlone", [](Bytes& i) { i.resize(64); }, "truncated"}),
    [](const auto& row) { return row.param.name; });

TEST(Parallels, FactsEqualThoseOfQemu) {
  for (const std::string options : {"", "-o cluster_size=64k", "-o cluster_size=4M"}) {
    const TempDir dir;
    MustRun("qemu-img create -q -f parallels " + options + " " + dir.File("a") + " 5M");
    const auto parsed = Parse(ReadFile(dir.File("a")));
    ASSERT_TRUE(parsed.has_value()) << parsed.error().Describe();
    const std::string info = MustRun("qemu-img info -f parallels --output=json " + dir.File("a"));
    EXPECT_THAT(info, HasSubstr("\"virtual-size\": " + std::to_string(parsed->virtual_size)));
    EXPECT_EQ(parsed->cluster_size, options.empty()                            ? 1U << 20U
                                    : options.find("64k") != std::string::npos ? 64U << 10U
                                                                               : 4U << 20U);
    EXPECT_EQ(parsed->subformat, "WithouFreSpacExt");
    EXPECT_FALSE(parsed->in_use);
  }
}

TEST(Parallels, TheOldFormatAndTheStateAreSaid) {
  Bytes image = Plain();
  MakeOld(image);
  PutLe32(image, 44, 0x746f6e59);
  PutLe32(image, 48, 0);
  const auto parsed = Parse(image);
  ASSERT_TRUE(parsed.has_value()) << parsed.error().Describe();
  EXPECT_EQ(parsed->subformat, "WithoutFreeSpace");
  EXPECT_TRUE(parsed->in_use);
}

TEST(Parallels, FlippedBitsNeverCrash) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 3000; ++round) {
    Bytes head(Plain().begin(), Plain().begin() + 64);
    for (int i = 0; i < 3; ++i) head[random() % 64] ^= static_cast<std::byte>(1U << random() % 8);
    const testing::SparseReader file(head, Plain().size());
    const testing::CountingReader counted(file);
    static_cast<void>(ParseParallels(counted));
    EXPECT_LE(counted.bytes(), 64U);
  }
}

}  // namespace
}  // namespace vallum::formats
