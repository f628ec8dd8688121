// SPDX-License-Identifier: Apache-2.0
#include "measure/ima_assessment.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "measure/ima_keys.h"
#include "measure/ima_log_builder.h"

namespace vallum::measure {
namespace {

using KeyPtr = std::unique_ptr<EVP_PKEY, OpensslFree<EVP_PKEY_free>>;

const Bytes kOther(32, std::byte{1});

Bytes DigestOf(std::string_view content) {
  return Digest(HashAlgorithm::kSha256, AsBytes(content));
}

Bytes PublicDer(const KeyPtr& key) {
  unsigned char* der = nullptr;
  const int size = i2d_PUBKEY(key.get(), &der);
  const std::unique_ptr<unsigned char, OpensslMemoryFree> owned(der);
  return ToBytes({reinterpret_cast<const std::byte*>(der), static_cast<size_t>(size)});
}

Bytes SignatureField(const KeyPtr& key, ByteView digest) {
  const std::unique_ptr<EVP_PKEY_CTX, OpensslFree<EVP_PKEY_CTX_free>> context(
      EVP_PKEY_CTX_new(key.get(), nullptr));
  EVP_PKEY_sign_init(context.get());
  EVP_PKEY_CTX_set_signature_md(context.get(), EVP_sha256());
  size_t size = 512;
  Bytes signature(size);
  EVP_PKEY_sign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size,
                reinterpret_cast<const unsigned char*>(digest.data()), digest.size());
  ImaKeys ids;
  EXPECT_TRUE(ids.Add(PublicDer(key)).has_value());
  ByteWriter out;
  out.U8(3).U8(2).U8(static_cast<uint8_t>(ImaHash::kSha256));
  out.U32Be(static_cast<uint32_t>(std::stoul(ids.KeyIds()[0], nullptr, 16)));
  out.U16Be(static_cast<uint16_t>(size)).Raw(ByteView(signature).first(size));
  return std::move(out).Take();
}

Bytes FileFields(std::string_view path, ByteView digest, ByteView more) {
  return Concatenate({ImaDigestField("sha256", digest), ImaNameField(path), ImaFieldBytes(more)});
}

// What a test judges: a log, a list, and the rest.
struct Case {
  ImaLogBuilder log;
  ImaAllowListBuilder list;
  std::vector<ImaBootPcrs> boot_pcrs;
  ImaViolationRule violations = ImaViolationRule::kRefuse;
  ImaAssessmentState from;

