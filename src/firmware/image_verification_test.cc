// SPDX-License-Identifier: Apache-2.0
#include "firmware/image_verification.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "firmware/pkcs7.h"
#include "firmware/test_keys.h"
#include "firmware/variable_store.h"

namespace vallum::firmware {
namespace {

using formats::PeImage;
using formats::testing::HasTool;
using formats::testing::PutLe32;
using formats::testing::ReadFile;
using formats::testing::WriteFile;
using ::testing::Contains;
using testing::DebianTree;
using testing::Entry;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::kTableSizeOffset;
using testing::MakeProgram;
using testing::TestKeys;

Bytes ImageDigest(const Bytes& file, HashAlgorithm algorithm = HashAlgorithm::kSha256) {
  return *PeImage::Parse(file)->AuthenticodeDigest(algorithm);
}

Signature DigestEntry(const Bytes& file) {
  return MakeSignature(SignatureType::kSha256, kGlobalVariableGuid, ImageDigest(file));
}

// Revokes a certificate by the digest of its signed part, from a year on; 0: always.
Signature Revocation(SignatureType type, const Bytes& certificate, uint16_t year = 0) {
  ByteWriter out;
  out.Raw(Digest(SignatureAlgorithm(type), Certificate::Parse(certificate)->ToBeSigned()));
  out.U16Le(year).U8(year == 0 ? 0 : 1).U8(year == 0 ? 0 : 1).Zeros(12);
  return MakeSignature(type, kGlobalVariableGuid, out.bytes());
}

ImageVerdict Firmware(const Bytes& file, const KeySet& keys) {
  const auto image = PeImage::Parse(file);
  EXPECT_TRUE(image.has_value());
  return VerifyByFirmware(*image, keys);
}

ImageVerdict Shim(const Bytes& file, const KeySet& keys, const ShimTrust& shim = {}) {
  const auto image = PeImage::Parse(file);
  EXPECT_TRUE(image.has_value());
  return VerifyByShim(*image, keys, shim, SbatNeed::kRequired);
}

class ImageVerificationTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!HasTool("sbsign")) GTEST_SKIP() << "no sbsign";
    root_ = keys_.MakeAuthority("root");
    signer_ = keys_.MakeSigner("signer", "root");
    signed_ = keys_.Sign(MakeProgram(), "signer");
    set_.name = "mine";
    set_.db = {Entry(root_)};
    nobody_ = set_;
    nobody_.db = {MakeSignature(SignatureType::kSha256, kShimLockGuid, Bytes(32))};
  }
  TestKeys keys_;
  Bytes root_;
  Bytes signer_;
  Bytes signed_;  // by signer_
  KeySet set_;    // db holds root_
  KeySet nobody_;
};

TEST_F(ImageVerificationTest, SignedProgramStartsByTheEntryOfDbAboveItsSigner) {
  const ImageVerdict verdict = Firmware(signed_, set_);
  EXPECT_TRUE(verdict.allowed);
  EXPECT_EQ(verdict.authorities, (std::vector<DecidingEntry>{{"db", Entry(root_)}}));
  EXPECT_THAT(verdict.fixes, IsEmpty());
}

TEST_F(ImageVerificationTest, FirstMatchingEntryOfDbIsTheAuthority) {
  set_.db = {Entry(signer_), Entry(root_)};
  EXPECT_EQ(Firmware(signed_, set_).authorities.front().entry, Entry(signer_));
  set_.db = {Entry(root_), Entry(signer_)};
  EXPECT_EQ(Firmware(signed_, set_).authorities.front().entry, Entry(root_));
}

TEST_F(ImageVerificationTest, UntrustedSignerIsNamedWithWhatWouldHelp) {
  const ImageVerdict verdict = Firmware(signed_, nobody_);
  EXPECT_FALSE(verdict.allowed);
  EXPECT_THAT(verdict.authorities, IsEmpty());
  EXPECT_THAT(verdict.reasons, Contains(HasSubstr("CN=signer (issued by CN=root)")));
  EXPECT_THAT(verdict.fixes, Contains(HasSubstr("db holds CN=root")));
  EXPECT_THAT(verdict.fixes, Contains(HasSubstr(ToHex(ImageDigest(signed_)))));
}

