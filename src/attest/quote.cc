// SPDX-License-Identifier: Apache-2.0
#include "attest/quote.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "attest/signature.h"

namespace vallum::attest {
namespace {

// One verification: collects findings in the verdict.
class Verifier {
 public:
  Verifier(const QuoteKey& key, const QuoteEvidence& evidence, const QuoteExpectation& expectation)
      : key_(key), evidence_(evidence), expectation_(expectation) {}

  QuoteVerdict Verify() {
    if (!CheckSignature() || !ReadMessage()) {
      return std::move(verdict_);
    }
    CheckNonce();
    CheckSigner();
    CheckPcrs();
    CheckTime();
    if (key_.origin() == QuoteKey::Origin::kSubjectPublicKeyInfo) {
      Note(QuoteNote::kKeyAttributesUnknown,
           "the key says nothing of its attributes: whether it signs what TPMs make only is known "
           "from elsewhere or not at all");
    }
    if (!verdict_.Accepted()) {
      verdict_.pcrs.clear();
    }
    return std::move(verdict_);
  }

 private:
  void Reject(QuoteReason reason, std::string what, std::string expected, std::string actual) {
    verdict_.rejections.push_back(
        {reason, std::move(what), std::move(expected), std::move(actual)});
  }
  void Note(QuoteNote note, std::string what) { verdict_.notes.push_back({note, std::move(what)}); }

  bool CheckSignature();
  bool Verifies(const Signature& signature) const;
  bool CheckScheme(KeyScheme scheme);
  bool ReadMessage();
  void CheckNonce();
  void CheckSigner();
  void CheckPcrs();
  void CheckAsked(const measure::BankSelection& asked);
  bool CollectQuoted(const QuotedBank& quoted, Hasher& hasher);
  bool IsQuoted(HashAlgorithm bank, PcrIndex pcr) const;
  bool Asked(HashAlgorithm bank, PcrIndex pcr) const;
  void CheckTime();
  void CheckClock(const ClockState& previous, const ClockState& now);

