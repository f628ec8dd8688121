// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "attest/attestation.h"
#include "attest/public_key.h"
#include "base/bytes.h"
#include "base/digest.h"

namespace vallum::attest {

// Whether a TPM's signature over a message is the key's. An RSAPSS salt may have any size: TPMs
// differ (part 1, annex B.7).
bool VerifySignature(const PublicKey& key, const Signature& signature, ByteView message);
// The same for a signature without TPMT_SIGNATURE around it: RSA alone, or the DER of ECDSA.
bool VerifyPlainSignature(const PublicKey& key, KeyScheme scheme, HashAlgorithm hash,
                          ByteView signature, ByteView message);

}  // namespace vallum::attest
