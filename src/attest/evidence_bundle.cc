// SPDX-License-Identifier: Apache-2.0
#include "attest/evidence_bundle.h"

#include <zstd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/text.h"
#include "formats/decompress.h"
#include "measure/event_log.h"
#include "measure/extend_log.h"
#include "measure/ima_log.h"

namespace vallum::attest {
namespace {

constexpr int kLevel = 3;
constexpr size_t kGrowth = size_t{1} << 20U;
constexpr size_t kMaxImaBanks = 4;

enum class Part : uint16_t {
  kHead = 1,  // policy, time, kinds
  kAkPublic = 2,
  kEkCertificate = 3,
  kNonce = 4,
  kQuote = 5,
  kSignature = 6,
  kPcrs = 7,
  kFacts = 8,
  kImaBefore = 9,
  kEventLog = 10,
  kImaLog = 11,
};
constexpr uint16_t kParts = 11;
enum class Packing : uint16_t { kNone = 0, kZstd = 1 };

size_t LimitOf(uint16_t part) {
  switch (static_cast<Part>(part)) {
    case Part::kHead:
    case Part::kAkPublic:
    case Part::kEkCertificate:
    case Part::kNonce:
    case Part::kQuote:
    case Part::kSignature:
    case Part::kPcrs:
    case Part::kImaBefore:
      return kMaxBundleSmallPart;
    case Part::kFacts:
      return kMaxFactsSize;
    case Part::kEventLog:
      return measure::kMaxEventLogSize;
    case Part::kImaLog:
      return measure::kMaxImaLogSize;
  }
  return 0;
}

void WriteText(ByteWriter& out, std::string_view text) {
  out.U32Le(static_cast<uint32_t>(text.size())).Raw(AsBytes(text));
}

Bytes EncodeHead(const EvidenceBundle& bundle) {
  ByteWriter out;
  out.U64Le(bundle.taken_at)
      .U8(static_cast<uint8_t>(bundle.tpm))
      .U8(static_cast<uint8_t>(bundle.format))
      .U64Le(bundle.policy_version);
  WriteText(out, bundle.policy);
  return std::move(out).Take();
}

Result<void> ReadHead(ByteView part, EvidenceBundle& out) {
  ByteCursor in(part);
  ASSIGN_OR_RETURN(out.taken_at, in.ReadU64Le());
  ASSIGN_OR_RETURN(const uint8_t tpm, in.ReadU8());
  ASSIGN_OR_RETURN(const uint8_t format, in.ReadU8());
  if (tpm > static_cast<uint8_t>(TpmKind::kUnknown) ||
      format > static_cast<uint8_t>(SignatureFormat::kPlain)) {
    return Corrupt("the head names a kind that does not exist");
  }
  out.tpm = static_cast<TpmKind>(tpm);
  out.format = static_cast<SignatureFormat>(format);
  ASSIGN_OR_RETURN(out.policy_version, in.ReadU64Le());
  ASSIGN_OR_RETURN(const uint32_t size, in.ReadU32Le());
  ASSIGN_OR_RETURN(const ByteView name, in.ReadBytes(size));
  out.policy = std::string(AsText(name));
  if (!in.AtEnd()) return Corrupt("bytes are left over in the head");
  return Ok();
}

Bytes EncodePcrs(const PcrBanks& banks) {
  ByteWriter out;
  for (const auto& [bank, values] : banks) {
    uint32_t mask = 0;
    for (const auto& [pcr, value] : values) mask |= 1U << pcr.value();
    out.U16Le(measure::TpmAlgorithmId(bank)).U32Le(mask);
    for (const auto& [pcr, value] : values) out.Raw(value);
  }
  return std::move(out).Take();
}

Result<PcrBanks> ReadPcrs(ByteView part) {
  ByteCursor in(part);
  PcrBanks out;
  while (!in.AtEnd()) {
    ASSIGN_OR_RETURN(const uint16_t algorithm, in.ReadU16Le());
    ASSIGN_OR_RETURN(const HashAlgorithm bank, measure::BankOfTpmAlgorithm(algorithm));
    ASSIGN_OR_RETURN(const uint32_t mask, in.ReadU32Le());
    if (mask == 0 || mask >> PcrIndex::kCount != 0 || out.contains(bank)) {
      return Corrupt("a bank is empty, twice, or has PCRs that do not exist");
    }
    for (uint32_t pcr = 0; pcr < PcrIndex::kCount; ++pcr) {
      if ((mask >> pcr & 1U) == 0) continue;
      ASSIGN_OR_RETURN(const ByteView value, in.ReadBytes(DigestSize(bank)));
      out[bank].emplace(*PcrIndex::Create(pcr), ToBytes(value));
    }
  }
  return out;
}

Bytes EncodeImaBefore(const measure::ImaReplayState& state) {
  ByteWriter out;
  out.U64Le(state.entries);
  for (const measure::ImaPcrValue& each : state.pcrs) {
    out.U16Le(measure::TpmAlgorithmId(each.bank)).Raw(each.value);
  }
  return std::move(out).Take();
}

Result<measure::ImaReplayState> ReadImaBefore(ByteView part) {
  ByteCursor in(part);
  measure::ImaReplayState out;
  ASSIGN_OR_RETURN(out.entries, in.ReadU64Le());
  while (!in.AtEnd()) {
    ASSIGN_OR_RETURN(const uint16_t algorithm, in.ReadU16Le());
    ASSIGN_OR_RETURN(const HashAlgorithm bank, measure::BankOfTpmAlgorithm(algorithm));
    ASSIGN_OR_RETURN(const ByteView value, in.ReadBytes(DigestSize(bank)));
    if (out.pcrs.size() >= kMaxImaBanks) return Corrupt("IMA's PCR has too many values");
    out.pcrs.push_back({.bank = bank, .value = ToBytes(value)});
  }
  return out;
}

Result<void> WritePart(ByteWriter& out, Part part, ByteView raw) {
  const auto number = static_cast<uint16_t>(part);
  if (raw.size() > LimitOf(number)) {
    return Exhausted("part " + std::to_string(number) + " is larger than " +
                     std::to_string(LimitOf(number)) + " bytes");
  }
  Bytes packed(ZSTD_compressBound(raw.size()));
  const size_t size = ZSTD_compress(packed.data(), packed.size(), raw.data(), raw.size(), kLevel);
  if (ZSTD_isError(size) != 0U) return Internal("zstd: " + std::string(ZSTD_getErrorName(size)));
  const bool smaller = size < raw.size();
  const ByteView stored = smaller ? ByteView(packed).first(size) : raw;
  out.U16Le(number)
      .U16Le(static_cast<uint16_t>(smaller ? Packing::kZstd : Packing::kNone))
      .U64Le(raw.size())
      .U64Le(stored.size())
      .Raw(stored);
  return Ok();
}

// The buffer grows as content comes, not as the file says that it will.
Result<Bytes> Unpack(ByteView stored, size_t size) {
  ASSIGN_OR_RETURN(const auto zstd, formats::CreateDecompressor(formats::Compression::kZstd));
  Bytes out;
  size_t filled = 0;
  while (true) {
    if (filled == out.size() && filled < size) out.resize(std::min(size, filled + kGrowth));
    ASSIGN_OR_RETURN(const auto step, zstd->Decompress(stored, std::span(out).subspan(filled)));
    stored = stored.subspan(step.consumed);
    filled += step.produced;
    if (step.finished) break;
    if (step.consumed == 0 && step.produced == 0 && (stored.empty() || filled == size)) {
      return Corrupt("a part is not of the size that it names");
    }
  }
  if (filled != size || !stored.empty()) return Corrupt("a part is not of the size that it names");
  out.resize(filled);
  return out;
}

Result<Bytes> ReadPart(ByteCursor& in, uint16_t expected) {
  ASSIGN_OR_RETURN(const uint16_t number, in.ReadU16Le());
  if (number != expected) return Corrupt("part " + std::to_string(expected) + " is missing");
  ASSIGN_OR_RETURN(const uint16_t packing, in.ReadU16Le());
  ASSIGN_OR_RETURN(const uint64_t size, in.ReadU64Le());
  ASSIGN_OR_RETURN(const uint64_t stored_size, in.ReadU64Le());
  if (size > LimitOf(number)) {
    return Exhausted("part " + std::to_string(number) + " is too large");
  }
  if (stored_size > in.remaining()) return Corrupt("a part ends behind the file");
  ASSIGN_OR_RETURN(const ByteView stored, in.ReadBytes(static_cast<size_t>(stored_size)));
  if (packing == static_cast<uint16_t>(Packing::kNone)) {
    if (stored.size() != size) return Corrupt("a part is not of the size that it names");
    return ToBytes(stored);
  }
  if (packing != static_cast<uint16_t>(Packing::kZstd)) {
    return Corrupt("a part is packed in a way that is not known");
  }
  return Unpack(stored, static_cast<size_t>(size));
}

Result<EvidenceBundle> ReadParts(ByteCursor& in) {
  std::array<Bytes, kParts + 1> parts;
  for (uint16_t i = 1; i <= kParts; ++i) {
    ASSIGN_OR_RETURN(parts[i], ReadPart(in, i));
  }
  if (!in.AtEnd()) return Corrupt("bytes are left over behind the last part");
  const auto take = [&parts](Part part) { return std::move(parts[static_cast<size_t>(part)]); };
  EvidenceBundle out;
  RETURN_IF_ERROR(ReadHead(take(Part::kHead), out));
  out.ak_public = take(Part::kAkPublic);
  out.ek_certificate = take(Part::kEkCertificate);
  out.nonce = take(Part::kNonce);
  out.quote = take(Part::kQuote);
  out.signature = take(Part::kSignature);
  ASSIGN_OR_RETURN(out.pcrs, ReadPcrs(take(Part::kPcrs)));
  ASSIGN_OR_RETURN(out.facts, ParseHostFacts(AsText(take(Part::kFacts))));
  ASSIGN_OR_RETURN(out.ima_before, ReadImaBefore(take(Part::kImaBefore)));
  out.event_log = take(Part::kEventLog);
  out.ima_log = take(Part::kImaLog);
  return out;
}

// Whether signatures are all that is wrong: a key that was loaded by entries before the bundle's
// may have made them, so that the bundle does not say.
bool HangsOnEarlierKeys(const Verdict& verdict) {
  return !verdict.reasons.empty() && std::ranges::all_of(verdict.reasons, [](const Reason& each) {
    return each.id == ReasonId::kImaFileSignature;
  });
}

}  // namespace

Result<Bytes> FormatBundle(const EvidenceBundle& bundle) {
  ByteWriter out;
  out.Raw(AsBytes(kBundleMagic)).U32Le(kBundleVersion);
  const std::string facts = FormatHostFacts(bundle.facts);
  RETURN_IF_ERROR(WritePart(out, Part::kHead, EncodeHead(bundle)));
  RETURN_IF_ERROR(WritePart(out, Part::kAkPublic, bundle.ak_public));
  RETURN_IF_ERROR(WritePart(out, Part::kEkCertificate, bundle.ek_certificate));
  RETURN_IF_ERROR(WritePart(out, Part::kNonce, bundle.nonce));
  RETURN_IF_ERROR(WritePart(out, Part::kQuote, bundle.quote));
  RETURN_IF_ERROR(WritePart(out, Part::kSignature, bundle.signature));
  RETURN_IF_ERROR(WritePart(out, Part::kPcrs, EncodePcrs(bundle.pcrs)));
  RETURN_IF_ERROR(WritePart(out, Part::kFacts, AsBytes(facts)));
  RETURN_IF_ERROR(WritePart(out, Part::kImaBefore, EncodeImaBefore(bundle.ima_before)));
  RETURN_IF_ERROR(WritePart(out, Part::kEventLog, bundle.event_log));
  RETURN_IF_ERROR(WritePart(out, Part::kImaLog, bundle.ima_log));
  return std::move(out).Take();
}

Result<EvidenceBundle> ParseBundle(ByteView file) {
  if (file.size() > kMaxBundleSize) return Exhausted("the file is too large for a bundle");
  ByteCursor in(file);
  const auto magic = in.ReadBytes(kBundleMagic.size());
  if (!magic.has_value() || AsText(*magic) != kBundleMagic) {
    return InvalidInput("this is no bundle of evidence");
  }
  ASSIGN_OR_RETURN(const uint32_t version, in.ReadU32Le());
  if (version != kBundleVersion) {
    return InvalidInput("the bundle has version " + std::to_string(version))
        .WithFix("this program reads version " + std::to_string(kBundleVersion));
  }
  auto out = ReadParts(in);
  if (out.has_value() || out.error().code() == ErrorCode::kExhausted) return out;
  return Corrupt("the bundle is damaged: " + out.error().Describe());
}

HostEvidence EvidenceOf(const EvidenceBundle& bundle) {
  return {.quote = bundle.quote,
          .signature = bundle.signature,
          .format = bundle.format,
          .pcrs = bundle.pcrs,
          .event_log = bundle.event_log,
          .ima_log = bundle.ima_log,
          .ima_first_entry = bundle.ima_before.entries,
          .facts = bundle.facts};
}

Result<Verdict> VerifyBundle(const EvidenceBundle& bundle, const PreparedPolicy& policy) {
  ASSIGN_OR_RETURN_CONTEXT(const TpmPublic ak, ParseTpmtPublic(bundle.ak_public),
                           "reading the attestation key");
  ASSIGN_OR_RETURN_CONTEXT(QuoteKey key, QuoteKey::Create(ak), "judging the attestation key");
  HostState state;
  const auto quoted = ParseAttestation(bundle.quote);
  if (bundle.ima_before.entries != 0 && quoted.has_value()) {
    // That the entries before were accepted is the word of whoever made the bundle.
    state.ima = JudgedIma{.policy = policy.digest,
                          .reset_count = quoted->clock.reset_count,
                          .replay = bundle.ima_before,
                          .assessment = {}};
  }
  HostJudgement judgement = VerifyHost({.key = std::move(key), .kind = bundle.tpm},
                                       EvidenceOf(bundle), state, policy, bundle.nonce);
  if (!state.ima.has_value()) return std::move(judgement.verdict);
  Verdict& verdict = judgement.verdict;
  verdict.notes.push_back({.id = ReasonId::kImaLogGap,
                           .actual = "the " + std::to_string(bundle.ima_before.entries) +
                                     " entries before were judged with earlier evidence; keys that "
                                     "they loaded onto .ima are not known"});
  if (HangsOnEarlierKeys(verdict)) verdict.kind = HostVerdictKind::kUnknown;
  return std::move(verdict);
}

std::vector<TrialOutcome> TryPolicy(const PreparedPolicy& policy,
                                    const std::vector<StoredHost>& hosts) {
  std::vector<TrialOutcome> out;
  out.reserve(hosts.size());
  for (const StoredHost& host : hosts) {
    auto verdict = VerifyBundle(*host.bundle, policy);
    if (!verdict.has_value()) {
      verdict =
          Verdict{.kind = HostVerdictKind::kUnknown,
                  .policy = policy.policy.name,
                  .policy_version = policy.policy.version,
                  .reasons = {{.id = ReasonId::kAkUnfit, .actual = verdict.error().Describe()}},
                  .notes = {}};
    }
    out.push_back({.host = host.name, .verdict = *std::move(verdict)});
  }
  return out;
}

}  // namespace vallum::attest
