// SPDX-License-Identifier: Apache-2.0
#include "fleet_reference.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#include <chrono>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/secret_bytes.h"
#include "median.h"
#include "tls/authority.h"

namespace vallum::bench {
namespace {

using Steady = std::chrono::steady_clock;

constexpr int kRounds = 501;
constexpr size_t kQuoteBytes = 145;

template <typename T, void (*Free)(T*)>
struct Freed {
  void operator()(T* object) const { Free(object); }
};
using ContextPtr = std::unique_ptr<SSL_CTX, Freed<SSL_CTX, SSL_CTX_free>>;
using SslPtr = std::unique_ptr<SSL, Freed<SSL, SSL_free>>;
using X509Ptr = std::unique_ptr<X509, Freed<X509, X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Freed<EVP_PKEY, EVP_PKEY_free>>;
using DigestPtr = std::unique_ptr<EVP_MD_CTX, Freed<EVP_MD_CTX, EVP_MD_CTX_free>>;

struct FreeBio {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
using BioPtr = std::unique_ptr<BIO, FreeBio>;

const unsigned char* Raw(ByteView bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}

BioPtr Open(const std::string& pem) {
  return BioPtr(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}

X509Ptr ReadCertificate(const std::string& pem) {
  return X509Ptr(PEM_read_bio_X509(Open(pem).get(), nullptr, nullptr, nullptr));
}

struct Party {
  std::string certificate_pem;
  std::string key_pem;
  std::string ca_pem;
};

ContextPtr MakeContext(const SSL_METHOD* method, const Party& party) {
  ContextPtr context(SSL_CTX_new(method));
  CHECK(SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION) == 1);
  const X509Ptr certificate = ReadCertificate(party.certificate_pem);
  const KeyPtr key(PEM_read_bio_PrivateKey(Open(party.key_pem).get(), nullptr, nullptr, nullptr));
  CHECK(SSL_CTX_use_certificate(context.get(), certificate.get()) == 1);
  CHECK(SSL_CTX_use_PrivateKey(context.get(), key.get()) == 1);
  const X509Ptr ca = ReadCertificate(party.ca_pem);
  CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(context.get()), ca.get()) == 1);
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  return context;
}

// Milliseconds that the server's steps of one handshake take.
double HandshakeOnce(SSL_CTX* server_context, SSL_CTX* client_context) {
  const SslPtr server(SSL_new(server_context));
  const SslPtr client(SSL_new(client_context));
  BIO* server_end = nullptr;
  BIO* client_end = nullptr;
  CHECK(BIO_new_bio_pair(&server_end, 0, &client_end, 0) == 1);
  SSL_set_bio(server.get(), server_end, server_end);
  SSL_set_bio(client.get(), client_end, client_end);
  SSL_set_accept_state(server.get());
  SSL_set_connect_state(client.get());
  double spent = 0;
  while (SSL_is_init_finished(server.get()) == 0) {
    SSL_do_handshake(client.get());
    const Steady::time_point begin = Steady::now();
    SSL_do_handshake(server.get());
    spent += std::chrono::duration<double, std::milli>(Steady::now() - begin).count();
  }
  return spent;
}

double HandshakeMs(const std::filesystem::path& state_dir, const FleetSeed& seed) {
  const SystemClock clock;
  const auto authority = tls::CertificateAuthority::Load(state_dir / "ca", clock).value();
  const auto issued = authority->IssueServer({.dns_names = {"localhost"}, .ip_addresses = {}});
  const ContextPtr server = MakeContext(
      TLS_server_method(), {.certificate_pem = issued->certificate_pem,
                            .key_pem = std::string(AsText(issued->private_key_pem.Reveal(
                                SecretAccess("a benchmark's own server")))),
                            .ca_pem = authority->certificate_pem()});
  const ContextPtr client =
      MakeContext(TLS_client_method(), {.certificate_pem = seed.certificate_pem,
                                        .key_pem = seed.key_pem,
                                        .ca_pem = authority->certificate_pem()});
  std::vector<double> times;
  for (int i = 0; i < kRounds; ++i) times.push_back(HandshakeOnce(server.get(), client.get()));
  std::ranges::nth_element(times, times.begin() + kRounds / 2);
  return times[kRounds / 2];
}

}  // namespace

FleetReference MeasureReference(const std::filesystem::path& state_dir, const FleetSeed& seed) {
  const Bytes quote(kQuoteBytes, std::byte{7});
  const Bytes signature = seed.tpm.key().SignPlain(quote);
  FleetReference out;
  out.verify_ms = MedianMs(kRounds, [&] {
    const DigestPtr context(EVP_MD_CTX_new());
    CHECK(EVP_DigestVerifyInit(context.get(), nullptr, EVP_sha256(), nullptr,
                               seed.tpm.key().get()) == 1);
    CHECK(EVP_DigestVerify(context.get(), Raw(signature), signature.size(), Raw(quote),
                           quote.size()) == 1);
  });
  out.sign_ms = MedianMs(kRounds, [&] { CHECK(!seed.tpm.key().SignPlain(quote).empty()); });
  out.handshake_ms = HandshakeMs(state_dir, seed);
  return out;
}

}  // namespace vallum::bench
