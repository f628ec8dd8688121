// SPDX-License-Identifier: Apache-2.0
#include "firmware/key_set_tools.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <string>

#include "firmware/pkcs7.h"
#include "firmware/test_keys.h"
#include "firmware/variable_store.h"

namespace vallum::firmware {
namespace {

using formats::testing::ReadFile;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using testing::Entry;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::TestKeys;

constexpr const char* kMicrosoftTemplate = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd";
constexpr const char* kSnakeoilTemplate = "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd";

WallTime Day(int year, unsigned month, unsigned day) {
  return std::chrono::sys_days(std::chrono::year(year) / std::chrono::month(month) /
                               std::chrono::day(day));
}

KeySet FromTemplate(const char* path) {
  const auto store = VariableStore::Parse(ReadFile(path));
  EXPECT_TRUE(store.has_value());
  return KeySetFromStore(*store).value();
}

// Three authorities of its own; valid for days from now on.
class KeySetToolsTest : public ::testing::Test {
 protected:
  static KeySet MakeKeySet() {
    static const Signature pk = Entry(keys().MakeAuthority("pk"));
    static const Signature kek = Entry(keys().MakeAuthority("kek"));
    static const Signature db = Entry(keys().MakeAuthority("db"));
    KeySet set;
    set.name = "own";
    set.pk = {pk};
    set.kek = {kek};
    set.db = {db};
    set.dbx = {Digest('1')};
    return set;
  }
  static Signature Digest(char digit) {
    return SignatureFromDigest(std::string(64, digit), kShimLockGuid).value();
  }
  static TestKeys& keys() {
    static TestKeys made;
    return made;
  }
  static std::vector<KeyFinding> Examine(const KeySet& set) {
    return VerifyKeySet(set, std::chrono::system_clock::now());
  }
};

auto Finding(FindingSeverity severity, const std::string& words) {
  return Contains(
      AllOf(Field(&KeyFinding::severity, severity), Field(&KeyFinding::text, HasSubstr(words))));
}

TEST_F(KeySetToolsTest, SetWithoutFaultsHasNoFindings) {
  EXPECT_THAT(Examine(MakeKeySet()), IsEmpty());
}

TEST_F(KeySetToolsTest, MissingPlatformKeyIsAnError) {
  KeySet set = MakeKeySet();
  set.pk.clear();
  EXPECT_THAT(Examine(set), Finding(FindingSeverity::kError, "PK is empty"));
}

TEST_F(KeySetToolsTest, SecondPlatformKeyIsAnError) {
  KeySet set = MakeKeySet();
  set.pk.push_back(set.kek.front());
  EXPECT_THAT(Examine(set), Finding(FindingSeverity::kError, "PK has 2 entries"));
}

TEST_F(KeySetToolsTest, EmptyListsAreNamed) {
  KeySet set = MakeKeySet();
  set.kek.clear();
  set.db.clear();
  set.dbx.clear();
  const auto findings = Examine(set);
  EXPECT_THAT(findings, Finding(FindingSeverity::kWarning, "KEK is empty"));
  EXPECT_THAT(findings, Finding(FindingSeverity::kError, "db is empty"));
  EXPECT_THAT(findings, Finding(FindingSeverity::kWarning, "dbx is empty"));
}

TEST_F(KeySetToolsTest, SetWithoutAnyKeyIsSetupModeAndNothingElse) {
  EXPECT_THAT(Examine(KeySet()), ElementsAre(Field(&KeyFinding::text, HasSubstr("setup mode"))));
}

TEST_F(KeySetToolsTest, ExpiredCertificateIsNamedWithItsDay) {
  const auto findings = VerifyKeySet(FromTemplate(kMicrosoftTemplate), Day(2027, 1, 1));
  EXPECT_THAT(findings, Finding(FindingSeverity::kWarning, "expired on 2026-06-27"));
}

TEST_F(KeySetToolsTest, CertificateOfTheFutureIsNamed) {
  EXPECT_THAT(VerifyKeySet(MakeKeySet(), Day(2001, 1, 1)),
              Finding(FindingSeverity::kWarning, "is valid from 20"));
}

TEST_F(KeySetToolsTest, SnakeoilKeyIsAnError) {
  EXPECT_THAT(Examine(FromTemplate(kSnakeoilTemplate)),
              Finding(FindingSeverity::kError, "snakeoil"));
}

TEST_F(KeySetToolsTest, TestKeyOfAVendorIsAnError) {
  KeySet set = MakeKeySet();
  // The name as it was published, put in afterwards: nothing verifies a signature here.
  Bytes certificate = keys().MakeAuthority("DO_NOT_TRUST_PK");
  std::ranges::replace(certificate, std::byte{'_'}, std::byte{' '});
  set.pk = {Entry(certificate)};
  EXPECT_THAT(Examine(set), Finding(FindingSeverity::kError, "private part is published"));
}

TEST_F(KeySetToolsTest, CertificateThatCannotBeReadIsAnError) {
  KeySet set = MakeKeySet();
  set.db.push_back(MakeSignature(SignatureType::kX509, kShimLockGuid, Bytes(300)));
  EXPECT_THAT(Examine(set), Finding(FindingSeverity::kError, "cannot be read"));
}

TEST_F(KeySetToolsTest, DigestInKekIsAnError) {
  KeySet set = MakeKeySet();
  set.kek.push_back(Digest('2'));
  EXPECT_THAT(Examine(set), Finding(FindingSeverity::kError, "KEK has a digest"));
}

TEST_F(KeySetToolsTest, EntryInDbAndDbxIsAContradiction) {
  KeySet set = MakeKeySet();
  set.db.push_back(Digest('1'));
  EXPECT_THAT(Examine(set), Finding(FindingSeverity::kWarning, "dbx wins"));
}

TEST_F(KeySetToolsTest, EntryTwiceIsNoted) {
  KeySet set = MakeKeySet();
  set.dbx.push_back(Digest('1'));
  EXPECT_THAT(Examine(set), Finding(FindingSeverity::kNote, "dbx has 1 entries more than once"));
}

TEST_F(KeySetToolsTest, PlatformKeyInDbIsNoted) {
  KeySet set = MakeKeySet();
  set.db.push_back(set.pk.front());
  EXPECT_THAT(Examine(set), Finding(FindingSeverity::kNote, "db has the platform key"));
}

TEST_F(KeySetToolsTest, DifferenceNamesListAndEntries) {
  const KeySet before = MakeKeySet();
  KeySet after = before;
  after.dbx = {Digest('2'), Digest('3')};
  after.sbat_level = "sbat,1,2025021800\n";
  const auto differences = DiffKeySets(before, after);
  ASSERT_EQ(differences.size(), 2U);
  EXPECT_EQ(differences[0].list, "dbx");
  EXPECT_THAT(differences[0].added,
              ElementsAre(HasSubstr(std::string(16, '2')), HasSubstr(std::string(16, '3'))));
  EXPECT_THAT(differences[0].removed, ElementsAre(HasSubstr(std::string(16, '1'))));
  EXPECT_EQ(differences[1].list, "SbatLevel");
}

TEST_F(KeySetToolsTest, OrderAndOwnerOfEntriesAreNoDifference) {
  KeySet before = MakeKeySet();
  before.dbx = {Digest('1'), Digest('2')};
  KeySet after = before;
  after.dbx = {Digest('2'), Digest('1')};
  after.dbx.front().owner = kGlobalVariableGuid;
  EXPECT_THAT(DiffKeySets(before, after), IsEmpty());
}

TEST_F(KeySetToolsTest, DigestDependsOnTheKeysAndNotOnTheName) {
  const KeySet set = MakeKeySet();
  KeySet other = set;
  other.name = "another";
  EXPECT_EQ(DigestOf(set), DigestOf(other));
  other.dbx.push_back(Digest('9'));
  EXPECT_NE(DigestOf(set), DigestOf(other));
}

TEST_F(KeySetToolsTest, FileOfSignatureListsGivesItsEntries) {
  const KeySet set = MakeKeySet();
  const auto entries = SignaturesFromFile(EncodeSignatureLists(set.db), kShimLockGuid);
  ASSERT_TRUE(entries.has_value()) << entries.error().Describe();
  EXPECT_EQ(*entries, set.db);
}

TEST_F(KeySetToolsTest, FileWithACertificateGivesOneEntry) {
  const KeySet set = MakeKeySet();
  const auto entries = SignaturesFromFile(set.db.front().data, set.db.front().owner);
  ASSERT_TRUE(entries.has_value()) << entries.error().Describe();
  EXPECT_EQ(*entries, set.db);
}

TEST_F(KeySetToolsTest, FileOfNeitherIsRefusedWithWhatIsAccepted) {
  const auto entries = SignaturesFromFile(AsBytes("nothing of the kind"), kShimLockGuid);
  ASSERT_FALSE(entries.has_value());
  EXPECT_THAT(entries.error().fix(), HasSubstr("signed update"));
  EXPECT_FALSE(SignaturesFromFile({}, kShimLockGuid).has_value());
}

TEST_F(KeySetToolsTest, DigestMustBeASha256) {
  EXPECT_FALSE(SignatureFromDigest("12", kShimLockGuid).has_value());
  EXPECT_FALSE(SignatureFromDigest(std::string(64, 'x'), kShimLockGuid).has_value());
}

TEST(AgingCertificatesTest, MicrosoftsOfTheOldTemplateAreNamedWithTheirDaysAndSuccessors) {
  const KeySet set = FromTemplate(kMicrosoftTemplate);
  const auto aging = FindAgingCertificates(set, Day(2026, 8, 1));
  const auto named = [&](const std::string& name) {
    return std::ranges::find(aging, name, &AgingCertificate::name);
  };
  const auto third_party = named("Microsoft Corporation UEFI CA 2011");
  ASSERT_NE(third_party, aging.end());
  EXPECT_EQ(third_party->list, "db");
  EXPECT_EQ(third_party->expires, "2026-06-27");
  EXPECT_TRUE(third_party->expired);
  const auto windows = named("Microsoft Windows Production PCA 2011");
  ASSERT_NE(windows, aging.end());
  EXPECT_EQ(windows->expires, "2026-10-19");
  EXPECT_FALSE(windows->expired);
}

TEST(AgingCertificatesTest, ExpiryIsWhatTheCertificateItselfSays) {
  const KeySet set = FromTemplate(kMicrosoftTemplate);
  int compared = 0;
  for (const KeyList& list : KeyLists()) {
    for (const Signature& entry : set.*list.entries) {
      const KnownCertificate* known = FindKnownCertificate(entry.data);
      if (known == nullptr || known->expires.year == 0) continue;
      const auto parsed = Certificate::Parse(entry.data);
      ASSERT_TRUE(parsed.has_value());
      const auto valid = parsed->ValidBetween();
      ASSERT_TRUE(valid.has_value());
      const WallTime end{std::chrono::seconds(valid->not_after)};
      EXPECT_EQ(known->expires.ToString().substr(0, 19), FormatTime(end).substr(0, 19));
      ++compared;
    }
  }
  EXPECT_GT(compared, 0);
}

}  // namespace
}  // namespace vallum::firmware