  ImaAssessment Judge() {
    const auto parsed = ImaLog::Parse(log.bytes(), ImaTemplateHash::kDetect);
    EXPECT_TRUE(parsed.has_value());
    const auto built = std::move(list).Build();
    EXPECT_TRUE(built.has_value());
    return AssessImaEntries({.log = *parsed,
                             .proven = parsed->entries().size(),
                             .first_entry = 100,
                             .list = **built,
                             .boot_pcrs = boot_pcrs,
                             .violations = violations},
                            from);
  }
  // The reason of the only finding.
  std::string Reason() {
    const ImaAssessment out = Judge();
    if (out.Accepted()) return "accepted";
    EXPECT_EQ(out.finding_count, 1U);
    return std::string(ImaReasonName(out.findings.at(0).reason));
  }
};

TEST(ImaAssessment, ListedDigestIsAccepted) {
  Case c;
  c.log.AddFile("/bin/sh", "shell");
  ASSERT_TRUE(c.list.files().Add("/bin/sh", DigestOf("shell")).has_value());
  const ImaAssessment out = c.Judge();
  EXPECT_TRUE(out.Accepted());
  EXPECT_EQ(out.by_digest, 1U);
}

TEST(ImaAssessment, UnknownPathIsFoundWithItsNumber) {
  Case c;
  c.log.AddFile("/bin/sh", "shell").AddFile("/bin/new\n", "new");
  ASSERT_TRUE(c.list.files().Add("/bin/sh", DigestOf("shell")).has_value());
  const ImaAssessment out = c.Judge();
  ASSERT_EQ(out.findings.size(), 1U);
  EXPECT_EQ(out.findings[0].reason, ImaReason::kImaUnknownFile);
  EXPECT_EQ(out.findings[0].entry, 101U);
  EXPECT_EQ(out.findings[0].path, "/bin/new\\x0a");
  EXPECT_EQ(out.findings[0].digest, "sha256:" + ToHex(DigestOf("new")));
}

TEST(ImaAssessment, OtherDigestIsFoundWithTheListedOnes) {
  Case c;
  c.log.AddFile("/bin/sh", "changed");
  ASSERT_TRUE(c.list.files().Add("/bin/sh", DigestOf("shell")).has_value());
  const ImaAssessment out = c.Judge();
  ASSERT_EQ(out.findings.size(), 1U);
  EXPECT_EQ(out.findings[0].reason, ImaReason::kImaDigestMismatch);
  EXPECT_EQ(out.findings[0].detail, "listed: " + ToHex(DigestOf("shell")));
}

TEST(ImaAssessment, ExcludedPathIsAcceptedWhateverItIs) {
  Case c;
  c.log.AddFile("/tmp/x", "x");
  ASSERT_TRUE(c.list.AddExclude("/tmp/").has_value());
  const ImaAssessment out = c.Judge();
  EXPECT_TRUE(out.Accepted());
  EXPECT_EQ(out.excluded, 1U);
}

// A violation extends ones, whatever path the host writes beside it.
TEST(ImaAssessment, ViolationOfAnExcludedPathIsFound) {
  Case c;
  c.log.AddViolation("/tmp/y");
  ASSERT_TRUE(c.list.AddExclude("/tmp/").has_value());
  EXPECT_EQ(c.Reason(), "ima_violation");
}

TEST(ImaAssessment, ViolationIsFoundOrAcceptedAsTheRuleSays) {
  Case refused;
  refused.log.AddViolation("/var/log/x");
  EXPECT_EQ(refused.Reason(), "ima_violation");
  Case accepted;
  accepted.log.AddViolation("/var/log/x");
  accepted.violations = ImaViolationRule::kAccept;
  EXPECT_EQ(accepted.Judge().ignored, 1U);
}

TEST(ImaAssessment, EntriesThatAreNotProvenAreNotJudged) {
  const auto built = ImaLogBuilder().AddFile("/a", "a").AddFile("/b", "b");
  const auto log = ImaLog::Parse(built.bytes(), ImaTemplateHash::kDetect);
  const auto list = ImportDigestList("");
  EXPECT_EQ(AssessImaEntries({.log = *log, .proven = 1, .list = **list}, {}).finding_count, 1U);
  EXPECT_TRUE(AssessImaEntries({.log = *log, .proven = 0, .list = **list}, {}).Accepted());
}

TEST(ImaAssessment, FindingsAreBoundedAndCounted) {
  Case c;
  for (size_t i = 0; i < 2 * kMaxImaFindings; ++i) c.log.AddFile("/x", "x");
  const ImaAssessment out = c.Judge();
  EXPECT_EQ(out.findings.size(), kMaxImaFindings);
  EXPECT_EQ(out.finding_count, 2 * kMaxImaFindings);
}

TEST(ImaAssessment, SignatureOfAListedKeyIsAccepted) {
  const KeyPtr key(EVP_EC_gen("P-256"));
  Case c;
  const Bytes digest = DigestOf("x");
  c.log.Add("ima-sig", FileFields("/x", digest, SignatureField(key, digest)));
  ASSERT_TRUE(c.list.AddKey(PublicDer(key)).has_value());
  EXPECT_EQ(c.Judge().by_signature, 1U);
}

TEST(ImaAssessment, SignatureOfAKeyThatIsNotListedIsFound) {
  const KeyPtr key(EVP_EC_gen("P-256"));
  Case c;
  const Bytes digest = DigestOf("x");
  c.log.Add("ima-sig", FileFields("/x", digest, SignatureField(key, digest)));
  EXPECT_EQ(c.Reason(), "ima_unknown_key");
}

TEST(ImaAssessment, SignatureOfSomethingElseIsFound) {
  const KeyPtr key(EVP_EC_gen("P-256"));
  Case c;
  c.log.Add("ima-sig", FileFields("/x", DigestOf("x"), SignatureField(key, kOther)));
  ASSERT_TRUE(c.list.AddKey(PublicDer(key)).has_value());
  EXPECT_EQ(c.Reason(), "ima_bad_signature");
}

TEST(ImaAssessment, ListedDigestNeedsNoSignature) {
  const KeyPtr key(EVP_EC_gen("P-256"));
  Case c;
  c.log.Add("ima-sig", FileFields("/x", DigestOf("x"), SignatureField(key, kOther)));
  ASSERT_TRUE(c.list.files().Add("/x", DigestOf("x")).has_value());
  EXPECT_EQ(c.Reason(), "accepted");
}

TEST(ImaAssessment, KeyThatTheListHasForItsKeyringSignsFromThenOn) {
  const KeyPtr key(EVP_EC_gen("P-256"));
  const Bytes der = PublicDer(key);
  const Bytes digest = DigestOf("x");
  Case c;
  c.log.Add("ima-buf", FileFields(".ima", Digest(HashAlgorithm::kSha256, der), der));
  ASSERT_TRUE(c.list.keyrings().Add(".ima", Digest(HashAlgorithm::kSha256, der)).has_value());
  const ImaAssessment loaded = c.Judge();
  EXPECT_TRUE(loaded.Accepted());
  EXPECT_EQ(loaded.state.loaded_keys, std::vector<Bytes>{der});
  Case next;
  next.from = loaded.state;
  next.log.Add("ima-sig", FileFields("/x", digest, SignatureField(key, digest)));
  EXPECT_EQ(next.Judge().by_signature, 1U);
}

TEST(ImaAssessment, KeyOnAnotherKeyringSignsNothing) {
  const KeyPtr key(EVP_EC_gen("P-256"));
  const Bytes der = PublicDer(key);
  Case c;
  c.log.Add("ima-buf", FileFields(".platform", Digest(HashAlgorithm::kSha256, der), der));
  ASSERT_TRUE(c.list.keyrings().Add(".platform", Digest(HashAlgorithm::kSha256, der)).has_value());
  const ImaAssessment out = c.Judge();
  EXPECT_TRUE(out.Accepted());
  EXPECT_TRUE(out.state.loaded_keys.empty());
}

TEST(ImaAssessment, KeyThatIsNotListedIsFoundUnlessItsKeyringIsIgnored) {
  const KeyPtr key(EVP_EC_gen("P-256"));
  const Bytes der = PublicDer(key);
  Case refused;
  refused.log.Add("ima-buf", FileFields(".ima", Digest(HashAlgorithm::kSha256, der), der));
  EXPECT_EQ(refused.Reason(), "ima_key_not_listed");
  Case ignored;
  ignored.log.Add("ima-buf", FileFields(".ima", Digest(HashAlgorithm::kSha256, der), der));
  ASSERT_TRUE(ignored.list.IgnoreKeyring(".ima").has_value());
  const ImaAssessment out = ignored.Judge();
  EXPECT_EQ(out.ignored, 1U);
  EXPECT_TRUE(out.state.loaded_keys.empty());
}

TEST(ImaAssessment, BufferIsJudgedByItsNameAndDigest) {
  Case good;
  good.log.Add("ima-buf", FileFields("kexec-cmdline", DigestOf("quiet"), AsBytes("quiet")));
  ASSERT_TRUE(good.list.buffers().Add("kexec-cmdline", DigestOf("quiet")).has_value());
  EXPECT_EQ(good.Reason(), "accepted");
  Case other;
  other.log.Add("ima-buf", FileFields("kexec-cmdline", DigestOf("debug"), AsBytes("debug")));
  ASSERT_TRUE(other.list.buffers().Add("kexec-cmdline", DigestOf("quiet")).has_value());
  EXPECT_EQ(other.Reason(), "ima_unknown_buffer");
  Case as_file;
  as_file.log.Add("ima-buf", FileFields("kexec-cmdline", DigestOf("quiet"), AsBytes("quiet")));
  ASSERT_TRUE(as_file.list.files().Add("kexec-cmdline", DigestOf("quiet")).has_value());
  EXPECT_EQ(as_file.Reason(), "ima_unknown_buffer");
}

std::string PublicPem(const KeyPtr& key) {
  const std::unique_ptr<BIO, OpensslFree<BIO_free_all>> bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_PUBKEY(bio.get(), key.get());
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &text);
  return {text, static_cast<size_t>(size)};
}

