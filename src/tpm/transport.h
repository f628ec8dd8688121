// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <tss2/tss2_tcti.h>

#include <chrono>
#include <memory>
#include <stop_token>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "tpm/address.h"

namespace vallum::tpm {

// A connection to a TPM for tpm2-tss, whose own ones wait for ever: here each answer has a time
// limit, and waiting ends when the token says stop. The kernel's device and swtpm's data socket
// both take a command and give its response. Owns the descriptor. Used by one thread.
class Transport {
 public:
  // Errors: kNotFound, kDenied, kUnavailable, as the system says.
  static Result<std::unique_ptr<Transport>> Open(const TpmAddress& address,
                                                 std::chrono::seconds limit, std::stop_token stop);
  ~Transport();
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  // For Esys_Initialize; lives as long as this.
  TSS2_TCTI_CONTEXT* tcti();

  // Why waiting for an answer ended without one; kOpen: it did not.
  enum class State { kOpen, kTimedOut, kStopped, kBroken };
  State state() const { return state_; }
  std::chrono::seconds limit() const { return limit_; }

 private:
  // What the library sees: its own structure first, as its C interface wants it.
  struct Context;

  Transport(TpmAddress address, std::chrono::seconds limit, std::stop_token stop);
  // swtpm serves one connection at a time, so that a socket is held for one command only.
  TSS2_RC Connect();
  void Disconnect();
  TSS2_RC Transmit(ByteView command);
  TSS2_RC Receive(size_t* size, uint8_t* response);
  // Waits until the descriptor is ready for the events.
  TSS2_RC Await(short events, std::chrono::steady_clock::time_point deadline);
  TSS2_RC Break();

  const TpmAddress address_;
  int fd_ = -1;
  const std::chrono::seconds limit_;
  const std::stop_token stop_;
  std::unique_ptr<Context> context_;
  State state_ = State::kOpen;
};

}  // namespace vallum::tpm
