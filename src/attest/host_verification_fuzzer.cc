// SPDX-License-Identifier: Apache-2.0
// A host whose TPM is honest and whose logs are hostile: each log replays to what is quoted.
// The input is a size, an event log of that size, a size, facts of that size, and IMA's list.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <utility>

#include "attest/host_verification.h"
#include "attest/learn.h"
#include "attest/quote_builder.h"
#include "measure/event_log.h"
#include "measure/event_log_replay.h"
#include "measure/ima_log.h"
#include "measure/ima_template_hash.h"

using namespace vallum;  // NOLINT: a fuzzer

namespace {

constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;
constexpr std::string_view kPolicy = R"(name = "fuzz"
version = 1
[event-log]
mismatched-data = "noted"
[pcr.0]
rule = "events"
[pcr.1]
rule = "ignored"
because = "any"
[pcr.4]
rule = "events"
signed-images = "accepted"
[pcr.5]
rule = "reference"
[pcr.7]
rule = "secure-boot"
signers = ["0000000000000000000000000000000000000000000000000000000000000000"]
sbat-level = 2023012900
[pcr.8]
rule = "events"
commands = "any"
command-lines = "checked"
[pcr.9]
rule = "events"
commands = "any"
[pcr.10]
rule = "ima"
[command-line]
required = ["lockdown=integrity"]
forbidden = ["init"]
allowed = ["root", "ro", "quiet"]
[facts]
kernel-release = ["6.1.*"]
[ima]
allow-list = "files"
allow-list-sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
[[component]]
name = "630-shim"
[[component.variant]]
name = "15.8"
records = [ { pcr = 5, sha256 = "0000000000000000000000000000000000000000000000000000000000000000" } ]
)";

void Expect(bool holds) {
  if (!holds) std::abort();
}

const attest::PreparedPolicy& Policy() {
  static const attest::SharedPolicy policy = attest::PreparePolicy(
      attest::ParsePolicy(kPolicy).value(),
      measure::ImportDigestList(std::string(64, '0') + "  boot_aggregate\n").value());
  return *policy;
}

const attest::SoftwareKey& Key() {
  static const auto key = attest::SoftwareKey::MakeEc(attest::EcCurve::kP256, kBank);
  return key;
}

Bytes Extended(const Bytes& value, ByteView digest) {
  Bytes both = value;
  both.insert(both.end(), digest.begin(), digest.end());
  return Digest(kBank, both);
}

// What PCR 10 is after the list, as the kernel extends it.
Bytes ImaPcr(ByteView list) {
  Bytes value(DigestSize(kBank));
  const auto log = measure::ImaLog::Parse(list, measure::ImaTemplateHash::kDetect);
  if (!log.has_value()) return value;
  for (const measure::ImaEntry& entry : log->entries()) {
    if (entry.pcr != 10) continue;
    const measure::ImaHashedData data(*log, entry);
    value = Extended(value, entry.violation ? Bytes(DigestSize(kBank), std::byte{0xFF})
                                            : Digest(kBank, data.view()));
  }
  return value;
}

attest::PcrBanks QuotedPcrs(ByteView event_log, ByteView list) {
  attest::PcrBanks out;
  const auto log = measure::EventLog::Parse(event_log, measure::EventLogKind::kTpm);
  const auto replay = log.has_value() ? measure::ReplayEventLog(*log, kBank)
                                      : Result<measure::EventLogReplay>(log.error());
  for (const uint32_t pcr : {0U, 1U, 4U, 5U, 7U, 8U, 9U}) {
    out[kBank].emplace(PcrIndex::Create(pcr).value(),
                       replay.has_value() ? replay->values[pcr] : Bytes(DigestSize(kBank)));
  }
  out[kBank].emplace(PcrIndex::Of<10>(), ImaPcr(list));
  return out;
}

struct Quoted {
  Bytes message;
  Bytes signature;
};

Quoted Quote(const attest::PcrBanks& pcrs, ByteView nonce) {
  attest::Attestation attestation;
  attestation.qualified_signer = Bytes(34, std::byte{0xAA});
  attestation.nonce = ToBytes(nonce);
  attestation.clock = {.clock = 1000, .reset_count = 5, .restart_count = 2, .safe = true};
  attestation.banks = attest::SelectAll(pcrs);
  attestation.pcr_digest = attest::PcrDigest(kBank, pcrs);
  Quoted out{.message = attest::BuildAttestation(attestation), .signature = {}};
  out.signature = Key().Sign(out.message);
  return out;
}

// A policy that was learned reads as it was written. The host may still not meet it: a list of
// files has no word for the keys and buffers that IMA measures, too.
void CheckLearned(const attest::BoundTpm& tpm, const attest::HostEvidence& evidence,
                  ByteView nonce) {
  const auto learned = attest::LearnPolicy("learned", tpm, evidence, nonce);
  if (!learned.has_value()) return;
  const auto read = attest::ParsePolicy(learned->document);
  Expect(read.has_value() && *read == learned->policy);
  measure::SharedImaAllowList list;
  if (!learned->ima_list.empty()) {
    const auto imported = measure::ImportDigestList(learned->ima_list);
    Expect(imported.has_value());
    list = *imported;
  }
  const attest::SharedPolicy prepared = attest::PreparePolicy(learned->policy, list);
  static_cast<void>(attest::VerifyHost(tpm, evidence, {}, *prepared, nonce));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ByteCursor cursor(std::as_bytes(std::span(data, size)));
  std::array<ByteView, 2> parts;
  for (ByteView& part : parts) {
    const auto length = cursor.ReadU16Le();
    if (!length.has_value()) return 0;
    part = cursor.ReadBytes(std::min<size_t>(*length, cursor.remaining())).value();
  }
  const Bytes nonce(20, std::byte{0x55});
  const attest::PcrBanks pcrs = QuotedPcrs(parts[0], cursor.Rest());
  const Quoted quote = Quote(pcrs, nonce);
  const auto facts = attest::ParseHostFacts(AsText(parts[1]));
  const attest::HostEvidence evidence{.quote = quote.message,
                                      .signature = quote.signature,
                                      .pcrs = pcrs,
                                      .event_log = parts[0],
                                      .ima_log = cursor.Rest(),
                                      .facts = facts.has_value() ? *facts : attest::HostFacts{}};
  static const attest::BoundTpm tpm{.key = attest::QuoteKey::Create(Key().Parsed()).value(),
                                    .kind = attest::TpmKind::kHardware};
  const auto judged = attest::VerifyHost(tpm, evidence, {}, Policy(), nonce);
  // Nobody is among the signers of PCR 7.
  Expect(judged.verdict.kind == attest::HostVerdictKind::kUntrusted);
  Expect(!judged.verdict.reasons.empty());
  for (const attest::Reason& each : judged.verdict.reasons) {
    Expect(!attest::DescribeReason(each).empty());
  }
  CheckLearned(tpm, evidence, nonce);
  return 0;
}
