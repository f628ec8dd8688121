// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "attest/tpm_public.h"
#include "base/bytes.h"
#include "base/result.h"
#include "base/secret_bytes.h"

namespace vallum::attest {

// A secret that only the TPM with the endorsement key can read, and only while it holds the key of
// that name: the two parameters of TPM2_ActivateCredential.
struct Credential {
  Bytes id_object;         // TPM2B_ID_OBJECT
  Bytes encrypted_secret;  // TPM2B_ENCRYPTED_SECRET
};

// Does what TPM2_MakeCredential does, without a TPM.
//   ek: a restricted decryption key, RSA, P-256 or P-384, with AES; its numbers may be anything.
//   Whoever calls has verified that it is the endorsement key of a TPM, or does before the answer
//   counts.
//   ak_name: of the key that is to be proven to lie beside the EK (TpmPublic::Name).
//   secret: 1 byte to as many as a digest of the EK's name algorithm has.
// Errors: kDenied (the EK cannot receive a credential, saying why); kInvalidInput (the name or the
// secret has another size; the EK's numbers are no key's).
// Source: TPM 2.0 Library part 1, section 24 and annexes B.10.3 and C.6; docs/formats/tpm_quote.md.
// Thread-safe; takes random numbers from OpenSSL.
Result<Credential> MakeCredential(const TpmPublic& ek, ByteView ak_name, const SecretBytes& secret);

}  // namespace vallum::attest
