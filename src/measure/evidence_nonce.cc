// SPDX-License-Identifier: Apache-2.0
#include "measure/evidence_nonce.h"

#include <string>

#include "base/digest.h"

namespace vallum::measure {

Result<Bytes> EvidenceNonce(std::span<const Bytes> nonces) {
  if (nonces.empty() || nonces.size() > kMaxEvidenceNonces) {
    return InvalidInput("a quote answers 1 to " + std::to_string(kMaxEvidenceNonces) +
                        " nonces, not " + std::to_string(nonces.size()));
  }
  for (const Bytes& nonce : nonces) {
    if (nonce.size() < kMinEvidenceNonce || nonce.size() > kMaxEvidenceNonce) {
      return InvalidInput("a nonce has " + std::to_string(kMinEvidenceNonce) + " to " +
                          std::to_string(kMaxEvidenceNonce) + " bytes, not " +
                          std::to_string(nonce.size()));
    }
  }
  if (nonces.size() == 1) {
    return nonces.front();
  }
  ByteWriter hashed;
  hashed.Raw(AsBytes("vallum evidence nonces v1"));
  hashed.U32Be(static_cast<uint32_t>(nonces.size()));
  for (const Bytes& nonce : nonces) {
    hashed.U16Be(static_cast<uint16_t>(nonce.size())).Raw(nonce);
  }
  return Digest(HashAlgorithm::kSha256, hashed.bytes());
}

}  // namespace vallum::measure
