// SPDX-License-Identifier: Apache-2.0
#include "tpm/esys.h"

#include <tss2/tss2_rc.h>

#include <algorithm>
#include <chrono>
#include <thread>

namespace vallum::tpm {
namespace {

using std::chrono::milliseconds;

constexpr int kBusyTries = 16;  // about ten seconds in all
constexpr milliseconds kFirstPause{20};
constexpr milliseconds kLongestPause{1000};

// TPM 2.0 Library, part 2, "TPM_RC": a code of format one says beside the error which parameter,
// handle or session it is about; without that it compares.
TPM2_RC BaseCode(TSS2_RC rc) {
  const TPM2_RC code = rc & 0xFFFU;
  return (code & TPM2_RC_FMT1) != 0 ? (code & 0xBFU) : code;
}

bool IsFromTpm(TSS2_RC rc) {
  const TSS2_RC layer = rc & TSS2_RC_LAYER_MASK;
  return layer == TSS2_TPM_RC_LAYER || layer == TSS2_RESMGR_TPM_RC_LAYER;
}

bool IsBusy(TSS2_RC rc) {
  if (!IsFromTpm(rc)) {
    return false;
  }
  const TPM2_RC code = BaseCode(rc);
  return code == TPM2_RC_RETRY || code == TPM2_RC_YIELDED || code == TPM2_RC_TESTING ||
         code == TPM2_RC_NV_RATE;
}

ErrorCode CodeOf(TSS2_RC rc) {
  if (!IsFromTpm(rc)) {
    return ErrorCode::kUnavailable;
  }
  switch (BaseCode(rc)) {
    case TPM2_RC_HANDLE:
      return ErrorCode::kNotFound;
    case TPM2_RC_AUTH_FAIL:
    case TPM2_RC_BAD_AUTH:
    case TPM2_RC_POLICY_FAIL:
    case TPM2_RC_AUTH_UNAVAILABLE:
    case TPM2_RC_HIERARCHY:
      return ErrorCode::kDenied;
    case TPM2_RC_INTEGRITY:
    case TPM2_RC_BINDING:
      return ErrorCode::kCorrupt;
    case TPM2_RC_LOCKOUT:
    case TPM2_RC_RETRY:
    case TPM2_RC_YIELDED:
    case TPM2_RC_TESTING:
    case TPM2_RC_NV_RATE:
    case TPM2_RC_OBJECT_MEMORY:
    case TPM2_RC_SESSION_MEMORY:
    case TPM2_RC_MEMORY:
    case TPM2_RC_OBJECT_HANDLES:
    case TPM2_RC_SESSION_HANDLES:
    case TPM2_RC_INITIALIZE:
    case TPM2_RC_REFERENCE_H0:
    case TPM2_RC_FAILURE:
      return ErrorCode::kUnavailable;
    default:  // some hundred others
      return ErrorCode::kInternal;
  }
}

}  // namespace

Result<std::unique_ptr<EsysContext>> EsysContext::Open(const TpmAddress& address,
                                                       std::chrono::seconds limit,
                                                       const std::stop_token& stop) {
  std::unique_ptr<EsysContext> context(new EsysContext);
  context->stop_ = stop;
  ASSIGN_OR_RETURN(context->transport_, Transport::Open(address, limit, stop));
  if (const TSS2_RC rc = Esys_Initialize(&context->esys_, context->transport_->tcti(), nullptr);
      rc != TSS2_RC_SUCCESS) {
    return Unavailable(std::string("the TPM library cannot be started: ") + Tss2_RC_Decode(rc));
  }
  return context;
}

EsysContext::~EsysContext() { Esys_Finalize(&esys_); }

Error EsysContext::ErrorOf(TSS2_RC rc, std::string_view doing) const {
  switch (transport_->state()) {
    case Transport::State::kTimedOut:
      return Unavailable("the TPM did not answer within " +
                         std::to_string(transport_->limit().count()) + " seconds")
          .Context(std::string(doing))
          .WithFix("if it stays so, restart the host: the TPM hangs");
    case Transport::State::kStopped:
      return Unavailable("the agent is stopping").Context(std::string(doing));
    case Transport::State::kBroken:
      return Unavailable(std::string("the connection to the TPM broke: ") + Tss2_RC_Decode(rc))
          .Context(std::string(doing));
    case Transport::State::kOpen:
      break;
  }
  if (IsFromTpm(rc) && BaseCode(rc) == TPM2_RC_LOCKOUT) {
    return Unavailable("the TPM is in lockout after wrong passwords")
        .Context(std::string(doing))
        .WithFix("wait until it ends, or end it with `tpm2_dictionarylockout --clear-lockout`");
  }
  return Error(CodeOf(rc), IsBusy(rc) ? "the TPM is busy with something else"
                                      : std::string("the TPM refused: ") + Tss2_RC_Decode(rc))
      .Context(std::string(doing));
}

Result<void> EsysContext::Call(std::string_view doing,
                               const std::function<TSS2_RC(ESYS_CONTEXT*)>& call) {
  milliseconds pause = kFirstPause;
  for (int tries = 1;; ++tries) {
    const TSS2_RC rc = call(esys_);
    if (rc == TSS2_RC_SUCCESS) {
      return Ok();
    }
    if (!IsBusy(rc) || tries == kBusyTries || stop_.stop_requested()) {
      return ErrorOf(rc, doing);
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(2 * pause, kLongestPause);
  }
}

void EsysHandle::Release() {
  if (handle_ == ESYS_TR_NONE) {
    return;
  }
  // What cannot be removed goes with the connection.
  if (kind_ == Kind::kTransient) {
    static_cast<void>(Esys_FlushContext(context_->get(), handle_));
  } else {
    static_cast<void>(Esys_TR_Close(context_->get(), &handle_));
  }
  handle_ = ESYS_TR_NONE;
}

}  // namespace vallum::tpm
