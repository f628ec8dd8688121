// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/ids.h"
#include "controller/console_hub.h"
#include "controller/resource_store.h"

namespace vallum::controller {
namespace {

constexpr size_t kTokenBytes = 32;

// Looked up by digest, so that the time of a lookup says nothing about a token.
std::string DigestOf(std::string_view token) {
  const Sha256Digest digest = Sha256(AsBytes(token));
  return ToHex(digest);
}

}  // namespace

Result<v1::ConsoleGrant> ConsoleGrants::Issue(Grant grant) {
  const std::string token = ToBase64Url(RandomBytes(kTokenBytes));
  const MonotonicTime now = clock_.Monotonic();
  const std::lock_guard lock(mutex_);
  std::erase_if(waiting_, [&](const auto& item) { return item.second.deadline <= now; });
  const auto mine = std::count_if(waiting_.begin(), waiting_.end(), [&](const auto& item) {
    return item.second.grant.principal.name == grant.principal.name;
  });
  if (waiting_.size() >= kMaximum || static_cast<size_t>(mine) >= kMaximumEach) {
    return Exhausted("too many console grants are waiting to be used")
        .WithFix("use those that were given, or wait until they expire");
  }
  waiting_[DigestOf(token)] = {.grant = std::move(grant), .deadline = now + kLifetime};
  v1::ConsoleGrant reply;
  reply.set_token(token);
  reply.set_url("/v1/consoles/" + token);
  reply.set_protocol("serial");
  *reply.mutable_expire_time() = ToTimestamp(clock_.Now() + kLifetime);
  return reply;
}

Result<ConsoleGrants::Grant> ConsoleGrants::Redeem(std::string_view token) {
  const std::lock_guard lock(mutex_);
  const auto found = waiting_.find(DigestOf(token));
  if (found == waiting_.end()) {
    return Denied("this console token is unknown, used or expired").WithFix("ask for a new one");
  }
  Waiting waiting = std::move(found->second);
  waiting_.erase(found);
  if (waiting.deadline <= clock_.Monotonic()) {
    return Denied("this console token is unknown, used or expired").WithFix("ask for a new one");
  }
  return std::move(waiting.grant);
}

}  // namespace vallum::controller
