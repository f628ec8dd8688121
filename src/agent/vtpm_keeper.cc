// SPDX-License-Identifier: Apache-2.0
#include "agent/vtpm_keeper.h"

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "agent/backoff.h"
#include "agent/state_files.h"
#include "base/text.h"
#include "tls/certificate.h"
#include "vtpm/control_client.h"

namespace vallum::agent {
namespace {

constexpr std::chrono::milliseconds kCallTimeout{5000};
// The start of vallum-vtpm and swtpm, and the making of keys, on a host that starts many at once.
constexpr std::chrono::milliseconds kIdentityTimeout{60'000};
// The sockets are there within milliseconds of the start.
constexpr std::chrono::milliseconds kConnectPause{5};
constexpr ByteCount kCertificateLimit = ByteCount::KiB(16);
constexpr size_t kNoteLimit = 500;

template <auto Free>
struct Freer {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};

void Pause(std::chrono::milliseconds time, const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any ended;
  std::unique_lock lock(mutex);
  ended.wait_for(lock, stop, time, [] { return false; });
}

// The one certificate of a PEM text, if it is about this key.
Result<Bytes> CertificateOfKey(std::string_view pem, const Bytes& key_der) {
  ASSIGN_OR_RETURN(std::vector<Bytes> found, tls::CertificatesFromPem(pem));
  const auto* begin = reinterpret_cast<const unsigned char*>(found.front().data());
  const std::unique_ptr<X509, Freer<X509_free>> certificate(
      d2i_X509(nullptr, &begin, static_cast<long>(found.front().size())));
  unsigned char* key = nullptr;
  const int size =
      certificate == nullptr ? 0 : i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate.get()), &key);
  const bool same =
      size > 0 &&
      std::ranges::equal(std::as_bytes(std::span(key, static_cast<size_t>(size))), key_der);
  OPENSSL_free(key);
  if (!same) {
    return InvalidInput("the certificate is about another key than the vTPM's");
  }
  return std::move(found.front());
}

}  // namespace

std::string PublicKeyPem(ByteView key_der) {
  const std::unique_ptr<BIO, Freer<BIO_free_all>> bio(BIO_new(BIO_s_mem()));
  PEM_write_bio(bio.get(), "PUBLIC KEY", "", reinterpret_cast<const unsigned char*>(key_der.data()),
                static_cast<long>(key_der.size()));
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &text);
  return std::string(text, static_cast<size_t>(size));
}

VtpmKeeper::VtpmKeeper(VtpmKeeperOptions options, Certify certify, Callback callback)
    : options_(std::move(options)),
      certify_(std::move(certify)),
      callback_(std::move(callback)),
      thread_([this](const std::stop_token& stop) { Run(stop); }) {}

VtpmKeeper::~VtpmKeeper() {
  thread_.request_stop();
  thread_.join();
}

Result<vtpm::VtpmIdentity> VtpmKeeper::AwaitIdentity(const std::stop_token& stop) const {
  for (;;) {
    auto client = vtpm::ControlClient::Connect(options_.control_socket, kIdentityTimeout);
    if (client.has_value()) {
      const std::stop_callback interrupt(stop, [&client] { client->Interrupt(); });
      return client->Identity();
    }
    if (stop.stop_requested()) {
      return std::move(client).error();
    }
    Pause(kConnectPause, stop);
  }
}

Result<void> VtpmKeeper::Give(ByteView der) const {
  ASSIGN_OR_RETURN(auto client,
                   vtpm::ControlClient::Connect(options_.control_socket, kCallTimeout));
  return client.PutCertificate(der);
}

std::string VtpmKeeper::ObtainCertificate(const Bytes& key_der, v1::VtpmIdentity& known,
                                          const std::stop_token& stop) {
  const auto kept = ReadWholeFile(options_.certificate_path, kCertificateLimit);
  if (kept.has_value() && CertificateOfKey(AsText(*kept), key_der).has_value()) {
    return std::string(AsText(*kept));
  }
  for (int failures = 0; !stop.stop_requested(); ++failures) {
    auto issued = certify_(key_der, stop);
    Result<void> usable = issued.has_value() ? Ok() : Result<void>(issued.error());
    if (issued.has_value()) {
      const auto der = CertificateOfKey(*issued, key_der);
      usable = der.has_value()
                   ? WriteFileAtomically(options_.certificate_path, AsBytes(*issued), 0600)
                   : Result<void>(der.error());
    }
    if (usable.has_value()) {
      return *std::move(issued);
    }
    if (failures == 0 && !stop.stop_requested()) {
      // The machine waits for no certificate that may be long in coming.
      static_cast<void>(Give({}));
      known.set_note(Printable(
          "no EK certificate yet, and the agent tries again: " + usable.error().Describe(),
          kNoteLimit));
      callback_(known);
    }
    Pause(ReconnectDelay(failures + 1, 0), stop);
  }
  return "";
}

void VtpmKeeper::Run(const std::stop_token& stop) {
  const auto identity = AwaitIdentity(stop);
  v1::VtpmIdentity known;
  if (!identity.has_value()) {
    if (!stop.stop_requested()) {
      // A vallum-vtpm from before this call says that it does not know it.
      known.set_note(Printable("the vTPM's keys are not known until the instance's next start: " +
                                   identity.error().Describe(),
                               kNoteLimit));
      callback_(known);
    }
    return;
  }
  const auto ek = vtpm::SubjectPublicKeyInfo(identity->ek_public);
  const auto ak = vtpm::SubjectPublicKeyInfo(identity->ak_public);
  if (!ek.has_value() || !ak.has_value()) {
    known.set_note("the vTPM's keys are of no kind that this agent knows");
    callback_(known);
    return;
  }
  known.set_ek_public(PublicKeyPem(*ek));
  known.set_ak_public(PublicKeyPem(*ak));
  known.set_ak_name(ToHex(vtpm::ObjectName(identity->ak_public)));
  const std::string pem = ObtainCertificate(*ek, known, stop);
  const auto der = CertificateOfKey(pem, *ek);
  if (!der.has_value()) {
    return;  // to end
  }
  known.set_ek_certificate(pem);
  known.clear_note();
  if (identity->certificate != *der) {
    if (const auto given = Give(*der); !given.has_value() && !stop.stop_requested()) {
      known.set_note(
          Printable("the guest finds the EK certificate in its vTPM after the next "
                    "start: " +
                        given.error().Describe(),
                    kNoteLimit));
    }
  }
  callback_(known);
}

}  // namespace vallum::agent
