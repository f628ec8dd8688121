// SPDX-License-Identifier: Apache-2.0
#include "formats/pe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>

#include "base/bytes.h"
#include "base/digest.h"
#include "formats/fields.h"
#include "formats/test_support.h"

namespace vallum::formats {
namespace {

using ::testing::HasSubstr;
using testing::MakePe;
using testing::MustRun;
using testing::PutLe32;
using testing::ReadFile;
using testing::TempDir;
using testing::WriteFile;

Bytes Text(const std::string& text) { return ToBytes(AsBytes(text)); }

TEST(Pe, SectionsAreFoundByName) {
  const Bytes file = MakePe({{".sbat", Text("sbat,1,x\n")}});
  const auto pe = PeImage::Parse(file);
  ASSERT_TRUE(pe.has_value()) << pe.error().Describe();
  EXPECT_EQ(pe->machine(), 0x8664);
  ASSERT_TRUE(pe->Section(".sbat").has_value());
  EXPECT_EQ(AsText(*pe->Section(".sbat")), "sbat,1,x\n");
  EXPECT_FALSE(pe->Section(".none").has_value());
  EXPECT_TRUE(pe->certificates().empty());
}

// The digest in the signature that sbsign makes is the one computed here, with each algorithm that
// a signature can have.
TEST(Pe, DigestEqualsTheOneThatSbsignSigns) {
  if (!testing::HasTool("sbsign")) GTEST_SKIP() << "no sbsign";
  const TempDir dir;
  const Bytes file = MakePe({{".sbat", Text("sbat,1,x\n")}});
  WriteFile(dir.File("a.efi"), file);
  MustRun("openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj '/CN=Test signer' -keyout " +
          dir.File("key") + " -out " + dir.File("crt"));
  MustRun("sbsign --key " + dir.File("key") + " --cert " + dir.File("crt") + " --output " +
          dir.File("signed") + " " + dir.File("a.efi"));
  const Bytes signed_file = ReadFile(dir.File("signed"));
  const auto pe = PeImage::Parse(signed_file);
  ASSERT_TRUE(pe.has_value()) << pe.error().Describe();
  ASSERT_EQ(pe->certificates().size(), 1U);
  EXPECT_EQ(pe->certificates()[0].type, kWinCertTypePkcs7);
  const auto digest = pe->AuthenticodeDigest(HashAlgorithm::kSha256);
  ASSERT_TRUE(digest.has_value());
  EXPECT_THAT(ToHex(pe->certificates()[0].data), HasSubstr(ToHex(*digest)));
  // Signing does not change what is signed.
  EXPECT_EQ(*PeImage::Parse(file)->AuthenticodeDigest(HashAlgorithm::kSha256), *digest);
  EXPECT_EQ(pe->AuthenticodeDigest(HashAlgorithm::kSha1)->size(), 20U);
  EXPECT_EQ(pe->AuthenticodeDigest(HashAlgorithm::kSha384)->size(), 48U);
  EXPECT_EQ(pe->AuthenticodeDigest(HashAlgorithm::kSha512)->size(), 64U);
}

TEST(Pe, DigestCoversContentAndNotChecksum) {
  Bytes file = MakePe({});
  const auto before = PeImage::Parse(file)->AuthenticodeDigest(HashAlgorithm::kSha256);
  PutLe32(file, 0x80 + 24 + 64, 12345);  // checksum
  EXPECT_EQ(*PeImage::Parse(file)->AuthenticodeDigest(HashAlgorithm::kSha256), *before);
  file.back() ^= std::byte{1};
  EXPECT_NE(*PeImage::Parse(file)->AuthenticodeDigest(HashAlgorithm::kSha256), *before);
}

TEST(Pe, SharedVectorsHaveTheirKnownDigests) {
  const std::string dir = testing::VectorsDir();
  if (dir.empty()) GTEST_SKIP() << "VALLUM_VECTORS is absent";
  const std::pair<const char*, const char*> known[] = {
      {"HelloWorld.efi", "d2ae1f36ec9b40b55f60920a3f58ec902ebdc7c323e443412c751cdb3c42d3f3"},
      {"HelloWorld.efi.signed", "765600a03f44d9f954376dd5f4e5b5e86b2ca1a3d6308a005f95922b0ebe7c94"},
      {"test.pecoff", "9f2b505ce20bc20c2ce7f7a33cb93ca97d1465735ce6821a6fc8e8c7b1e0e60a"},
      {"test.pecoff.signed", "e7d74d2bc1287c17bf056e259ad7d2ca557e848b252509ae9956df0b14f69702"}};
  for (const auto& [name, digest] : known) {
    const Bytes file = ReadFile(dir + "/uefi/" + name);
    const auto pe = PeImage::Parse(file);
    ASSERT_TRUE(pe.has_value()) << name;
    EXPECT_EQ(ToHex(*pe->AuthenticodeDigest(HashAlgorithm::kSha256)), digest) << name;
  }
}

TEST(Pe, DamagedHeadersAreRefused) {
  const Bytes valid = MakePe({});
  const std::pair<size_t, uint32_t> damages[] = {
      {0, 0},                             // MZ
      {60, 0xfffffff0},                   // offset of the PE header
      {0x80, 0},                          // signature
      {0x84, 0x8664 | 500U << 16U},       // 500 sections
      {0x80 + 20, 4},                     // optional header too short
      {0x80 + 24, 0x999},                 // magic
      {0x80 + 24 + 60, 0xffffff},         // headers past the file
      {0x80 + 24 + 60, 4},                // headers shorter than what they hold
      {0x80 + 24 + 240 + 16, 0xffffff},   // section size
      {0x80 + 24 + 240 + 20, 0xffffff}};  // section offset
  for (const auto& [offset, value] : damages) {
    Bytes file = valid;
    PutLe32(file, offset, value);
    EXPECT_FALSE(PeImage::Parse(file).has_value()) << offset;
  }
}

TEST(Pe, CertificateTableOutsideTheFileIsRefused) {
  Bytes file = MakePe({});
  const size_t entry = 0x80 + 24 + 112 + 4 * 8;
  PutLe32(file, entry, 0x1000);
  PutLe32(file, entry + 4, 0x1000);
  EXPECT_FALSE(PeImage::Parse(file).has_value());
  // Inside, but with a certificate longer than the table.
  PutLe32(file, entry, 0x200);
  PutLe32(file, entry + 4, 16);
  PutLe32(file, 0x200, 17);
  EXPECT_FALSE(PeImage::Parse(file).has_value());
}

TEST(Pe, SectionsLargerThanTheFileTogetherAreNotHashed) {
  Bytes file = MakePe({{".a", Bytes(512)}, {".b", Bytes(512)}});
  const size_t table = 0x80 + 24 + 240;
  PutLe32(file, table + 16, static_cast<uint32_t>(file.size() - 0x400));
  PutLe32(file, table + 40 + 16, static_cast<uint32_t>(file.size() - 0x600));
  const auto pe = PeImage::Parse(file);
  ASSERT_TRUE(pe.has_value());
  EXPECT_FALSE(pe->AuthenticodeDigest(HashAlgorithm::kSha256).has_value());
}

TEST(Pe, FlippedBitsNeverCrash) {
  const Bytes valid = MakePe({{".sbat", Text("x")}});
  std::mt19937_64 random(4);
  for (int i = 0; i < 5000; ++i) {
    Bytes file = valid;
    for (int k = 0; k < 3; ++k) file[random() % 0x260] ^= std::byte{1} << (random() % 8);
    file.resize(file.size() - random() % 3 * 100);
    const auto pe = PeImage::Parse(file);
    if (pe.has_value()) static_cast<void>(pe->AuthenticodeDigest(HashAlgorithm::kSha256));
  }
}

}  // namespace
}  // namespace vallum::formats
