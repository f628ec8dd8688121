// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "attest/ek_certificate.h"
#include "attest/ek_chain.h"

using namespace vallum;  // NOLINT: a fuzzer

namespace {

void Expect(bool holds) {
  if (!holds) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteView input = std::as_bytes(std::span(data, size));
  const attest::CertificateBundle bundle = attest::ReadCertificateBundle(input);
  const attest::EkTrust nobody({}, {});
  const attest::TpmCertificate::Time now(std::chrono::seconds(1'700'000'000));
  for (const attest::TpmCertificate& certificate : bundle.certificates) {
    Expect(attest::TpmCertificate::Parse(certificate.der()).has_value());
    const attest::EkTrust itself({certificate}, bundle.certificates);
    for (const auto role : {attest::TpmKeyRole::kEndorsement, attest::TpmKeyRole::kAttestation}) {
      Expect(!attest::VerifyTpmCertificate(certificate, role, nobody, now,
                                           attest::Sha1Policy::kAccepted)
                  .Accepted());
      static_cast<void>(attest::VerifyTpmCertificate(certificate, role, itself, now,
                                                     attest::Sha1Policy::kRefused));
    }
  }
  return 0;
}
