// SPDX-License-Identifier: Apache-2.0
#include "measure/ima_allow_list.h"

#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/digest.h"

namespace vallum::measure {
namespace {

using Json = nlohmann::json;

const Bytes kA(32, std::byte{0xaa});
const Bytes kB(32, std::byte{0xbb});
const Bytes kShort(20, std::byte{0xaa});

Json MakeValidPolicy() {
  return Json{
      {"meta", {{"version", 1}, {"generator", 3}, {"timestamp", "2024"}}},
      {"release", 0},
      {"digests", {{"/bin/sh", {ToHex(kA), ToHex(kB)}}, {"/bin/ls", {ToHex(kShort)}}}},
      {"excludes", {"/tmp/.*", "/var/log/.*\\.log$"}},
      {"keyrings", {{".ima", {ToHex(kA)}}}},
      {"ima", {{"ignored_keyrings", {".evm"}}, {"log_hash_alg", "sha256"}, {"dm_policy", nullptr}}},
      {"ima-buf", {{"kexec-cmdline", {ToHex(kB)}}}},
      {"verification-keys", ""}};
}

Result<SharedImaAllowList> Import(const Json& policy) { return ImportKeylimePolicy(policy.dump()); }

std::string Message(const Result<SharedImaAllowList>& list) {
  return list.has_value() ? "accepted" : list.error().Describe();
}

ImaDigestTable MakeTable(size_t names) {
  ImaDigestTableBuilder builder;
  for (size_t i = 0; i < names; ++i) {
    EXPECT_TRUE(builder
                    .Add("/bin/" + std::to_string(i),
                         Digest(HashAlgorithm::kSha256, AsBytes(std::to_string(i))))
                    .has_value());
  }
  return std::move(builder).Build();
}

TEST(ImaDigestTable, FindsEachNameWithItsDigest) {
  const ImaDigestTable table = MakeTable(5000);
  for (size_t i = 0; i < 5000; ++i) {
    const std::string name = "/bin/" + std::to_string(i);
    EXPECT_EQ(table.Find(name, Digest(HashAlgorithm::kSha256, AsBytes(std::to_string(i)))),
              ImaListed::kListed);
    EXPECT_EQ(table.Find(name, kA), ImaListed::kOtherDigest);
    EXPECT_EQ(table.Find(name + "x", kA), ImaListed::kUnknownName);
  }
}

TEST(ImaDigestTable, EmptyOneKnowsNothing) {
  EXPECT_EQ(ImaDigestTable().Find("/bin/sh", kA), ImaListed::kUnknownName);
  EXPECT_EQ(ImaDigestTableBuilder().Build().Find("/bin/sh", kA), ImaListed::kUnknownName);
}

TEST(ImaDigestTable, DigestsOfANameComeInAnyOrderAndOnce) {
  ImaDigestTableBuilder builder;
  ASSERT_TRUE(builder.Add("/a", kA).has_value());
  ASSERT_TRUE(builder.Add("/b", kShort).has_value());
  ASSERT_TRUE(builder.Add("/a", kB).has_value());
  ASSERT_TRUE(builder.Add("/a", kA).has_value());
  const ImaDigestTable table = std::move(builder).Build();
  EXPECT_EQ(table.names(), 2U);
  EXPECT_EQ(table.digests(), 3U);
  EXPECT_EQ(table.DigestsOf("/a").size(), 2U);
  EXPECT_EQ(table.Find("/a", kB), ImaListed::kListed);
  EXPECT_EQ(table.Find("/b", kShort), ImaListed::kListed);
  EXPECT_EQ(table.Find("/b", kA), ImaListed::kOtherDigest);
}

TEST(ImaDigestTable, NameWithoutDigestsIsKnown) {
  ImaDigestTableBuilder builder;
  ASSERT_TRUE(builder.AddName("/a").has_value());
  EXPECT_EQ(std::move(builder).Build().Find("/a", kA), ImaListed::kOtherDigest);
}

TEST(ImaDigestTable, WrongNamesAndDigestsAreRefused) {
  ImaDigestTableBuilder builder;
  EXPECT_FALSE(builder.Add("", kA).has_value());
  EXPECT_FALSE(builder.Add(std::string(kMaxImaPath + 1, 'x'), kA).has_value());
  EXPECT_FALSE(builder.Add("/a", Bytes(15)).has_value());
  EXPECT_FALSE(builder.Add("/a", Bytes(65)).has_value());
}

TEST(ImaDigestTable, TakesLittleMoreThanItsBytes) {
  const ImaDigestTable table = MakeTable(100'000);
  size_t bytes = 0;
  for (size_t i = 0; i < 100'000; ++i) bytes += ("/bin/" + std::to_string(i)).size() + 32;
  EXPECT_LE(table.MemoryBytes(), bytes + 100'000 * 26);
}

TEST(ImaAllowList, KeylimePolicyIsRead) {
  const auto list = Import(MakeValidPolicy());
  ASSERT_TRUE(list.has_value()) << Message(list);
  EXPECT_EQ((*list)->files().names(), 2U);
  EXPECT_EQ((*list)->files().Find("/bin/sh", kB), ImaListed::kListed);
  EXPECT_EQ((*list)->files().Find("/bin/ls", kShort), ImaListed::kListed);
  EXPECT_EQ((*list)->keyrings().Find(".ima", kA), ImaListed::kListed);
  EXPECT_EQ((*list)->buffers().Find("kexec-cmdline", kB), ImaListed::kListed);
  EXPECT_EQ((*list)->exclude_count(), 2U);
  EXPECT_EQ((*list)->log_hash(), HashAlgorithm::kSha256);
  EXPECT_TRUE((*list)->IgnoresKeyring(".evm"));
  EXPECT_FALSE((*list)->IgnoresKeyring(".ima"));
}

TEST(ImaAllowList, ExcludeMatchesFromThePathsBeginning) {
  const auto list = Import(MakeValidPolicy());
  ASSERT_TRUE(list.has_value());
  EXPECT_TRUE((*list)->IsExcluded("/tmp/x"));
  EXPECT_TRUE((*list)->IsExcluded("/var/log/a.log"));
  EXPECT_FALSE((*list)->IsExcluded("/root/tmp/x"));
  EXPECT_FALSE((*list)->IsExcluded("/var/log/a.log.sh"));
  EXPECT_FALSE((*list)->IsExcluded(""));
}

TEST(ImaAllowList, NoExcludesExcludeNothing) {
  const auto list = ImportDigestList("");
  ASSERT_TRUE(list.has_value());
  EXPECT_FALSE((*list)->IsExcluded(""));
  EXPECT_FALSE((*list)->IsExcluded("/x"));
}

TEST(ImaAllowList, ExcludeWithBackReferenceOrLookAroundIsRefused) {
  for (const char* pattern : {"(a)\\1", "/tmp/(?!x)", "(", "a)|(b", ""}) {
    Json policy = MakeValidPolicy();
    policy["excludes"] = {pattern};
    EXPECT_FALSE(Import(policy).has_value()) << pattern;
  }
}

TEST(ImaAllowList, ExcludeThatMakesOthersBacktrackTakesLinearTime) {
  ImaAllowListBuilder builder;
  ASSERT_TRUE(builder.AddExclude("/(x+x+)+y").has_value());
  const auto list = std::move(builder).Build();
  ASSERT_TRUE(list.has_value());
  // Two to the power of thousands of steps, were it not.
  EXPECT_FALSE((*list)->IsExcluded("/" + std::string(8000, 'x')));
}

TEST(ImaAllowList, ExcludesTogetherAreBounded) {
  ImaAllowListBuilder builder;
  Result<void> added = Ok();
  for (size_t i = 0; added.has_value() && i <= kMaxExcludes; ++i) {
    added = builder.AddExclude("/x");
  }
  EXPECT_FALSE(added.has_value());
  ImaAllowListBuilder large;
  for (size_t i = 0; i < 200; ++i) {
    static_cast<void>(large.AddExclude("/" + std::to_string(i) + "[a-z]{900}"));
  }
  EXPECT_FALSE(std::move(large).Build().has_value());
}

TEST(ImaAllowList, StarIgnoresEachKeyring) {
  Json policy = MakeValidPolicy();
  policy["ima"]["ignored_keyrings"] = {"*"};
  const auto list = Import(policy);
  ASSERT_TRUE(list.has_value());
  EXPECT_TRUE((*list)->IgnoresKeyring(".ima"));
}

TEST(ImaAllowList, OlderAllowListIsRead) {
  const Json old = {{"meta", {{"version", 6}}},
                    {"release", 0},
                    {"hashes", {{"/bin/sh", {ToHex(kA)}}}},
                    {"exclude", {"/tmp/.*"}},
                    {"keyrings", Json::object()},
                    {"ima", {{"ignored_keyrings", Json::array()}, {"log_hash_alg", "sha1"}}}};
  const auto list = Import(old);
  ASSERT_TRUE(list.has_value()) << Message(list);
  EXPECT_EQ((*list)->files().Find("/bin/sh", kA), ImaListed::kListed);
  EXPECT_TRUE((*list)->IsExcluded("/tmp/x"));
}

TEST(ImaAllowList, VersionThatIsNotKnownIsRefused) {
  for (const int version : {0, 2, 99}) {
    Json policy = MakeValidPolicy();
    policy["meta"]["version"] = version;
    EXPECT_FALSE(Import(policy).has_value()) << version;
  }
  Json policy = MakeValidPolicy();
  policy["meta"]["version"] = "1";
  EXPECT_FALSE(Import(policy).has_value());
}

TEST(ImaAllowList, MemberThatIsNotKnownIsRefused) {
  Json policy = MakeValidPolicy();
  policy["deny"] = {"/bin/sh"};
  EXPECT_NE(Message(Import(policy)).find("'deny'"), std::string::npos);
  policy = MakeValidPolicy();
  policy["ima"]["more"] = 1;
  EXPECT_NE(Message(Import(policy)).find("'ima.more'"), std::string::npos);
  policy = MakeValidPolicy();
  policy["ima"]["dm_policy"] = Json::object();
  EXPECT_NE(Message(Import(policy)).find("dm_policy"), std::string::npos);
}

TEST(ImaAllowList, WrongTypesAreRefused) {
  const std::vector<std::pair<std::string, Json>> wrong = {
      {"digests", Json::array()},
      {"digests", {{"/x", "00"}}},
      {"digests", {{"/x", {1}}}},
      {"digests", {{"/x", {{"a"}}}}},
      {"digests", {{"/x", {"zz"}}}},
      {"digests", {{"/x", {"00"}}}},
      {"excludes", "x"},
      {"excludes", {1}},
      {"excludes", {{"x"}}},
      {"ima", 1},
      {"verification-keys", "nothing"},
      {"verification-keys", "{\"pubkeys\": [1]}"},
      {"verification-keys", "{\"pubkeys\": [\"AAAA\"]}"}};
  for (const auto& [member, value] : wrong) {
    Json policy = MakeValidPolicy();
    policy[member] = value;
    EXPECT_FALSE(Import(policy).has_value()) << member << value;
  }
}

TEST(ImaAllowList, WhatIsNoPolicyIsRefused) {
  for (const char* text : {"", "[]", "1", "null", "{", "{}", "{\"digests\"", "{\"digests\":{}} x",
                           "[{\"digests\":{}}]"}) {
    EXPECT_FALSE(ImportKeylimePolicy(text).has_value()) << text;
  }
  EXPECT_TRUE(ImportKeylimePolicy("{\"digests\":{}}").has_value());
}

TEST(ImaAllowList, DepthIsBounded) {
  const std::string deep(100'000, '[');
  EXPECT_FALSE(ImportKeylimePolicy("{\"meta\":" + deep).has_value());
}

TEST(ImaAllowList, DigestListIsRead) {
  const auto list =
      ImportDigestList("# files\n" + ToHex(kA) + "  /bin/sh\n" + ToHex(kB) + " */bin/sh\n\n\\" +
                       ToHex(kShort) + "  /a\\nb\\\\c\r\n" + ToHex(kA) + "  /last line");
  ASSERT_TRUE(list.has_value()) << Message(list);
  EXPECT_EQ((*list)->files().Find("/bin/sh", kA), ImaListed::kListed);
  EXPECT_EQ((*list)->files().Find("/bin/sh", kB), ImaListed::kListed);
  EXPECT_EQ((*list)->files().Find("/a\nb\\c", kShort), ImaListed::kListed);
  EXPECT_EQ((*list)->files().Find("/last_line", kA), ImaListed::kListed);
}

TEST(ImaAllowList, FlatListOfKeylimeIsRead) {
  const auto list =
      ImportDigestList("sha256:" + ToHex(kA) + " boot_aggregate\n" + ToHex(kB) + " /bin/sh\n" +
                       ToHex(kA) + " %keyring:.ima\n" + ToHex(kB) + "  %keyring:.ima\n");
  ASSERT_TRUE(list.has_value()) << Message(list);
  EXPECT_EQ((*list)->files().Find("boot_aggregate", kA), ImaListed::kListed);
  EXPECT_EQ((*list)->files().Find("/bin/sh", kB), ImaListed::kListed);
  EXPECT_EQ((*list)->keyrings().Find(".ima", kA), ImaListed::kListed);
  // As sha256sum prints a file of that name.
  EXPECT_NE((*list)->keyrings().Find(".ima", kB), ImaListed::kListed);
  EXPECT_EQ((*list)->files().names(), 3U);
}

TEST(ImaAllowList, DigestMayNameItsAlgorithmAndIsThenOfItsSize) {
  Json policy = MakeValidPolicy();
  policy["digests"]["boot_aggregate"] = {"sha256:" + ToHex(kA)};
  const auto list = Import(policy);
  ASSERT_TRUE(list.has_value()) << Message(list);
  EXPECT_EQ((*list)->files().Find("boot_aggregate", kA), ImaListed::kListed);
  for (const char* name : {"sha1:", "sha384:", "unknown:"}) {
    policy["digests"]["boot_aggregate"] = {name + ToHex(kA)};
    EXPECT_FALSE(Import(policy).has_value()) << name;
  }
}

TEST(ImaAllowList, LineThatIsNoDigestAndPathIsRefusedByNumber) {
  for (const std::string& line : std::vector<std::string>{
           "x", "zz  /x", ToHex(kA), ToHex(kA) + "  ", "00  /x", "\\" + ToHex(kA) + "  /a\\q"}) {
    const auto list = ImportDigestList(ToHex(kA) + "  /good\n" + line + "\n");
    EXPECT_NE(Message(list).find("reading line 2"), std::string::npos) << line;
  }
}

}  // namespace
}  // namespace vallum::measure
