// SPDX-License-Identifier: Apache-2.0
#include "attest/quote_builder.h"

#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/rsa.h>

#include <algorithm>
#include <string>
#include <utility>

#include "attest/openssl.h"
#include "base/check.h"
#include "measure/extend_log.h"

namespace vallum::attest {
namespace {

void WriteSized(ByteWriter& writer, ByteView bytes) {
  writer.U16Be(static_cast<uint16_t>(bytes.size())).Raw(bytes);
}

Bytes NumberOf(EVP_PKEY* key, const char* name, size_t size) {
  BIGNUM* number = nullptr;
  CHECK(EVP_PKEY_get_bn_param(key, name, &number) == 1);
  const BignumPtr owned(number);
  Bytes out(size);
  CHECK(BN_bn2binpad(number, Unsigned(out), static_cast<int>(size)) >= 0);
  return out;
}

std::vector<uint8_t> BitmapOf(const std::vector<PcrIndex>& pcrs) {
  std::vector<uint8_t> bitmap(3);
  for (const PcrIndex pcr : pcrs) {
    bitmap[pcr.value() / 8] |= static_cast<uint8_t>(1U << (pcr.value() % 8));
  }
  return bitmap;
}

const EVP_MD* MessageDigest(HashAlgorithm hash) {
  return EVP_get_digestbyname(std::string(HashAlgorithmName(hash)).c_str());
}

}  // namespace

SoftwareKey SoftwareKey::MakeRsa(KeyScheme scheme, HashAlgorithm hash, int bits) {
  EVP_PKEY* key = EVP_RSA_gen(static_cast<unsigned>(bits));
  CHECK(key != nullptr);
  return {std::shared_ptr<EVP_PKEY>(key, EVP_PKEY_free), scheme, hash};
}

SoftwareKey SoftwareKey::MakeEc(EcCurve curve, HashAlgorithm hash) {
  EVP_PKEY* key = EVP_EC_gen(std::string(EcCurveName(curve)).c_str());
  CHECK(key != nullptr);
  return {std::shared_ptr<EVP_PKEY>(key, EVP_PKEY_free), KeyScheme::kEcdsa, hash};
}

Bytes SoftwareKey::Public() const {
  const bool rsa = EVP_PKEY_get_base_id(key_.get()) == EVP_PKEY_RSA;
  ByteWriter writer;
  writer.U16Be(rsa ? 0x0001 : 0x0023).U16Be(0x000B).U32Be(attributes_).U16Be(0).U16Be(0x0010);
  writer.U16Be(static_cast<uint16_t>(scheme_));
  if (scheme_ != KeyScheme::kNull) {
    writer.U16Be(measure::TpmAlgorithmId(hash_));
  }
  const int bits = EVP_PKEY_get_bits(key_.get());
  if (rsa) {
    writer.U16Be(static_cast<uint16_t>(bits)).U32Be(0);
    WriteSized(writer, NumberOf(key_.get(), OSSL_PKEY_PARAM_RSA_N, static_cast<size_t>(bits / 8)));
    return std::move(writer).Take();
  }
  const EcCurve curve = bits == 256   ? EcCurve::kP256
                        : bits == 384 ? EcCurve::kP384
                                      : EcCurve::kP521;
  writer.U16Be(static_cast<uint16_t>(curve)).U16Be(0x0010);
  for (const char* name : {OSSL_PKEY_PARAM_EC_PUB_X, OSSL_PKEY_PARAM_EC_PUB_Y}) {
    WriteSized(writer, NumberOf(key_.get(), name, CoordinateSize(curve)));
  }
  return std::move(writer).Take();
}

Bytes SoftwareKey::SignPlain(ByteView message) const {
  const std::unique_ptr<EVP_MD_CTX, Freer<EVP_MD_CTX_free>> context(EVP_MD_CTX_new());
  EVP_PKEY_CTX* options = nullptr;
  CHECK(EVP_DigestSignInit(context.get(), &options, MessageDigest(hash_), nullptr, key_.get()) ==
        1);
  if (scheme_ == KeyScheme::kRsapss) {
    CHECK(EVP_PKEY_CTX_set_rsa_padding(options, RSA_PKCS1_PSS_PADDING) == 1);
    CHECK(EVP_PKEY_CTX_set_rsa_pss_saltlen(options, RSA_PSS_SALTLEN_DIGEST) == 1);
  }
  size_t size = 0;
  CHECK(EVP_DigestSign(context.get(), nullptr, &size, Unsigned(message), message.size()) == 1);
  Bytes out(size);
  CHECK(EVP_DigestSign(context.get(), Unsigned(out), &size, Unsigned(message), message.size()) ==
        1);
  out.resize(size);
  return out;
}

Bytes SoftwareKey::Sign(ByteView message) const {
  const Bytes plain = SignPlain(message);
  const bool rsa = EVP_PKEY_get_base_id(key_.get()) == EVP_PKEY_RSA;
  ByteWriter writer;
  const KeyScheme scheme = scheme_ == KeyScheme::kNull ? KeyScheme::kRsassa : scheme_;
  writer.U16Be(static_cast<uint16_t>(scheme)).U16Be(measure::TpmAlgorithmId(hash_));
  if (rsa) {
    WriteSized(writer, plain);
    return std::move(writer).Take();
  }
  const unsigned char* at = Unsigned(plain);
  const std::unique_ptr<ECDSA_SIG, Freer<ECDSA_SIG_free>> signature(
      d2i_ECDSA_SIG(nullptr, &at, static_cast<long>(plain.size())));
  CHECK(signature != nullptr);
  for (const BIGNUM* number :
       {ECDSA_SIG_get0_r(signature.get()), ECDSA_SIG_get0_s(signature.get())}) {
    Bytes bytes(static_cast<size_t>(BN_num_bytes(number)));
    BN_bn2bin(number, Unsigned(bytes));
    WriteSized(writer, bytes);
  }
  return std::move(writer).Take();
}

Bytes BuildAttestation(const Attestation& attestation) {
  ByteWriter writer;
  writer.U32Be(kTpmGenerated).U16Be(kAttestQuote);
  WriteSized(writer, attestation.qualified_signer);
  WriteSized(writer, attestation.nonce);
  const ClockState& clock = attestation.clock;
  writer.U64Be(clock.clock).U32Be(clock.reset_count).U32Be(clock.restart_count);
  writer.U8(clock.safe ? 1 : 0).U64Be(clock.firmware_version);
  writer.U32Be(static_cast<uint32_t>(attestation.banks.size()));
  for (const QuotedBank& bank : attestation.banks) {
    writer.U16Be(bank.algorithm).U8(3);
    for (const uint8_t byte : BitmapOf(bank.pcrs)) {
      writer.U8(byte);
    }
  }
  WriteSized(writer, attestation.pcr_digest);
  return std::move(writer).Take();
}

Bytes PcrDigest(HashAlgorithm hash, const PcrBanks& pcrs) {
  Hasher hasher(hash);
  for (const auto& [bank, values] : pcrs) {
    for (const auto& [pcr, value] : values) {
      hasher.Update(value);
    }
  }
  return hasher.Finish();
}

std::vector<QuotedBank> SelectAll(const PcrBanks& pcrs) {
  std::vector<QuotedBank> banks;
  for (const auto& [bank, values] : pcrs) {
    QuotedBank out{measure::TpmAlgorithmId(bank), bank, {}};
    for (const auto& [pcr, value] : values) {
      out.pcrs.push_back(pcr);
    }
    banks.push_back(std::move(out));
  }
  return banks;
}

Bytes SerializePcrs(const PcrBanks& pcrs) {
  ByteWriter writer;
  writer.U32Le(static_cast<uint32_t>(pcrs.size()));
  std::vector<ByteView> digests;
  for (const QuotedBank& bank : SelectAll(pcrs)) {
    writer.U16Le(bank.algorithm).U8(3);
    for (const uint8_t byte : BitmapOf(bank.pcrs)) {
      writer.U8(byte);
    }
    writer.Zeros(2);
    for (const PcrIndex pcr : bank.pcrs) {
      digests.emplace_back(pcrs.at(*bank.bank).at(pcr));
    }
  }
  writer.Zeros((16 - pcrs.size()) * 8);
  writer.U32Le(static_cast<uint32_t>((digests.size() + 7) / 8));
  for (size_t begin = 0; begin < digests.size(); begin += 8) {
    const size_t count = std::min<size_t>(8, digests.size() - begin);
    writer.U32Le(static_cast<uint32_t>(count));
    for (size_t i = begin; i < begin + count; ++i) {
      writer.U16Le(static_cast<uint16_t>(digests[i].size())).Raw(digests[i]);
      writer.Zeros(64 - digests[i].size());
    }
    writer.Zeros((8 - count) * 66);
  }
  return std::move(writer).Take();
}

}  // namespace vallum::attest