// The reason for one buffer where all keyrings are ignored.
std::string ReasonForBuffer(std::string_view name, ByteView buffer) {
  Case c;
  EXPECT_TRUE(c.list.IgnoreKeyring("*").has_value());
  c.log.Add("ima-buf", FileFields(name, Digest(HashAlgorithm::kSha256, buffer), buffer));
  return c.Reason();
}

TEST(ImaAssessment, KeyUnderABuffersNameIsABuffer) {
  const Bytes der = PublicDer(KeyPtr(EVP_EC_gen("P-256")));
  EXPECT_EQ(ReasonForBuffer("_uid.0", der), "accepted");
  EXPECT_EQ(ReasonForBuffer("kexec-cmdline", der), "ima_unknown_buffer");
}

TEST(ImaAssessment, TextThatHoldsAKeyIsNone) {
  const std::string text = "init=/bin/sh " + PublicPem(KeyPtr(EVP_EC_gen("P-256")));
  EXPECT_EQ(ReasonForBuffer(".ima", AsBytes(text)), "ima_unknown_buffer");
}

TEST(ImaAssessment, KeyWithMoreBehindItIsNone) {
  Bytes der = PublicDer(KeyPtr(EVP_EC_gen("P-256")));
  der.push_back(std::byte{0});
  EXPECT_EQ(ReasonForBuffer(".ima", der), "ima_unknown_buffer");
}

