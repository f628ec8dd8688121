// SPDX-License-Identifier: Apache-2.0
// The TPM's structures to and from their bytes; for the .cc files of this component.
#pragma once

#include <tss2/tss2_tpm2_types.h>

#include "base/bytes.h"
#include "base/result.h"

namespace vallum::tpm {

// Errors: kInternal (a structure that contradicts itself).
Result<Bytes> Marshal(const TPMT_PUBLIC& area);
Result<Bytes> Marshal(const TPM2B_PUBLIC& area);
Result<Bytes> Marshal(const TPM2B_PRIVATE& area);
Result<Bytes> Marshal(const TPMT_SIGNATURE& signature);

// Each ends at the last byte. Errors: kInvalidInput.
Result<TPM2B_PUBLIC> UnmarshalPublic(ByteView bytes);
Result<TPM2B_PRIVATE> UnmarshalPrivate(ByteView bytes);
Result<TPM2B_ID_OBJECT> UnmarshalIdObject(ByteView bytes);
Result<TPM2B_ENCRYPTED_SECRET> UnmarshalEncryptedSecret(ByteView bytes);
Result<TPMS_ATTEST> UnmarshalAttest(ByteView bytes);

// The bytes of a TPM2B of the library: its size is the TPM's word, so it is bounded here.
template <typename T>
ByteView ContentOf(const T& sized, const uint8_t* content, size_t capacity) {
  return std::as_bytes(std::span(content, sized.size < capacity ? sized.size : capacity));
}

}  // namespace vallum::tpm
