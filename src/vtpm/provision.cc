// SPDX-License-Identifier: Apache-2.0
#include "vtpm/provision.h"

#include <algorithm>
#include <utility>

#include "vtpm/key_command.h"
#include "vtpm/tpm_command.h"

namespace vallum::vtpm {
namespace {

using Timeout = std::chrono::milliseconds;

Result<void> Do(Swtpm& swtpm, ByteView command, std::string_view doing, Timeout timeout) {
  ASSIGN_OR_RETURN(const Bytes response, swtpm.Command(command, timeout));
  return CheckSuccess(response, doing);
}

Result<Bytes> EnsureKey(Swtpm& swtpm, KeyKind kind, Timeout timeout) {
  const uint32_t handle = PersistentHandle(kind);
  ASSIGN_OR_RETURN(const Bytes found, swtpm.Command(MakeReadPublic(handle), timeout));
  if (auto kept = ParseReadPublicReply(found); kept.has_value() && MatchesTemplate(kind, *kept)) {
    return kept;
  }
  ASSIGN_OR_RETURN(const Bytes made, swtpm.Command(MakeCreatePrimary(kind), timeout));
  ASSIGN_OR_RETURN(PrimaryKey key, ParseCreatePrimaryReply(made));
  // A guest's owner password, or a key of the guest under that handle, keeps ours from being kept.
  // It is made again then whenever it is needed.
  ASSIGN_OR_RETURN(const Bytes kept, swtpm.Command(MakeEvictControl(key.handle, handle), timeout));
  RETURN_IF_ERROR(Do(swtpm, MakeFlushContext(key.handle), "let a key go", timeout));
  return std::move(key.tpm_public);
}

// Empty: the TPM has none.
Result<Bytes> ReadCertificate(Swtpm& swtpm, Timeout timeout) {
  ASSIGN_OR_RETURN(const Bytes found, swtpm.Command(MakeReadCertificatePublic(), timeout));
  const auto size = ParseCertificatePublicReply(found);
  if (!size.has_value()) {
    return size.error().code() == ErrorCode::kNotFound ? Result<Bytes>(Bytes()) : size.error();
  }
  Bytes der;
  while (der.size() < *size) {
    const size_t wanted = std::min(kMaxNvPart, *size - der.size());
    ASSIGN_OR_RETURN(const Bytes reply,
                     swtpm.Command(MakeReadCertificate(wanted, der.size()), timeout));
    ASSIGN_OR_RETURN(const Bytes part, ParseReadCertificateReply(reply));
    if (part.size() != wanted) {
      return Corrupt("the TPM gave another part of its EK certificate than was asked for");
    }
    der.insert(der.end(), part.begin(), part.end());
  }
  return der;
}

}  // namespace

Result<void> AllocateBanks(Swtpm& swtpm, const std::vector<HashAlgorithm>& banks, Timeout timeout) {
  return Do(swtpm, MakePcrAllocate(banks), "choose its PCR banks", timeout);
}

Result<VtpmIdentity> EnsureIdentity(Swtpm& swtpm, Timeout timeout) {
  VtpmIdentity identity;
  ASSIGN_OR_RETURN(identity.ek_public, EnsureKey(swtpm, KeyKind::kEndorsement, timeout));
  ASSIGN_OR_RETURN(identity.ak_public, EnsureKey(swtpm, KeyKind::kAttestation, timeout));
  ASSIGN_OR_RETURN(identity.certificate, ReadCertificate(swtpm, timeout));
  return identity;
}

Result<void> StoreCertificate(Swtpm& swtpm, ByteView der, Timeout timeout) {
  if (der.empty() || der.size() > kMaxCertificate) {
    return InvalidInput("a certificate of " + std::to_string(der.size()) + " bytes does not fit " +
                        std::to_string(kMaxCertificate));
  }
  // Whether there was one shows when the new one is defined.
  ASSIGN_OR_RETURN(const Bytes removed, swtpm.Command(MakeUndefineCertificate(), timeout));
  RETURN_IF_ERROR(
      Do(swtpm, MakeDefineCertificate(der.size()), "make room for its EK certificate", timeout));
  for (size_t offset = 0; offset < der.size(); offset += kMaxNvPart) {
    const ByteView part = der.subspan(offset, std::min(kMaxNvPart, der.size() - offset));
    RETURN_IF_ERROR(
        Do(swtpm, MakeWriteCertificate(part, offset), "take its EK certificate", timeout));
  }
  return Do(swtpm, MakeLockCertificate(), "lock its EK certificate", timeout);
}

}  // namespace vallum::vtpm
