// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/units.h"
#include "vtpm/identity.h"

// The host's own TPM 2.0 commands about keys, quotes and the EK certificate's NV index (TCG TPM 2.0
// Library, parts 2 and 3). Every authorization is the empty password. Pure; all bytes untrusted.
namespace vallum::vtpm {

// Neither handle is one that a guest's tools use by themselves: the registry of reserved handles
// keeps 0x8101xxxx for endorsement keys and assigns its beginning only.
inline constexpr uint32_t kEkHandle = 0x8101FF0A;
inline constexpr uint32_t kAkHandle = 0x8101FF0B;
// Where TCG's EK Credential Profile puts the certificate of an EC P-256 EK.
inline constexpr uint32_t kEkCertificateIndex = 0x01C0000A;
inline constexpr size_t kMaxCertificate = 2048;  // libtpms' largest NV index

enum class KeyKind { kEndorsement, kAttestation };
uint32_t PersistentHandle(KeyKind kind);
std::string_view KeyKindName(KeyKind kind);  // "endorsement key", "attestation key"

// TPMT_PUBLIC from which the TPM's endorsement seed makes the key, always the same.
Bytes KeyTemplate(KeyKind kind);
// Whether the key could be one made from that template: all but the point is the same.
bool MatchesTemplate(KeyKind kind, ByteView tpm_public);

struct EcPoint {
  Bytes x;
  Bytes y;  // at most 32 bytes each
};
// Errors: kInvalidInput (not the TPMT_PUBLIC of an EC P-256 key).
Result<EcPoint> ParseEcPoint(ByteView tpm_public);

// A selection of PCRs as in TPMS_PCR_SELECTION.
std::array<uint8_t, PcrIndex::kCount / 8> PcrBitmap(const std::vector<PcrIndex>& pcrs);

Bytes MakeReadPublic(uint32_t handle);
// The TPMT_PUBLIC of the reply.
Result<Bytes> ParseReadPublicReply(ByteView response);

Bytes MakeCreatePrimary(KeyKind kind);
struct PrimaryKey {
  uint32_t handle = 0;
  Bytes tpm_public;
};
Result<PrimaryKey> ParseCreatePrimaryReply(ByteView response);
Bytes MakeEvictControl(uint32_t handle, uint32_t persistent_handle);
Bytes MakeFlushContext(uint32_t handle);

Bytes MakeQuote(uint32_t handle, const QuoteRequest& request);
struct QuoteReply {
  Bytes quoted;
  Bytes signature;
};
Result<QuoteReply> ParseQuoteReply(ByteView response);
// Checks that an attestation is a quote of exactly this nonce and these PCR values.
// Errors: kUnavailable (the values are others), kCorrupt (it is something else).
Result<void> CheckQuoted(ByteView quoted, const QuoteRequest& request,
                         const std::vector<std::map<PcrIndex, Bytes>>& values);

// Defines the certificate's index, as the profile has it: written by the platform, once.
Bytes MakeDefineCertificate(size_t size);
Bytes MakeUndefineCertificate();
Bytes MakeWriteCertificate(ByteView part, size_t offset);
Bytes MakeLockCertificate();
Bytes MakeReadCertificatePublic();
// The index's size. Errors: kNotFound (no such index, or not one that the platform made and wrote).
Result<size_t> ParseCertificatePublicReply(ByteView response);
inline constexpr size_t kMaxNvPart = 512;
Bytes MakeReadCertificate(size_t size, size_t offset);
Result<Bytes> ParseReadCertificateReply(ByteView response);

// Success, or the response code in words.
// Errors: kDenied (a password that is not empty); kUnavailable (no room in the TPM, or it is busy;
// any other refusal, with its code); kCorrupt (no response).
Result<void> CheckSuccess(ByteView response, std::string_view doing);

}  // namespace vallum::vtpm
