// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"
#include "firmware/pkcs7.h"

namespace vallum::firmware {

// The signature of a PE program. Movable; not to be shared between threads.
struct Authenticode {
  HashAlgorithm algorithm = HashAlgorithm::kSha256;
  Bytes digest;          // of the program, as SpcIndirectDataContent says
  Bytes signed_content;  // what the signer's key covers
  SignedMessage message;
};

// The algorithm by which firmware digests a program to compare it with this signature.
//   pkcs7: untrusted.
// Errors: kInvalidInput (none that firmware knows: it then skips the signature).
// Source: EDK II DxeImageVerificationLib.c, HashPeImageByType.
Result<HashAlgorithm> AuthenticodeAlgorithm(ByteView pkcs7);

// Reads the PKCS#7 blob of a WIN_CERTIFICATE. Nothing is verified.
//   pkcs7: DER of a ContentInfo, untrusted; padding may follow.
// Errors: kInvalidInput (no SignedData over an SpcIndirectDataContent; AuthenticodeAlgorithm's; the
// digest is not by that algorithm); kExhausted (limits of pkcs7.h).
// Source: Windows Authenticode PE Signature Format; EDK II CryptAuthenticode.c,
// AuthenticodeVerify.
Result<Authenticode> ParseAuthenticode(ByteView pkcs7);

// Does the signature belong to the image, and is it by the keys of the signers that it names?
// Whether anyone trusts these is the other question: IsTrusted.
//   image_digest: PeImage::AuthenticodeDigest by signature.algorithm.
// Errors: kInvalidInput (why not).
Result<void> VerifySignature(const Authenticode& signature, ByteView image_digest);

// Would firmware accept the signature if it trusted this certificate alone? VerifySignature, and a
// chain from each signer to the certificate; expiry and key usage do not count.
// Source: EDK II CryptAuthenticode.c, AuthenticodeVerify.
bool IsTrusted(const Authenticode& signature, ByteView image_digest, const Certificate& anchor);

}  // namespace vallum::firmware