TEST(ImaAssessment, BufferThatIsNotOfItsDigestIsFound) {
  Case c;
  c.log.Add("ima-buf", FileFields("kexec-cmdline", DigestOf("quiet"), AsBytes("debug")));
  ASSERT_TRUE(c.list.buffers().Add("kexec-cmdline", DigestOf("quiet")).has_value());
  EXPECT_EQ(c.Reason(), "ima_buffer_mismatch");
}

TEST(ImaAssessment, EntryOfAnotherPcrIsFound) {
  Case c;
  c.log.Add("ima-ng", Concatenate({ImaDigestField("sha256", DigestOf("x")), ImaNameField("/x")}),
            11);
  ASSERT_TRUE(c.list.files().Add("/x", DigestOf("x")).has_value());
  EXPECT_EQ(c.Reason(), "ima_other_pcr");
}

TEST(ImaAssessment, EntryWithoutDigestOrNameIsFound) {
  Case nameless;
  nameless.log.Add("d-ng", ImaDigestField("sha256", DigestOf("x")));
  EXPECT_EQ(nameless.Reason(), "ima_nothing_measured");
  Case bare;
  bare.log.Add("n-ng", ImaNameField("/x"));
  EXPECT_EQ(bare.Reason(), "ima_nothing_measured");
}

ImaBootPcrs MakeBootPcrs(HashAlgorithm bank) {
  ImaBootPcrs out{.bank = bank, .values = {}};
  for (uint32_t i = 0; i < kBootAggregatePcrs; ++i) {
    out.values.emplace_back(DigestSize(bank), static_cast<std::byte>(i));
  }
  return out;
}

void AddBootAggregate(Case& c, std::string_view bank, ByteView digest) {
  c.log.Add("ima-ng", Concatenate({ImaDigestField(bank, digest), ImaNameField("boot_aggregate")}));
}

TEST(ImaAssessment, BootAggregateOfTheQuotedPcrsIsAccepted) {
  const auto sha256 = MakeBootPcrs(HashAlgorithm::kSha256);
  const auto sha1 = MakeBootPcrs(HashAlgorithm::kSha1);
  Case c;
  c.boot_pcrs = {sha1, sha256};
  AddBootAggregate(c, "sha256", ImaBootAggregate(sha256, 10));
  AddBootAggregate(c, "sha256", ImaBootAggregate(sha256, 8));
  AddBootAggregate(c, "sha1", ImaBootAggregate(sha1, 8));
  EXPECT_EQ(c.Judge().boot_aggregates, 3U);
}

TEST(ImaAssessment, BootAggregateOfOtherPcrsIsFoundEvenIfListed) {
  Case c;
  c.boot_pcrs = {MakeBootPcrs(HashAlgorithm::kSha256)};
  AddBootAggregate(c, "sha256", kOther);
  ASSERT_TRUE(c.list.files().Add("boot_aggregate", kOther).has_value());
  EXPECT_EQ(c.Reason(), "ima_boot_aggregate");
  Case sha1;
  sha1.boot_pcrs = {MakeBootPcrs(HashAlgorithm::kSha1)};
  AddBootAggregate(sha1, "sha1", ImaBootAggregate(sha1.boot_pcrs[0], 10));
  EXPECT_EQ(sha1.Reason(), "ima_boot_aggregate");
}

TEST(ImaAssessment, BootAggregateOfABankThatIsNotQuotedMustBeListed) {
  Case unknown;
  AddBootAggregate(unknown, "sha256", kOther);
  EXPECT_EQ(unknown.Reason(), "ima_unknown_file");
  Case listed;
  listed.boot_pcrs = {MakeBootPcrs(HashAlgorithm::kSha1)};
  AddBootAggregate(listed, "sha256", kOther);
  ASSERT_TRUE(listed.list.files().Add("boot_aggregate", kOther).has_value());
  EXPECT_EQ(listed.Reason(), "accepted");
}

}  // namespace
}  // namespace vallum::measure
