// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "vm/process.h"

namespace vallum::vm {

using Json = nlohmann::json;

// Cuts a stream into lines, holding at most kMaxLine bytes of an unfinished one. Not thread-safe.
class LineSplitter {
 public:
  static constexpr size_t kMaxLine = size_t{8} * 1024 * 1024;  // query-qmp-schema is 0.2 MiB
  // Errors: kExhausted (a line is longer than kMaxLine); the splitter is then of no more use.
  Result<void> Feed(std::string_view data);
  // The next whole line without its end, if there is one.
  std::optional<std::string> Next();

 private:
  std::string pending_;
  size_t scanned_ = 0;  // no line end before here
  std::deque<std::string> lines_;
};

struct QmpGreeting {
  std::string version;  // "7.2.22"
};
struct QmpReply {
  std::optional<uint64_t> id;
  std::optional<std::string> error_class;
  std::string error_description;
  Json value;
};
struct QmpEvent {
  std::string name;
  Json data;
};
using QmpMessage = std::variant<QmpGreeting, QmpReply, QmpEvent>;

// Reads one line of QMP. QEMU may be in the guest's hands: everything in it is untrusted.
// Errors: kInvalidInput (not JSON, deeper than 32 levels, none of the three kinds). Pure.
Result<QmpMessage> ParseQmpMessage(std::string_view line);

// One connection to a QEMU monitor. Not thread-safe; blocks up to the limits given.
class QmpClient {
 public:
  // Connects; QEMU need not have started when its listening socket is there. Handshake() comes
  // next.
  static Result<std::unique_ptr<QmpClient>> Dial(const std::string& socket_path);

  // Reads the greeting and leaves capabilities negotiation.
  // Errors: kUnavailable (QEMU ended or did not answer in time).
  Result<void> Handshake(std::chrono::milliseconds limit);

  // Runs a command and returns what it returns.
  // Errors: kNotFound (QEMU has no such command or device), kInvalidInput (QEMU refused; its
  // words), kUnavailable (no answer in time, or QEMU is gone).
  Result<Json> Execute(std::string_view command, const Json& arguments,
                       std::chrono::milliseconds limit);

  // Reads what is there without waiting. Errors: kUnavailable (QEMU is gone), kInvalidInput.
  Result<void> Pump();
  // Events since the last call, oldest first; when more than 1,024 wait the oldest are dropped.
  std::vector<QmpEvent> TakeEvents();

  int fd() const { return fd_.get(); }
  const std::string& version() const { return version_; }

 private:
  explicit QmpClient(UniqueFd fd) : fd_(std::move(fd)) {}
  Result<void> Send(std::string_view line, MonotonicTime end);
  Result<void> ReadOnce();
  void Keep(QmpMessage message);
  Result<QmpMessage> NextMessage(MonotonicTime end);
  Result<QmpReply> WaitForReply(uint64_t id, MonotonicTime end);

  UniqueFd fd_;
  LineSplitter splitter_;
  std::deque<QmpEvent> events_;
  std::string version_;
  uint64_t next_id_ = 1;
};

}  // namespace vallum::vm
