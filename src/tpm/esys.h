// SPDX-License-Identifier: Apache-2.0
// The library's context, its objects and its errors as ours; for the .cc files of this component.
#pragma once

#include <tss2/tss2_esys.h>

#include <cstdlib>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/result.h"
#include "tpm/transport.h"

namespace vallum::tpm {

struct EsysFree {
  void operator()(void* memory) const { Esys_Free(memory); }
};
template <typename T>
using EsysPtr = std::unique_ptr<T, EsysFree>;

// One TPM behind the library. Used by one thread; the first time out, or a stop, makes it unusable.
class EsysContext {
 public:
  // Errors: those of Transport::Open; kUnavailable.
  static Result<std::unique_ptr<EsysContext>> Open(const TpmAddress& address,
                                                   std::chrono::seconds limit,
                                                   const std::stop_token& stop);
  ~EsysContext();
  EsysContext(const EsysContext&) = delete;
  EsysContext& operator=(const EsysContext&) = delete;

  // Calls the library; again, with growing pauses, while the TPM says that it is busy.
  //   doing: for people: "signing PCR values".
  // Errors: kUnavailable (no answer in time, busy, in lockout, out of room); kNotFound (no such
  // handle); kDenied (a password is set, or a policy not met); kCorrupt (what it was given does not
  // belong to it); kInternal (anything else).
  Result<void> Call(std::string_view doing, const std::function<TSS2_RC(ESYS_CONTEXT*)>& call);
  ESYS_CONTEXT* get() const { return esys_; }

 private:
  EsysContext() = default;
  Error ErrorOf(TSS2_RC rc, std::string_view doing) const;

  std::stop_token stop_;
  std::unique_ptr<Transport> transport_;
  ESYS_CONTEXT* esys_ = nullptr;
};

// An object inside the TPM, or a reference to one that stays there. Removes the first at the end.
class EsysHandle {
 public:
  enum class Kind { kTransient, kReference };
  EsysHandle() = default;
  EsysHandle(EsysContext& context, ESYS_TR handle, Kind kind)
      : context_(&context), handle_(handle), kind_(kind) {}
  ~EsysHandle() { Release(); }
  EsysHandle(EsysHandle&& other) noexcept { *this = std::move(other); }
  EsysHandle& operator=(EsysHandle&& other) noexcept {
    if (this != &other) {
      Release();
      context_ = other.context_;
      handle_ = std::exchange(other.handle_, ESYS_TR_NONE);
      kind_ = other.kind_;
    }
    return *this;
  }
  EsysHandle(const EsysHandle&) = delete;
  EsysHandle& operator=(const EsysHandle&) = delete;
  ESYS_TR get() const { return handle_; }

 private:
  void Release();
  EsysContext* context_ = nullptr;
  ESYS_TR handle_ = ESYS_TR_NONE;
  Kind kind_ = Kind::kReference;
};

}  // namespace vallum::tpm
