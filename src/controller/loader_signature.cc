// SPDX-License-Identifier: Apache-2.0
#include "controller/loader_signature.h"

#include <charconv>
#include <string>

#include "base/error.h"
#include "base/ids.h"
#include "base/text.h"
#include "firmware/guid.h"
#include "firmware/pkcs7.h"
#include "firmware/signature_list.h"

namespace vallum::controller {
namespace {

constexpr size_t kDigestDigits = 64;
constexpr size_t kMaxValue = size_t{32} << 10U;

Bytes ListOf(firmware::SignatureType type, ByteView data) {
  return firmware::EncodeSignatureList(firmware::MakeSignature(type, firmware::Guid{}, data));
}

}  // namespace

Result<LoaderSignature> ParseLoaderSignature(std::string_view value) {
  const auto refuse = [](const std::string& why) {
    return InvalidInput(why).WithFix(
        "give a key set's name, a DER certificate as base64, or the SHA-256 of one boot image");
  };
  if (value.size() > kMaxValue) return refuse("the value is longer than any certificate");
  if (value.size() == kDigestDigits) {
    if (const Result<Bytes> digest = FromHex(value); digest.has_value()) {
      return LoaderSignature{
          .list = ListOf(firmware::SignatureType::kSha256, *digest), .key_set = {}, .version = 0};
    }
  }
  const size_t at = value.find('@');
  const std::string name(value.substr(0, at));
  if (ValidateName("keyset", name).has_value()) {
    int32_t version = 0;
    if (at != std::string_view::npos) {
      const std::string_view number = value.substr(at + 1);
      const auto parsed = std::from_chars(number.data(), number.data() + number.size(), version);
      if (parsed.ec != std::errc() || parsed.ptr != number.data() + number.size() || version < 1) {
        return refuse("\"" + Printable(number, 20) + "\" is no version of a key set");
      }
    }
    return LoaderSignature{.list = {}, .key_set = name, .version = version};
  }
  const Result<Bytes> der = FromBase64(value);
  if (!der.has_value()) {
    return refuse("it is neither a name, nor base64, nor 64 hexadecimal digits");
  }
  if (const auto certificate = firmware::Certificate::Parse(*der); !certificate.has_value()) {
    return refuse("the base64 holds no certificate: " + certificate.error().message());
  }
  return LoaderSignature{
      .list = ListOf(firmware::SignatureType::kX509, *der), .key_set = {}, .version = 0};
}

LoaderSignature SignatureOf(const v1::Instance& instance) {
  const auto value = instance.spec().properties().find(kLoaderSignature);
  if (value == instance.spec().properties().end()) return {};
  // It was checked before it was stored.
  Result<LoaderSignature> signature = ParseLoaderSignature(value->second);
  return signature.has_value() ? *std::move(signature) : LoaderSignature();
}

}  // namespace vallum::controller
