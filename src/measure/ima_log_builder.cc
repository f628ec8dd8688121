// SPDX-License-Identifier: Apache-2.0
#include "measure/ima_log_builder.h"

#include <fmt/format.h>

#include "base/check.h"
#include "measure/pcr.h"

namespace vallum::measure {
namespace {

std::string DigestText(ByteView field) {
  const std::string_view text = AsText(field);
  const size_t zero = text.find('\0');
  return field.empty() ? "" : std::string(text.substr(0, zero)) + ToHex(field.subspan(zero + 1));
}

std::string NameText(ByteView field) {
  return std::string(AsText(field).substr(0, AsText(field).find('\0')));
}

std::string NumberText(ByteView field) {
  uint32_t value = 0;
  for (size_t i = field.size(); i > 0; --i) {
    value = value << 8U | std::to_integer<uint32_t>(field[i - 1]);
  }
  return std::to_string(value);
}

std::string FieldText(ImaField field, ByteView data) {
  switch (field) {
    case ImaField::kDigest:
    case ImaField::kSignature:
    case ImaField::kBuffer:
    case ImaField::kModsig:
    case ImaField::kEvmSignature:
    case ImaField::kXattrLengths:
    case ImaField::kXattrValues:
      return ToHex(data);
    case ImaField::kDigestNg:
    case ImaField::kDigestNgv2:
    case ImaField::kModsigDigest:
      return DigestText(data);
    case ImaField::kName:
    case ImaField::kNameNg:
    case ImaField::kXattrNames:
      return NameText(data);
    case ImaField::kUid:
    case ImaField::kGid:
    case ImaField::kMode:
      return NumberText(data);
  }
  return "";
}

}  // namespace

Bytes ImaFieldBytes(ByteView data) {
  ByteWriter out;
  out.U32Le(static_cast<uint32_t>(data.size())).Raw(data);
  return std::move(out).Take();
}

Bytes ImaFieldBytes(std::string_view text) { return ImaFieldBytes(AsBytes(text)); }

Bytes ImaDigestField(std::string_view prefix, ByteView digest) {
  ByteWriter out;
  out.Raw(AsBytes(prefix)).Raw(AsBytes(":")).U8(0).Raw(digest);
  return ImaFieldBytes(out.bytes());
}

Bytes ImaNameField(std::string_view name) {
  ByteWriter out;
  out.Raw(AsBytes(name)).U8(0);
  return ImaFieldBytes(out.bytes());
}

Bytes Concatenate(const std::vector<Bytes>& parts) {
  ByteWriter out;
  for (const Bytes& part : parts) out.Raw(part);
  return std::move(out).Take();
}

void ImaLogBuilder::Header(uint32_t pcr, ByteView hash, std::string_view format) {
  out_.U32Le(pcr).Raw(hash).Raw(ImaFieldBytes(format));
}

ImaLogBuilder& ImaLogBuilder::AddFile(std::string_view path, std::string_view content) {
  return Add("ima-ng",
             Concatenate({ImaDigestField("sha256", Sha256(AsBytes(content))), ImaNameField(path)}));
}

ImaLogBuilder& ImaLogBuilder::Add(std::string_view format, ByteView data, uint32_t pcr) {
  Header(pcr, Digest(template_hash_, data), format);
  out_.Raw(ImaFieldBytes(data));
  if (pcr == kImaPcr) hashed_.push_back(ToBytes(data));
  return *this;
}

ImaLogBuilder& ImaLogBuilder::AddLegacy(std::string_view path, ByteView sha1) {
  ByteWriter padded;
  padded.Raw(sha1).Raw(AsBytes(path)).Zeros(256 - path.size());
  Header(kImaPcr, Digest(template_hash_, padded.bytes()), "ima");
  out_.Raw(sha1).Raw(ImaFieldBytes(path));
  hashed_.push_back(padded.bytes());
  return *this;
}

ImaLogBuilder& ImaLogBuilder::AddViolation(std::string_view path) {
  Header(kImaPcr, Bytes(DigestSize(template_hash_)), "ima-ng");
  out_.Raw(ImaFieldBytes(Concatenate(
      {ImaDigestField("sha256", Bytes(DigestSize(HashAlgorithm::kSha256))), ImaNameField(path)})));
  hashed_.emplace_back();
  return *this;
}

ImaLogBuilder& ImaLogBuilder::Raw(ByteView bytes) {
  out_.Raw(bytes);
  return *this;
}

ImaPcrValue ImaLogBuilder::Pcr(HashAlgorithm bank) const {
  std::vector<Bytes> digests;
  for (const Bytes& data : hashed_) {
    digests.push_back(data.empty() ? Bytes(DigestSize(bank), std::byte{0xff}) : Digest(bank, data));
  }
  const auto value = ReplayPcr(bank, digests);
  CHECK(value.has_value());
  return {.bank = bank, .value = *value};
}

std::string ImaLogToText(const ImaLog& log) {
  std::string out;
  for (const ImaEntry& entry : log.entries()) {
    const ImaFormat& format = log.FormatOf(entry);
    out += fmt::format("{:2} {} {}", entry.pcr, ToHex(entry.template_hash), format.name);
    for (const ImaField field : format.fields) {
      out += " " + FieldText(field, log.FieldOf(entry, field));
    }
    out += "\n";
  }
  return out;
}

}  // namespace vallum::measure
