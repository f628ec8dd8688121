// SPDX-License-Identifier: Apache-2.0
#include "vtpm/pcr_reader.h"

#include <string>
#include <utility>

namespace vallum::vtpm {

Result<std::optional<PcrReader::Values>> PcrReader::OnResponse(ByteView response) {
  const auto code = ResponseCode(response);
  // A cancellation that the guest asked for too late may hit this command; it means nothing here.
  if (code.has_value() && *code == kTpmCanceled && !std::exchange(retried_, true)) {
    return std::optional<Values>();
  }
  ASSIGN_OR_RETURN(PcrReadReply reply, ParsePcrReadReply(request_.bank, response));
  if (reply.values.empty()) {
    return InvalidInput("the TPM has no active PCR bank " +
                        std::string(HashAlgorithmName(request_.bank)));
  }
  for (auto& [pcr, value] : reply.values) {
    if (std::erase(missing_, pcr) != 1) {
      return Corrupt("the TPM answered with a PCR that was not asked for");
    }
    values_[pcr] = std::move(value);
  }
  if (!missing_.empty()) {
    return std::optional<Values>();
  }
  return std::optional<Values>(std::move(values_));
}

}  // namespace vallum::vtpm