TEST_F(ImageVerificationTest, UnsignedProgramNeedsItsDigestInDb) {
  const Bytes program = MakeProgram();
  EXPECT_FALSE(Firmware(program, set_).allowed);
  set_.db.push_back(DigestEntry(program));
  const ImageVerdict verdict = Firmware(program, set_);
  EXPECT_TRUE(verdict.allowed);
  EXPECT_EQ(verdict.authorities.front().entry, DigestEntry(program));
  set_.dbx = {DigestEntry(program)};
  EXPECT_FALSE(Firmware(program, set_).allowed);
  set_.dbx = {MakeSignature(SignatureType::kSha384, kGlobalVariableGuid,
                            ImageDigest(program, HashAlgorithm::kSha384))};
  EXPECT_FALSE(Firmware(program, set_).allowed);
}

TEST_F(ImageVerificationTest, SignedProgramStartsByItsDigestToo) {
  nobody_.db = {DigestEntry(signed_)};
  const ImageVerdict verdict = Firmware(signed_, nobody_);
  EXPECT_TRUE(verdict.allowed);
  EXPECT_EQ(verdict.authorities.front().entry, DigestEntry(signed_));
}

TEST_F(ImageVerificationTest, ChangedProgramIsRefused) {
  Bytes changed = signed_;
  changed[0x210] ^= std::byte{1};
  const ImageVerdict verdict = Firmware(changed, set_);
  EXPECT_FALSE(verdict.allowed);
  EXPECT_THAT(verdict.reasons, Contains(HasSubstr("changed after signing")));
}

TEST_F(ImageVerificationTest, WhatDbxForbidsIsRefusedThoughDbAllowsIt) {
  for (const Signature& entry : {DigestEntry(signed_), Entry(root_), Entry(signer_),
                                 Revocation(SignatureType::kX509Sha256, signer_),
                                 Revocation(SignatureType::kX509Sha384, signer_),
                                 Revocation(SignatureType::kX509Sha512, signer_)}) {
    set_.dbx = {entry};
    const ImageVerdict verdict = Firmware(signed_, set_);
    EXPECT_FALSE(verdict.allowed) << DescribeSignature(entry);
    EXPECT_EQ(verdict.forbidden_by, (DecidingEntry{"dbx", entry}));
    EXPECT_THAT(verdict.authorities, IsEmpty());
  }
}

TEST_F(ImageVerificationTest, RevokedEntryOfDbLetsNothingStart) {
  set_.dbx = {Revocation(SignatureType::kX509Sha256, root_)};
  EXPECT_FALSE(Firmware(signed_, set_).allowed);
  set_.db.push_back(Entry(signer_));  // firmware does not look on
  EXPECT_FALSE(Firmware(signed_, set_).allowed);
  set_.db = {Entry(signer_)};
  EXPECT_TRUE(Firmware(signed_, set_).allowed);
}

TEST_F(ImageVerificationTest, RevocationOfAnotherCertificateDoesNotCount) {
  const Bytes other = keys_.MakeAuthority("other");
  set_.dbx = {Entry(other), Revocation(SignatureType::kX509Sha256, other)};
  EXPECT_TRUE(Firmware(signed_, set_).allowed);
}

TEST_F(ImageVerificationTest, RevocationWithATimeNeedsATimestamp) {
  set_.dbx = {Revocation(SignatureType::kX509Sha256, signer_, 2099)};
  EXPECT_FALSE(Firmware(signed_, set_).allowed);
}

TEST_F(ImageVerificationTest, RevocationSparesWhatATrustedAuthoritySawBefore) {
  WriteFile(keys_.File("tsa.ext"), ToBytes(AsBytes("extendedKeyUsage=critical,timeStamping\n")));
  keys_.MakeSigner("tsa", "root", "-days 9 -extfile " + keys_.File("tsa.ext"));
  const Bytes stamped = keys_.AddTimestamp(signed_, "tsa");
  ASSERT_EQ(ImageDigest(stamped), ImageDigest(signed_));
  set_.dbx = {Revocation(SignatureType::kX509Sha256, signer_, 2099)};
  EXPECT_FALSE(Firmware(stamped, set_).allowed);
  set_.dbt = {Entry(keys_.MakeAuthority("other"))};
  EXPECT_FALSE(Firmware(stamped, set_).allowed);
  set_.dbt.push_back(Entry(root_));
  EXPECT_TRUE(Firmware(stamped, set_).allowed);
  EXPECT_FALSE(Firmware(signed_, set_).allowed);
  set_.dbx = {Revocation(SignatureType::kX509Sha256, signer_, 2001)};
  EXPECT_FALSE(Firmware(stamped, set_).allowed);
  set_.dbx = {Revocation(SignatureType::kX509Sha256, signer_)};
  EXPECT_FALSE(Firmware(stamped, set_).allowed);
}

