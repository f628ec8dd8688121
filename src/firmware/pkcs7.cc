// SPDX-License-Identifier: Apache-2.0
#include "firmware/pkcs7.h"

#include <fmt/format.h>
#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/objects.h>
#include <openssl/pkcs7.h>
#include <openssl/ts.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <string_view>
#include <utility>

#include "base/text.h"

namespace vallum::firmware {
namespace {

template <auto Free>
struct Freer {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
// The certificates in it belong to the message.
struct StackFreer {
  void operator()(STACK_OF(X509) * stack) const { sk_X509_free(stack); }
};
using BioPtr = std::unique_ptr<BIO, Freer<BIO_free_all>>;
using MessagePtr = std::unique_ptr<PKCS7, Freer<PKCS7_free>>;
using ObjectPtr = std::unique_ptr<ASN1_OBJECT, Freer<ASN1_OBJECT_free>>;
using StackPtr = std::unique_ptr<STACK_OF(X509), StackFreer>;
using StorePtr = std::unique_ptr<X509_STORE, Freer<X509_STORE_free>>;
using TokenInfoPtr = std::unique_ptr<TS_TST_INFO, Freer<TS_TST_INFO_free>>;
using UsagePtr = std::unique_ptr<EXTENDED_KEY_USAGE, Freer<EXTENDED_KEY_USAGE_free>>;
using X509Ptr = std::unique_ptr<X509, Freer<X509_free>>;

constexpr const char* kModuleSigningUsage = "1.3.6.1.4.1.2312.16.1.2";
constexpr const char* kRfc3161CounterSignature = "1.3.6.1.4.1.311.3.3.1";

// Each public function that calls OpenSSL leaves its error queue as it should be found: empty.
struct ErrorQueueCleaner {
  ErrorQueueCleaner() = default;
  ~ErrorQueueCleaner() { ERR_clear_error(); }
  ErrorQueueCleaner(const ErrorQueueCleaner&) = delete;
  ErrorQueueCleaner& operator=(const ErrorQueueCleaner&) = delete;
};

const unsigned char* Data(ByteView bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}

ByteView View(const unsigned char* data, size_t size) {
  return {reinterpret_cast<const std::byte*>(data), size};
}

// DER of anything that OpenSSL writes by an i2d function.
template <auto Encode, typename T>
Bytes ToDer(T* object) {
  unsigned char* der = nullptr;
  const int size = Encode(object, &der);
  Bytes out = size > 0 ? ToBytes(View(der, static_cast<size_t>(size))) : Bytes();
  OPENSSL_free(der);
  return out;
}

std::string NameText(const X509_NAME* name) {
  std::array<char, 256> text{};
  if (X509_NAME_get_text_by_NID(name, NID_commonName, text.data(), text.size()) > 0) {
    return "CN=" + Printable(text.data());
  }
  X509_NAME_oneline(name, text.data(), text.size());
  return Printable(text.data());
}

BioPtr Reader(ByteView content) {
  return BioPtr(BIO_new_mem_buf(content.data(), static_cast<int>(content.size())));
}

// The authenticated-variable form lacks the ContentInfo around it, which OpenSSL wants.
Bytes WrapSignedData(ByteView signed_data) {
  constexpr std::array<uint8_t, 11> kSignedDataType = {0x06, 0x09, 0x2a, 0x86, 0x48, 0x86,
                                                       0xf7, 0x0d, 0x01, 0x07, 0x02};
  constexpr uint8_t kThreeLengthBytes = 0x83;
  const auto header = [](ByteWriter& out, uint8_t tag, size_t size) {
    out.U8(tag).U8(kThreeLengthBytes).U8(static_cast<uint8_t>(size >> 16U));
    out.U16Be(static_cast<uint16_t>(size & 0xffffU));
  };
  ByteWriter out;
  header(out, 0x30, kSignedDataType.size() + 5 + signed_data.size());
  out.Raw(std::as_bytes(std::span(kSignedDataType)));
  header(out, 0xa0, signed_data.size());
  return std::move(out.Raw(signed_data)).Take();
}

MessagePtr ReadMessage(ByteView blob, Pkcs7Form form) {
  const unsigned char* at = Data(blob);
  MessagePtr message(d2i_PKCS7(nullptr, &at, static_cast<long>(blob.size())));
  if (message == nullptr && form == Pkcs7Form::kContentInfoOrSignedData) {
    const Bytes wrapped = WrapSignedData(blob);
    at = Data(wrapped);
    message.reset(d2i_PKCS7(nullptr, &at, static_cast<long>(wrapped.size())));
  }
  if (message == nullptr || PKCS7_type_is_signed(message.get()) == 0 ||
      message->d.sign == nullptr || message->d.sign->contents == nullptr) {
    return nullptr;
  }
  return message;
}

StorePtr StoreOf(X509* anchor) {
  StorePtr store(X509_STORE_new());
  if (store == nullptr || X509_STORE_add_cert(store.get(), anchor) != 1) return nullptr;
  // "Allow partial certificate chains, terminated by a non-self-signed but still trusted
  // intermediate certificate. Also disable time checks." (Pkcs7Verify)
  X509_STORE_set_flags(store.get(), X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_NO_CHECK_TIME);
  X509_STORE_set_purpose(store.get(), X509_PURPOSE_ANY);
  return store;
}

bool IsEmpty(const PKCS7_SIGNED& data) { return sk_PKCS7_SIGNER_INFO_num(data.signer_info) < 1; }

// "Must contain only one digestAlgorithmIdentifier" (Authenticode PE Signature Format). With more,
// or with one that it does not know, PKCS7_verify of OpenSSL 3.0 leaks.
bool NamesOneKnownDigest(const PKCS7_SIGNED& data) {
  if (sk_X509_ALGOR_num(data.md_algs) != 1) return false;
  const ASN1_OBJECT* algorithm = nullptr;
  X509_ALGOR_get0(&algorithm, nullptr, nullptr, sk_X509_ALGOR_value(data.md_algs, 0));
  const int nid = OBJ_obj2nid(algorithm);
  return nid == NID_sha1 || nid == NID_sha256 || nid == NID_sha384 || nid == NID_sha512;
}

// Does the token's imprint belong to what it is attached to?
bool CoversData(TS_TST_INFO* info, ByteView data) {
  TS_MSG_IMPRINT* imprint = TS_TST_INFO_get_msg_imprint(info);
  const ASN1_OBJECT* algorithm = nullptr;
  X509_ALGOR_get0(&algorithm, nullptr, nullptr, TS_MSG_IMPRINT_get_algo(imprint));
  const EVP_MD* md = EVP_get_digestbyobj(algorithm);
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  if (md == nullptr ||
      EVP_Digest(data.data(), data.size(), digest.data(), &size, md, nullptr) != 1) {
    return false;
  }
  const ASN1_OCTET_STRING* expected = TS_MSG_IMPRINT_get_msg(imprint);
  return std::ranges::equal(
      View(digest.data(), size),
      View(ASN1_STRING_get0_data(expected), static_cast<size_t>(ASN1_STRING_length(expected))));
}

Result<VariableTime> ToVariableTime(const ASN1_TIME* time) {
  std::tm parts = {};
  if (time == nullptr || ASN1_TIME_to_tm(time, &parts) != 1) {
    return InvalidInput("the timestamp has an unreadable time");
  }
  VariableTime out;
  out.year = static_cast<uint16_t>(parts.tm_year + 1900);
  out.month = static_cast<uint8_t>(parts.tm_mon + 1);
  out.day = static_cast<uint8_t>(parts.tm_mday);
  out.hour = static_cast<uint8_t>(parts.tm_hour);
  out.minute = static_cast<uint8_t>(parts.tm_min);
  out.second = static_cast<uint8_t>(parts.tm_sec);
  return out;
}

// The counter-signature's token, DER; empty when there is none.
ByteView TimestampToken(PKCS7_SIGNER_INFO* signer) {
  const ObjectPtr type(OBJ_txt2obj(kRfc3161CounterSignature, 1));
  for (int i = 0; i < sk_X509_ATTRIBUTE_num(signer->unauth_attr); ++i) {
    X509_ATTRIBUTE* attribute = sk_X509_ATTRIBUTE_value(signer->unauth_attr, i);
    if (OBJ_cmp(X509_ATTRIBUTE_get0_object(attribute), type.get()) != 0) continue;
    const ASN1_TYPE* value = X509_ATTRIBUTE_get0_type(attribute, 0);
    if (value == nullptr || value->type != V_ASN1_SEQUENCE) return {};
    const ASN1_STRING* token = value->value.sequence;
    return View(ASN1_STRING_get0_data(token), static_cast<size_t>(ASN1_STRING_length(token)));
  }
  return {};
}

}  // namespace

struct Certificate::State {
  X509Ptr x509;
};

Certificate::Certificate(std::unique_ptr<State> state) : state_(std::move(state)) {}
Certificate::~Certificate() = default;
Certificate::Certificate(Certificate&&) noexcept = default;
Certificate& Certificate::operator=(Certificate&&) noexcept = default;

Result<Certificate> Certificate::Parse(ByteView der) {
  if (der.size() > kMaxCertificateBytes) {
    return Exhausted(fmt::format("a certificate of {} bytes, above the {} that are read",
                                 der.size(), kMaxCertificateBytes));
  }
  const ErrorQueueCleaner cleaner;
  const unsigned char* at = Data(der);
  X509Ptr x509(d2i_X509(nullptr, &at, static_cast<long>(der.size())));
  if (x509 == nullptr) return InvalidInput("not a DER certificate");
  return Certificate(std::make_unique<State>(State{std::move(x509)}));
}

Bytes Certificate::ToBeSigned() const {
  // Cut out of the whole: OpenSSL's own function would encode it anew.
  const Bytes der = ToDer<i2d_X509>(state_->x509.get());
  const unsigned char* at = Data(der);
  long size = 0;
  int tag = 0;
  int tag_class = 0;
  ASN1_get_object(&at, &size, &tag, &tag_class, static_cast<long>(der.size()));
  const unsigned char* begin = at;
  ASN1_get_object(&at, &size, &tag, &tag_class, size);
  return ToBytes(View(begin, static_cast<size_t>(at - begin + size)));
}

std::string Certificate::CommonName() const {
  return NameText(X509_get_subject_name(state_->x509.get()));
}

std::string Certificate::IssuerName() const {
  return NameText(X509_get_issuer_name(state_->x509.get()));
}

std::optional<Certificate::Validity> Certificate::ValidBetween() const {
  const auto seconds = [](const ASN1_TIME* time) -> std::optional<int64_t> {
    std::tm parts{};
    if (time == nullptr || ASN1_TIME_to_tm(time, &parts) != 1) return std::nullopt;
    return timegm(&parts);
  };
  const ErrorQueueCleaner cleaner;
  const auto before = seconds(X509_get0_notBefore(state_->x509.get()));
  const auto after = seconds(X509_get0_notAfter(state_->x509.get()));
  if (!before || !after) return std::nullopt;
  return Validity{.not_before = *before, .not_after = *after};
}

std::string Certificate::KeyType() const {
  const ErrorQueueCleaner cleaner;
  const EVP_PKEY* key = X509_get0_pubkey(state_->x509.get());
  const char* name = key == nullptr ? nullptr : EVP_PKEY_get0_type_name(key);
  return name == nullptr ? "unknown" : name;
}

int Certificate::KeyBits() const {
  const ErrorQueueCleaner cleaner;
  const EVP_PKEY* key = X509_get0_pubkey(state_->x509.get());
  return key == nullptr ? 0 : EVP_PKEY_get_bits(key);
}

bool Certificate::HasWeakSignature() const {
  int digest = NID_undef;
  const ErrorQueueCleaner cleaner;
  if (X509_get_signature_info(state_->x509.get(), &digest, nullptr, nullptr, nullptr) != 1) {
    return true;
  }
  return digest == NID_md5 || digest == NID_sha1 || digest == NID_md5_sha1;
}

bool Certificate::IsForModulesOnly() const {
  const ErrorQueueCleaner cleaner;
  const UsagePtr usage(static_cast<EXTENDED_KEY_USAGE*>(
      X509_get_ext_d2i(state_->x509.get(), NID_ext_key_usage, nullptr, nullptr)));
  const ObjectPtr modules(OBJ_txt2obj(kModuleSigningUsage, 1));
  for (int i = 0; i < sk_ASN1_OBJECT_num(usage.get()); ++i) {
    if (OBJ_cmp(sk_ASN1_OBJECT_value(usage.get(), i), modules.get()) == 0) return true;
  }
  return false;
}

bool Certificate::Issued(ByteView der) const {
  const ErrorQueueCleaner cleaner;
  const Result<Certificate> certificate = Parse(der);
  if (!certificate.has_value()) return false;
  X509* mine = state_->x509.get();
  X509* other = certificate->state_->x509.get();
  return X509_cmp(other, mine) == 0 || (X509_check_issued(mine, other) == X509_V_OK &&
                                        X509_verify(other, X509_get0_pubkey(mine)) == 1);
}

struct SignedMessage::State {
  MessagePtr message;
  std::vector<Bytes> signers;
  std::vector<Bytes> certificates;
};

SignedMessage::SignedMessage(std::unique_ptr<State> state) : state_(std::move(state)) {}
SignedMessage::~SignedMessage() = default;
SignedMessage::SignedMessage(SignedMessage&&) noexcept = default;
SignedMessage& SignedMessage::operator=(SignedMessage&&) noexcept = default;

const std::vector<Bytes>& SignedMessage::signers() const { return state_->signers; }
const std::vector<Bytes>& SignedMessage::certificates() const { return state_->certificates; }

Result<SignedMessage> SignedMessage::Parse(ByteView blob, Pkcs7Form form) {
  if (blob.size() > kMaxPkcs7Bytes) {
    return Exhausted(fmt::format("a signature of {} bytes, above the {} that are read", blob.size(),
                                 kMaxPkcs7Bytes));
  }
  const ErrorQueueCleaner cleaner;
  auto state = std::make_unique<State>();
  state->message = ReadMessage(blob, form);
  if (state->message == nullptr) return InvalidInput("not a PKCS#7 SignedData");
  const PKCS7_SIGNED& data = *state->message->d.sign;
  if (IsEmpty(data)) return InvalidInput("a PKCS#7 SignedData that nobody signed");
  if (!NamesOneKnownDigest(data)) {
    return InvalidInput("a PKCS#7 SignedData that does not name one SHA digest algorithm");
  }
  const auto signers = static_cast<size_t>(sk_PKCS7_SIGNER_INFO_num(data.signer_info));
  const auto certificates = static_cast<size_t>(std::max(sk_X509_num(data.cert), 0));
  if (signers > kMaxPkcs7Signers || certificates > kMaxPkcs7Certificates) {
    return Exhausted(
        fmt::format("a signature with {} signers and {} certificates; at most {} and "
                    "{} are read",
                    signers, certificates, kMaxPkcs7Signers, kMaxPkcs7Certificates));
  }
  const StackPtr found(PKCS7_get0_signers(state->message.get(), nullptr, PKCS7_BINARY));
  if (found == nullptr) {
    return InvalidInput("the signature does not carry its signer's certificate");
  }
  for (int i = 0; i < sk_X509_num(found.get()); ++i) {
    state->signers.push_back(ToDer<i2d_X509>(sk_X509_value(found.get(), i)));
  }
  for (int i = 0; i < sk_X509_num(data.cert); ++i) {
    state->certificates.push_back(ToDer<i2d_X509>(sk_X509_value(data.cert, i)));
  }
  return SignedMessage(std::move(state));
}

Result<Bytes> SignedMessage::Content(ByteView type) const {
  PKCS7* contents = state_->message->d.sign->contents;
  // OpenSSL reads the types of PKCS#7 itself into structures of their own.
  if (PKCS7_type_is_other(contents) == 0 ||
      !std::ranges::equal(View(OBJ_get0_data(contents->type), OBJ_length(contents->type)), type)) {
    return InvalidInput("the signature covers content of another type");
  }
  const ASN1_TYPE* other = contents->d.other;
  if (other == nullptr || other->type != V_ASN1_SEQUENCE) {
    return InvalidInput("the signature has no content");
  }
  const ASN1_STRING* content = other->value.sequence;
  return ToBytes(
      View(ASN1_STRING_get0_data(content), static_cast<size_t>(ASN1_STRING_length(content))));
}

Result<void> SignedMessage::VerifySignature(ByteView content) const {
  const ErrorQueueCleaner cleaner;
  const BioPtr bio = Reader(content);
  if (bio == nullptr) return Internal("out of memory");
  if (PKCS7_verify(state_->message.get(), nullptr, nullptr, bio.get(), nullptr,
                   PKCS7_BINARY | PKCS7_NOVERIFY) == 1) {
    return Ok();
  }
  const char* reason = ERR_reason_error_string(ERR_peek_error());
  return InvalidInput(fmt::format("the signature does not fit what it signs ({})",
                                  reason == nullptr ? "unknown reason" : reason));
}

bool SignedMessage::IsTrustedBy(const Certificate& anchor, ByteView content) const {
  const ErrorQueueCleaner cleaner;
  const StorePtr store = StoreOf(anchor.state_->x509.get());
  const BioPtr bio = Reader(content);
  return store != nullptr && bio != nullptr &&
         PKCS7_verify(state_->message.get(), nullptr, store.get(), bio.get(), nullptr,
                      PKCS7_BINARY) == 1;
}

Result<VariableTime> SignedMessage::Timestamp(const Certificate& authority) const {
  const ErrorQueueCleaner cleaner;
  const PKCS7_SIGNED& data = *state_->message->d.sign;
  PKCS7_SIGNER_INFO* signer = sk_PKCS7_SIGNER_INFO_value(data.signer_info, 0);
  const ByteView token = TimestampToken(signer);
  if (token.empty() || sk_PKCS7_SIGNER_INFO_num(data.signer_info) != 1) {
    return NotFound("the signature has no timestamp");
  }
  ASSIGN_OR_RETURN(const SignedMessage message, Parse(token, Pkcs7Form::kContentInfo));
  const StorePtr store = StoreOf(authority.state_->x509.get());
  const BioPtr out(BIO_new(BIO_s_mem()));
  if (store == nullptr || out == nullptr ||
      PKCS7_verify(message.state_->message.get(), nullptr, store.get(), nullptr, out.get(),
                   PKCS7_BINARY) != 1) {
    return InvalidInput("the timestamp is not by this authority");
  }
  const TokenInfoPtr info(d2i_TS_TST_INFO_bio(out.get(), nullptr));
  const ASN1_OCTET_STRING* signature = signer->enc_digest;
  if (info == nullptr || signature == nullptr || TS_TST_INFO_get_version(info.get()) != 1 ||
      !CoversData(info.get(), View(ASN1_STRING_get0_data(signature),
                                   static_cast<size_t>(ASN1_STRING_length(signature))))) {
    return InvalidInput("the timestamp does not belong to the signature");
  }
  return ToVariableTime(TS_TST_INFO_get_time(info.get()));
}

}  // namespace vallum::firmware
