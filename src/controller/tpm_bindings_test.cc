// SPDX-License-Identifier: Apache-2.0
#include "controller/tpm_bindings.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "controller/test_rig.h"
#include "tpm/host_tpm.h"
#include "tpm/swtpm_rig.h"

namespace vallum::controller {
namespace {

// A host with a real TPM, whose endorsement key an administrator has approved.
class TpmBindingsTest : public testing::Test {
 protected:
  using Write = ResourceStore::Change;

  TpmBindingsTest() {
    auto opened = tpm::OpenHostTpm({.address = swtpm_.address()}, std::nullopt, {});
    EXPECT_TRUE(opened.has_value()) << opened.error().Describe();
    tpm_ = std::move(opened->tpm);
    v1::Host host;
    host.mutable_metadata()->set_name("node1");
    Stored(rig_.controller().resources().Create(std::move(host)));
    EXPECT_FALSE(Bind());
    const auto approved = Bindings().Approve("node1", Pending(), "alice");
    EXPECT_TRUE(approved.has_value()) << approved.error().Describe();
  }
  void Stored(const Result<v1::Host>& stored) {
    ASSERT_TRUE(stored.has_value()) << stored.error().Describe();
    ASSERT_TRUE(rig_.controller().view().WaitFor(stored->metadata().revision()).has_value());
  }
  TpmBindings& Bindings() { return rig_.controller().tpm_bindings(); }
  v1::HostStatus Status() { return rig_.controller().view().Get<v1::Host>("node1")->status(); }
  std::string Pending() { return Status().pending_identity().ek_sha256(); }

  // As an agent does, that sends no certificate. Whether the TPM is the host's now.
  bool Bind() {
    const tpm::TpmIdentity& who = tpm_->identity();
    v1::TpmIdentity identity;
    identity.set_ek_public(who.ek_public.data(), who.ek_public.size());
    identity.set_ak_public(who.ak_public.data(), who.ak_public.size());
    const auto challenge = Bindings().Begin("node1", identity);
    EXPECT_TRUE(challenge.has_value()) << challenge.error().Describe();
    if (!challenge.has_value()) return false;
    const auto secret = tpm_->ActivateCredential(AsBytes(challenge->credential_blob()),
                                                 AsBytes(challenge->encrypted_secret()));
    EXPECT_TRUE(secret.has_value()) << secret.error().Describe();
    v1::TpmProof proof;
    proof.set_challenge_id(challenge->challenge_id());
    proof.set_secret(std::string(AsText(secret->Reveal(SecretAccess("proving a TPM in a test")))));
    const auto binding = Bindings().Finish("node1", proof);
    EXPECT_TRUE(binding.has_value()) << binding.error().Describe();
    return binding.has_value() && binding->accepted();
  }

  tpm::SwtpmRig swtpm_;
  Rig rig_;
  std::unique_ptr<tpm::HostTpm> tpm_;
};

TEST_F(TpmBindingsTest, EmulatedTpmStaysEmulatedWhenItsHostLeavesItsCertificateOut) {
  Stored(
      rig_.controller().resources().Modify<v1::Host>("node1", [](v1::Host& host) -> Result<Write> {
        host.mutable_status()->mutable_identity()->set_authority("lab");
        host.mutable_status()->mutable_identity()->set_emulated(true);
        return Write::kWrite;
      }));
  EXPECT_TRUE(Bind());
  EXPECT_TRUE(Status().identity().emulated());
  EXPECT_EQ(Status().identity().authority(), "lab");
}

TEST_F(TpmBindingsTest, TpmThatIsBoundAgainChangesNothing) {
  const int64_t before = rig_.controller().view().Get<v1::Host>("node1")->metadata().revision();
  EXPECT_TRUE(Bind());
  EXPECT_EQ(rig_.controller().view().Get<v1::Host>("node1")->metadata().revision(), before);
}

TEST_F(TpmBindingsTest, HostThatBindsWithoutEndIsToldToWait) {
  v1::TpmIdentity identity;
  const tpm::TpmIdentity& who = tpm_->identity();
  identity.set_ek_public(who.ek_public.data(), who.ek_public.size());
  identity.set_ak_public(who.ak_public.data(), who.ak_public.size());
  Result<v1::TpmChallenge> last = v1::TpmChallenge();
  for (int i = 0; i < TpmBindings::kMaxPerWindow; ++i) last = Bindings().Begin("node1", identity);
  ASSERT_FALSE(last.has_value());
  EXPECT_EQ(last.error().code(), ErrorCode::kExhausted);
  rig_.clock().Advance(TpmBindings::kPaceWindow);
  EXPECT_TRUE(Bindings().Begin("node1", identity).has_value());
}

}  // namespace
}  // namespace vallum::controller
