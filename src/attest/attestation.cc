// SPDX-License-Identifier: Apache-2.0
#include "attest/attestation.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "measure/extend_log.h"

namespace vallum::attest {
namespace {

constexpr size_t kMaxBitmap = 4;
constexpr size_t kMaxDigest = 64;

Result<ByteView> ReadSized(ByteCursor& cursor, size_t limit, std::string_view what) {
  ASSIGN_OR_RETURN(const uint16_t size, cursor.ReadU16Be());
  if (size > limit) {
    return Exhausted(fmt::format("{} of {} bytes where at most {} can be", what, size, limit));
  }
  return cursor.ReadBytes(size);
}

Result<ClockState> ReadClock(ByteCursor& cursor) {
  ClockState state;
  ASSIGN_OR_RETURN(state.clock, cursor.ReadU64Be());
  ASSIGN_OR_RETURN(state.reset_count, cursor.ReadU32Be());
  ASSIGN_OR_RETURN(state.restart_count, cursor.ReadU32Be());
  ASSIGN_OR_RETURN(const uint8_t safe, cursor.ReadU8());
  if (safe > 1) {
    return InvalidInput(fmt::format("a TPMI_YES_NO of {}", safe));
  }
  state.safe = safe == 1;
  ASSIGN_OR_RETURN(state.firmware_version, cursor.ReadU64Be());
  return state;
}

Result<QuotedBank> ReadBank(ByteCursor& cursor) {
  QuotedBank out;
  ASSIGN_OR_RETURN(out.algorithm, cursor.ReadU16Be());
  if (const auto bank = measure::BankOfTpmAlgorithm(out.algorithm); bank.has_value()) {
    out.bank = *bank;
  }
  ASSIGN_OR_RETURN(const uint8_t size, cursor.ReadU8());
  ASSIGN_OR_RETURN(const ByteView bitmap, cursor.ReadBytes(size));
  ASSIGN_OR_RETURN(out.pcrs, PcrsOfBitmap(bitmap));
  return out;
}

Result<std::vector<QuotedBank>> ReadBanks(ByteCursor& cursor) {
  ASSIGN_OR_RETURN(const uint32_t count, cursor.ReadU32Be());
  if (count > kMaxQuotedBanks) {
    return Exhausted(
        fmt::format("a selection of {} banks; at most {} can be", count, kMaxQuotedBanks));
  }
  std::vector<QuotedBank> banks;
  for (uint32_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(QuotedBank bank, ReadBank(cursor));
    RETURN_IF_ERROR(AddSelection(std::move(bank), banks));
  }
  return banks;
}

Result<Attestation> ReadAttestation(ByteCursor& cursor) {
  Attestation out;
  ASSIGN_OR_RETURN(const uint32_t magic, cursor.ReadU32Be());
  if (magic != kTpmGenerated) {
    return InvalidInput(fmt::format("it begins with {:#010x}: no TPM made it", magic));
  }
  ASSIGN_OR_RETURN(const uint16_t type, cursor.ReadU16Be());
  if (type != kAttestQuote) {
    return InvalidInput(fmt::format("an attestation of type {:#06x} is no quote", type));
  }
  ASSIGN_OR_RETURN(const ByteView signer, ReadSized(cursor, kMaxTpmName, "a name"));
  ASSIGN_OR_RETURN(const ByteView nonce, ReadSized(cursor, kMaxNonce, "a nonce"));
  out.qualified_signer = ToBytes(signer);
  out.nonce = ToBytes(nonce);
  ASSIGN_OR_RETURN(out.clock, ReadClock(cursor));
  ASSIGN_OR_RETURN(out.banks, ReadBanks(cursor));
  ASSIGN_OR_RETURN(const ByteView digest, ReadSized(cursor, kMaxDigest, "a digest"));
  out.pcr_digest = ToBytes(digest);
  return out;
}

Result<Signature> ReadSignature(ByteCursor& cursor) {
  Signature out;
  ASSIGN_OR_RETURN(const uint16_t scheme, cursor.ReadU16Be());
  ASSIGN_OR_RETURN(const uint16_t hash, cursor.ReadU16Be());
  out.scheme = static_cast<KeyScheme>(scheme);
  const bool rsa = out.scheme == KeyScheme::kRsassa || out.scheme == KeyScheme::kRsapss;
  if (!rsa && out.scheme != KeyScheme::kEcdsa) {
    return InvalidInput(fmt::format("scheme {:#06x} is not RSASSA, RSAPSS or ECDSA", scheme));
  }
  const auto known = measure::BankOfTpmAlgorithm(hash);
  if (!known.has_value()) {
    return InvalidInput(fmt::format("hash algorithm {:#06x} is not supported", hash));
  }
  out.hash = *known;
  if (rsa) {
    ASSIGN_OR_RETURN(out.rsa, ReadSized(cursor, kMaxSignature, "a signature"));
    return out;
  }
  ASSIGN_OR_RETURN(out.ecdsa.r, ReadSized(cursor, kMaxSignature, "a signature"));
  ASSIGN_OR_RETURN(out.ecdsa.s, ReadSized(cursor, kMaxSignature, "a signature"));
  return out;
}

Result<void> CheckSize(ByteView bytes, size_t limit) {
  if (bytes.size() > limit) {
    return Exhausted(fmt::format("{} bytes; at most {} are read", bytes.size(), limit));
  }
  return Ok();
}

}  // namespace

Result<Attestation> ParseAttestation(ByteView message) {
  RETURN_IF_ERROR(CheckSize(message, kMaxAttestation)).context("reading a TPMS_ATTEST");
  ByteCursor cursor(message);
  ASSIGN_OR_RETURN_CONTEXT(Attestation out, ReadAttestation(cursor), "reading a TPMS_ATTEST");
  if (!cursor.AtEnd()) {
    return InvalidInput(fmt::format("{} bytes follow a TPMS_ATTEST", cursor.remaining()));
  }
  return out;
}

Result<Signature> ParseSignature(ByteView bytes) {
  RETURN_IF_ERROR(CheckSize(bytes, kMaxSignature)).context("reading a TPMT_SIGNATURE");
  ByteCursor cursor(bytes);
  ASSIGN_OR_RETURN_CONTEXT(Signature out, ReadSignature(cursor), "reading a TPMT_SIGNATURE");
  if (!cursor.AtEnd()) {
    return InvalidInput(fmt::format("{} bytes follow a TPMT_SIGNATURE", cursor.remaining()));
  }
  return out;
}

Result<void> AddSelection(QuotedBank selection, std::vector<QuotedBank>& to) {
  for (const QuotedBank& before : to) {
    if (before.algorithm != selection.algorithm) continue;
    for (const PcrIndex pcr : selection.pcrs) {
      if (std::ranges::find(before.pcrs, pcr) != before.pcrs.end()) {
        return InvalidInput(
            fmt::format("PCR {} of bank {:#06x} is selected twice", pcr.value(), before.algorithm));
      }
    }
  }
  to.push_back(std::move(selection));
  return Ok();
}

Result<std::vector<PcrIndex>> PcrsOfBitmap(ByteView bitmap) {
  if (bitmap.empty() || bitmap.size() > kMaxBitmap) {
    return InvalidInput(fmt::format("a PCR bitmap of {} bytes", bitmap.size()));
  }
  std::vector<PcrIndex> pcrs;
  for (uint32_t i = 0; i < bitmap.size() * 8; ++i) {
    if ((std::to_integer<unsigned>(bitmap[i / 8]) >> (i % 8) & 1U) == 0) {
      continue;
    }
    ASSIGN_OR_RETURN(const PcrIndex pcr, PcrIndex::Create(i));
    pcrs.push_back(pcr);
  }
  return pcrs;
}

}  // namespace vallum::attest
