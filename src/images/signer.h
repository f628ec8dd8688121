// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace vallum::images {

struct Signer {
  std::string subject;  // RFC 2253
  Bytes certificate;    // DER
};

// Names the signer of a PKCS#7 SignedData. Nothing is verified: who trusts it is the firmware's
// question.
// Errors: kInvalidInput (no SignedData with its signer's certificate).
Result<Signer> ReadSigner(ByteView pkcs7);

// Every certificate that a PKCS#7 SignedData carries, as DER: signers and what is above them. Empty
// when it cannot be read.
std::vector<Bytes> ReadCertificates(ByteView pkcs7);

}  // namespace vallum::images
