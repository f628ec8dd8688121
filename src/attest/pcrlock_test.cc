// SPDX-License-Identifier: Apache-2.0
#include "attest/pcrlock.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace vallum::attest {
namespace {

std::string Hex(char digit) { return std::string(64, digit); }

std::string MakeValidFile(const std::vector<std::pair<int, char>>& records) {
  std::string out;
  for (const auto& [pcr, digit] : records) {
    out += std::string(out.empty() ? "" : ",") + R"({"pcr":)" + std::to_string(pcr) +
           R"(,"digests":[{"hashAlg":"sha256","digest":")" + Hex(digit) + R"("}]})";
  }
  return R"({"records":[)" + out + "]}";
}

// shim; one of two kernels, the second of which measures twice; a step of another PCR.
std::vector<ReferenceComponent> MakeValidComponents() {
  const std::vector<PcrlockFile> files = {
      {"650-kernel.pcrlock.d/6.1.pcrlock", MakeValidFile({{4, 'b'}})},
      {"650-kernel.pcrlock.d/6.12.pcrlock", MakeValidFile({{4, 'c'}, {4, 'd'}})},
      {"630-shim.pcrlock", MakeValidFile({{4, 'a'}})},
      {"700-other.pcrlock", MakeValidFile({{9, 'f'}})}};
  auto components = ReadPcrlockFolder(files);
  EXPECT_TRUE(components.has_value()) << components.error().Describe();
  return *std::move(components);
}

ReferenceMatch Match(const std::string& digits) {
  std::vector<Bytes> bytes;
  for (const char digit : digits) bytes.push_back(*FromHex(Hex(digit)));
  const std::vector<ByteView> views(bytes.begin(), bytes.end());
  return MatchReference(MakeValidComponents(), 4, HashAlgorithm::kSha256, views);
}

TEST(Pcrlock, ComponentsAreInTheOrderOfTheirNames) {
  const auto components = MakeValidComponents();
  ASSERT_EQ(components.size(), 3U);
  EXPECT_EQ(components[0].name, "630-shim");
  EXPECT_EQ(components[1].variants.size(), 2U);
  EXPECT_EQ(components[1].variants[1].name, "6.12");
}

TEST(Pcrlock, OneVariantOfEachComponentMatches) {
  EXPECT_TRUE(Match("ab").complete);
  EXPECT_TRUE(Match("acd").complete);
}

TEST(Pcrlock, ComponentThatIsMissingDoesNotMatch) {
  EXPECT_FALSE(Match("a").complete);
  EXPECT_EQ(Match("a").component, "650-kernel");
  EXPECT_EQ(Match("b").component, "630-shim");
}

TEST(Pcrlock, OtherOrderDoesNotMatch) { EXPECT_FALSE(Match("ba").complete); }

TEST(Pcrlock, HalfAVariantDoesNotMatch) { EXPECT_FALSE(Match("ac").complete); }

TEST(Pcrlock, MeasurementThatIsLeftDoesNotMatch) {
  EXPECT_FALSE(Match("abe").complete);
  EXPECT_EQ(Match("abe").explained, 2U);
}

TEST(Pcrlock, RecordOfAnotherBankFitsNothing) {
  const Bytes digest(48, std::byte{0xaa});
  const std::vector<ByteView> views = {digest};
  EXPECT_FALSE(MatchReference(MakeValidComponents(), 4, HashAlgorithm::kSha384, views).complete);
}

TEST(Pcrlock, FullCelRecordsAreAccepted) {
  EXPECT_TRUE(ParsePcrlock(R"({"records":[{"recnum":0,"pcr":4,"content":{"a":[1]},
      "content_type":"x","digests":[{"hashAlg":"sha256","digest":")" +
                           Hex('a') + R"("},{"hashAlg":"sm3_256","digest":"00"}]}]})")
                  .has_value());
}

TEST(Pcrlock, WhatIsNotOfTheFormIsRefused) {
  for (const std::string text :
       {"", "{}", "[]", R"({"records":[],"x":1})", R"({"records":[{"pcr":4}]})",
        R"({"records":[{"pcr":24,"digests":[]}]})",
        R"({"records":[{"pcr":4,"digests":[{"hashAlg":"sha256","digest":"00"}]}]})",
        R"({"records":[{"pcr":4,"digests":[{"hashAlg":"sm3_256","digest":"00"}]}]})",
        R"({"records":[{"pcr":4,"digests":[],"extra":1}]})"}) {
    EXPECT_FALSE(ParsePcrlock(text).has_value()) << text;
  }
}

TEST(Pcrlock, PathOfAnotherFormIsRefused) {
  for (const std::string path : {"x", "x.txt", "a.d/x.pcrlock", "a.pcrlock.d/b/x.pcrlock",
                                 ".pcrlock", ".pcrlock.d/x.pcrlock"}) {
    const std::vector<PcrlockFile> files = {{path, MakeValidFile({{4, 'a'}})}};
    EXPECT_FALSE(ReadPcrlockFolder(files).has_value()) << path;
  }
}

TEST(Pcrlock, FileAndFolderOfAComponentAreItsVariants) {
  const std::vector<PcrlockFile> files = {{"a.pcrlock.d/b.pcrlock", MakeValidFile({{4, 'b'}})},
                                          {"a.pcrlock", MakeValidFile({{4, 'a'}})}};
  const auto components = ReadPcrlockFolder(files);
  ASSERT_TRUE(components.has_value()) << components.error().Describe();
  ASSERT_EQ(components->size(), 1U);
  ASSERT_EQ(components->front().variants.size(), 2U);
  EXPECT_EQ(components->front().variants[0].name, "");
  EXPECT_EQ(components->front().variants[1].name, "b");
}

TEST(Pcrlock, ComponentsAreInTheOrderOfTheirFilesNames) {
  const std::string file = MakeValidFile({{4, 'a'}});
  const std::vector<PcrlockFile> files = {{"650-kernel.pcrlock.d/6.1.pcrlock", file},
                                          {"650-kernel-cmdline.pcrlock", file}};
  const auto components = ReadPcrlockFolder(files);
  ASSERT_TRUE(components.has_value()) << components.error().Describe();
  EXPECT_EQ(components->front().name, "650-kernel-cmdline");
}

TEST(Pcrlock, EmptyFileIsMasked) {
  const std::vector<PcrlockFile> files = {{"a.pcrlock", ""},
                                          {"b.pcrlock", MakeValidFile({{4, 'a'}})}};
  const auto components = ReadPcrlockFolder(files);
  ASSERT_TRUE(components.has_value()) << components.error().Describe();
  ASSERT_EQ(components->size(), 1U);
  EXPECT_EQ(components->front().name, "b");
}

}  // namespace
}  // namespace vallum::attest
