// SPDX-License-Identifier: Apache-2.0
// How a TPM's keys are found or made.
#include <algorithm>
#include <utility>

#include "base/digest.h"
#include "tpm/certificates.h"
#include "tpm/esys_tpm.h"
#include "tpm/host_tpm.h"
#include "tpm/marshal.h"
#include "tpm/templates.h"

namespace vallum::tpm {
namespace {

// TCG TPM v2.0 Provisioning Guidance, 7.8: where keys lie that stay in the TPM.
constexpr TPM2_HANDLE kRsaEndorsementKey = 0x81010001;
constexpr TPM2_HANDLE kEccEndorsementKey = 0x81010016;

struct LoadedKey {
  EsysHandle handle;
  TPMT_PUBLIC area{};
};

Result<bool> HasP256(EsysContext& esys) {
  TPMS_CAPABILITY_DATA* raw = nullptr;
  TPMI_YES_NO more = TPM2_NO;
  RETURN_IF_ERROR(esys.Call("listing elliptic curves", [&](ESYS_CONTEXT* context) {
    return Esys_GetCapability(context, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE,
                              TPM2_CAP_ECC_CURVES, TPM2_ECC_NIST_P256, 1, &more, &raw);
  }));
  const EsysPtr<TPMS_CAPABILITY_DATA> data(raw);
  const TPML_ECC_CURVE& curves = data->data.eccCurves;
  return curves.count > 0 && curves.eccCurves[0] == TPM2_ECC_NIST_P256;
}

Result<LoadedKey> MakeEndorsementKey(EsysContext& esys, const TPM2B_PUBLIC& area) {
  const TPM2B_SENSITIVE_CREATE sensitive{};
  const TPM2B_DATA outside{};
  const TPML_PCR_SELECTION pcrs{};
  ESYS_TR handle = ESYS_TR_NONE;
  TPM2B_PUBLIC* raw = nullptr;
  auto made = esys.Call("making the endorsement key", [&](ESYS_CONTEXT* context) {
    return Esys_CreatePrimary(context, ESYS_TR_RH_ENDORSEMENT, ESYS_TR_PASSWORD, ESYS_TR_NONE,
                              ESYS_TR_NONE, &sensitive, &area, &outside, &pcrs, &handle, &raw,
                              nullptr, nullptr, nullptr);
  });
  if (!made) {
    return made.error().code() == ErrorCode::kDenied
               ? std::move(made).error().WithFix(kEndorsementFix)
               : std::move(made).error();
  }
  const EsysPtr<TPM2B_PUBLIC> content(raw);
  return LoadedKey{EsysHandle(esys, handle, EsysHandle::Kind::kTransient), content->publicArea};
}

// Errors: kNotFound (nothing lies there).
Result<LoadedKey> OpenPersistent(EsysContext& esys, TPM2_HANDLE where) {
  constexpr const char* kDoing = "opening a persistent key";
  ESYS_TR handle = ESYS_TR_NONE;
  RETURN_IF_ERROR(esys.Call(kDoing, [&](ESYS_CONTEXT* context) {
    return Esys_TR_FromTPMPublic(context, where, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &handle);
  }));
  EsysHandle owner(esys, handle, EsysHandle::Kind::kReference);
  TPM2B_PUBLIC* raw = nullptr;
  RETURN_IF_ERROR(esys.Call(kDoing, [&](ESYS_CONTEXT* context) {
    return Esys_ReadPublic(context, handle, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &raw, nullptr,
                           nullptr);
  }));
  const EsysPtr<TPM2B_PUBLIC> content(raw);
  return LoadedKey{std::move(owner), content->publicArea};
}

Result<LoadedKey> OpenEndorsementKey(EsysContext& esys, KeyKind kind) {
  const TPM2B_PUBLIC made_from = EndorsementTemplate(kind);
  auto found =
      OpenPersistent(esys, kind == KeyKind::kRsa2048 ? kRsaEndorsementKey : kEccEndorsementKey);
  if (found && IsOfTemplate(found->area, made_from)) {
    return found;
  }
  if (!found && found.error().code() == ErrorCode::kUnavailable) {
    return found;
  }
  return MakeEndorsementKey(esys, made_from);
}

// Which endorsement key is the host's: one that its maker vouches for, ECC before RSA.
Result<LoadedKey> ChooseEndorsementKey(EsysContext& esys, bool has_p256, TpmIdentity& identity) {
  const std::vector<KeyKind> kinds =
      has_p256 ? std::vector{KeyKind::kEccP256, KeyKind::kRsa2048} : std::vector{KeyKind::kRsa2048};
  for (const KeyKind kind : kinds) {
    ASSIGN_OR_RETURN(identity.ek_certificate, ReadEkCertificate(esys, kind));
    if (!identity.ek_certificate.empty()) {
      ASSIGN_OR_RETURN(identity.ek_certificate_chain, ReadEkCertificateChain(esys));
      return OpenEndorsementKey(esys, kind);
    }
  }
  return OpenEndorsementKey(esys, kinds.front());
}

// Errors: as OpenEndorsementSession; kCorrupt (the key is no child of this endorsement key).
Result<EsysHandle> LoadKey(EsysContext& esys, ESYS_TR ek, const TPM2B_PUBLIC& area,
                           const TPM2B_PRIVATE& secret) {
  ASSIGN_OR_RETURN(const EsysHandle session, OpenEndorsementSession(esys));
  ESYS_TR handle = ESYS_TR_NONE;
  RETURN_IF_ERROR(esys.Call("loading the attestation key", [&](ESYS_CONTEXT* context) {
    return Esys_Load(context, ek, session.get(), ESYS_TR_NONE, ESYS_TR_NONE, &secret, &area,
                     &handle);
  }));
  return EsysHandle(esys, handle, EsysHandle::Kind::kTransient);
}

// Removes objects that nobody will use again: without the kernel's resource manager a TPM keeps
// what a process that was killed had loaded, and has room for three. Others do not share it.
Result<void> RemoveLeftovers(EsysContext& esys, const TpmAddress& address) {
  constexpr const char* kDoing = "removing keys that an earlier process left in the TPM";
  if (address.kind == TpmKind::kDevice && address.path.starts_with("/dev/tpmrm")) {
    return Ok();
  }
  TPMS_CAPABILITY_DATA* raw = nullptr;
  TPMI_YES_NO more = TPM2_NO;
  RETURN_IF_ERROR(esys.Call(kDoing, [&](ESYS_CONTEXT* context) {
    return Esys_GetCapability(context, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, TPM2_CAP_HANDLES,
                              TPM2_TRANSIENT_FIRST, TPM2_MAX_CAP_HANDLES, &more, &raw);
  }));
  const EsysPtr<TPMS_CAPABILITY_DATA> data(raw);
  const TPML_HANDLE& handles = data->data.handles;
  for (uint32_t i = 0; i < std::min<uint32_t>(handles.count, TPM2_MAX_CAP_HANDLES); ++i) {
    RETURN_IF_ERROR(esys.Call(kDoing, [&](ESYS_CONTEXT* context) {
      ESYS_TR handle = ESYS_TR_NONE;
      const TSS2_RC found = Esys_TR_FromTPMPublic(context, handles.handle[i], ESYS_TR_NONE,
                                                  ESYS_TR_NONE, ESYS_TR_NONE, &handle);
      return found == TSS2_RC_SUCCESS ? Esys_FlushContext(context, handle) : found;
    }));
  }
  return Ok();
}

struct AttestationKey {
  EsysHandle handle;
  KeyBlobs blobs;
  KeyOrigin origin = KeyOrigin::kFirst;
};

// TPM 2.0 Library, part 3, 18.1: resetCount, restartCount and firmwareVersion are obfuscated,
// differently for each key, "when the signing key is not in the Endorsement or Platform
// hierarchies". A child of the endorsement key quotes them as they are.
Result<AttestationKey> MakeAttestationKey(EsysContext& esys, ESYS_TR ek, KeyKind kind) {
  const TPM2B_PUBLIC wanted = AttestationTemplate(kind);
  const TPM2B_SENSITIVE_CREATE sensitive{};
  const TPM2B_DATA outside{};
  const TPML_PCR_SELECTION pcrs{};
  TPM2B_PRIVATE* raw_private = nullptr;
  TPM2B_PUBLIC* raw_public = nullptr;
  {
    ASSIGN_OR_RETURN(const EsysHandle session, OpenEndorsementSession(esys));
    RETURN_IF_ERROR(esys.Call("making the attestation key", [&](ESYS_CONTEXT* context) {
      return Esys_Create(context, ek, session.get(), ESYS_TR_NONE, ESYS_TR_NONE, &sensitive,
                         &wanted, &outside, &pcrs, &raw_private, &raw_public, nullptr, nullptr,
                         nullptr);
    }));
  }
  const EsysPtr<TPM2B_PRIVATE> secret(raw_private);
  const EsysPtr<TPM2B_PUBLIC> area(raw_public);
  AttestationKey key;
  ASSIGN_OR_RETURN(key.blobs.public_area, Marshal(*area));
  ASSIGN_OR_RETURN(key.blobs.private_area, Marshal(*secret));
  ASSIGN_OR_RETURN(key.handle, LoadKey(esys, ek, *area, *secret));
  return key;
}

Result<AttestationKey> TakeUpAttestationKey(EsysContext& esys, ESYS_TR ek, KeyKind new_kind,
                                            const std::optional<KeyBlobs>& kept) {
  if (kept) {
    ASSIGN_OR_RETURN(const TPM2B_PUBLIC area, UnmarshalPublic(kept->public_area));
    ASSIGN_OR_RETURN(const TPM2B_PRIVATE secret, UnmarshalPrivate(kept->private_area));
    auto loaded = LoadKey(esys, ek, area, secret);
    if (loaded) {
      return AttestationKey{*std::move(loaded), *kept, KeyOrigin::kKept};
    }
    // Neither says anything of the key: it may be good another time.
    if (loaded.error().code() == ErrorCode::kUnavailable ||
        loaded.error().code() == ErrorCode::kDenied) {
      return std::move(loaded).error();
    }
  }
  ASSIGN_OR_RETURN(AttestationKey key, MakeAttestationKey(esys, ek, new_kind));
  key.origin = kept ? KeyOrigin::kRemade : KeyOrigin::kFirst;
  return key;
}

}  // namespace

Result<Bytes> KeyName(ByteView public_area) {
  ASSIGN_OR_RETURN(const TPM2B_PUBLIC area, UnmarshalPublic(public_area));
  if (area.publicArea.nameAlg != TPM2_ALG_SHA256) {
    return InvalidInput("the key's name is not made with SHA-256");
  }
  ASSIGN_OR_RETURN(const Bytes content, Marshal(area.publicArea));
  ByteWriter name;
  name.U16Be(TPM2_ALG_SHA256).Raw(Sha256(content));
  return std::move(name).Take();
}

Result<OpenedTpm> OpenHostTpm(const HostTpmOptions& options, const std::optional<KeyBlobs>& kept,
                              const std::stop_token& stop) {
  ASSIGN_OR_RETURN(auto esys, EsysContext::Open(options.address, options.limit, stop));
  RETURN_IF_ERROR(RemoveLeftovers(*esys, options.address));
  ASSIGN_OR_RETURN(const bool has_p256, HasP256(*esys));
  KeyKind kind = KeyKind::kRsa2048;
  if (const auto first = std::ranges::find_if(
          options.kinds, [&](KeyKind wanted) { return has_p256 || wanted == KeyKind::kRsa2048; });
      first != options.kinds.end()) {
    kind = *first;
  }
  TpmIdentity identity;
  ASSIGN_OR_RETURN(LoadedKey ek, ChooseEndorsementKey(*esys, has_p256, identity));
  ASSIGN_OR_RETURN(AttestationKey ak, TakeUpAttestationKey(*esys, ek.handle.get(), kind, kept));
  ASSIGN_OR_RETURN(identity.ek_public, Marshal(ek.area));
  ASSIGN_OR_RETURN(const TPM2B_PUBLIC ak_area, UnmarshalPublic(ak.blobs.public_area));
  ASSIGN_OR_RETURN(identity.ak_public, Marshal(ak_area.publicArea));
  ASSIGN_OR_RETURN(identity.ak_name, KeyName(ak.blobs.public_area));
  OpenedTpm opened;
  opened.key = std::move(ak.blobs);
  opened.origin = ak.origin;
  opened.tpm = std::make_unique<EsysTpm>(std::move(esys), std::move(ek.handle),
                                         std::move(ak.handle), std::move(identity));
  return opened;
}

}  // namespace vallum::tpm
