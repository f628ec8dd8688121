// SPDX-License-Identifier: Apache-2.0
#include "vtpm/identity.h"

#include <algorithm>
#include <utility>

#include "measure/extend_log.h"
#include "measure/pcr.h"
#include "vtpm/key_command.h"

namespace vallum::vtpm {
namespace {

constexpr size_t kCoordinate = 32;
constexpr size_t kSerializedBanks = 16;   // TPML_PCR_SELECTION
constexpr size_t kSerializedDigests = 8;  // TPML_DIGEST
constexpr size_t kSerializedDigest = 64;  // TPMU_HA

}  // namespace

Result<Bytes> SubjectPublicKeyInfo(ByteView tpm_public) {
  ASSIGN_OR_RETURN(const EcPoint point, ParseEcPoint(tpm_public));
  // RFC 5480: id-ecPublicKey, prime256v1, an uncompressed point.
  static constexpr uint8_t kHeader[] = {0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48,
                                        0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
                                        0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04};
  ByteWriter writer;
  writer.Raw(std::as_bytes(std::span(kHeader)));
  for (const Bytes& coordinate : {point.x, point.y}) {
    writer.Zeros(kCoordinate - coordinate.size()).Raw(coordinate);
  }
  return std::move(writer).Take();
}

Bytes ObjectName(ByteView tpm_public) {
  ByteWriter writer;
  writer.U16Be(measure::TpmAlgorithmId(HashAlgorithm::kSha256));
  writer.Raw(Digest(HashAlgorithm::kSha256, tpm_public));
  return std::move(writer).Take();
}

Bytes SerializePcrs(const QuoteRequest& request, const Quote& quote) {
  ByteWriter writer;
  writer.U32Le(static_cast<uint32_t>(request.selections.size()));
  for (const measure::BankSelection& selection : request.selections) {
    writer.U16Le(measure::TpmAlgorithmId(selection.bank)).U8(PcrIndex::kCount / 8);
    const auto bitmap = PcrBitmap(selection.pcrs);
    for (const uint8_t byte : bitmap) {
      writer.U8(byte);
    }
    writer.Zeros(2);  // the fourth byte of the bitmap, and padding
  }
  writer.Zeros((kSerializedBanks - request.selections.size()) * 8);
  std::vector<ByteView> digests;
  for (const auto& values : quote.values) {
    for (const auto& [pcr, value] : values) {
      digests.emplace_back(value);
    }
  }
  writer.U32Le(
      static_cast<uint32_t>((digests.size() + kSerializedDigests - 1) / kSerializedDigests));
  for (size_t begin = 0; begin < digests.size(); begin += kSerializedDigests) {
    const size_t count = std::min(kSerializedDigests, digests.size() - begin);
    writer.U32Le(static_cast<uint32_t>(count));
    for (size_t i = begin; i < begin + count; ++i) {
      writer.U16Le(static_cast<uint16_t>(digests[i].size())).Raw(digests[i]);
      writer.Zeros(kSerializedDigest - digests[i].size());
    }
    writer.Zeros((kSerializedDigests - count) * (2 + kSerializedDigest));
  }
  return std::move(writer).Take();
}

}  // namespace vallum::vtpm
