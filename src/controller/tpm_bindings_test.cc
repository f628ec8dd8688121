// SPDX-License-Identifier: Apache-2.0
#include "controller/tpm_bindings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/objects.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "attest/public_key.h"
#include "attest/tpm_public.h"
#include "base/check.h"
#include "controller/test_rig.h"
#include "tpm/host_tpm.h"
#include "tpm/swtpm_rig.h"

namespace vallum::controller {
namespace {

using ::testing::HasSubstr;

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

  // As its owner may: the endorsement key stays, the attestation key is made anew.
  void Clear() {
    tpm_.reset();
    swtpm_.Tool({"tpm2_clear"});
    auto opened = tpm::OpenHostTpm({.address = swtpm_.address()}, std::nullopt, {});
    ASSERT_TRUE(opened.has_value()) << opened.error().Describe();
    tpm_ = std::move(opened->tpm);
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

TEST_F(TpmBindingsTest, TrustInTheKeyBeforeIsNoTrustInANewKeyAfterAClear) {
  Stored(
      rig_.controller().resources().Modify<v1::Host>("node1", [&](v1::Host& host) -> Result<Write> {
        v1::HostTrust& trust = *host.mutable_status()->mutable_trust();
        trust.set_level(v1::TRUST_TRUSTED);
        *trust.mutable_lease_expire_time() =
            ToTimestamp(rig_.clock().Now() + std::chrono::minutes(1));
        return Write::kWrite;
      }));
  EXPECT_TRUE(Bind());
  EXPECT_EQ(Status().trust().level(), v1::TRUST_TRUSTED) << "the same key";
  Clear();
  EXPECT_TRUE(Bind());
  EXPECT_EQ(Status().trust().level(), v1::TRUST_STALE);
  EXPECT_FALSE(Status().trust().has_lease_expire_time());
}

TEST_F(TpmBindingsTest, CountersOfTheKeyBeforeAreNoMeasureOfANewKeyAfterAClear) {
  Stored(
      rig_.controller().resources().Modify<v1::Host>("node1", [](v1::Host& host) -> Result<Write> {
        v1::HostTrust& trust = *host.mutable_status()->mutable_trust();
        trust.set_level(v1::TRUST_UNTRUSTED);
        trust.set_reset_count(7);
        trust.set_clock_ms(1000);
        return Write::kWrite;
      }));
  EXPECT_TRUE(Bind());
  EXPECT_EQ(Status().trust().reset_count(), 7) << "the same key counts on";
  Clear();
  EXPECT_TRUE(Bind()) << "the endorsement key is the same";
  EXPECT_EQ(Status().trust().reset_count(), 0);
  EXPECT_EQ(Status().trust().clock_ms(), 0);
  EXPECT_EQ(Status().trust().level(), v1::TRUST_UNTRUSTED);
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

// ---- certified TPMs ----

template <auto Free>
struct Freer {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using KeyPtr = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY_free>>;
using X509Ptr = std::unique_ptr<X509, Freer<X509_free>>;

// Who makes TPMs, and certifies their endorsement keys.
class TpmMaker {
 public:
  TpmMaker() : key_(EVP_EC_gen("P-256")) {
    root_ = Begin("A maker of TPMs", key_.get());
    AddExtension(root_.get(), NID_basic_constraints, "critical,CA:TRUE");
    AddExtension(root_.get(), NID_key_usage, "critical,keyCertSign");
    CHECK(X509_sign(root_.get(), key_.get(), EVP_sha256()) > 0);
  }
  std::string Pem() const {
    const std::unique_ptr<BIO, Freer<BIO_free_all>> bio(BIO_new(BIO_s_mem()));
    CHECK(PEM_write_bio_X509(bio.get(), root_.get()) == 1);
    char* text = nullptr;
    const long size = BIO_get_mem_data(bio.get(), &text);
    return {text, static_cast<size_t>(size)};
  }
  // DER.
  std::string Certify(const tpm::TpmIdentity& who) const {
    const attest::PublicKey ek =
        attest::PublicKey::FromTpm(attest::ParseTpmtPublic(who.ek_public).value()).value();
    const Bytes spki = ek.ToSpki();
    const auto* begin = reinterpret_cast<const unsigned char*>(spki.data());
    const KeyPtr key(d2i_PUBKEY(nullptr, &begin, static_cast<long>(spki.size())));
    CHECK(key != nullptr);
    const X509Ptr x509 = Begin("EK", key.get());
    AddExtension(x509.get(), NID_basic_constraints, "critical,CA:FALSE");
    AddExtension(x509.get(), NID_key_usage,
                 ek.IsRsa() ? "critical,keyEncipherment" : "critical,keyAgreement");
    AddExtension(x509.get(), NID_ext_key_usage, "2.23.133.8.1");
    AddModel(x509.get());
    CHECK(X509_sign(x509.get(), key_.get(), EVP_sha256()) > 0);
    unsigned char* der = nullptr;
    const int size = i2d_X509(x509.get(), &der);
    CHECK(size > 0);
    std::string out(reinterpret_cast<const char*>(der), static_cast<size_t>(size));
    OPENSSL_free(der);
    return out;
  }

 private:
  static void SetName(X509_NAME* name, const std::string& common_name) {
    CHECK(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                     reinterpret_cast<const unsigned char*>(common_name.data()),
                                     static_cast<int>(common_name.size()), -1, 0) == 1);
  }
  static X509Ptr Begin(const std::string& subject, EVP_PKEY* key) {
    X509Ptr x509(X509_new());
    CHECK(X509_set_version(x509.get(), X509_VERSION_3) == 1);
    CHECK(ASN1_INTEGER_set(X509_get_serialNumber(x509.get()), 7) == 1);
    CHECK(ASN1_TIME_set_string_X509(X509_getm_notBefore(x509.get()), "20200101000000Z") == 1);
    CHECK(ASN1_TIME_set_string_X509(X509_getm_notAfter(x509.get()), "99991231235959Z") == 1);
    SetName(X509_get_subject_name(x509.get()), subject);
    SetName(X509_get_issuer_name(x509.get()), "A maker of TPMs");
    CHECK(X509_set_pubkey(x509.get(), key) == 1);
    return x509;
  }
  static void AddExtension(X509* x509, int nid, const char* value) {
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, nid, value);
    CHECK(extension != nullptr && X509_add_ext(x509, extension, -1) == 1);
    X509_EXTENSION_free(extension);
  }
  // A critical subject alternative name with TCG's attributes.
  static void AddModel(X509* x509) {
    X509_NAME* name = X509_NAME_new();
    for (const auto& [oid, value] :
         {std::pair("2.23.133.2.1", "id:49424D00"), std::pair("2.23.133.2.2", "swtpm"),
          std::pair("2.23.133.2.3", "id:20191023")}) {
      ASN1_OBJECT* object = OBJ_txt2obj(oid, 1);
      CHECK(X509_NAME_add_entry_by_OBJ(name, object, V_ASN1_UTF8STRING,
                                       reinterpret_cast<const unsigned char*>(value), -1, -1,
                                       0) == 1);
      ASN1_OBJECT_free(object);
    }
    GENERAL_NAME* general = GENERAL_NAME_new();
    GENERAL_NAME_set0_value(general, GEN_DIRNAME, name);
    GENERAL_NAMES* names = sk_GENERAL_NAME_new_null();
    sk_GENERAL_NAME_push(names, general);
    CHECK(X509_add1_ext_i2d(x509, NID_subject_alt_name, names, 1, X509V3_ADD_DEFAULT) == 1);
    GENERAL_NAMES_free(names);
  }

  KeyPtr key_;
  X509Ptr root_;
};

// Two machines with TPMs that somebody vouches for, so that nobody has to approve them.
class CertifiedTpmsTest : public testing::Test {
 protected:
  CertifiedTpmsTest() {
    v1::TpmAuthority authority;
    authority.mutable_metadata()->set_name("lab");
    authority.mutable_spec()->set_certificates_pem(maker_.Pem());
    Add(std::move(authority));
    for (const char* name : {"node1", "node2"}) {
      v1::Host host;
      host.mutable_metadata()->set_name(name);
      Add(std::move(host));
    }
    first_ = Open(first_swtpm_);
    second_ = Open(second_swtpm_);
  }
  template <typename T>
  void Add(T resource) {
    const auto stored = rig_.controller().resources().Create(std::move(resource));
    ASSERT_TRUE(stored.has_value()) << stored.error().Describe();
    ASSERT_TRUE(rig_.controller().view().WaitFor(stored->metadata().revision()).has_value());
  }
  static std::unique_ptr<tpm::HostTpm> Open(const tpm::SwtpmRig& swtpm) {
    auto opened = tpm::OpenHostTpm({.address = swtpm.address()}, std::nullopt, {});
    EXPECT_TRUE(opened.has_value()) << opened.error().Describe();
    return opened.has_value() ? std::move(opened->tpm) : nullptr;
  }
  v1::TpmBinding Bind(const std::string& host, tpm::HostTpm& tpm) {
    const tpm::TpmIdentity& who = tpm.identity();
    v1::TpmIdentity identity;
    identity.set_ek_public(who.ek_public.data(), who.ek_public.size());
    identity.set_ak_public(who.ak_public.data(), who.ak_public.size());
    identity.set_ek_certificate(maker_.Certify(who));
    TpmBindings& bindings = rig_.controller().tpm_bindings();
    const auto challenge = bindings.Begin(host, identity);
    EXPECT_TRUE(challenge.has_value()) << challenge.error().Describe();
    if (!challenge.has_value()) return {};
    const auto secret = tpm.ActivateCredential(AsBytes(challenge->credential_blob()),
                                               AsBytes(challenge->encrypted_secret()));
    EXPECT_TRUE(secret.has_value()) << secret.error().Describe();
    v1::TpmProof proof;
    proof.set_challenge_id(challenge->challenge_id());
    proof.set_secret(std::string(AsText(secret->Reveal(SecretAccess("proving a TPM in a test")))));
    const auto binding = bindings.Finish(host, proof);
    EXPECT_TRUE(binding.has_value()) << binding.error().Describe();
    return binding.has_value() ? *binding : v1::TpmBinding();
  }
  v1::HostStatus Status(const std::string& host) {
    return rig_.controller().view().Get<v1::Host>(host)->status();
  }

  TpmMaker maker_;
  tpm::SwtpmRig first_swtpm_;
  tpm::SwtpmRig second_swtpm_;
  Rig rig_;
  std::unique_ptr<tpm::HostTpm> first_;
  std::unique_ptr<tpm::HostTpm> second_;
};

TEST_F(CertifiedTpmsTest, AnotherTpmUnderAKnownNameIsNotBoundThoughItIsCertified) {
  const v1::TpmBinding bound = Bind("node1", *first_);
  ASSERT_TRUE(bound.accepted()) << bound.detail();
  const std::string own = Status("node1").identity().ek_sha256();
  const v1::TpmBinding other = Bind("node1", *second_);
  EXPECT_FALSE(other.accepted());
  EXPECT_THAT(other.detail(), HasSubstr("host node1 is known by another TPM (endorsement key " +
                                        own.substr(0, 16) + ")"));
  EXPECT_THAT(other.detail(), HasSubstr("`vallum host approve node1 --ek "));
  EXPECT_EQ(Status("node1").identity().ek_sha256(), own);
  EXPECT_NE(Status("node1").pending_identity().ek_sha256(), own);
  EXPECT_EQ(Status("node1").pending_identity().accepted_by(), "");
}

TEST_F(CertifiedTpmsTest, OneTpmUnderASecondNameIsNotBoundNorCanItBeApproved) {
  const v1::TpmBinding bound = Bind("node1", *first_);
  ASSERT_TRUE(bound.accepted()) << bound.detail();
  const v1::TpmBinding again = Bind("node2", *first_);
  EXPECT_FALSE(again.accepted());
  EXPECT_THAT(again.detail(),
              HasSubstr("its TPM is that of host node1: one machine has two names"));
  EXPECT_FALSE(Status("node2").has_identity());
  const auto approved = rig_.controller().tpm_bindings().Approve(
      "node2", Status("node2").pending_identity().ek_sha256(), "alice");
  ASSERT_FALSE(approved.has_value());
  EXPECT_EQ(approved.error().code(), ErrorCode::kConflict);
  EXPECT_THAT(approved.error().message(), HasSubstr("this TPM is that of host node1"));
}

}  // namespace
}  // namespace vallum::controller
