// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <openssl/ssl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "base/ids.h"
#include "tls/authority.h"
#include "tls/certificate.h"
#include "tls/file.h"
#include "tls/openssl.h"
#include "tls/session_tickets.h"

namespace vallum::tls {
namespace {

using std::chrono::hours;

class FakeClock final : public Clock {
 public:
  WallTime Now() const override { return now; }
  MonotonicTime Monotonic() const override { return {}; }
  WallTime now = std::chrono::system_clock::from_time_t(1'800'000'000);
};

class AuthorityTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::filesystem::temp_directory_path() / ("vallum-tls-" + NewUid());
    ca_ = *CertificateAuthority::Create(dir_, clock_);
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  static mode_t ModeOf(const std::filesystem::path& path) {
    struct stat info = {};
    EXPECT_EQ(::stat(path.c_str(), &info), 0);
    return info.st_mode & 0777;
  }

  std::filesystem::path dir_;
  FakeClock clock_;
  std::unique_ptr<CertificateAuthority> ca_;
};

TEST_F(AuthorityTest, KeyIsReadableByItsOwnerOnly) {
  EXPECT_EQ(ModeOf(dir_ / "ca.key"), 0600);
  EXPECT_EQ(ModeOf(dir_), 0700);
}

TEST_F(AuthorityTest, CertificateIsACaForTenYears) {
  const CertificateInfo info = *InspectPem(ca_->certificate_pem());
  EXPECT_TRUE(info.is_ca);
  EXPECT_EQ(info.not_after, clock_.now + kAuthorityValidity);
  EXPECT_LT(info.not_before, clock_.now);
}

TEST_F(AuthorityTest, IsTheSameAfterLoading) {
  const auto loaded = CertificateAuthority::LoadOrCreate(dir_, clock_);
  ASSERT_TRUE(loaded.has_value());
  EXPECT_EQ((*loaded)->certificate_pem(), ca_->certificate_pem());
}

TEST_F(AuthorityTest, SecondCreateIsAConflict) {
  EXPECT_EQ(CertificateAuthority::Create(dir_, clock_).error().code(), ErrorCode::kConflict);
}

TEST_F(AuthorityTest, LoadWithoutOneIsNotFound) {
  EXPECT_EQ(CertificateAuthority::Load(dir_ / "none", clock_).error().code(), ErrorCode::kNotFound);
}

TEST_F(AuthorityTest, KeyReadableByOthersIsRefused) {
  std::filesystem::permissions(dir_ / "ca.key", std::filesystem::perms::group_read,
                               std::filesystem::perm_options::add);
  const auto loaded = CertificateAuthority::Load(dir_, clock_);
  ASSERT_FALSE(loaded.has_value());
  EXPECT_EQ(loaded.error().code(), ErrorCode::kDenied);
  EXPECT_FALSE(loaded.error().fix().empty());
}

TEST_F(AuthorityTest, KeyOfAnotherCaIsCorrupt) {
  const std::filesystem::path other = dir_ / "other";
  ASSERT_TRUE(CertificateAuthority::Create(other, clock_).has_value());
  std::filesystem::copy_file(other / "ca.key", dir_ / "ca.key",
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_EQ(CertificateAuthority::Load(dir_, clock_).error().code(), ErrorCode::kCorrupt);
}

TEST_F(AuthorityTest, ServerCertificateCarriesItsNamesAndVerifies) {
  const Credentials server = *ca_->IssueServer({{"controller.example"}, {"127.0.0.1", "::1"}});
  const CertificateInfo info = *InspectPem(server.certificate_pem);
  EXPECT_EQ(info.dns_names, std::vector<std::string>{"controller.example"});
  EXPECT_EQ(info.ip_addresses, (std::vector<std::string>{"127.0.0.1", "::1"}));
  EXPECT_FALSE(info.is_ca);
  EXPECT_TRUE(
      VerifyChain(server.certificate_pem, ca_->certificate_pem(), Purpose::kServer, clock_.now)
          .has_value());
}

TEST_F(AuthorityTest, ServerCertificateIsNoClientCertificate) {
  const Credentials server = *ca_->IssueServer({{"localhost"}, {}});
  EXPECT_EQ(
      VerifyChain(server.certificate_pem, ca_->certificate_pem(), Purpose::kClient, clock_.now)
          .error()
          .code(),
      ErrorCode::kDenied);
}

TEST_F(AuthorityTest, NameThatWouldAddAnotherNameIsRefused) {
  EXPECT_EQ(ca_->IssueServer({{"a,DNS:evil.example"}, {}}).error().code(),
            ErrorCode::kInvalidInput);
  EXPECT_EQ(ca_->IssueServer({{}, {"1.2.3.4,DNS:evil.example"}}).error().code(),
            ErrorCode::kInvalidInput);
  EXPECT_EQ(ca_->IssueServer({{}, {}}).error().code(), ErrorCode::kInvalidInput);
}

TEST_F(AuthorityTest, AgentGetsTheNameThatWeGiveAndKeepsItsKey) {
  const KeyAndCsr request = *MakeKeyAndCsr("i-want-to-be-admin");
  const std::string pem = *ca_->IssueAgent(request.csr_der, "node7");
  const CertificateInfo info = *InspectPem(pem);
  EXPECT_EQ(info.common_name, "node7");
  EXPECT_EQ(info.organizational_unit, "agent");
  EXPECT_EQ(info.not_after, clock_.now + kAgentValidity);
  EXPECT_TRUE(VerifyChain(pem, ca_->certificate_pem(), Purpose::kClient, clock_.now).has_value());
}

// SubjectPublicKeyInfo of the key of a request.
Bytes KeyOf(const KeyAndCsr& request) {
  const auto* begin = reinterpret_cast<const unsigned char*>(request.csr_der.data());
  const CsrPtr csr(d2i_X509_REQ(nullptr, &begin, static_cast<long>(request.csr_der.size())));
  unsigned char* der = nullptr;
  const int size = i2d_X509_PUBKEY(X509_REQ_get_X509_PUBKEY(csr.get()), &der);
  Bytes key = ToBytes(std::as_bytes(std::span(der, static_cast<size_t>(size))));
  OPENSSL_free(der);
  return key;
}

constexpr const char* kUid = "0f8e2f0a-5c1b-4d5e-9a53-0a1b2c3d4e5f";

TEST_F(AuthorityTest, VtpmCertificateNamesTheInstanceAndIsOfTcgsProfile) {
  const Bytes key = KeyOf(*MakeKeyAndCsr("k"));
  const std::string pem = *ca_->IssueVtpm(key, "web1", kUid);
  const CertificateInfo info = *InspectPem(pem);
  EXPECT_EQ(info.common_name, "web1");
  EXPECT_FALSE(info.is_ca);
  const CertPtr certificate = *ParseCertificate(CertificatesFromPem(pem)->front());
  EXPECT_EQ(X509_get_key_usage(certificate.get()), static_cast<uint32_t>(KU_KEY_AGREEMENT));
  const BioPtr bio(BIO_new(BIO_s_mem()));
  ASSERT_EQ(X509_print(bio.get(), certificate.get()), 1);
  const std::string text(AsText(BioContent(bio.get())));
  for (const char* part : {kUid, "2.23.133.8.1", "DirName:", "2.23.133.2.1=id:00001014",
                           "X509v3 Subject Directory Attributes", "Digital Signature"}) {
    const bool wanted = std::string_view(part) != "Digital Signature";
    EXPECT_EQ(text.find(part) != std::string::npos, wanted) << part << "\n" << text;
  }
  const std::string ca_pem = ca_->certificate_pem();
  EXPECT_FALSE(VerifyChain(pem, ca_pem, Purpose::kClient, clock_.now).has_value());
  EXPECT_FALSE(VerifyChain(pem, ca_pem, Purpose::kServer, clock_.now).has_value());
}

TEST_F(AuthorityTest, VtpmCertificateDoesNotOutliveTheCa) {
  const Bytes key = KeyOf(*MakeKeyAndCsr("k"));
  const auto ca_end = InspectPem(ca_->certificate_pem())->not_after;
  clock_.now += hours(24 * 3000);
  const CertificateInfo info = *InspectPem(*ca_->IssueVtpm(key, "web1", kUid));
  EXPECT_LE(info.not_after, ca_end);
  EXPECT_GT(info.not_after, clock_.now + hours(24 * 600));
}

TEST_F(AuthorityTest, VtpmKeyOrNameThatCannotBeTrustedIsRefused) {
  const Bytes key = KeyOf(*MakeKeyAndCsr("k"));
  Bytes off_curve = key;
  off_curve.back() ^= std::byte{1};
  EXPECT_EQ(ca_->IssueVtpm(off_curve, "web1", kUid).error().code(), ErrorCode::kInvalidInput);
  EXPECT_EQ(ca_->IssueVtpm(ByteView(key).first(90), "web1", kUid).error().code(),
            ErrorCode::kInvalidInput);
  EXPECT_EQ(ca_->IssueVtpm(key, "web1,CN=x", kUid).error().code(), ErrorCode::kInvalidInput);
  EXPECT_EQ(ca_->IssueVtpm(key, "web1", "no-uid").error().code(), ErrorCode::kInvalidInput);
}

TEST_F(AuthorityTest, ExpiredCertificateDoesNotVerify) {
  const std::string pem = *ca_->IssueAgent(MakeKeyAndCsr("node7")->csr_der, "node7");
  EXPECT_EQ(VerifyChain(pem, ca_->certificate_pem(), Purpose::kClient,
                        clock_.now + kAgentValidity + hours(1))
                .error()
                .code(),
            ErrorCode::kDenied);
}

TEST_F(AuthorityTest, CertificateOfAnotherCaDoesNotVerify) {
  const auto other = *CertificateAuthority::Create(dir_ / "other", clock_);
  const std::string pem = *other->IssueAgent(MakeKeyAndCsr("node7")->csr_der, "node7");
  EXPECT_EQ(VerifyChain(pem, ca_->certificate_pem(), Purpose::kClient, clock_.now).error().code(),
            ErrorCode::kDenied);
}

TEST_F(AuthorityTest, RequestNotSignedByItsKeyIsRefused) {
  Bytes csr = MakeKeyAndCsr("node7")->csr_der;
  csr.back() ^= std::byte{1};
  EXPECT_EQ(ca_->IssueAgent(csr, "node7").error().code(), ErrorCode::kInvalidInput);
}

TEST_F(AuthorityTest, EveryTruncationOfARequestIsRefused) {
  const Bytes csr = MakeKeyAndCsr("node7")->csr_der;
  for (size_t size = 0; size < csr.size(); ++size) {
    EXPECT_FALSE(ca_->IssueAgent(ByteView(csr).first(size), "node7").has_value()) << size;
  }
}

TEST_F(AuthorityTest, RequestWithTrailingBytesIsRefused) {
  Bytes csr = MakeKeyAndCsr("node7")->csr_der;
  csr.push_back(std::byte{0});
  EXPECT_FALSE(ca_->IssueAgent(csr, "node7").has_value());
}

TEST_F(AuthorityTest, HostNameIsChecked) {
  EXPECT_FALSE(ca_->IssueAgent(MakeKeyAndCsr("node7")->csr_der, "No/De").has_value());
}

TEST_F(AuthorityTest, RenewalIsDueInTheLastThird) {
  const CertificateInfo info =
      *InspectPem(*ca_->IssueAgent(MakeKeyAndCsr("node7")->csr_der, "node7"));
  EXPECT_FALSE(NeedsRenewal(info, clock_.now + kAgentValidity / 2));
  EXPECT_TRUE(NeedsRenewal(info, clock_.now + kAgentValidity * 3 / 4));
}

// In a process of its own: the setting is for all of it.
TEST(SessionTickets, ServersThatAreSetUpLaterSendNoneAndKeepTheirLeastVersion) {
  const auto tickets = [] {
    const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> server(SSL_CTX_new(TLS_method()),
                                                                   SSL_CTX_free);
    return SSL_CTX_get_min_proto_version(server.get()) != TLS1_VERSION
               ? SSL_CTX_get_num_tickets(server.get())
               : size_t{99};
  };
  EXPECT_EQ(tickets(), 2U);
  EXPECT_EXIT(_exit(SendNoSessionTickets().has_value() && tickets() == 0 ? 0 : 1),
              testing::ExitedWithCode(0), "");
}

TEST(Pem, RoundTripsThroughDer) {
  const Bytes der = ToBytes(AsBytes(std::string(100, 'x')));
  EXPECT_EQ(CertificatesFromPem(CertificateToPem(der))->at(0), der);
}

TEST(Pem, WithoutACertificateIsRefused) {
  EXPECT_FALSE(CertificatesFromPem("").has_value());
  EXPECT_FALSE(CertificatesFromPem("-----BEGIN CERTIFICATE-----\nAAAA").has_value());
  EXPECT_FALSE(InspectPem(CertificateToPem(AsBytes("not DER"))).has_value());
}

TEST(AtomicFile, ReplacesContentAndModeAndLeavesNothingBeside) {
  const auto dir = std::filesystem::temp_directory_path() / ("vallum-file-" + NewUid());
  std::filesystem::create_directory(dir);
  ASSERT_TRUE(WriteFileAtomically(dir / "f", AsBytes("one"), 0644).has_value());
  ASSERT_TRUE(WriteFileAtomically(dir / "f", AsBytes("two"), 0600).has_value());
  EXPECT_EQ(AsText(*ReadSmallFile(dir / "f")), "two");
  struct stat info = {};
  ASSERT_EQ(::stat((dir / "f").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir), {}), 1);
  EXPECT_EQ(ReadSmallFile(dir / "f", 2).error().code(), ErrorCode::kExhausted);
  EXPECT_EQ(WriteFileAtomically(dir / "no" / "f", AsBytes("x"), 0600).error().code(),
            ErrorCode::kNotFound);
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace vallum::tls