TEST_F(ImageVerificationTest, OneOfSeveralSignaturesIsEnough) {
  keys_.MakeAuthority("stranger");
  const Bytes twice = keys_.Sign(keys_.Sign(MakeProgram(), "stranger"), "signer");
  ASSERT_EQ(PeImage::Parse(twice)->certificates().size(), 2U);
  EXPECT_TRUE(Firmware(twice, set_).allowed);
  EXPECT_TRUE(Shim(twice, set_).allowed);
  EXPECT_FALSE(Firmware(twice, nobody_).allowed);
}

TEST_F(ImageVerificationTest, OneRevokedSignatureIsEnoughForFirmwareButNotForShim) {
  const Bytes revoked = keys_.MakeAuthority("revoked");
  set_.dbx = {Entry(revoked)};
  for (const auto& [first, second] : {std::pair("revoked", "signer"), {"signer", "revoked"}}) {
    const Bytes twice = keys_.Sign(keys_.Sign(MakeProgram(), first), second);
    EXPECT_FALSE(Firmware(twice, set_).allowed) << first;
    EXPECT_TRUE(Shim(twice, set_).allowed) << first;
  }
  EXPECT_FALSE(Shim(keys_.Sign(MakeProgram(), "revoked"), set_).allowed);
}

TEST_F(ImageVerificationTest, TableThatItsCertificatesDoNotFillIsRefused) {
  Bytes longer = signed_;
  longer.resize(longer.size() + 8);
  const uint32_t size = PeImage::Parse(signed_)->certificate_table_size();
  PutLe32(longer, kTableSizeOffset, size + 4);
  ASSERT_TRUE(PeImage::Parse(longer).has_value());
  const ImageVerdict verdict = Firmware(longer, set_);
  EXPECT_FALSE(verdict.allowed);
  EXPECT_THAT(verdict.reasons, Contains(HasSubstr("damaged")));
}

TEST_F(ImageVerificationTest, SecureBootOffStartsAnything) {
  nobody_.secure_boot = false;
  const ImageVerdict verdict = Firmware(MakeProgram(), nobody_);
  EXPECT_TRUE(verdict.allowed);
  EXPECT_THAT(verdict.authorities, IsEmpty());
  EXPECT_TRUE(Shim(MakeProgram(), nobody_).allowed);
}

TEST_F(ImageVerificationTest, DamageNeverStarts) {
  std::minstd_rand random(1);
  for (int i = 0; i < 200; ++i) {
    Bytes damaged = signed_;
    const size_t at = random() % damaged.size();
    damaged[at] ^= std::byte{static_cast<uint8_t>(1U << random() % 8)};
    const auto image = PeImage::Parse(damaged);
    if (!image.has_value() || !VerifyByFirmware(*image, set_).allowed) continue;
    EXPECT_EQ(*image->AuthenticodeDigest(HashAlgorithm::kSha256), ImageDigest(signed_)) << at;
  }
}

TEST_F(ImageVerificationTest, ShimAsksDbThenVendorDbThenMokListThenItsCertificate) {
  ShimTrust shim;
  shim.vendor = {MakeSignature(SignatureType::kX509, kShimLockGuid, root_)};
  KeySet keys = nobody_;
  const auto authority = [&] { return Shim(signed_, keys, shim).authorities; };
  EXPECT_EQ(authority(), (std::vector<DecidingEntry>{{"MokListRT", shim.vendor.front()}}));
  keys.mok = {Entry(root_)};
  EXPECT_EQ(authority(), (std::vector<DecidingEntry>{{"MokListRT", Entry(root_)}}));
  shim.has_vendor_db = true;
  EXPECT_EQ(authority(), (std::vector<DecidingEntry>{{"vendor_db", shim.vendor.front()}}));
  keys.db = {Entry(signer_)};
  EXPECT_EQ(authority(), (std::vector<DecidingEntry>{{"db", Entry(signer_)}}));
  keys.db.push_back(DigestEntry(signed_));
  EXPECT_EQ(authority(), (std::vector<DecidingEntry>{{"db", DigestEntry(signed_)}}));
}

