// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "attest/attestation.h"
#include "attest/quote_key.h"
#include "base/bytes.h"
#include "base/digest.h"
#include "base/units.h"
#include "measure/pcr_selection.h"

namespace vallum::attest {

// Values of PCRs by bank.
using PcrBanks = std::map<HashAlgorithm, std::map<PcrIndex, Bytes>>;

// Why a quote is not believed. Names are part of verdicts: see QuoteReasonName.
enum class QuoteReason {
  // The signature.
  kSignatureMalformed,
  kSignatureSchemeMismatch,  // not the scheme or the hash that the key signs with
  kSha1Signature,
  kSignatureInvalid,
  // What was signed.
  kNotTpmGenerated,  // does not begin as what TPMs make: signed by the key, but no statement of a
                     // TPM
  kNotAQuote,
  kMessageMalformed,
  kNonceMismatch,
  kSignerMismatch,
  // PCRs.
  kPcrNotQuoted,  // asked for, and not in the quote
  kPcrValueMissing,
  kPcrDigestMismatch,
  kSha1Bank,
  // Time.
  kResetCountWentBackwards,
  kRestartCountWentBackwards,
  kClockWentBackwards,
};
std::string_view QuoteReasonName(QuoteReason reason);  // "nonce_mismatch", ...

// What is worth knowing of a quote that is believed.
enum class QuoteNote {
  kKeyAttributesUnknown,    // the key came as SubjectPublicKeyInfo
  kRebooted,                // the reset count is higher: PCRs and event log start anew
  kRestarted,               // resumed from sleep since the previous quote
  kFirmwareVersionChanged,  // of the TPM
  kClockNotSafe,            // a higher clock may have been reported before a loss of power
  kMorePcrsQuoted,          // than were asked for
};
std::string_view QuoteNoteName(QuoteNote note);

struct QuoteFinding {
  QuoteReason reason = QuoteReason::kSignatureInvalid;
  std::string what;      // a sentence's subject: "the nonce", "PCR 7 of bank sha256"
  std::string expected;  // safe to print; may be empty
  std::string actual;
};
struct QuoteRemark {
  QuoteNote note = QuoteNote::kRebooted;
  std::string what;
};

// Whether signatures by way of SHA-1 and PCRs of the SHA-1 bank are believed.
enum class Sha1Policy { kRefused, kAccepted };

// kTpmt: TPMT_SIGNATURE. kPlain: as tpm2_quote --format=plain and some clouds give it: the RSA
// signature alone, or the DER of an ECDSA signature; the key says scheme and hash, and if it does
// not, they are RSASSA or ECDSA with SHA-256.
enum class SignatureFormat { kTpmt, kPlain };

struct QuoteEvidence {
  ByteView message;    // TPMS_ATTEST
  ByteView signature;  // in the format below
  SignatureFormat format = SignatureFormat::kTpmt;
  const PcrBanks& pcrs;  // as the host says; believed where the quote's digest is over them
};

// The key's qualified name cannot be known without its parents.
struct AnySigner {};
struct SignerNamed {
  Bytes qualified_name;
};
struct FirstQuote {};

struct QuoteExpectation {
  Bytes nonce;                               // exactly
  std::vector<measure::BankSelection> pcrs;  // must be quoted, each with its value
  std::variant<AnySigner, SignerNamed> signer;
  std::variant<FirstQuote, ClockState> previous;  // of the last quote by that TPM that was believed
  Sha1Policy sha1 = Sha1Policy::kRefused;
};

struct QuoteVerdict {
  std::vector<QuoteFinding> rejections;  // in the order of QuoteReason; empty: believed
  std::vector<QuoteRemark> notes;
  // What the key signed; nothing when the signature is not the key's or the message no quote.
  std::optional<Attestation> signed_quote;
  // Quoted, with the quote's digest over them; empty unless the quote is believed.
  PcrBanks pcrs;

  bool Accepted() const { return rejections.empty(); }
  bool Has(QuoteReason reason) const;
  bool Has(QuoteNote note) const;
};

// Verifies a quote: signature by the key, that it is a quote by a TPM, nonce, signer, that the PCRs
// asked for are quoted and the values given are those quoted, and that the TPM's time did not go
// backwards. Nothing that a bad signature covers is looked at.
// Cannot fail: what cannot be read is a rejection, too. All of the evidence is untrusted.
// Source: TPM 2.0 Library part 1, section 31 and 36; part 3, section 18.4. Pure; thread-safe.
QuoteVerdict VerifyQuote(const QuoteKey& key, const QuoteEvidence& evidence,
                         const QuoteExpectation& expectation);

}  // namespace vallum::attest
