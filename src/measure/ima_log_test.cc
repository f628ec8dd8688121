// SPDX-License-Identifier: Apache-2.0
#include "measure/ima_log.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <vector>

#include "measure/ima_log_builder.h"
#include "measure/ima_template_hash.h"

namespace vallum::measure {
namespace {

const Bytes kDigest(32, std::byte{0x5a});

ImaLogBuilder MakeValidLog() {
  ImaLogBuilder log;
  log.AddFile("/bin/sh", "shell").AddFile("/bin/ls", "list");
  return log;
}

Result<ImaLog> Parse(const Bytes& bytes) { return ImaLog::Parse(bytes, ImaTemplateHash::kDetect); }

Result<ImaLog> ParseText(const std::string& text) {
  return ImaLog::Parse(AsBytes(text), ImaTemplateHash::kDetect);
}

// An entry of the format with these fields, alone in a log.
Result<ImaLog> ParseOne(std::string_view format, const std::vector<Bytes>& fields) {
  static Bytes kept;
  kept = ImaLogBuilder().Add(format, Concatenate(fields)).bytes();
  return Parse(kept);
}

std::string Message(const Result<ImaLog>& log) {
  return log.has_value() ? "accepted" : log.error().message();
}

std::string GoodLine() {
  return "10 0123456789012345678901234567890123456789 ima-ng sha256:" + ToHex(kDigest) + " /x\n";
}

TEST(ImaLog, FileHasDigestAndPath) {
  const auto built = MakeValidLog();
  const auto log = Parse(built.bytes());
  ASSERT_TRUE(log.has_value());
  ASSERT_EQ(log->entries().size(), 2U);
  const ImaEntry& entry = log->entries()[1];
  EXPECT_EQ(entry.path, "/bin/ls");
  EXPECT_TRUE(std::ranges::equal(entry.digest.bytes, Sha256(AsBytes("list"))));
  EXPECT_EQ(DescribeImaDigest(entry.digest), "sha256:" + ToHex(Sha256(AsBytes("list"))));
  EXPECT_EQ(log->tail_size(), 0U);
}

TEST(ImaLog, EmptyLogHasNoEntries) {
  const auto log = Parse({});
  ASSERT_TRUE(log.has_value());
  EXPECT_TRUE(log->entries().empty());
  EXPECT_EQ(CheckTemplateHashes(*log).agreeing, 0U);
}

TEST(ImaLog, TemplateHashOfEachSizeIsDetected) {
  for (const auto hash : {HashAlgorithm::kSha1, HashAlgorithm::kSha256, HashAlgorithm::kSha384,
                          HashAlgorithm::kSha512}) {
    ImaLogBuilder built(hash);
    built.AddFile("/bin/sh", "shell");
    const auto log = Parse(built.bytes());
    ASSERT_TRUE(log.has_value());
    EXPECT_EQ(log->template_hash_size(), DigestSize(hash));
    EXPECT_EQ(CheckTemplateHashes(*log).agreeing, 1U);
    const auto text = ParseText(ImaLogToText(*log));
    ASSERT_TRUE(text.has_value());
    EXPECT_EQ(CheckTemplateHashes(*text).agreeing, 1U);
  }
}

TEST(ImaLog, TemplateHashOfAnotherSizeThanToldIsRefused) {
  const auto built = MakeValidLog();
  EXPECT_FALSE(ImaLog::Parse(built.bytes(), ImaTemplateHash::kSha256).has_value());
  EXPECT_FALSE(ImaLog::Parse(AsBytes(GoodLine()), ImaTemplateHash::kSha256).has_value());
}

TEST(ImaLog, TextSaysWhatTheBinaryLogSays) {
  const Bytes sha1(20, std::byte{7});
  ImaLogBuilder built;
  built.AddLegacy("/legacy", sha1)
      .AddFile("/bin/sh", "shell")
      .AddViolation("/var/log/x")
      .Add("ima-sig", Concatenate({ImaDigestField("sha256", kDigest), ImaNameField("/a"),
                                   ImaFieldBytes("signed")}))
      .Add("ima-sig",
           Concatenate({ImaDigestField("sha256", kDigest), ImaNameField("/b"), ImaFieldBytes("")}))
      .Add("ima-ngv2", Concatenate({ImaDigestField("ima:sha1", sha1), ImaNameField("/c")}))
      .Add("ima-sigv2", Concatenate({ImaDigestField("verity:sha256", kDigest), ImaNameField("/d"),
                                     ImaFieldBytes("")}))
      .Add("ima-buf", Concatenate({ImaDigestField("sha256", kDigest), ImaNameField(".ima"),
                                   ImaFieldBytes("certificate")}))
      .Add("ima-modsig",
           Concatenate({ImaDigestField("sha256", kDigest), ImaNameField("/e"), ImaFieldBytes(""),
                        ImaDigestField("sha256", kDigest), ImaFieldBytes("pkcs7")}))
      .Add("evm-sig",
           Concatenate({ImaDigestField("sha256", kDigest), ImaNameField("/f"),
                        ImaFieldBytes("signed"), ImaNameField("security.ima|security.selinux"),
                        ImaFieldBytes("lengths"), ImaFieldBytes("values"),
                        ImaFieldBytes(Bytes(4, std::byte{9})), ImaFieldBytes(Bytes(4)),
                        ImaFieldBytes(*FromHex("a481"))}))
      .Add("n-ng|sig|d-ng", Concatenate({ImaNameField("/g"), ImaFieldBytes("signed"),
                                         ImaDigestField("sha256", kDigest)}));
  const auto binary = Parse(built.bytes());
  ASSERT_TRUE(binary.has_value()) << binary.error().Describe();
  const std::string lines = ImaLogToText(*binary);
  const auto text = ParseText(lines);
  ASSERT_TRUE(text.has_value()) << text.error().Describe();
  ASSERT_EQ(text->entries().size(), 11U);
  for (size_t i = 0; i < text->entries().size(); ++i) {
    const ImaEntry& a = binary->entries()[i];
    const ImaEntry& b = text->entries()[i];
    EXPECT_TRUE(std::ranges::equal(a.template_data, b.template_data)) << i;
    EXPECT_TRUE(std::ranges::equal(a.template_hash, b.template_hash)) << i;
    EXPECT_EQ(a.path, b.path);
    EXPECT_EQ(a.violation, b.violation);
    EXPECT_EQ(DescribeImaDigest(a.digest), DescribeImaDigest(b.digest));
  }
  const auto report = CheckTemplateHashes(*text);
  EXPECT_EQ(report.agreeing, 10U);
  EXPECT_EQ(report.violations, 1U);
}

TEST(ImaLog, FieldThatTheTemplateLacksIsEmpty) {
  const auto built = MakeValidLog();
  const auto log = Parse(built.bytes());
  ASSERT_TRUE(log.has_value());
  EXPECT_TRUE(log->FieldOf(log->entries()[0], ImaField::kSignature).empty());
}

TEST(ImaLog, ChangedDataIsNotOfItsTemplateHash) {
  Bytes bytes = MakeValidLog().bytes();
  bytes.back() = std::byte{0};
  bytes[bytes.size() - 2] ^= std::byte{1};
  const auto log = Parse(bytes);
  ASSERT_TRUE(log.has_value());
  EXPECT_EQ(CheckTemplateHashes(*log).mismatches, std::vector<size_t>{1});
}

TEST(ImaLog, EntryCutOffAtTheEndIsTheTail) {
  const Bytes one = ImaLogBuilder().AddFile("/bin/sh", "shell").bytes();
  const Bytes whole = MakeValidLog().bytes();
  for (size_t size = one.size(); size < whole.size(); ++size) {
    const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    const auto log = Parse(cut);
    ASSERT_TRUE(log.has_value()) << size;
    EXPECT_EQ(log->entries().size(), 1U);
    EXPECT_EQ(log->size(), one.size());
    EXPECT_EQ(log->tail_size(), size - one.size());
  }
}

TEST(ImaLog, LogWithoutAWholeEntryIsRefused) {
  const Bytes whole = ImaLogBuilder().AddFile("/bin/sh", "shell").bytes();
  for (size_t size = 1; size < whole.size(); ++size) {
    const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_FALSE(Parse(cut).has_value()) << size;
  }
}

TEST(ImaLog, RegisterThatDoesNotExistIsRefused) {
  auto built = MakeValidLog();
  const std::string offset = std::to_string(built.bytes().size());
  built.Raw(*FromHex("40000000"));
  EXPECT_EQ(Message(Parse(built.bytes())), "entry 2 at offset " + offset + ": PCR 64");
}

TEST(ImaLog, RegisterThatOnlyTheKernelKnowsIsRead) {
  const std::string line = GoodLine();
  const auto text = ParseText(line + "24" + line.substr(2));
  ASSERT_TRUE(text.has_value()) << text.error().Describe();
  EXPECT_EQ(text->entries()[1].pcr, 24U);
  Bytes binary = MakeValidLog().bytes();
  binary[0] = std::byte{40};
  const auto first = Parse(binary);
  ASSERT_TRUE(first.has_value()) << first.error().Describe();
  EXPECT_EQ(first->entries()[0].pcr, 40U);
}

TEST(ImaLog, Sm3IsKnownByEachOfItsNamesAndAsATemplatesHash) {
  for (const char* name : {"sm3", "sm3-256", "sm3_256"}) {
    const Bytes data = Concatenate({ImaDigestField(name, kDigest), ImaNameField("/x")});
    std::array<unsigned char, 32> hash{};
    ASSERT_EQ(EVP_Digest(data.data(), data.size(), hash.data(), nullptr, EVP_sm3(), nullptr), 1);
    const auto log = ParseText("10 " + ToHex(std::as_bytes(std::span(hash))) + " ima-ng " + name +
                               ":" + ToHex(kDigest) + " /x\n");
    ASSERT_TRUE(log.has_value()) << log.error().Describe();
    EXPECT_EQ(log->entries()[0].digest.hash, ImaHash::kSm3);
    EXPECT_EQ(CheckTemplateHashes(*log).agreeing, 1U) << name;
  }
}

TEST(ImaLog, LegacyMd5IsReadFromTextAndHashedWithoutPadding) {
  const Bytes md5(16, std::byte{3});
  const Bytes padded = Concatenate({md5, ToBytes(AsBytes(std::string_view("/x"))), Bytes(254)});
  const auto log = ParseText("10 " + ToHex(Digest(HashAlgorithm::kSha1, padded)) + " ima " +
                             ToHex(md5) + " /x\n");
  ASSERT_TRUE(log.has_value()) << log.error().Describe();
  EXPECT_EQ(log->entries()[0].digest.hash, ImaHash::kMd5);
  EXPECT_EQ(log->entries()[0].path, "/x");
  EXPECT_EQ(CheckTemplateHashes(*log).agreeing, 1U);
}

TEST(ImaLog, EmptyLinesAreNoEntries) {
  const auto log = ParseText("\n" + GoodLine() + "\n" + GoodLine() + "\n\n");
  ASSERT_TRUE(log.has_value()) << log.error().Describe();
  EXPECT_EQ(log->entries().size(), 2U);
  EXPECT_EQ(log->tail_size(), 0U);
}

TEST(ImaLog, UnknownTemplateIsRefused) {
  EXPECT_NE(Message(ParseOne("ima-new", {ImaFieldBytes("x")})), "accepted");
  auto built = MakeValidLog();
  built.Add("d-ng|", Bytes());
  EXPECT_NE(Message(Parse(built.bytes())).find("'d-ng|' is no template"), std::string::npos);
}

TEST(ImaLog, MoreFieldsThanTheKernelHasAreRefused) {
  std::string format = "sig";
  std::vector<Bytes> fields = {ImaFieldBytes("")};
  for (size_t i = 1; i < kMaxImaFields; ++i) {
    format += "|sig";
    fields.push_back(ImaFieldBytes(""));
  }
  EXPECT_TRUE(ParseOne(format, fields).has_value());
  fields.push_back(ImaFieldBytes(""));
  EXPECT_FALSE(ParseOne(format + "|sig", fields).has_value());
}

TEST(ImaLog, BytesAfterTheLastFieldAreRefused) {
  EXPECT_NE(
      Message(ParseOne("ima-ng", {ImaDigestField("sha256", kDigest), ImaNameField("/x"), Bytes(1)}))
          .find("1 bytes after its last field"),
      std::string::npos);
}

TEST(ImaLog, FieldPastTheTemplateDataIsRefused) {
  EXPECT_NE(Message(ParseOne("ima-ng", {ImaDigestField("sha256", kDigest), *FromHex("05000000")}))
                .find("past the end"),
            std::string::npos);
}

TEST(ImaLog, UnknownDigestAlgorithmIsRefused) {
  EXPECT_NE(Message(ParseOne("ima-ng", {ImaDigestField("unknown", kDigest), ImaNameField("/x")}))
                .find("unknown digest algorithm 'unknown'"),
            std::string::npos);
  EXPECT_FALSE(ParseOne("ima-ngv2", {ImaDigestField("evm:sha256", kDigest), ImaNameField("/x")})
                   .has_value());
}

TEST(ImaLog, DigestOfAnotherSizeIsRefused) {
  EXPECT_FALSE(
      ParseOne("ima-ng", {ImaDigestField("sha256", Bytes(31, std::byte{1})), ImaNameField("/x")})
          .has_value());
  // Twenty zeros are what old kernels write for a violation, and nothing else.
  EXPECT_TRUE(
      ParseOne("ima-ng", {ImaDigestField("sha256", Bytes(20)), ImaNameField("/x")}).has_value());
  EXPECT_FALSE(
      ParseOne("ima-ng", {ImaDigestField("sha256", Bytes(20, std::byte{1})), ImaNameField("/x")})
          .has_value());
}

TEST(ImaLog, NameWithoutItsZeroOrWithAnotherIsRefused) {
  EXPECT_FALSE(
      ParseOne("ima-ng", {ImaDigestField("sha256", kDigest), ImaFieldBytes("/x")}).has_value());
  EXPECT_FALSE(ParseOne("ima-ng", {ImaDigestField("sha256", kDigest),
                                   ImaNameField(std::string_view("/x\0y", 4))})
                   .has_value());
}

TEST(ImaLog, NameAboveTheLimitIsRefused) {
  EXPECT_TRUE(ParseOne("ima-ng", {ImaDigestField("sha256", kDigest),
                                  ImaNameField(std::string(kMaxImaPath, 'x'))})
                  .has_value());
  EXPECT_FALSE(ParseOne("ima-ng", {ImaDigestField("sha256", kDigest),
                                   ImaNameField(std::string(kMaxImaPath + 1, 'x'))})
                   .has_value());
}

TEST(ImaLog, TemplateDataAboveTheLimitIsRefusedBeforeItIsRead) {
  auto built = MakeValidLog();
  ByteWriter claim;
  claim.U32Le(kImaPcr).Zeros(20).Raw(ImaFieldBytes("ima-ng")).U32Le(kMaxImaTemplateData + 1);
  built.Raw(claim.bytes());
  EXPECT_NE(Message(Parse(built.bytes())).find("template data of 1048577 bytes"),
            std::string::npos);
}

TEST(ImaLog, LogAboveTheLimitIsRefused) {
  const Bytes bytes(kMaxImaLogSize + 1, std::byte{10});
  EXPECT_FALSE(Parse(bytes).has_value());
}

TEST(ImaLog, MoreTemplatesThanTheLimitAreRefused) {
  ImaLogBuilder built;
  const std::vector<std::string> others = {"buf", "evmsig", "xattrvalues", "xattrlengths",
                                           "modsig"};
  size_t made = 0;
  for (const auto& a : others) {
    for (const auto& b : others) {
      for (const auto& c : others) {
        const Bytes data = Concatenate({ImaFieldBytes(""), ImaFieldBytes(""), ImaFieldBytes("")});
        built.Add(a + "|" + b + "|" + c, data);
        ++made;
      }
    }
  }
  ASSERT_GT(made, kMaxImaFormats);
  const auto log = Parse(built.bytes());
  ASSERT_FALSE(log.has_value());
  EXPECT_EQ(log.error().code(), ErrorCode::kExhausted);
}

TEST(ImaLog, LegacyNameIsBounded) {
  const Bytes sha1(20);
  EXPECT_TRUE(Parse(ImaLogBuilder().AddLegacy(std::string(255, 'x'), sha1).bytes()).has_value());
  ImaLogBuilder built;
  built.AddFile("/x", "x");
  ByteWriter claim;
  claim.U32Le(kImaPcr).Zeros(20).Raw(ImaFieldBytes("ima")).Zeros(20).U32Le(256);
  built.Raw(claim.bytes());
  EXPECT_FALSE(Parse(built.bytes()).has_value());
}

TEST(ImaLog, SpacesInANameOfATextAreItsOwn) {
  const std::string text =
      "10 " + std::string(40, '1') + " ima-sig sha256:" + ToHex(kDigest) + " /a b (deleted) 0302\n";
  const auto log = ParseText(text);
  ASSERT_TRUE(log.has_value()) << log.error().Describe();
  EXPECT_EQ(log->entries()[0].path, "/a b (deleted)");
  EXPECT_EQ(ToHex(log->FieldOf(log->entries()[0], ImaField::kSignature)), "0302");
}

TEST(ImaLog, TextWithoutItsLastNewlineIsWhole) {
  std::string text = GoodLine();
  text.pop_back();
  const auto log = ParseText(text);
  ASSERT_TRUE(log.has_value());
  EXPECT_EQ(log->entries().size(), 1U);
  EXPECT_EQ(log->tail_size(), 0U);
}

TEST(ImaLog, LastLineOfATextMayLackItsEmptyFields) {
  const std::string text =
      "10 " + std::string(40, '1') + " ima-sig sha256:" + ToHex(kDigest) + " /x";
  ASSERT_TRUE(ParseText(text).has_value());
  EXPECT_FALSE(ParseText(text + "\n").has_value());
}

TEST(ImaLog, LastLineOfATextThatIsCutOffIsTheTail) {
  const std::string text = GoodLine() + "10 0123";
  const auto log = ParseText(text);
  ASSERT_TRUE(log.has_value());
  EXPECT_EQ(log->entries().size(), 1U);
  EXPECT_EQ(log->tail_size(), 7U);
}

TEST(ImaLog, DamagedTextIsRefusedWithItsEntry) {
  const std::string where = "entry 1 at offset " + std::to_string(GoodLine().size());
  EXPECT_EQ(Message(ParseText(GoodLine() + "10 xx\n" + GoodLine())).find(where), 0U);
}

TEST(ImaLog, TextThatIsNoLogIsRefused) {
  for (const std::string& text : std::vector<std::string>{
           "this-is-no-log\n", "\n", " \n", "10\n", "10 0123\n", "999 " + GoodLine().substr(3),
           "10 " + std::string(42, '0') + GoodLine().substr(43)}) {
    EXPECT_FALSE(ParseText(text).has_value()) << text;
  }
}

TEST(ImaLog, TextWithoutATemplateHashIsRefused) {
  EXPECT_FALSE(ParseText("10 " + GoodLine().substr(GoodLine().find(" ima"))).has_value());
}

TEST(ImaLog, EachWrongHexadecimalDigitIsRefused) {
  for (int c = 0; c < 256; ++c) {
    const char digit = static_cast<char>(c);
    const bool good = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
    if (digit == '\n' || digit == ' ') continue;
    std::string text = GoodLine();
    text[5] = digit;
    EXPECT_EQ(ParseText(text).has_value(), good) << c;
    text = GoodLine();
    text[text.find("5a") + 61] = digit;
    EXPECT_EQ(ParseText(text).has_value(), good) << c;
  }
}

TEST(ImaLog, ViewsMoveWithTheLog) {
  const std::string text = GoodLine();
  auto log = ParseText(text);
  ASSERT_TRUE(log.has_value());
  const ImaLog moved = *std::move(log);
  EXPECT_EQ(moved.entries()[0].path, "/x");
  EXPECT_EQ(ToHex(moved.entries()[0].digest.bytes), ToHex(kDigest));
}

}  // namespace
}  // namespace vallum::measure
