// SPDX-License-Identifier: Apache-2.0
#include "vtpm/key_command.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "measure/pcr.h"
#include "vtpm/tpm_command.h"

namespace vallum::vtpm {
namespace {

constexpr uint32_t kEvictControl = 0x00000120;
constexpr uint32_t kNvUndefineSpace = 0x00000122;
constexpr uint32_t kNvDefineSpace = 0x0000012A;
constexpr uint32_t kCreatePrimary = 0x00000131;
constexpr uint32_t kNvWrite = 0x00000137;
constexpr uint32_t kNvWriteLock = 0x00000138;
constexpr uint32_t kNvRead = 0x0000014E;
constexpr uint32_t kQuote = 0x00000158;
constexpr uint32_t kFlushContext = 0x00000165;
constexpr uint32_t kNvReadPublic = 0x00000169;
constexpr uint32_t kReadPublic = 0x00000173;

constexpr uint32_t kHandleOwner = 0x40000001;
constexpr uint32_t kHandleEndorsement = 0x4000000B;
constexpr uint32_t kHandlePlatform = 0x4000000C;
constexpr uint32_t kPasswordSession = 0x40000009;
constexpr uint32_t kEmptyPasswordSize = 9;

constexpr uint16_t kAlgorithmAes = 0x0006;
constexpr uint16_t kAlgorithmSha256 = 0x000B;
constexpr uint16_t kAlgorithmNull = 0x0010;
constexpr uint16_t kAlgorithmEcdsa = 0x0018;
constexpr uint16_t kAlgorithmEcc = 0x0023;
constexpr uint16_t kAlgorithmCfb = 0x0043;
constexpr uint16_t kCurveP256 = 0x0003;
constexpr size_t kCoordinate = 32;

// TPMA_OBJECT. The EK's are those of template L-2: fixedTPM, fixedParent, sensitiveDataOrigin,
// adminWithPolicy, restricted, decrypt. The AK's: fixedTPM, fixedParent, sensitiveDataOrigin,
// userWithAuth, noDA, restricted, sign.
constexpr uint32_t kEkAttributes = 0x000300B2;
constexpr uint32_t kAkAttributes = 0x00050472;
// TPMA_NV: PPWRITE, WRITEDEFINE, PPREAD, OWNERREAD, AUTHREAD, NO_DA, PLATFORMCREATE.
constexpr uint32_t kCertificateAttributes = 0x42072001;
constexpr uint32_t kNvWritten = 0x20000000;
constexpr uint32_t kNvPlatformCreate = 0x40000000;

constexpr uint32_t kAttestMagic = 0xFF544347;
constexpr uint16_t kAttestQuote = 0x8018;
constexpr size_t kClockInfoAndVersion = 17 + 8;

// TCG EK Credential Profile, "PolicyA" with SHA-256: TPM2_PolicySecret(TPM_RH_ENDORSEMENT).
constexpr std::string_view kEkPolicy =
    "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa";

void WriteSized(ByteWriter& writer, ByteView bytes) {
  writer.U16Be(static_cast<uint16_t>(bytes.size())).Raw(bytes);
}

Result<ByteView> ReadSized(ByteCursor& cursor) {
  ASSIGN_OR_RETURN(const uint16_t size, cursor.ReadU16Be());
  return cursor.ReadBytes(size);
}

void WriteEmptyPassword(ByteWriter& writer) {
  writer.U32Be(kEmptyPasswordSize).U32Be(kPasswordSession).U16Be(0).U8(0).U16Be(0);
}

// All of a template but the point.
Bytes KeyParameters(KeyKind kind) {
  ByteWriter writer;
  writer.U16Be(kAlgorithmEcc).U16Be(kAlgorithmSha256);
  if (kind == KeyKind::kEndorsement) {
    writer.U32Be(kEkAttributes);
    WriteSized(writer, FromHex(kEkPolicy).value());
    writer.U16Be(kAlgorithmAes).U16Be(128).U16Be(kAlgorithmCfb).U16Be(kAlgorithmNull);
  } else {
    writer.U32Be(kAkAttributes).U16Be(0);
    writer.U16Be(kAlgorithmNull).U16Be(kAlgorithmEcdsa).U16Be(kAlgorithmSha256);
  }
  writer.U16Be(kCurveP256).U16Be(kAlgorithmNull);
  return std::move(writer).Take();
}

// The part of a successful response with sessions that is the command's own.
Result<ByteView> Parameters(ByteView response, size_t handles_size) {
  ByteCursor cursor(response);
  RETURN_IF_ERROR(cursor.Skip(kTpmHeaderSize + handles_size));
  ASSIGN_OR_RETURN(const uint32_t size, cursor.ReadU32Be());
  return cursor.ReadBytes(size);
}

// What cannot be read behind a success is damage.
template <typename T>
Result<T> OrCorrupt(Result<T> parsed, std::string_view what) {
  if (!parsed.has_value()) {
    return Corrupt("the TPM's answer to " + std::string(what) +
                   " cannot be read: " + parsed.error().message());
  }
  return parsed;
}

Result<EcPoint> ReadEcPoint(ByteView tpm_public) {
  for (const KeyKind kind : {KeyKind::kEndorsement, KeyKind::kAttestation}) {
    const Bytes parameters = KeyParameters(kind);
    if (tpm_public.size() < parameters.size() ||
        !std::ranges::equal(tpm_public.first(parameters.size()), parameters)) {
      continue;
    }
    ByteCursor cursor(tpm_public.subspan(parameters.size()));
    ASSIGN_OR_RETURN(const ByteView x, ReadSized(cursor));
    ASSIGN_OR_RETURN(const ByteView y, ReadSized(cursor));
    if (x.size() > kCoordinate || y.size() > kCoordinate || !cursor.AtEnd()) {
      return InvalidInput("the point is too long");
    }
    return EcPoint{ToBytes(x), ToBytes(y)};
  }
  return InvalidInput("not the public part of a vTPM's EC P-256 key");
}

Result<Bytes> ReadSizedReply(ByteView parameters) {
  ByteCursor cursor(parameters);
  ASSIGN_OR_RETURN(const ByteView bytes, ReadSized(cursor));
  return ToBytes(bytes);
}

Result<PrimaryKey> ReadCreatePrimaryReply(ByteView response) {
  PrimaryKey key;
  ByteCursor cursor(response);
  RETURN_IF_ERROR(cursor.Skip(kTpmHeaderSize));
  ASSIGN_OR_RETURN(key.handle, cursor.ReadU32Be());
  ASSIGN_OR_RETURN(const ByteView parameters, Parameters(response, sizeof(key.handle)));
  ASSIGN_OR_RETURN(key.tpm_public, ReadSizedReply(parameters));
  return key;
}

Result<QuoteReply> ReadQuoteReply(ByteView response) {
  ASSIGN_OR_RETURN(const ByteView parameters, Parameters(response, 0));
  ByteCursor cursor(parameters);
  ASSIGN_OR_RETURN(const ByteView quoted, ReadSized(cursor));
  if (cursor.AtEnd()) {
    return InvalidInput("no signature");
  }
  return QuoteReply{ToBytes(quoted), ToBytes(cursor.Rest())};
}

void WriteSelections(ByteWriter& writer, const std::vector<measure::BankSelection>& selections) {
  writer.U32Be(static_cast<uint32_t>(selections.size()));
  for (const measure::BankSelection& selection : selections) {
    const auto bitmap = PcrBitmap(selection.pcrs);
    writer.U16Be(measure::TpmAlgorithmId(selection.bank)).U8(bitmap.size());
    for (const uint8_t byte : bitmap) {
      writer.U8(byte);
    }
  }
}

struct Attested {
  ByteView nonce;
  ByteView pcrs;  // TPML_PCR_SELECTION and the digest of the values, as sent
};

// TPMS_ATTEST with TPMS_QUOTE_INFO, part 2, section 10.12.
Result<Attested> ReadAttested(ByteView quoted) {
  ByteCursor cursor(quoted);
  ASSIGN_OR_RETURN(const uint32_t magic, cursor.ReadU32Be());
  ASSIGN_OR_RETURN(const uint16_t type, cursor.ReadU16Be());
  if (magic != kAttestMagic || type != kAttestQuote) {
    return InvalidInput("it is no quote");
  }
  RETURN_IF_ERROR(ReadSized(cursor));
  Attested attested;
  ASSIGN_OR_RETURN(attested.nonce, ReadSized(cursor));
  RETURN_IF_ERROR(cursor.Skip(kClockInfoAndVersion));
  attested.pcrs = cursor.Rest();
  return attested;
}

}  // namespace

uint32_t PersistentHandle(KeyKind kind) {
  return kind == KeyKind::kEndorsement ? kEkHandle : kAkHandle;
}

std::string_view KeyKindName(KeyKind kind) {
  return kind == KeyKind::kEndorsement ? "endorsement key" : "attestation key";
}

Bytes KeyTemplate(KeyKind kind) {
  ByteWriter writer;
  writer.Raw(KeyParameters(kind));
  // Template L-2 has a point of zeros; the AK's is empty.
  const Bytes coordinate(kind == KeyKind::kEndorsement ? kCoordinate : 0);
  WriteSized(writer, coordinate);
  WriteSized(writer, coordinate);
  return std::move(writer).Take();
}

bool MatchesTemplate(KeyKind kind, ByteView tpm_public) {
  const Bytes parameters = KeyParameters(kind);
  return ReadEcPoint(tpm_public).has_value() &&
         std::ranges::equal(tpm_public.first(parameters.size()), parameters);
}

Result<EcPoint> ParseEcPoint(ByteView tpm_public) { return ReadEcPoint(tpm_public); }

std::array<uint8_t, PcrIndex::kCount / 8> PcrBitmap(const std::vector<PcrIndex>& pcrs) {
  std::array<uint8_t, PcrIndex::kCount / 8> bitmap{};
  for (const PcrIndex pcr : pcrs) {
    bitmap[pcr.value() / 8] |= static_cast<uint8_t>(1U << (pcr.value() % 8));
  }
  return bitmap;
}

Bytes MakeReadPublic(uint32_t handle) {
  ByteWriter body;
  body.U32Be(handle);
  return MakeCommand(TpmTag::kNoSessions, kReadPublic, body.bytes());
}

Result<Bytes> ParseReadPublicReply(ByteView response) {
  RETURN_IF_ERROR(CheckSuccess(response, "read a key's public part"));
  return OrCorrupt(ReadSizedReply(response.subspan(kTpmHeaderSize)), "TPM2_ReadPublic");
}

Bytes MakeCreatePrimary(KeyKind kind) {
  ByteWriter body;
  body.U32Be(kHandleEndorsement);
  WriteEmptyPassword(body);
  body.U16Be(4).U16Be(0).U16Be(0);  // no password, no data
  WriteSized(body, KeyTemplate(kind));
  body.U16Be(0).U32Be(0);  // no outside information, no creation PCRs
  return MakeCommand(TpmTag::kSessions, kCreatePrimary, body.bytes());
}

Result<PrimaryKey> ParseCreatePrimaryReply(ByteView response) {
  RETURN_IF_ERROR(CheckSuccess(response, "make a key"));
  return OrCorrupt(ReadCreatePrimaryReply(response), "TPM2_CreatePrimary");
}

Bytes MakeEvictControl(uint32_t handle, uint32_t persistent_handle) {
  ByteWriter body;
  body.U32Be(kHandleOwner).U32Be(handle);
  WriteEmptyPassword(body);
  body.U32Be(persistent_handle);
  return MakeCommand(TpmTag::kSessions, kEvictControl, body.bytes());
}

Bytes MakeFlushContext(uint32_t handle) {
  ByteWriter body;
  body.U32Be(handle);
  return MakeCommand(TpmTag::kNoSessions, kFlushContext, body.bytes());
}

Bytes MakeQuote(uint32_t handle, const QuoteRequest& request) {
  ByteWriter body;
  body.U32Be(handle);
  WriteEmptyPassword(body);
  WriteSized(body, request.nonce);
  body.U16Be(kAlgorithmNull);  // the key's own scheme
  WriteSelections(body, request.selections);
  return MakeCommand(TpmTag::kSessions, kQuote, body.bytes());
}

Result<QuoteReply> ParseQuoteReply(ByteView response) {
  RETURN_IF_ERROR(CheckSuccess(response, "quote PCRs"));
  return OrCorrupt(ReadQuoteReply(response), "TPM2_Quote");
}

Result<void> CheckQuoted(ByteView quoted, const QuoteRequest& request,
                         const std::vector<std::map<PcrIndex, Bytes>>& values) {
  ASSIGN_OR_RETURN(const Attested attested, OrCorrupt(ReadAttested(quoted), "TPM2_Quote"));
  if (!std::ranges::equal(attested.nonce, request.nonce)) {
    return Corrupt("the TPM quoted another nonce");
  }
  Bytes all;
  for (const auto& bank : values) {
    for (const auto& [pcr, value] : bank) {
      all.insert(all.end(), value.begin(), value.end());
    }
  }
  ByteWriter expected;
  WriteSelections(expected, request.selections);
  WriteSized(expected, Digest(HashAlgorithm::kSha256, all));
  if (!std::ranges::equal(attested.pcrs, expected.bytes())) {
    return Unavailable("the TPM quoted other PCR values than it gave").WithFix("ask again");
  }
  return Ok();
}

Bytes MakeDefineCertificate(size_t size) {
  ByteWriter index;
  index.U32Be(kEkCertificateIndex).U16Be(kAlgorithmSha256).U32Be(kCertificateAttributes);
  index.U16Be(0).U16Be(static_cast<uint16_t>(size));
  ByteWriter body;
  body.U32Be(kHandlePlatform);
  WriteEmptyPassword(body);
  body.U16Be(0);
  WriteSized(body, index.bytes());
  return MakeCommand(TpmTag::kSessions, kNvDefineSpace, body.bytes());
}

Bytes MakeUndefineCertificate() {
  ByteWriter body;
  body.U32Be(kHandlePlatform).U32Be(kEkCertificateIndex);
  WriteEmptyPassword(body);
  return MakeCommand(TpmTag::kSessions, kNvUndefineSpace, body.bytes());
}

Bytes MakeWriteCertificate(ByteView part, size_t offset) {
  ByteWriter body;
  body.U32Be(kHandlePlatform).U32Be(kEkCertificateIndex);
  WriteEmptyPassword(body);
  WriteSized(body, part);
  body.U16Be(static_cast<uint16_t>(offset));
  return MakeCommand(TpmTag::kSessions, kNvWrite, body.bytes());
}

Bytes MakeLockCertificate() {
  ByteWriter body;
  body.U32Be(kHandlePlatform).U32Be(kEkCertificateIndex);
  WriteEmptyPassword(body);
  return MakeCommand(TpmTag::kSessions, kNvWriteLock, body.bytes());
}

Bytes MakeReadCertificatePublic() {
  ByteWriter body;
  body.U32Be(kEkCertificateIndex);
  return MakeCommand(TpmTag::kNoSessions, kNvReadPublic, body.bytes());
}

Result<size_t> ParseCertificatePublicReply(ByteView response) {
  const auto code = ResponseCode(response);
  if (code.has_value() && *code != kTpmSuccess) {
    return NotFound("the TPM carries no EK certificate");
  }
  RETURN_IF_ERROR(code);
  ASSIGN_OR_RETURN(const Bytes index, OrCorrupt(ReadSizedReply(response.subspan(kTpmHeaderSize)),
                                                "TPM2_NV_ReadPublic"));
  ByteCursor cursor(index);
  RETURN_IF_ERROR(cursor.Skip(4 + 2));
  ASSIGN_OR_RETURN(const uint32_t attributes, cursor.ReadU32Be());
  RETURN_IF_ERROR(ReadSized(cursor));
  ASSIGN_OR_RETURN(const uint16_t size, cursor.ReadU16Be());
  constexpr uint32_t kNeeded = kNvPlatformCreate | kNvWritten;
  if ((attributes & kNeeded) != kNeeded || size == 0 || size > kMaxCertificate) {
    return NotFound("what the TPM has in the EK certificate's place is not from its maker");
  }
  return size_t{size};
}

Bytes MakeReadCertificate(size_t size, size_t offset) {
  ByteWriter body;
  body.U32Be(kEkCertificateIndex).U32Be(kEkCertificateIndex);
  WriteEmptyPassword(body);
  body.U16Be(static_cast<uint16_t>(size)).U16Be(static_cast<uint16_t>(offset));
  return MakeCommand(TpmTag::kSessions, kNvRead, body.bytes());
}

Result<Bytes> ParseReadCertificateReply(ByteView response) {
  RETURN_IF_ERROR(CheckSuccess(response, "read the EK certificate"));
  ASSIGN_OR_RETURN(const ByteView parameters, OrCorrupt(Parameters(response, 0), "TPM2_NV_Read"));
  return OrCorrupt(ReadSizedReply(parameters), "TPM2_NV_Read");
}

Result<void> CheckSuccess(ByteView response, std::string_view doing) {
  const auto code = ResponseCode(response);
  if (!code.has_value()) {
    return Corrupt("the TPM answered with " + code.error().message());
  }
  if (*code == kTpmSuccess) {
    return Ok();
  }
  char hex[16];
  std::snprintf(hex, sizeof(hex), "0x%03x", *code);
  const std::string what = "the TPM did not " + std::string(doing) + " (response code " + hex + ")";
  // Part 2, section 6.6: a format-one code names a handle, parameter or session beside the error.
  constexpr uint32_t kFormatOne = 0x080;
  constexpr uint32_t kObjectMemory = 0x902;
  constexpr uint32_t kSessionMemory = 0x903;
  const uint32_t plain = (*code & kFormatOne) != 0 ? *code & 0x0BFU : *code;
  if (plain == 0x08E || plain == 0x0A2) {  // TPM_RC_AUTH_FAIL, TPM_RC_BAD_AUTH
    return Denied(what + ": the guest has set a password")
        .WithFix("clear the guest's TPM, or give its endorsement hierarchy an empty password");
  }
  if (*code == kObjectMemory || *code == kSessionMemory) {
    return Unavailable(what + ": the guest fills the TPM's object slots").WithFix("ask again");
  }
  return Unavailable(what);
}

}  // namespace vallum::vtpm
