// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "vtpm/identity.h"
#include "vtpm/pcr_reader.h"

namespace vallum::vtpm {

// Makes one quote: reads the PCRs, finds the attestation key (or makes it again from its template
// if the guest has removed it), has it sign, and leaves no object behind. A value: the caller sends
// Next() to the TPM, without a command of the guest in between, and hands over each response.
class QuoteMaker {
 public:
  //   ak_public: of the key that is to sign.
  QuoteMaker(QuoteRequest request, Bytes ak_public);

  Bytes Next() const;

  // Empty: send Next() again.
  // Errors: kInvalidInput (a bank that the TPM lacks); kDenied (the key is gone, and the guest's
  // password keeps it from being made again); kConflict (the guest has given the TPM new seeds);
  // kUnavailable (the TPM refused, or has no room); kCorrupt.
  std::optional<Result<Quote>> OnResponse(ByteView response);

 private:
  enum class Step { kReadPcrs, kReadPublic, kCreatePrimary, kQuote, kFlush };
  Result<void> Advance(ByteView response);
  Result<void> TakePcrs(ByteView response);
  Result<void> TakeCreatedKey(ByteView response);
  Result<void> TakeQuote(ByteView response);
  PcrReader NextReader() const;

  QuoteRequest request_;
  Quote quote_;
  Step step_ = Step::kReadPcrs;
  PcrReader reader_;                   // of the bank behind those in quote_
  std::optional<uint32_t> transient_;  // the key, if it was made again
  int retries_ = 0;
  bool signed_ = false;
  std::optional<Error> error_;
};

}  // namespace vallum::vtpm
