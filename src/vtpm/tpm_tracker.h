// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "measure/extend_log.h"
#include "vtpm/control_client.h"
#include "vtpm/control_message.h"

namespace vallum::vtpm {

// Follows one TPM by what goes to it and comes back, and says what is to be recorded. A value;
// reads no clock, does no I/O.
class TpmTracker {
 public:
  // A control message that swtpm answered. Both whole.
  std::vector<measure::RecordBody> OnControl(ByteView request, ByteView response);
  // A TPM command that was answered. Both whole.
  std::vector<measure::RecordBody> OnCommand(ByteView command, ByteView response);
  // Bytes that could not be cut into commands went to the TPM. swtpm can be told the locality by a
  // prefix that has no TPM header, so this may have been anything.
  std::vector<measure::RecordBody> OnUnframed();

  // The next CMD_INIT resumes PCR values that nobody recorded.
  void ExpectForeignState() { foreign_state_ = true; }

  // Which banks are active is not known yet; firmware may send digests for others, which the TPM
  // ignores. To be asked before the next command of the guest.
  bool needs_banks() const { return state_ == TpmState::kStarted && !banks_.has_value(); }
  // The answer to MakeGetPcrBanks.
  void OnBanks(ByteView response);

  // As QEMU set it last.
  uint8_t locality() const { return locality_; }
  TpmState state() const { return state_; }
  // Between CMD_HASH_START and CMD_HASH_END: nothing else may be sent.
  bool hashing() const { return !hashers_.empty(); }
  // The guest has used the TPM since it last shut it down: ending it now would count as an attack
  // on its authorizations.
  bool needs_shutdown() const { return state_ == TpmState::kStarted && !shut_down_; }

 private:
  std::vector<measure::RecordBody> OnInit(uint32_t result);
  std::vector<measure::RecordBody> OnHashEnd();
  // Without the extends of banks that the TPM does not have.
  std::vector<measure::RecordBody> Active(std::vector<measure::RecordBody> records) const;

  TpmState state_ = TpmState::kOff;
  uint8_t locality_ = 0;
  bool shut_down_ = true;
  bool foreign_state_ = false;
  std::optional<std::vector<HashAlgorithm>> banks_;  // until the next reset
  std::vector<Hasher> hashers_;
};

}  // namespace vallum::vtpm
