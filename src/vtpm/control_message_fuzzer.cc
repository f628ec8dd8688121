// SPDX-License-Identifier: Apache-2.0
// QEMU's control channel as a stream of requests, each answered by the bytes behind it; and the
// same bytes as lines of the agent's control socket, in both directions.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "vtpm/control_message.h"
#include "vtpm/control_protocol.h"
#include "vtpm/tpm_tracker.h"

using namespace vallum;  // NOLINT: a fuzzer

namespace {

void FuzzStream(ByteView input) {
  vtpm::TpmTracker tracker;
  while (!input.empty()) {
    const auto size = vtpm::ControlRequestSize(input);
    if (!size.has_value() || !size->has_value() || **size > input.size()) {
      return;
    }
    if (**size == 0) {
      std::abort();  // the relay would never get on
    }
    const ByteView request = input.first(**size);
    input = input.subspan(**size);
    const auto command = vtpm::ControlCommandOf(request);
    if (command.has_value()) {
      const auto answer = vtpm::ControlResponseSize(*command, input);
      const size_t length = answer.has_value() ? answer->value_or(0) : 0;
      tracker.OnControl(request, input.first(std::min(length, input.size())));
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteView input = std::as_bytes(std::span(data, size));
  FuzzStream(input);
  const auto request = vtpm::ParseRequest(AsText(input));
  if (request.has_value() && !vtpm::ParseRequest(vtpm::FormatRequest(*request)).has_value()) {
    std::abort();
  }
  static_cast<void>(vtpm::ParseStatusReply(AsText(input)));
  static_cast<void>(vtpm::ParseRecordsReply(AsText(input)));
  static_cast<void>(vtpm::ParsePcrsReply(AsText(input)));
  return 0;
}
