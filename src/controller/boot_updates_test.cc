// SPDX-License-Identifier: Apache-2.0
// Updates that a pool accepts for their signature, and the words for what differs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "controller/boot_verdicts_rig.h"
#include "firmware/guid.h"
#include "firmware/signature_list.h"

namespace vallum::controller {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

// A program on the disk that db admits by its digest.
v1::BootEvidence UpdatedKernel(int tpm_resets) {
  v1::BootEvidence evidence = Evidence("kernel 2", "cfg", tpm_resets);
  v1::BootBinary& kernel = *evidence.add_boot_binaries();
  kernel.set_path("\\vmlinuz");
  kernel.set_authenticode_sha256(ToHex(AsBytes(DigestOf("kernel 2"))));
  kernel.set_signer("CN=Debian");
  const firmware::Signature entry = firmware::MakeSignature(
      firmware::SignatureType::kSha256, firmware::kShimLockGuid, AsBytes(DigestOf("kernel 2")));
  evidence.mutable_keys()->set_db(std::string(AsText(firmware::EncodeSignatureList(entry))));
  return evidence;
}

TEST_F(BootVerdictsTest, SignedUpdateIsAcceptedByThePoolsPolicyAndSaid) {
  Create();
  Learn();
  Boot(UpdatedKernel(2));
  ASSERT_TRUE(Await(v1::BOOT_DIVERGED));
  EXPECT_THAT(Measured().first_difference().measured_what(),
              HasSubstr("\\vmlinuz of the instance's disk, signed by CN=Debian"));
  SetPool(v1::ON_DIVERGED_REPORT, true);
  ASSERT_TRUE(Await(v1::BOOT_VERIFIED));
  EXPECT_THAT(Measured().accepted_changes(),
              Contains(HasSubstr("changed, signer accepted: \\vmlinuz")));
  EXPECT_TRUE(AwaitEvent("instance.boot-verified", 2));
  ASSERT_TRUE(verdicts().Pin(*Show()).has_value());
  rig_.controller().reconciler().Rejudge("web1");
  EXPECT_TRUE(Await(v1::BOOT_DIVERGED));
}

TEST_F(BootVerdictsTest, SignerThatOsSecureBootSignatureAddsIsAccepted) {
  Create();
  Learn();
  SetPool(v1::ON_DIVERGED_REPORT, true);
  const std::string digest = ToHex(AsBytes(DigestOf("kernel 2")));
  ASSERT_TRUE(
      rig_.controller()
          .resources()
          .Modify<v1::Instance>(
              "web1",
              [&](v1::Instance& instance) -> Result<ResourceStore::Change> {
                (*instance.mutable_spec()->mutable_properties())["os_secure_boot_signature"] =
                    digest;
                return ResourceStore::Change::kWrite;
              })
          .has_value());
  v1::BootEvidence evidence = UpdatedKernel(2);
  evidence.clear_keys();
  Report(v1::BOOT_PENDING, 2);
  EXPECT_TRUE(Await(v1::BOOT_PENDING));
  Send(evidence);
  v1::InstanceReport report = Word(v1::BOOT_VERIFIED, 2);
  v1::BootEffective& effective = *report.mutable_status()->mutable_boot()->mutable_effective();
  effective.set_key_set("microsoft");
  effective.set_key_set_version(1);
  agent_->Report(report);
  EXPECT_TRUE(Await(v1::BOOT_VERIFIED));
  EXPECT_THAT(Measured().accepted_changes(), Contains(HasSubstr("signer accepted")));
}

TEST_F(BootVerdictsTest, WithoutSecureBootNoUpdateIsAccepted) {
  Create();
  Learn();
  SetPool(v1::ON_DIVERGED_REPORT, true);
  Report(v1::BOOT_PENDING, 2);
  EXPECT_TRUE(Await(v1::BOOT_PENDING));
  Send(UpdatedKernel(2));
  v1::InstanceReport report = Word(v1::BOOT_VERIFIED, 2);
  report.mutable_status()->mutable_boot()->mutable_measured()->set_secure_boot(v1::SECURE_BOOT_OFF);
  agent_->Report(report);
  EXPECT_TRUE(Await(v1::BOOT_DIVERGED));
}

// ---- words ----

TEST_F(BootVerdictsTest, DifferenceSaysOfWhichImageAProgramIs) {
  Create();
  Learn();
  v1::Image image;
  image.mutable_metadata()->set_name("debian11");
  v1::BootBinary& grub = *image.mutable_status()->add_boot_binaries();
  grub.set_path("\\EFI\\BOOT\\grubx64.efi");
  grub.set_authenticode_sha256(ToHex(AsBytes(DigestOf("old grub"))));
  const auto stored = rig_.controller().resources().Create(image);
  ASSERT_TRUE(rig_.controller().view().WaitFor(stored->metadata().revision()).has_value());
  v1::BootEvidence evidence = Evidence("kernel", "cfg", 2);
  evidence.mutable_events(1)->set_digest(DigestOf("old grub"));
  Boot(evidence);
  ASSERT_TRUE(Await(v1::BOOT_DIVERGED));
  EXPECT_EQ(Measured().first_difference().measured_what(),
            "\\EFI\\BOOT\\grubx64.efi of image debian11, unsigned");
  EXPECT_EQ(Measured().early(), v1::BOOT_DIVERGED);
}

TEST_F(BootVerdictsTest, ArtefactsOfOtherTenantsAreNotNamed) {
  const Bytes digest = ToBytes(AsBytes(DigestOf("program")));
  v1::Image image;
  image.mutable_metadata()->set_name("aaa-secret");
  image.mutable_metadata()->set_tenant("other");
  v1::BootBinary& program = *image.mutable_status()->add_boot_binaries();
  program.set_path("grub");
  program.set_authenticode_sha256(ToHex(digest));
  ASSERT_TRUE(rig_.controller().resources().Create(image).has_value());
  image.mutable_metadata()->set_name("shared");
  image.mutable_metadata()->clear_tenant();
  const auto stored = rig_.controller().resources().Create(image);
  View& view = rig_.controller().view();
  ASSERT_TRUE(view.WaitFor(stored->metadata().revision()).has_value());
  const KnownArtefacts artefacts(view);
  EXPECT_EQ(artefacts.Describe(digest, "acme"), "grub of image shared, unsigned");
  EXPECT_EQ(artefacts.Describe(digest, "other"), "grub of image aaa-secret, unsigned");
  ASSERT_TRUE(rig_.controller().resources().Delete(Kind::kImage, "shared", 0).has_value());
  EXPECT_TRUE(rig_.Await([&](const View&) { return artefacts.Describe(digest, "acme").empty(); }));
  EXPECT_NE(artefacts.Describe(digest, ""), "");
}

TEST_F(BootVerdictsTest, KeyVariablesAreKnownByKeySetAndVersionUntilItIsDeleted) {
  v1::KeySet keys;
  keys.mutable_metadata()->set_name("prod");
  v1::KeySetVersion& version = *keys.mutable_status()->add_versions();
  version.set_version(2);
  version.mutable_content()->set_dbx("revocations");
  const auto stored = rig_.controller().resources().Create(keys);
  View& view = rig_.controller().view();
  ASSERT_TRUE(view.WaitFor(stored->metadata().revision()).has_value());
  const KnownArtefacts artefacts(view);
  const Bytes digest = measure::VariableEventDigest(kBank, "dbx", firmware::kSecurityDatabaseGuid,
                                                    AsBytes(std::string_view("revocations")));
  EXPECT_EQ(artefacts.Describe(digest, "acme"), "dbx of key set prod version 2");
  EXPECT_EQ(artefacts.Describe(measure::SeparatorDigest(kBank), "acme"), "separator");
  EXPECT_EQ(artefacts.Describe(Bytes(32), ""), "");
  ASSERT_TRUE(rig_.controller().resources().Delete(Kind::kKeySet, "prod", 0).has_value());
  EXPECT_TRUE(rig_.Await([&](const View&) { return artefacts.Describe(digest, "").empty(); }));
}

}  // namespace
}  // namespace vallum::controller
