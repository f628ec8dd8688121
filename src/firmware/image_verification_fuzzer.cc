// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/check.h"
#include "firmware/authenticode.h"
#include "firmware/image_verification.h"
#include "formats/pe.h"

// Trusts the certificates that the program's first signature carries, so that the whole way is
// walked.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace firmware = vallum::firmware;
  const auto image = vallum::formats::PeImage::Parse(std::as_bytes(std::span(data, size)));
  if (!image.has_value()) {
    return 0;
  }
  firmware::KeySet keys;
  keys.sbat_level = "sbat,1,2025021800\ngrub,5\n";
  if (!image->certificates().empty()) {
    const auto signature = firmware::ParseAuthenticode(image->certificates().front().data);
    if (signature.has_value()) {
      for (const vallum::Bytes& der : signature->message.certificates()) {
        keys.db.push_back(firmware::MakeSignature(firmware::SignatureType::kX509,
                                                  firmware::kGlobalVariableGuid, der));
      }
    }
  }
  for (const firmware::ImageVerdict& verdict :
       {firmware::VerifyByFirmware(*image, keys),
        firmware::VerifyByShim(*image, keys, {}, firmware::SbatNeed::kRequired)}) {
    CHECK(!verdict.reasons.empty());
    CHECK(verdict.allowed == verdict.fixes.empty());
    CHECK(verdict.allowed != verdict.authorities.empty());
  }
  return 0;
}
