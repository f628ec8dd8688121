// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>
#include <thread>

#include "base/bytes.h"
#include "base/result.h"
#include "vallum/v1/resources.pb.h"
#include "vtpm/identity.h"

namespace vallum::agent {

struct VtpmKeeperOptions {
  std::string control_socket;              // of the instance's vallum-vtpm; need not be there yet
  std::filesystem::path certificate_path;  // where the EK certificate is kept, PEM
};

// How long a machine's first start waits for the certificate, and how long the controller has to
// issue it: what is too slow or not there holds up no guest.
inline constexpr std::chrono::milliseconds kCertificateWait{3000};
inline constexpr std::chrono::milliseconds kIssueTimeout{2000};

// Sees to it that one running vTPM has an EK certificate: asks for it once, keeps it, and gives it
// to the TPM before the machine starts; later ones are given at the next start. Tells who the vTPM
// is. Owns a thread, which ends when that is done.
class VtpmKeeper {
 public:
  // Has a key certified. Returns a PEM certificate. Blocks, for no longer than kIssueTimeout, and
  // ends early when the token says so.
  //   key_der: SubjectPublicKeyInfo.
  using Certify = std::function<Result<std::string>(ByteView key_der, const std::stop_token& stop)>;
  // Called on the keeper's thread when something about the identity changed.
  using Callback = std::function<void(const v1::VtpmIdentity&)>;

  VtpmKeeper(VtpmKeeperOptions options, Certify certify, Callback callback);
  ~VtpmKeeper();
  VtpmKeeper(const VtpmKeeper&) = delete;
  VtpmKeeper& operator=(const VtpmKeeper&) = delete;

 private:
  void Run(const std::stop_token& stop);
  Result<vtpm::VtpmIdentity> AwaitIdentity(const std::stop_token& stop) const;
  // The certificate that is kept, or a new one; empty PEM: the keeper is to end.
  std::string ObtainCertificate(const Bytes& key_der, v1::VtpmIdentity& known,
                                const std::stop_token& stop);
  Result<void> Give(ByteView der) const;

  const VtpmKeeperOptions options_;
  const Certify certify_;
  const Callback callback_;
  std::jthread thread_;
};

// "BEGIN PUBLIC KEY".
std::string PublicKeyPem(ByteView key_der);

}  // namespace vallum::agent
