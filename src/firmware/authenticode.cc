// SPDX-License-Identifier: Apache-2.0
#include "firmware/authenticode.h"

#include <fmt/format.h>
#include <openssl/asn1.h>
#include <openssl/err.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

namespace vallum::firmware {
namespace {

using std::string_view_literals::operator""sv;

// 1.3.6.1.4.1.311.2.1.4, SPC_INDIRECT_DATA_OBJID.
constexpr std::string_view kSpcIndirectData = "\x2b\x06\x01\x04\x01\x82\x37\x02\x01\x04"sv;

struct KnownAlgorithm {
  HashAlgorithm algorithm;
  std::string_view oid;  // the value of the OBJECT IDENTIFIER
};
constexpr std::array kAlgorithms = {
    KnownAlgorithm{HashAlgorithm::kSha1, "\x2b\x0e\x03\x02\x1a"sv},
    KnownAlgorithm{HashAlgorithm::kSha256, "\x60\x86\x48\x01\x65\x03\x04\x02\x01"sv},
    KnownAlgorithm{HashAlgorithm::kSha384, "\x60\x86\x48\x01\x65\x03\x04\x02\x02"sv},
    KnownAlgorithm{HashAlgorithm::kSha512, "\x60\x86\x48\x01\x65\x03\x04\x02\x03"sv},
};

// "This field has the fixed offset (+32) in final Authenticode ASN.1 data. Fixed offset (+32) is
// calculated based on two bytes of length encoding." (HashPeImageByType) A signature with lengths
// written otherwise is skipped by firmware, so that it is none here either.
constexpr size_t kAlgorithmOffset = 32;
constexpr std::byte kTwoLengthBytes{0x82};

struct Element {
  ByteView value;
  ByteView rest;  // what follows it
};
// Reads one DER element with a definite length.
Result<Element> ReadElement(ByteView der, int wanted_tag) {
  const auto* begin = reinterpret_cast<const unsigned char*>(der.data());
  const auto* at = begin;
  long size = 0;
  int tag = 0;
  int tag_class = 0;
  const int status =
      der.empty() ? 0x80
                  : ASN1_get_object(&at, &size, &tag, &tag_class, static_cast<long>(der.size()));
  ERR_clear_error();
  // 0x80: an error; 1: an indefinite length.
  if ((static_cast<unsigned>(status) & 0x81U) != 0 || tag != wanted_tag ||
      tag_class != V_ASN1_UNIVERSAL) {
    return InvalidInput("the signature's SpcIndirectDataContent is damaged");
  }
  const auto offset = static_cast<size_t>(at - begin);
  const auto length = static_cast<size_t>(size);
  return Element{der.subspan(offset, length), der.subspan(offset + length)};
}

// SpcIndirectDataContent ::= SEQUENCE { data, messageDigest SEQUENCE { algorithm, OCTET STRING } }
struct IndirectData {
  ByteView signed_content;
  ByteView algorithm;  // the value of the OBJECT IDENTIFIER
  ByteView digest;
};
Result<IndirectData> ReadIndirectData(ByteView der) {
  ASSIGN_OR_RETURN(const Element content, ReadElement(der, V_ASN1_SEQUENCE));
  ASSIGN_OR_RETURN(const Element data, ReadElement(content.value, V_ASN1_SEQUENCE));
  ASSIGN_OR_RETURN(const Element info, ReadElement(data.rest, V_ASN1_SEQUENCE));
  ASSIGN_OR_RETURN(const Element algorithm, ReadElement(info.value, V_ASN1_SEQUENCE));
  ASSIGN_OR_RETURN(const Element oid, ReadElement(algorithm.value, V_ASN1_OBJECT));
  ASSIGN_OR_RETURN(const Element digest, ReadElement(algorithm.rest, V_ASN1_OCTET_STRING));
  // Firmware compares the content's last bytes, whatever they are; here they must be the digest.
  if (!info.rest.empty() || !digest.rest.empty()) {
    return InvalidInput("the signature's SpcIndirectDataContent does not end with the digest");
  }
  return IndirectData{content.value, oid.value, digest.value};
}

}  // namespace

Result<HashAlgorithm> AuthenticodeAlgorithm(ByteView pkcs7) {
  if (pkcs7.size() > kAlgorithmOffset && pkcs7[1] == kTwoLengthBytes) {
    const ByteView at = pkcs7.subspan(kAlgorithmOffset);
    for (const KnownAlgorithm& known : kAlgorithms) {
      if (AsText(at).starts_with(known.oid)) return known.algorithm;
    }
  }
  return InvalidInput("firmware does not know the signature's digest algorithm")
      .WithFix("sign with SHA-256");
}

Result<Authenticode> ParseAuthenticode(ByteView pkcs7) {
  ASSIGN_OR_RETURN(SignedMessage message, SignedMessage::Parse(pkcs7, Pkcs7Form::kContentInfo));
  ASSIGN_OR_RETURN(const HashAlgorithm algorithm, AuthenticodeAlgorithm(pkcs7));
  ASSIGN_OR_RETURN(const Bytes content, message.Content(AsBytes(kSpcIndirectData)));
  ASSIGN_OR_RETURN(const IndirectData data, ReadIndirectData(content));
  const auto known = std::ranges::find(kAlgorithms, algorithm, &KnownAlgorithm::algorithm);
  if (AsText(data.algorithm) != known->oid || data.digest.size() != DigestSize(algorithm)) {
    return InvalidInput(fmt::format("the signature names {} but holds another digest ({} bytes)",
                                    HashAlgorithmName(algorithm), data.digest.size()));
  }
  return Authenticode{algorithm, ToBytes(data.digest), ToBytes(data.signed_content),
                      std::move(message)};
}

Result<void> VerifySignature(const Authenticode& signature, ByteView image_digest) {
  if (!std::ranges::equal(signature.digest, image_digest)) {
    return InvalidInput("the signature is for another program: this one was changed after signing");
  }
  return signature.message.VerifySignature(signature.signed_content);
}

bool IsTrusted(const Authenticode& signature, ByteView image_digest, const Certificate& anchor) {
  return std::ranges::equal(signature.digest, image_digest) &&
         signature.message.IsTrustedBy(anchor, signature.signed_content);
}

}  // namespace vallum::firmware
