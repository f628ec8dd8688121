// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "attest/tpm_public.h"
#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"
#include "base/units.h"
#include "measure/pcr_selection.h"

namespace vallum::attest {

inline constexpr size_t kMaxAttestation = 1024;  // a quote over 16 banks has 384 bytes
inline constexpr size_t kMaxSignature = 1024;    // RSA 4096 has 518 bytes
inline constexpr size_t kMaxNonce = 2 + 64;      // TPM2B_DATA is as large as a TPMT_HA
inline constexpr size_t kMaxQuotedBanks = 16;    // TPML_PCR_SELECTION

// TPM_GENERATED_VALUE and TPM_ST_ATTEST_QUOTE.
inline constexpr uint32_t kTpmGenerated = 0xFF544347;
inline constexpr uint16_t kAttestQuote = 0x8018;

// TPMS_CLOCK_INFO and the firmware's version: where in its life the TPM was.
struct ClockState {
  uint64_t clock = 0;          // milliseconds that the TPM was on
  uint32_t reset_count = 0;    // boots
  uint32_t restart_count = 0;  // restarts and resumes since that boot
  bool safe = false;           // no higher clock was ever reported
  uint64_t firmware_version = 0;
  bool operator==(const ClockState&) const = default;
};

// PCRs of one bank that a quote is over.
struct QuotedBank {
  uint16_t algorithm = 0;             // TPM_ALG_ID
  std::optional<HashAlgorithm> bank;  // nothing: one that Vallum does not compute
  std::vector<PcrIndex> pcrs;         // ascending
};

// What a TPM says in a quote: TPMS_ATTEST with TPMS_QUOTE_INFO. A value.
struct Attestation {
  Bytes qualified_signer;
  Bytes nonce;  // extraData
  ClockState clock;
  std::vector<QuotedBank> banks;  // in the TPM's order, which is that of the digest
  Bytes pcr_digest;
};

// Parses a quote: layout alone; it proves nothing before its signature is verified.
//   message: a TPMS_ATTEST, exactly; untrusted.
// Errors: kInvalidInput (not made by a TPM, no quote, bytes missing or left over, a PCR twice);
// kExhausted (a limit above).
// Source: TPM 2.0 Library part 2, section 10.12. Pure; thread-safe.
Result<Attestation> ParseAttestation(ByteView message);

struct EcdsaSignature {
  ByteView r;
  ByteView s;
};

// TPMT_SIGNATURE of a kind that signs quotes. Views into the bytes that were parsed.
struct Signature {
  KeyScheme scheme = KeyScheme::kRsassa;  // kRsassa, kRsapss or kEcdsa
  HashAlgorithm hash = HashAlgorithm::kSha256;
  ByteView rsa;          // of kRsassa and kRsapss
  EcdsaSignature ecdsa;  // of kEcdsa
};

// Parses a TPMT_SIGNATURE, exactly; untrusted.
// Errors: kInvalidInput (a scheme or hash that is not known, bytes missing or left over);
// kExhausted.
// Source: TPM 2.0 Library part 2, section 11.3. Pure; thread-safe.
Result<Signature> ParseSignature(ByteView bytes);

// TPMS_PCR_SELECTION's bitmap: 1 to 4 bytes. Errors: kInvalidInput (a PCR above 23).
Result<std::vector<PcrIndex>> PcrsOfBitmap(ByteView bitmap);

// Appends to the selections of a quote, whose order is that of the values. A bank may come again
// with other PCRs, as `tpm2_quote -l sha256:0+sha256:1` has it.
// Errors: kInvalidInput (a PCR of a bank twice).
Result<void> AddSelection(QuotedBank selection, std::vector<QuotedBank>& to);

}  // namespace vallum::attest