TEST_F(ImageVerificationTest, ShimForbidsByEachOfItsLists) {
  ShimTrust shim;
  for (const Signature& entry : {DigestEntry(signed_), Entry(root_), Entry(signer_)}) {
    shim.vendor_dbx = {entry};
    EXPECT_EQ(Shim(signed_, set_, shim).forbidden_by, (DecidingEntry{"vendor_dbx", entry}));
    shim.vendor_dbx = {};
    set_.dbx = {entry};
    EXPECT_EQ(Shim(signed_, set_, shim).forbidden_by, (DecidingEntry{"dbx", entry}));
    set_.dbx = {};
    set_.mokx = {entry};
    EXPECT_EQ(Shim(signed_, set_, shim).forbidden_by, (DecidingEntry{"MokListX", entry}));
    set_.mokx = {};
  }
  EXPECT_TRUE(Shim(signed_, set_, shim).allowed);
}

TEST_F(ImageVerificationTest, ShimTakesSha1DigestsFromFirmwaresListsOnly) {
  const Signature entry = MakeSignature(SignatureType::kSha1, kGlobalVariableGuid,
                                        ImageDigest(signed_, HashAlgorithm::kSha1));
  nobody_.mok = {entry};
  EXPECT_FALSE(Shim(signed_, nobody_).allowed);
  nobody_.db = {entry};
  EXPECT_TRUE(Shim(signed_, nobody_).allowed);
  set_.dbx = {entry};
  EXPECT_FALSE(Shim(signed_, set_).allowed);
}

TEST_F(ImageVerificationTest, ShimDoesNotTakeCertificatesForModules) {
  WriteFile(keys_.File("m.ext"), ToBytes(AsBytes("extendedKeyUsage=1.3.6.1.4.1.2312.16.1.2\n")));
  const Bytes modules = keys_.MakeSigner("m", "root", "-days 9 -extfile " + keys_.File("m.ext"));
  const Bytes program = keys_.Sign(MakeProgram(), "m");
  nobody_.db = {Entry(modules)};
  EXPECT_TRUE(Firmware(program, nobody_).allowed);
  EXPECT_FALSE(Shim(program, nobody_).allowed);
}

TEST_F(ImageVerificationTest, ShimRefusesWhatItsRevocationLevelRefuses) {
  ShimTrust shim;
  shim.sbat_levels = {ToBytes(AsBytes("sbat,1,2025021800\ngrub,9\n")),
                      ToBytes(AsBytes("sbat,1,2025051000\ngrub,10\n"))};
  EXPECT_TRUE(Shim(signed_, set_, shim).allowed);
  set_.sbat_level = "sbat,1,2026010100\ngrub,10\n";
  const ImageVerdict verdict = Shim(signed_, set_, shim);
  EXPECT_FALSE(verdict.allowed);
  EXPECT_THAT(verdict.authorities, IsEmpty());
  EXPECT_THAT(verdict.reasons, Contains(HasSubstr("grub has generation 9")));
  EXPECT_FALSE(verdict.fixes.empty());
}

TEST_F(ImageVerificationTest, ShimDemandsASectionSbatOfWhatItLoads) {
  set_.sbat_level = "sbat,1,2021030218\n";
  const Bytes bare = keys_.Sign(formats::testing::MakePe({}), "signer");
  EXPECT_FALSE(Shim(bare, set_).allowed);
  EXPECT_TRUE(VerifyByShim(*PeImage::Parse(bare), set_, {}, SbatNeed::kOptional).allowed);
  const Bytes text = ToBytes(AsBytes("sbat,1,v,p,1,u\n"));
  const Bytes two =
      keys_.Sign(formats::testing::MakePe({{".sbat", text}, {".sbat", text}}), "signer");
  EXPECT_FALSE(Shim(two, set_).allowed);
}

TEST_F(ImageVerificationTest, AgreesWithSbverifyOnEachProgramAndCertificate) {
  const Bytes other = keys_.MakeAuthority("other");
  keys_.MakeSigner("other-signer", "other");
  std::vector<Bytes> programs = {MakeProgram(), signed_, keys_.Sign(MakeProgram(), "root"),
                                 keys_.Sign(signed_, "other-signer"),
                                 keys_.Sign(MakeProgram(), "other-signer")};
  for (const Bytes& program : std::vector(programs)) {
    programs.push_back(program);
    programs.back()[0x210] ^= std::byte{1};
  }
  size_t accepted = 0;
  for (size_t i = 0; i < programs.size(); ++i) {
    for (const Bytes& certificate : {root_, signer_, other}) {
      KeySet keys;
      keys.db = {Entry(certificate)};
      const bool expected = keys_.SbverifyAccepts(programs[i], certificate);
      EXPECT_EQ(Firmware(programs[i], keys).allowed, expected) << i;
      EXPECT_EQ(Shim(programs[i], keys).allowed, expected) << i;
      accepted += expected ? 1 : 0;
    }
  }
  EXPECT_GE(accepted, 6U);
}

class DebianChainTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (DebianTree().empty()) GTEST_SKIP() << "Debian's loaders are not unpacked";
    const auto store = VariableStore::Parse(ReadFile("/usr/share/OVMF/OVMF_VARS_4M.ms.fd"));
    if (!store.has_value()) GTEST_SKIP() << "package ovmf is not installed";
    microsoft_ = *KeySetFromStore(*store);
    debian_ = *DebianKeySet(testing::DebianShim());
    const Bytes shim = testing::DebianShim();
    trust_ = *ReadShimTrust(*PeImage::Parse(shim));
  }
  KeySet microsoft_;
  KeySet debian_;
  ShimTrust trust_;
};

TEST_F(DebianChainTest, StartsUnderMicrosoftsKeysAsItDoesOnARealMachine) {
  const ImageVerdict shim = Firmware(testing::DebianShim(), microsoft_);
  ASSERT_TRUE(shim.allowed) << ::testing::PrintToString(shim.reasons);
  EXPECT_EQ(FindKnownCertificate(shim.authorities.front().entry.data)->name,
            "Microsoft Corporation UEFI CA 2011");
  for (const Bytes& next : {testing::DebianGrub(), testing::DebianKernel()}) {
    EXPECT_FALSE(Firmware(next, microsoft_).allowed);
    const ImageVerdict verdict =
        VerifyByShim(*PeImage::Parse(next), microsoft_, trust_, SbatNeed::kOptional);
    ASSERT_TRUE(verdict.allowed) << ::testing::PrintToString(verdict.reasons);
    EXPECT_EQ(verdict.authorities, (std::vector<DecidingEntry>{{"MokListRT", debian_.db[0]}}));
  }
  EXPECT_TRUE(Shim(testing::DebianGrub(), microsoft_, trust_).allowed);
}

TEST_F(DebianChainTest, StartsWithoutShimUnderDebiansKeys) {
  EXPECT_TRUE(Firmware(testing::DebianGrub(), debian_).allowed);
  EXPECT_TRUE(Firmware(testing::DebianKernel(), debian_).allowed);
  const ImageVerdict shim = Firmware(testing::DebianShim(), debian_);
  EXPECT_FALSE(shim.allowed);
  EXPECT_THAT(shim.fixes, Contains(HasSubstr("CN=Microsoft Corporation UEFI CA 2011")));
}

TEST_F(DebianChainTest, ShimMeetsItsOwnLevelAndGrubTheLatest) {
  const Bytes file = testing::DebianShim();
  const auto image = PeImage::Parse(file);
  for (const Bytes& text : trust_.sbat_levels) {
    const auto level = ParseSbatLevel(AsText(text));
    ASSERT_TRUE(level.has_value());
    EXPECT_TRUE(CheckSbat(image->Section(".sbat"), *level, SbatNeed::kRequired).allowed);
  }
}

// sbverify trusts an issuer that the signature itself carries, whatever --cert says. Shim's
// signatures carry theirs, so that for shim only its refusals can be compared.
TEST_F(DebianChainTest, AgreesWithSbverify) {
  if (!HasTool("sbverify")) GTEST_SKIP() << "no sbverify";
  TestKeys keys;
  std::vector<Bytes> certificates = {debian_.db.front().data, keys.MakeAuthority("other")};
  for (const Signature& entry : microsoft_.db) certificates.push_back(entry.data);
  for (const Bytes& program :
       {testing::DebianShim(), testing::DebianGrub(), testing::DebianKernel()}) {
    const bool is_shim = PeImage::Parse(program)->certificates().size() == 2;
    Bytes changed = program;
    changed[changed.size() / 3] ^= std::byte{1};
    for (const Bytes& certificate : certificates) {
      KeySet set;
      set.db = {Entry(certificate)};
      const bool accepted = keys.SbverifyAccepts(program, certificate);
      EXPECT_TRUE(accepted || !Firmware(program, set).allowed);
      EXPECT_TRUE(is_shim || Firmware(program, set).allowed == accepted);
      EXPECT_FALSE(Firmware(changed, set).allowed);
      EXPECT_FALSE(keys.SbverifyAccepts(changed, certificate));
    }
  }
}

}  // namespace
}  // namespace vallum::firmware
