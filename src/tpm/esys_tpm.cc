// SPDX-License-Identifier: Apache-2.0
#include "tpm/esys_tpm.h"

#include <algorithm>
#include <cstring>

#include "base/digest.h"
#include "base/text.h"
#include "measure/extend_log.h"
#include "tpm/marshal.h"

namespace vallum::tpm {
namespace {

// PCR 10 of a busy host grows with each program that is run.
constexpr int kQuoteTries = 6;
constexpr size_t kPcrsPerRead = 8;
constexpr uint8_t kSelectionBytes = 3;  // 24 PCRs

TPMS_PCR_SELECTION ToSelection(HashAlgorithm bank, std::span<const PcrIndex> pcrs) {
  TPMS_PCR_SELECTION out{};
  out.hash = measure::TpmAlgorithmId(bank);
  out.sizeofSelect = kSelectionBytes;
  for (const PcrIndex pcr : pcrs) {
    uint8_t& octet = out.pcrSelect[pcr.value() / 8];
    octet = static_cast<uint8_t>(octet | (1U << (pcr.value() % 8)));
  }
  return out;
}

// What a TPM signs of PCR values: part 3, "TPM2_Quote": the digest of all, in order.
Bytes PcrDigest(const std::vector<std::vector<Bytes>>& values) {
  Hasher hasher(HashAlgorithm::kSha256);
  for (const auto& bank : values) {
    for (const Bytes& value : bank) {
      hasher.Update(value);
    }
  }
  return hasher.Finish();
}

ByteView Content(const TPM2B_DIGEST& digest) {
  return ContentOf(digest, digest.buffer, sizeof digest.buffer);
}

}  // namespace

Result<EsysHandle> OpenEndorsementSession(EsysContext& esys) {
  constexpr const char* kDoing = "using the endorsement key";
  TPMT_SYM_DEF none{};
  none.algorithm = TPM2_ALG_NULL;
  ESYS_TR session = ESYS_TR_NONE;
  RETURN_IF_ERROR(esys.Call(kDoing, [&](ESYS_CONTEXT* context) {
    return Esys_StartAuthSession(context, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE,
                                 ESYS_TR_NONE, nullptr, TPM2_SE_POLICY, &none, TPM2_ALG_SHA256,
                                 &session);
  }));
  EsysHandle owner(esys, session, EsysHandle::Kind::kTransient);
  auto met = esys.Call(kDoing, [&](ESYS_CONTEXT* context) {
    return Esys_PolicySecret(context, ESYS_TR_RH_ENDORSEMENT, session, ESYS_TR_PASSWORD,
                             ESYS_TR_NONE, ESYS_TR_NONE, nullptr, nullptr, nullptr, 0, nullptr,
                             nullptr);
  });
  if (!met) {
    return met.error().code() == ErrorCode::kDenied
               ? std::move(met).error().WithFix(kEndorsementFix)
               : std::move(met).error();
  }
  return owner;
}

Result<SecretBytes> EsysTpm::ActivateCredential(ByteView id_object, ByteView secret) {
  ASSIGN_OR_RETURN(const TPM2B_ID_OBJECT blob, UnmarshalIdObject(id_object));
  ASSIGN_OR_RETURN(const TPM2B_ENCRYPTED_SECRET encrypted, UnmarshalEncryptedSecret(secret));
  ASSIGN_OR_RETURN(const EsysHandle session, OpenEndorsementSession(*esys_));
  TPM2B_DIGEST* raw = nullptr;
  const auto opened = esys_->Call("opening the controller's credential", [&](ESYS_CONTEXT* c) {
    return Esys_ActivateCredential(c, ak_.get(), ek_.get(), ESYS_TR_PASSWORD, session.get(),
                                   ESYS_TR_NONE, &blob, &encrypted, &raw);
  });
  if (!opened && opened.error().code() == ErrorCode::kUnavailable) {
    return opened.error();
  }
  if (!opened) {
    return Denied("the credential was not made for the keys of this TPM: " +
                  opened.error().Describe());
  }
  const EsysPtr<TPM2B_DIGEST> content(raw);
  SecretBytes out(Content(*content));
  Wipe(std::as_writable_bytes(std::span(content->buffer)));
  return out;
}

Result<void> EsysTpm::CheckBanks(const std::vector<measure::BankSelection>& selections) {
  if (selections.empty()) {
    return InvalidInput("no PCR is asked for");
  }
  TPMS_CAPABILITY_DATA* raw = nullptr;
  TPMI_YES_NO more = TPM2_NO;
  RETURN_IF_ERROR(esys_->Call("listing PCR banks", [&](ESYS_CONTEXT* context) {
    return Esys_GetCapability(context, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, TPM2_CAP_PCRS, 0,
                              1, &more, &raw);
  }));
  const EsysPtr<TPMS_CAPABILITY_DATA> data(raw);
  const TPML_PCR_SELECTION& banks = data->data.assignedPCR;
  const std::span known(banks.pcrSelections, std::min<size_t>(banks.count, TPM2_NUM_PCR_BANKS));
  for (const measure::BankSelection& selection : selections) {
    const TPMS_PCR_SELECTION wanted = ToSelection(selection.bank, selection.pcrs);
    const auto found = std::ranges::find_if(known, [&](const TPMS_PCR_SELECTION& bank) {
      return bank.hash == wanted.hash && bank.sizeofSelect >= kSelectionBytes &&
             (wanted.pcrSelect[0] & ~bank.pcrSelect[0]) == 0 &&
             (wanted.pcrSelect[1] & ~bank.pcrSelect[1]) == 0 &&
             (wanted.pcrSelect[2] & ~bank.pcrSelect[2]) == 0;
    });
    if (found == known.end()) {
      const std::string name(HashAlgorithmName(selection.bank));
      return InvalidInput("the TPM of this host keeps no PCRs in " + name)
          .WithFix("leave bank " + name + " out of the policy, or switch it on in the firmware");
    }
  }
  return Ok();
}

Result<std::vector<Bytes>> EsysTpm::ReadPcrs(const measure::BankSelection& selection) {
  std::vector<Bytes> values;
  while (values.size() < selection.pcrs.size()) {
    const auto rest = std::span(selection.pcrs).subspan(values.size());
    TPML_PCR_SELECTION wanted{};
    wanted.count = 1;
    wanted.pcrSelections[0] =
        ToSelection(selection.bank, rest.first(std::min(rest.size(), kPcrsPerRead)));
    TPML_DIGEST* raw = nullptr;
    RETURN_IF_ERROR(esys_->Call("reading PCRs", [&](ESYS_CONTEXT* context) {
      return Esys_PCR_Read(context, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &wanted, nullptr,
                           nullptr, &raw);
    }));
    const EsysPtr<TPML_DIGEST> digests(raw);
    const size_t count = digests->count;
    if (count == 0 || count > std::min(rest.size(), kPcrsPerRead)) {
      return Corrupt("the TPM gave other PCRs than it was asked for");
    }
    for (size_t i = 0; i < count; ++i) {
      values.push_back(ToBytes(Content(digests->digests[i])));
    }
  }
  return values;
}

Result<Quote> EsysTpm::MakeQuote(ByteView qualifying,
                                 const std::vector<measure::BankSelection>& selections) {
  RETURN_IF_ERROR(CheckBanks(selections));
  TPM2B_DATA nonce{};
  if (qualifying.size() > sizeof(Sha256Digest)) {
    return InvalidInput("a quote takes at most 32 bytes of qualifying data");
  }
  nonce.size = static_cast<uint16_t>(qualifying.size());
  std::memcpy(nonce.buffer, qualifying.data(), qualifying.size());
  TPML_PCR_SELECTION wanted{};
  for (const measure::BankSelection& selection : selections) {
    wanted.pcrSelections[wanted.count++] = ToSelection(selection.bank, selection.pcrs);
  }
  TPMT_SIG_SCHEME scheme{};
  scheme.scheme = TPM2_ALG_NULL;  // the key's own
  for (int tries = 0; tries < kQuoteTries; ++tries) {
    Quote quote;
    for (const measure::BankSelection& selection : selections) {
      ASSIGN_OR_RETURN(quote.values.emplace_back(), ReadPcrs(selection));
    }
    TPM2B_ATTEST* raw = nullptr;
    TPMT_SIGNATURE* raw_signature = nullptr;
    RETURN_IF_ERROR(esys_->Call("signing PCR values", [&](ESYS_CONTEXT* context) {
      return Esys_Quote(context, ak_.get(), ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &nonce,
                        &scheme, &wanted, &raw, &raw_signature);
    }));
    const EsysPtr<TPM2B_ATTEST> attest(raw);
    const EsysPtr<TPMT_SIGNATURE> signature(raw_signature);
    quote.quoted =
        ToBytes(ContentOf(*attest, attest->attestationData, sizeof attest->attestationData));
    ASSIGN_OR_RETURN(quote.signature, Marshal(*signature));
    ASSIGN_OR_RETURN(const TPMS_ATTEST said, UnmarshalAttest(quote.quoted));
    quote.reset_count = said.clockInfo.resetCount;
    quote.restart_count = said.clockInfo.restartCount;
    if (std::ranges::equal(Content(said.attested.quote.pcrDigest), PcrDigest(quote.values))) {
      return quote;
    }
  }
  return Conflict("the PCRs changed between reading and signing them, " +
                  std::to_string(kQuoteTries) + " times")
      .WithFix("ask again when fewer programs are started on this host");
}

}  // namespace vallum::tpm
