// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "tpm/esys.h"
#include "tpm/host_tpm.h"

namespace vallum::tpm {

inline constexpr const char* kEndorsementFix =
    "empty the endorsement hierarchy's password: `tpm2_changeauth -c endorsement -p OLD`";

// A session that has met the endorsement key's policy. One use of the key takes it up.
// Errors: kDenied (the endorsement hierarchy has a password, or is off); kUnavailable.
Result<EsysHandle> OpenEndorsementSession(EsysContext& esys);

// A TPM behind tpm2-tss, with both keys loaded.
class EsysTpm final : public HostTpm {
 public:
  EsysTpm(std::unique_ptr<EsysContext> esys, EsysHandle ek, EsysHandle ak, TpmIdentity identity)
      : esys_(std::move(esys)),
        ek_(std::move(ek)),
        ak_(std::move(ak)),
        identity_(std::move(identity)) {}

  const TpmIdentity& identity() const override { return identity_; }
  Result<SecretBytes> ActivateCredential(ByteView id_object, ByteView secret) override;
  Result<Quote> MakeQuote(ByteView qualifying,
                          const std::vector<measure::BankSelection>& selections) override;

 private:
  // Errors: kInvalidInput, naming the bank.
  Result<void> CheckBanks(const std::vector<measure::BankSelection>& selections);
  Result<std::vector<Bytes>> ReadPcrs(const measure::BankSelection& selection);

  std::unique_ptr<EsysContext> esys_;  // outlives the handles
  EsysHandle ek_;
  EsysHandle ak_;
  TpmIdentity identity_;
};

}  // namespace vallum::tpm
