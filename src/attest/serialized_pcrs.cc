// SPDX-License-Identifier: Apache-2.0
#include "attest/serialized_pcrs.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "measure/extend_log.h"

namespace vallum::attest {
namespace {

constexpr size_t kSelections = 16;  // TPML_PCR_SELECTION
constexpr size_t kBitmapRoom = 4;   // TPMS_PCR_SELECTION's pcrSelect
constexpr size_t kDigests = 8;      // TPML_DIGEST
constexpr size_t kDigestRoom = 64;  // TPM2B_DIGEST's buffer

Result<QuotedBank> ReadSelection(ByteCursor& cursor) {
  QuotedBank out;
  ASSIGN_OR_RETURN(out.algorithm, cursor.ReadU16Le());
  if (const auto bank = measure::BankOfTpmAlgorithm(out.algorithm); bank.has_value()) {
    out.bank = *bank;
  }
  ASSIGN_OR_RETURN(const uint8_t size, cursor.ReadU8());
  ASSIGN_OR_RETURN(const ByteView bitmap, cursor.ReadBytes(kBitmapRoom));
  RETURN_IF_ERROR(cursor.Skip(1));  // up to the next even address
  if (size == 0 || size > kBitmapRoom) {
    return InvalidInput(fmt::format("a PCR bitmap of {} bytes", size));
  }
  ASSIGN_OR_RETURN(out.pcrs, PcrsOfBitmap(bitmap.first(size)));
  return out;
}

Result<std::vector<QuotedBank>> ReadSelections(ByteCursor& cursor) {
  ASSIGN_OR_RETURN(const uint32_t count, cursor.ReadU32Le());
  if (count == 0 || count > kSelections) {
    return InvalidInput(fmt::format("{} banks are selected; 1 to {} can be", count, kSelections));
  }
  std::vector<QuotedBank> banks;
  for (uint32_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(QuotedBank bank, ReadSelection(cursor));
    RETURN_IF_ERROR(AddSelection(std::move(bank), banks));
  }
  RETURN_IF_ERROR(cursor.Skip((kSelections - count) * 8));
  return banks;
}

// The digests of one TPML_DIGEST.
Result<void> ReadDigests(ByteCursor& cursor, std::vector<ByteView>& out) {
  ASSIGN_OR_RETURN(const uint32_t count, cursor.ReadU32Le());
  if (count > kDigests) {
    return InvalidInput(fmt::format("a list of {} digests; at most {} can be", count, kDigests));
  }
  for (uint32_t i = 0; i < kDigests; ++i) {
    ASSIGN_OR_RETURN(const uint16_t size, cursor.ReadU16Le());
    ASSIGN_OR_RETURN(const ByteView room, cursor.ReadBytes(kDigestRoom));
    if (i >= count) {
      continue;
    }
    if (size > kDigestRoom) {
      return InvalidInput(fmt::format("a digest of {} bytes", size));
    }
    out.push_back(room.first(size));
  }
  return Ok();
}

Result<PcrBanks> Assign(const std::vector<QuotedBank>& banks,
                        const std::vector<ByteView>& digests) {
  PcrBanks out;
  size_t next = 0;
  for (const QuotedBank& bank : banks) {
    for (const PcrIndex pcr : bank.pcrs) {
      if (next == digests.size()) {
        return InvalidInput(fmt::format("{} values for more PCRs", digests.size()));
      }
      const ByteView value = digests[next++];
      if (!bank.bank.has_value()) {
        continue;
      }
      if (value.size() != DigestSize(*bank.bank)) {
        return InvalidInput(fmt::format("PCR {} of bank {} has a value of {} bytes", pcr.value(),
                                        HashAlgorithmName(*bank.bank), value.size()));
      }
      out[*bank.bank].emplace(pcr, ToBytes(value));
    }
  }
  if (next != digests.size()) {
    return InvalidInput(fmt::format("{} values for {} PCRs", digests.size(), next));
  }
  return out;
}

Result<PcrBanks> ReadSerialized(ByteView bytes) {
  ByteCursor cursor(bytes);
  ASSIGN_OR_RETURN(const std::vector<QuotedBank> banks, ReadSelections(cursor));
  ASSIGN_OR_RETURN(const uint32_t lists, cursor.ReadU32Le());
  const size_t list_size = 4 + kDigests * (2 + kDigestRoom);
  if (cursor.remaining() != lists * list_size) {
    return InvalidInput(fmt::format("{} bytes for {} lists of digests", cursor.remaining(), lists));
  }
  std::vector<ByteView> digests;
  for (uint32_t i = 0; i < lists; ++i) {
    RETURN_IF_ERROR(ReadDigests(cursor, digests));
  }
  return Assign(banks, digests);
}

}  // namespace

Result<PcrBanks> ParseSerializedPcrs(ByteView bytes) {
  if (bytes.size() > kMaxSerializedPcrs) {
    return Exhausted(fmt::format("{} bytes of PCR values; at most {} are read", bytes.size(),
                                 kMaxSerializedPcrs));
  }
  ASSIGN_OR_RETURN_CONTEXT(PcrBanks out, ReadSerialized(bytes), "reading serialized PCRs");
  return out;
}

Result<PcrBanks> ParsePcrValues(ByteView bytes,
                                const std::vector<measure::BankSelection>& selections) {
  PcrBanks out;
  ByteCursor cursor(bytes);
  for (const measure::BankSelection& selection : selections) {
    for (const PcrIndex pcr : selection.pcrs) {
      ASSIGN_OR_RETURN(const ByteView value, cursor.ReadBytes(DigestSize(selection.bank)));
      out[selection.bank].emplace(pcr, ToBytes(value));
    }
  }
  if (!cursor.AtEnd()) {
    return InvalidInput(fmt::format("{} bytes follow the PCR values", cursor.remaining()));
  }
  return out;
}

}  // namespace vallum::attest
