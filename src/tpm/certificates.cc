// SPDX-License-Identifier: Apache-2.0
#include "tpm/certificates.h"

#include <algorithm>
#include <cstdio>

namespace vallum::tpm {
namespace {

constexpr TPM2_HANDLE kRsaCertificate = 0x01C00002;
constexpr TPM2_HANDLE kEccCertificate = 0x01C0000A;
constexpr TPM2_HANDLE kFirstOfChain = 0x01C00100;
constexpr TPM2_HANDLE kLastOfChain = 0x01C001FF;
constexpr size_t kMaxCertificate = 16384;
constexpr size_t kMaxChain = 8;
constexpr uint16_t kReadSize = 512;  // every TPM's buffer has room for that

std::string IndexName(TPM2_HANDLE index) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08X", index);
  return text;
}

// Who may read an index without a password.
ESYS_TR ReaderOf(TPMA_NV attributes, ESYS_TR index) {
  if ((attributes & TPMA_NV_AUTHREAD) != 0) {
    return index;
  }
  return (attributes & TPMA_NV_OWNERREAD) != 0 ? ESYS_TR_RH_OWNER : ESYS_TR_NONE;
}

// Empty: no such index, not written, or not readable without a password.
Result<Bytes> ReadIndex(EsysContext& esys, TPM2_HANDLE index) {
  const std::string doing = "reading NV index " + IndexName(index);
  ESYS_TR handle = ESYS_TR_NONE;
  const auto found = esys.Call(doing, [&](ESYS_CONTEXT* context) {
    return Esys_TR_FromTPMPublic(context, index, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &handle);
  });
  if (!found) {
    return found.error().code() == ErrorCode::kNotFound ? Result<Bytes>(Bytes()) : found.error();
  }
  const EsysHandle owner(esys, handle, EsysHandle::Kind::kReference);
  TPM2B_NV_PUBLIC* raw = nullptr;
  TPM2B_NAME* raw_name = nullptr;
  RETURN_IF_ERROR(esys.Call(doing, [&](ESYS_CONTEXT* context) {
    return Esys_NV_ReadPublic(context, handle, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &raw,
                              &raw_name);
  }));
  const EsysPtr<TPM2B_NV_PUBLIC> area(raw);
  const EsysPtr<TPM2B_NAME> name(raw_name);
  const ESYS_TR reader = ReaderOf(area->nvPublic.attributes, handle);
  const size_t size = area->nvPublic.dataSize;
  if (reader == ESYS_TR_NONE || size > kMaxCertificate ||
      (area->nvPublic.attributes & TPMA_NV_WRITTEN) == 0) {
    return Bytes();
  }
  Bytes content;
  while (content.size() < size) {
    const auto want = static_cast<uint16_t>(std::min<size_t>(kReadSize, size - content.size()));
    TPM2B_MAX_NV_BUFFER* piece = nullptr;
    const auto read = esys.Call(doing, [&](ESYS_CONTEXT* context) {
      return Esys_NV_Read(context, reader, handle, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
                          want, static_cast<uint16_t>(content.size()), &piece);
    });
    const EsysPtr<TPM2B_MAX_NV_BUFFER> data(piece);
    if (!read) {
      return read.error().code() == ErrorCode::kUnavailable ? Result<Bytes>(read.error()) : Bytes();
    }
    if (data->size != want) {
      return Corrupt("the TPM gave fewer bytes than asked for").Context(doing);
    }
    const auto* begin = reinterpret_cast<const std::byte*>(data->buffer);
    content.insert(content.end(), begin, begin + want);
  }
  return content;
}

}  // namespace

std::vector<Bytes> CutCertificates(ByteView bytes) {
  // ITU-T X.690, 8.1.3: SEQUENCE with a long definite length of two octets; a certificate that
  // needs another has never been.
  constexpr auto kSequence = std::byte{0x30};
  constexpr auto kTwoOctets = std::byte{0x82};
  constexpr size_t kHeader = 4;
  std::vector<Bytes> found;
  while (found.size() < kMaxChain && bytes.size() > kHeader && bytes[0] == kSequence &&
         bytes[1] == kTwoOctets) {
    const size_t size =
        kHeader + (std::to_integer<size_t>(bytes[2]) << 8U) + std::to_integer<size_t>(bytes[3]);
    if (size > bytes.size()) {
      break;
    }
    found.push_back(ToBytes(bytes.first(size)));
    bytes = bytes.subspan(size);
  }
  return found;
}

Result<Bytes> ReadEkCertificate(EsysContext& esys, KeyKind kind) {
  ASSIGN_OR_RETURN(const Bytes content,
                   ReadIndex(esys, kind == KeyKind::kRsa2048 ? kRsaCertificate : kEccCertificate));
  std::vector<Bytes> certificates = CutCertificates(content);
  return certificates.empty() ? Bytes() : std::move(certificates.front());
}

Result<std::vector<Bytes>> ReadEkCertificateChain(EsysContext& esys) {
  TPMS_CAPABILITY_DATA* raw = nullptr;
  TPMI_YES_NO more = TPM2_NO;
  RETURN_IF_ERROR(esys.Call("listing NV indices", [&](ESYS_CONTEXT* context) {
    return Esys_GetCapability(context, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, TPM2_CAP_HANDLES,
                              kFirstOfChain, kMaxChain, &more, &raw);
  }));
  const EsysPtr<TPMS_CAPABILITY_DATA> data(raw);
  const TPML_HANDLE& handles = data->data.handles;
  Bytes content;
  for (uint32_t i = 0; i < std::min<uint32_t>(handles.count, kMaxChain); ++i) {
    if (handles.handle[i] > kLastOfChain) {
      break;
    }
    // One certificate may go on in the next index.
    ASSIGN_OR_RETURN(const Bytes part, ReadIndex(esys, handles.handle[i]));
    content.insert(content.end(), part.begin(), part.end());
  }
  return CutCertificates(content);
}

}  // namespace vallum::tpm
