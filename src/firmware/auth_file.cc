// SPDX-License-Identifier: Apache-2.0
#include "firmware/auth_file.h"

#include <fmt/format.h>

#include <cstddef>
#include <string>
#include <utility>

namespace vallum::firmware {
namespace {

// EFI_CERT_TYPE_PKCS7_GUID.
constexpr Guid kPkcs7Guid =
    MakeGuid(0x4aafd29d, 0x68df, 0x49ee, {0x8a, 0xa9, 0x34, 0x7d, 0x37, 0x56, 0x65, 0xa7});
constexpr uint16_t kWinCertTypeGuid = 0x0ef1;
constexpr size_t kTimeSize = 16;
constexpr uint32_t kCertificateHeaderSize = 24;  // with the GUID

// EFI_TIME: year, month, day, hour, minute, second, Pad1, Nanosecond, TimeZone, Daylight, Pad2.
Result<VariableTime> ReadTime(ByteCursor& cursor) {
  VariableTime time;
  ASSIGN_OR_RETURN(time.year, cursor.ReadU16Le());
  ASSIGN_OR_RETURN(time.month, cursor.ReadU8());
  ASSIGN_OR_RETURN(time.day, cursor.ReadU8());
  ASSIGN_OR_RETURN(time.hour, cursor.ReadU8());
  ASSIGN_OR_RETURN(time.minute, cursor.ReadU8());
  ASSIGN_OR_RETURN(time.second, cursor.ReadU8());
  ASSIGN_OR_RETURN(const uint8_t pad1, cursor.ReadU8());
  // Nanosecond (4), TimeZone (2), Daylight (1), Pad2 (1).
  ASSIGN_OR_RETURN(const uint64_t rest, cursor.ReadU64Le());
  if (pad1 != 0 || rest != 0) {
    return InvalidInput("offset 7: the update's time has parts that must be zero");
  }
  return time;
}

// (VariableName, VendorGuid, Attributes, TimeStamp, Data), UEFI 2.10 section 8.2.2.
Bytes SignedBytes(const AuthFile& file, const AuthTarget& target) {
  ByteWriter out;
  for (const char c : target.name) out.U16Le(static_cast<unsigned char>(c));
  out.Raw(target.vendor.bytes).U32Le(target.attributes).Raw(file.time_bytes);
  return std::move(out.Raw(file.payload)).Take();
}

std::string SignerName(const AuthFile& file) {
  const Result<Certificate> signer = Certificate::Parse(file.signature.signers().front());
  return signer.has_value() ? signer->CommonName() : "an unreadable certificate";
}

}  // namespace

Result<AuthFile> ParseAuthFile(ByteView file) {
  if (file.size() > kMaxAuthFileBytes) {
    return Exhausted(
        fmt::format("an update of {} bytes, above {}", file.size(), kMaxAuthFileBytes));
  }
  ByteCursor cursor(file);
  ASSIGN_OR_RETURN(const VariableTime time, ReadTime(cursor));
  ASSIGN_OR_RETURN(const uint32_t length, cursor.ReadU32Le());
  ASSIGN_OR_RETURN(const uint16_t revision, cursor.ReadU16Le());
  ASSIGN_OR_RETURN(const uint16_t type, cursor.ReadU16Le());
  ASSIGN_OR_RETURN(const Guid guid, Guid::Read(cursor));
  if (revision != 0x0200 || type != kWinCertTypeGuid || guid != kPkcs7Guid) {
    return InvalidInput(
               fmt::format("offset 16: a certificate of revision {:#x}, type {:#x} and GUID {}",
                           revision, type, guid.ToString()))
        .WithFix("give a file of EFI_VARIABLE_AUTHENTICATION_2, as sign-efi-sig-list writes it");
  }
  if (length < kCertificateHeaderSize || length - kCertificateHeaderSize > cursor.remaining()) {
    return InvalidInput(fmt::format("offset 16: a certificate of {} bytes does not fit", length));
  }
  ASSIGN_OR_RETURN(const ByteView pkcs7, cursor.ReadBytes(length - kCertificateHeaderSize));
  ASSIGN_OR_RETURN(SignedMessage signature,
                   SignedMessage::Parse(pkcs7, Pkcs7Form::kContentInfoOrSignedData));
  const ByteView payload = cursor.Rest();
  ASSIGN_OR_RETURN(std::vector<Signature> signatures, ParseSignatureLists(payload));
  return AuthFile{time, ToBytes(file.first(kTimeSize)), std::move(signature), ToBytes(payload),
                  std::move(signatures)};
}

Result<Signature> VerifyAuthFile(const AuthFile& file, const AuthTarget& target,
                                 const KeySet& keys) {
  const bool by_platform_key = target.name == "PK" || target.name == "KEK";
  const Bytes content = SignedBytes(file, target);
  for (const Signature& entry : by_platform_key ? keys.pk : keys.kek) {
    if (entry.type != SignatureType::kX509) continue;
    // "no chaining for PK"
    if (by_platform_key && file.signature.signers().front() != entry.data) continue;
    const Result<Certificate> certificate = Certificate::Parse(entry.data);
    if (certificate.has_value() && file.signature.IsTrustedBy(*certificate, content)) return entry;
  }
  if (const Result<void> valid = file.signature.VerifySignature(content); !valid.has_value()) {
    return Denied(fmt::format("{} for {} with attributes {:#x}", valid.error().message(),
                              target.name, target.attributes))
        .WithFix("name the variable and the attributes that it was signed for, or get it again");
  }
  return Denied(fmt::format("the update of {} is signed by {}, which {} does not hold", target.name,
                            SignerName(file), by_platform_key ? "PK" : "KEK"))
      .WithFix(by_platform_key ? "sign it with the platform key"
                               : "enrol the certificate that issued it in KEK");
}

}  // namespace vallum::firmware
