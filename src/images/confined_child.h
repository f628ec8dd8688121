// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace vallum::images {

// The descriptors of vallum-inspect beside standard output. Those that a command does not use are
// /dev/null.
inline constexpr int kImageDescriptor = 3;
inline constexpr int kRequestDescriptor = 4;   // a document for the child; empty: none
inline constexpr int kMessagesDescriptor = 5;  // what it says beside its standard output
inline constexpr int kBaseDescriptor = 6;      // the disk that the image was laid over

inline constexpr size_t kMaxRequestBytes = size_t{16} << 20U;

// One start of vallum-inspect.
struct ConfinedCommand {
  std::string program;                 // absolute path
  std::vector<std::string> arguments;  // after the program's name
  std::string_view work;               // "inspection", "conversion": for messages
  int image = -1;                      // readable, seekable; stays the caller's
  std::string_view request;            // at most kMaxRequestBytes
  std::chrono::milliseconds timeout{};
  int base = -1;  // readable, seekable; stays the caller's; -1: none
};

// Takes the next bytes that a child wrote. An error ends the child, and is the outcome.
using TakeBytes = std::function<Result<void>(ByteView)>;

// Starts the program, hands on what it writes while it writes it, and waits for its end. The child
// has the descriptors above and no environment; confining itself is its own first deed. When this
// returns, the child is gone and no descriptor is left.
//   output: takes its standard output.
//   messages: takes what it writes to kMessagesDescriptor, if it is given that.
//   command.timeout: for the child alone; the time that `output` takes does not count.
// Errors: kInvalidInput (it crashed, was killed, failed or took too long: the image is refused),
// kNotFound (it cannot be started), kExhausted (the request is too large), kInternal, those of
// output and messages.
Result<void> RunConfined(const ConfinedCommand& command, const TakeBytes& output,
                         const TakeBytes& messages = {});

}  // namespace vallum::images
