// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/result.h"
#include "controller/principal.h"
#include "vallum/v1/resources.pb.h"

namespace vallum::controller {

// Both directions of one serial console. Either end may close; bytes that wait are bounded. Made by
// ConsoleHub; thread-safe.
class ConsolePipe {
 public:
  // Bytes, or why it ended: kUnavailable (agent away, console closed).
  using ReadHandler = std::function<void(Result<Bytes>)>;
  virtual ~ConsolePipe() = default;

  // Sends bytes to the guest. Errors: kExhausted (too much waits: stop reading from the client
  // until WhenWritable calls), kUnavailable (closed).
  virtual Result<void> Write(ByteView data) = 0;
  // Calls back once, when less than half of the limit waits, or at the end. May call at once.
  virtual void WhenWritable(std::function<void()> handler) = 0;
  // Calls back once, with the next bytes from the guest. May call at once, on the caller's thread,
  // or later on another. One at a time.
  virtual void Read(ReadHandler handler) = 0;
  virtual void Close() = 0;
};

inline constexpr size_t kConsoleBufferLimit = size_t{256} * 1024;

// One-time grants that a WebSocket presents to get a console. Kept in memory: they live for ten
// minutes. Thread-safe.
class ConsoleGrants {
 public:
  static constexpr std::chrono::seconds kLifetime{600};
  static constexpr size_t kMaximum = 10'000;
  static constexpr size_t kMaximumEach = 16;  // for one principal

  explicit ConsoleGrants(const Clock& clock) : clock_(clock) {}

  struct Grant {
    std::string instance_name;
    std::string instance_uid = {};
    Principal principal = {};
  };
  // Makes a grant; reply.token is 32 random bytes, base64url; reply.url is "/v1/consoles/<token>".
  // Errors: kExhausted (kMaximum are waiting).
  Result<v1::ConsoleGrant> Issue(Grant grant);
  // Spends a grant. Errors: kDenied (unknown, used or expired).
  Result<Grant> Redeem(std::string_view token);

 private:
  struct Waiting {
    Grant grant;
    MonotonicTime deadline;
  };
  const Clock& clock_;
  std::mutex mutex_;
  std::map<std::string, Waiting, std::less<>> waiting_;  // by SHA-256 of the token
};

}  // namespace vallum::controller
