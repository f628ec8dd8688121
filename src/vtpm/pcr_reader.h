// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <map>
#include <optional>

#include "base/bytes.h"
#include "base/result.h"
#include "vtpm/control_protocol.h"
#include "vtpm/tpm_command.h"

namespace vallum::vtpm {

// Reads any number of PCRs with as many PCR_Read commands as it takes. A value: the caller sends
// Next() to the TPM, without a command of the guest in between, and hands over each response.
class PcrReader {
 public:
  using Values = std::map<PcrIndex, Bytes>;

  explicit PcrReader(PcrsRequest request) : request_(std::move(request)), missing_(request_.pcrs) {}

  Bytes Next() const { return MakePcrRead(request_.bank, missing_); }

  // Returns the values once all are read; empty: send Next() again.
  // Errors: kUnavailable (the TPM refused); kInvalidInput (no such bank); kCorrupt.
  Result<std::optional<Values>> OnResponse(ByteView response);

 private:
  PcrsRequest request_;
  PcrSelection missing_;
  Values values_;
  bool retried_ = false;
};

}  // namespace vallum::vtpm