  const QuoteKey& key_;
  const QuoteEvidence& evidence_;
  const QuoteExpectation& expectation_;
  HashAlgorithm hash_ = HashAlgorithm::kSha256;  // of the signature, hence of the PCR digest
  QuoteVerdict verdict_;
};

std::string SchemeText(KeyScheme scheme, HashAlgorithm hash) {
  return fmt::format("{} with {}", KeySchemeName(scheme), HashAlgorithmName(hash));
}

bool Verifier::CheckScheme(KeyScheme scheme) {
  const bool fits = (key_.scheme() == KeyScheme::kNull || key_.scheme() == scheme) &&
                    key_.scheme_hash().value_or(hash_) == hash_;
  if (!fits) {
    Reject(QuoteReason::kSignatureSchemeMismatch, "the signature's scheme",
           SchemeText(key_.scheme(), key_.scheme_hash().value_or(hash_)),
           SchemeText(scheme, hash_));
    return false;
  }
  if (hash_ == HashAlgorithm::kSha1 && expectation_.sha1 == Sha1Policy::kRefused) {
    Reject(QuoteReason::kSha1Signature, "the signature's hash", "SHA-256 or better", "SHA-1");
    return false;
  }
  return true;
}

// A key without a scheme of its own may sign by another than its verifier is ready for.
bool Verifier::Verifies(const Signature& signature) const {
  const SignatureVerifier& ready = key_.verifier();
  if (signature.scheme == ready.scheme() && signature.hash == ready.hash()) {
    return ready.Verify(signature, evidence_.message);
  }
  const auto other = SignatureVerifier::Create(key_.key(), signature.scheme, signature.hash);
  return other.has_value() && other->Verify(signature, evidence_.message);
}

bool Verifier::CheckSignature() {
  bool good = false;
  if (evidence_.format == SignatureFormat::kTpmt) {
    const auto signature = ParseSignature(evidence_.signature);
    if (!signature.has_value()) {
      Reject(QuoteReason::kSignatureMalformed, "the signature", "a TPMT_SIGNATURE",
             signature.error().Describe());
      return false;
    }
    hash_ = signature->hash;
    if (!CheckScheme(signature->scheme)) {
      return false;
    }
    good = Verifies(*signature);
  } else {
    hash_ = key_.verifier().hash();
    if (!CheckScheme(key_.verifier().scheme())) {
      return false;
    }
    good = key_.verifier().VerifyPlain(evidence_.signature, evidence_.message);
  }
  if (!good) {
    Reject(QuoteReason::kSignatureInvalid, "the signature",
           "one by the attestation key over the quote", "another");
  }
  return good;
}

bool Verifier::ReadMessage() {
  auto message = ParseAttestation(evidence_.message);
  if (message.has_value()) {
    verdict_.signed_quote = *std::move(message);
    return true;
  }
  ByteCursor cursor(evidence_.message);
  const auto magic = cursor.ReadU32Be();
  const auto type = cursor.ReadU16Be();
  if (!magic.has_value() || *magic != kTpmGenerated) {
    Reject(QuoteReason::kNotTpmGenerated, "the message", "one that a TPM made",
           message.error().Describe());
  } else if (!type.has_value() || *type != kAttestQuote) {
    Reject(QuoteReason::kNotAQuote, "the message", "a quote", message.error().Describe());
  } else {
    Reject(QuoteReason::kMessageMalformed, "the message", "a quote", message.error().Describe());
  }
  return false;
}

void Verifier::CheckNonce() {
  const Bytes& nonce = verdict_.signed_quote->nonce;
  if (nonce != expectation_.nonce) {
    Reject(QuoteReason::kNonceMismatch, "the nonce", ToHex(expectation_.nonce), ToHex(nonce));
  }
}

void Verifier::CheckSigner() {
  const auto* named = std::get_if<SignerNamed>(&expectation_.signer);
  const Bytes& signer = verdict_.signed_quote->qualified_signer;
  if (named != nullptr && named->qualified_name != signer) {
    Reject(QuoteReason::kSignerMismatch, "the qualified name of the key",
           ToHex(named->qualified_name), ToHex(signer));
  }
}

bool Verifier::IsQuoted(HashAlgorithm bank, PcrIndex pcr) const {
  return std::ranges::any_of(verdict_.signed_quote->banks, [&](const QuotedBank& quoted) {
    return quoted.bank == bank && std::ranges::find(quoted.pcrs, pcr) != quoted.pcrs.end();
  });
}

bool Verifier::Asked(HashAlgorithm bank, PcrIndex pcr) const {
  return std::ranges::any_of(expectation_.pcrs, [&](const measure::BankSelection& asked) {
    return asked.bank == bank && std::ranges::find(asked.pcrs, pcr) != asked.pcrs.end();
  });
}

void Verifier::CheckAsked(const measure::BankSelection& asked) {
  measure::BankSelection missing{asked.bank, {}};
  for (const PcrIndex pcr : asked.pcrs) {
    if (!IsQuoted(asked.bank, pcr)) missing.pcrs.push_back(pcr);
  }
  if (!missing.pcrs.empty()) {
    Reject(QuoteReason::kPcrNotQuoted, "the selection of PCRs",
           measure::FormatPcrSelections({asked}),
           fmt::format("it lacks {}", measure::FormatPcrSelections({missing})));
  }
}

// Adds one bank's values to the digest. False: a value is missing, which was said.
bool Verifier::CollectQuoted(const QuotedBank& quoted, Hasher& hasher) {
  for (const PcrIndex pcr : quoted.pcrs) {
    const std::string name = quoted.bank.has_value() ? std::string(HashAlgorithmName(*quoted.bank))
                                                     : fmt::format("{:#06x}", quoted.algorithm);
    if (!quoted.bank.has_value()) {
      Reject(QuoteReason::kPcrValueMissing, fmt::format("PCR {} of bank {}", pcr.value(), name),
             "a bank that is supported", "");
      return false;
    }
    const auto bank = evidence_.pcrs.find(*quoted.bank);
    const bool found = bank != evidence_.pcrs.end() && bank->second.contains(pcr);
    if (!found || bank->second.at(pcr).size() != DigestSize(*quoted.bank)) {
      Reject(QuoteReason::kPcrValueMissing, fmt::format("PCR {} of bank {}", pcr.value(), name),
             fmt::format("a value of {} bytes, as the quote is over it", DigestSize(*quoted.bank)),
             found ? ToHex(bank->second.at(pcr)) : "none");
      return false;
    }
    const Bytes& value = bank->second.at(pcr);
    hasher.Update(value);
    if (*quoted.bank != HashAlgorithm::kSha1 || expectation_.sha1 == Sha1Policy::kAccepted) {
      verdict_.pcrs[*quoted.bank].emplace(pcr, value);
    }
  }
  return true;
}

void Verifier::CheckPcrs() {
  for (const measure::BankSelection& asked : expectation_.pcrs) {
    CheckAsked(asked);
  }
  // Part 3, section 18.4: the digest is over the concatenation of the selected PCRs' values, in the
  // order of the selection, with the hash of the signing scheme.
  Hasher hasher(hash_);
  size_t more = 0;
  for (const QuotedBank& quoted : verdict_.signed_quote->banks) {
    if (!CollectQuoted(quoted, hasher)) {
      return;
    }
    more += static_cast<size_t>(std::ranges::count_if(
        quoted.pcrs, [&](PcrIndex pcr) { return !Asked(*quoted.bank, pcr); }));
  }
  const Bytes digest = hasher.Finish();
  if (digest != verdict_.signed_quote->pcr_digest) {
    Reject(QuoteReason::kPcrDigestMismatch, "the digest over the PCR values",
           ToHex(verdict_.signed_quote->pcr_digest), ToHex(digest));
  }
  const bool sha1 = std::ranges::any_of(
      expectation_.pcrs, [](const auto& asked) { return asked.bank == HashAlgorithm::kSha1; });
  if (sha1 && expectation_.sha1 == Sha1Policy::kRefused) {
    Reject(QuoteReason::kSha1Bank, "the bank", "SHA-256 or better", "SHA-1");
  }
  if (more > 0) {
    Note(QuoteNote::kMorePcrsQuoted,
         fmt::format("{} more PCRs are quoted than were asked for", more));
  }
}

void Verifier::CheckTime() {
  const ClockState& now = verdict_.signed_quote->clock;
  if (!now.safe) {
    Note(QuoteNote::kClockNotSafe, "the TPM lost power without notice: its clock may repeat");
  }
  const auto* previous = std::get_if<ClockState>(&expectation_.previous);
  if (previous == nullptr) {
    return;
  }
  if (now.firmware_version != previous->firmware_version) {
    Note(QuoteNote::kFirmwareVersionChanged,
         fmt::format("the TPM's firmware version was {:#018x} and is {:#018x}",
                     previous->firmware_version, now.firmware_version));
  }
  CheckClock(*previous, now);
}

// Part 1, section 36: a reset counts resetCount up and starts restartCount from 0; a restart or a
// resume counts restartCount up; clock goes on from where it was, or after a loss of power from
// where it was last saved, which may be a little before: safe is then NO.
void Verifier::CheckClock(const ClockState& previous, const ClockState& now) {
  if (now.reset_count < previous.reset_count) {
    Reject(QuoteReason::kResetCountWentBackwards, "the reset count",
           fmt::format("{} or more", previous.reset_count), fmt::format("{}", now.reset_count));
    return;
  }
  const bool rebooted = now.reset_count > previous.reset_count;
  if (!rebooted && now.restart_count < previous.restart_count) {
    Reject(QuoteReason::kRestartCountWentBackwards, "the restart count",
           fmt::format("{} or more", previous.restart_count), fmt::format("{}", now.restart_count));
    return;
  }
  const bool restarted = !rebooted && now.restart_count > previous.restart_count;
  if (now.clock < previous.clock && (now.safe || (!rebooted && !restarted))) {
    Reject(QuoteReason::kClockWentBackwards, "the clock",
           fmt::format("{} ms or more", previous.clock), fmt::format("{} ms", now.clock));
  }
  if (rebooted) {
    Note(QuoteNote::kRebooted,
         fmt::format("the reset count was {} and is {}", previous.reset_count, now.reset_count));
  } else if (restarted) {
    Note(QuoteNote::kRestarted, fmt::format("the restart count was {} and is {}",
                                            previous.restart_count, now.restart_count));
  }
}

}  // namespace

std::string_view QuoteReasonName(QuoteReason reason) {
  switch (reason) {
    case QuoteReason::kSignatureMalformed:
      return "signature_malformed";
    case QuoteReason::kSignatureSchemeMismatch:
      return "signature_scheme_mismatch";
    case QuoteReason::kSha1Signature:
      return "sha1_signature";
    case QuoteReason::kSignatureInvalid:
      return "signature_invalid";
    case QuoteReason::kNotTpmGenerated:
      return "not_tpm_generated";
    case QuoteReason::kNotAQuote:
      return "not_a_quote";
    case QuoteReason::kMessageMalformed:
      return "message_malformed";
    case QuoteReason::kNonceMismatch:
      return "nonce_mismatch";
    case QuoteReason::kSignerMismatch:
      return "signer_mismatch";
    case QuoteReason::kPcrNotQuoted:
      return "pcr_not_quoted";
    case QuoteReason::kPcrValueMissing:
      return "pcr_value_missing";
    case QuoteReason::kPcrDigestMismatch:
      return "pcr_digest_mismatch";
    case QuoteReason::kSha1Bank:
      return "sha1_bank";
    case QuoteReason::kResetCountWentBackwards:
      return "reset_count_went_backwards";
    case QuoteReason::kRestartCountWentBackwards:
      return "restart_count_went_backwards";
    case QuoteReason::kClockWentBackwards:
      return "clock_went_backwards";
  }
  return "unknown";
}

std::string_view QuoteNoteName(QuoteNote note) {
  switch (note) {
    case QuoteNote::kKeyAttributesUnknown:
      return "key_attributes_unknown";
    case QuoteNote::kRebooted:
      return "rebooted";
    case QuoteNote::kRestarted:
      return "restarted";
    case QuoteNote::kFirmwareVersionChanged:
      return "firmware_version_changed";
    case QuoteNote::kClockNotSafe:
      return "clock_not_safe";
    case QuoteNote::kMorePcrsQuoted:
      return "more_pcrs_quoted";
  }
  return "unknown";
}

bool QuoteVerdict::Has(QuoteReason reason) const {
  return std::ranges::find(rejections, reason, &QuoteFinding::reason) != rejections.end();
}

bool QuoteVerdict::Has(QuoteNote note) const {
  return std::ranges::find(notes, note, &QuoteRemark::note) != notes.end();
}

QuoteVerdict VerifyQuote(const QuoteKey& key, const QuoteEvidence& evidence,
                         const QuoteExpectation& expectation) {
  return Verifier(key, evidence, expectation).Verify();
}

}  // namespace vallum::attest
