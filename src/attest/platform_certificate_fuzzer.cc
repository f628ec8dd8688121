// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "attest/der.h"
#include "attest/platform_certificate.h"
#include "attest/platform_verification.h"

using namespace vallum;  // NOLINT: a fuzzer

namespace {

void Expect(bool holds) {
  if (!holds) std::abort();
}

// The first certificates of the input vouch for the rest; behind them is the platform certificate.
void Verify(ByteView input, const attest::PlatformCertificate& certificate) {
  const attest::CertificateBundle bundle = attest::ReadCertificateBundle(input);
  const attest::TpmCertificate::Time now(std::chrono::seconds(1'700'000'000));
  for (const attest::TpmCertificate& ek : bundle.certificates) {
    const attest::EkTrust nobody({}, {});
    Expect(!attest::VerifyPlatformCertificate(certificate, ek, nobody, now,
                                              attest::Sha1Policy::kAccepted)
                .Accepted());
    const attest::EkTrust trust({ek}, {});
    static_cast<void>(attest::VerifyPlatformCertificate(certificate, ek, trust, now,
                                                        attest::Sha1Policy::kRefused));
  }
}

// What was read is within its limits, and is a part of the input.
void Check(const attest::PlatformCertificate& certificate, size_t size) {
  Expect(certificate.components.size() <= attest::kMaxPlatformComponents);
  Expect(certificate.properties.size() <= attest::kMaxPlatformProperties);
  Expect(certificate.signed_part.size() + certificate.signature.size() < size);
  Expect(!certificate.holder_serial.empty() && !certificate.serial.empty());
  Expect(certificate.targeted || certificate.target_serials.empty());
}

}  // namespace

// PEM of certificates and of an attribute certificate, or that one's DER.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteView input = std::as_bytes(std::span(data, size));
  static_cast<void>(attest::OidFromDer(input));
  const auto certificate = attest::ReadPlatformCertificate(input);
  if (!certificate.has_value()) return 0;
  Check(*certificate, size);
  Verify(input, *certificate);
  return 0;
}
