// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/secret_bytes.h"
#include "measure/pcr_selection.h"
#include "tpm/address.h"

namespace vallum::tpm {

enum class KeyKind { kEccP256, kRsa2048 };

struct Quote {
  Bytes quoted;     // TPMS_ATTEST
  Bytes signature;  // TPMT_SIGNATURE
  uint32_t reset_count = 0;
  uint32_t restart_count = 0;
  // What the PCRs held when it was made: as the selections, in their order.
  std::vector<std::vector<Bytes>> values;
};

// Who the TPM is; public.
struct TpmIdentity {
  Bytes ek_public;                          // TPMT_PUBLIC
  Bytes ek_certificate;                     // DER; empty: the TPM has none
  std::vector<Bytes> ek_certificate_chain;  // DER of intermediates
  Bytes ak_public;                          // TPMT_PUBLIC
  Bytes ak_name;                            // algorithm, big-endian, before the digest
};

// The attestation key as it is kept outside: of use to its own TPM alone.
struct KeyBlobs {
  Bytes public_area;   // TPM2B_PUBLIC
  Bytes private_area;  // TPM2B_PRIVATE: encrypted by the TPM
};

// What became of the attestation key that was kept.
enum class KeyOrigin {
  kKept,   // it is the one
  kFirst,  // there was none
  // It is no child of this TPM's endorsement key: the TPM was cleared or replaced, or an earlier
  // version made it under the storage key.
  kRemade,
};

// What attestation asks of the host's TPM. Used by one thread; calls block. After kUnavailable it
// is to be opened anew.
class HostTpm {
 public:
  virtual ~HostTpm() = default;

  virtual const TpmIdentity& identity() const = 0;

  // Opens a credential that was made for both keys of identity().
  //   id_object: TPM2B_ID_OBJECT, untrusted. secret: TPM2B_ENCRYPTED_SECRET, untrusted.
  // Errors: kDenied (not made for these keys); kInvalidInput; kUnavailable.
  virtual Result<SecretBytes> ActivateCredential(ByteView id_object, ByteView secret) = 0;

  // Has the TPM sign what the PCRs hold, which is what is returned with it: PCRs that move
  // meanwhile are read and quoted again, a few times.
  //   qualifying: at most 32 bytes.
  // Errors: kInvalidInput (a bank that this TPM has not, or has switched off; nothing selected);
  // kConflict (the PCRs do not stand still); kUnavailable.
  virtual Result<Quote> MakeQuote(ByteView qualifying,
                                  const std::vector<measure::BankSelection>& selections) = 0;
};

struct HostTpmOptions {
  TpmAddress address;
  // For each answer. The longest is that of a key made by a slow TPM.
  std::chrono::seconds limit{120};
  // Attestation keys that may be made, the best first.
  std::vector<KeyKind> kinds = {KeyKind::kEccP256, KeyKind::kRsa2048};
};

struct OpenedTpm {
  std::unique_ptr<HostTpm> tpm;
  KeyBlobs key;  // to be kept
  KeyOrigin origin = KeyOrigin::kFirst;
};

// Opens the TPM, finds or makes its endorsement key, and takes up the attestation key that was kept
// or makes one.
//   stop: ends waiting for the TPM.
// Errors: kUnavailable; kDenied (the endorsement hierarchy has a password); kInvalidInput (`kept`
// is no key).
Result<OpenedTpm> OpenHostTpm(const HostTpmOptions& options, const std::optional<KeyBlobs>& kept,
                              const std::stop_token& stop);

// The name of a key with SHA-256 as name algorithm: what credentials and leases call it. Pure.
//   public_area: TPM2B_PUBLIC. Errors: kInvalidInput.
Result<Bytes> KeyName(ByteView public_area);

}  // namespace vallum::tpm
