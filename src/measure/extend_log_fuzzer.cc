// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "measure/extend_log.h"

using namespace vallum;  // NOLINT: a fuzzer

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteView input = std::as_bytes(std::span(data, size));
  // The check sum would keep every mutation out: bodies are tried with one that fits.
  const std::string body(AsText(input.first(std::min<size_t>(size, 400))));
  const std::string line = ToHex(ByteView(Sha256(AsBytes(body))).first(4)) + " " + body;
  if (const auto record = measure::ParseRecord(line); record.has_value()) {
    const auto again = measure::ParseRecord(measure::FormatRecord(*record));
    if (!again.has_value() || *again != *record) {
      std::abort();
    }
  }
  auto log = measure::ParseExtendLog(input);
  if (log.has_value()) {
    static_cast<void>(log->Replay(HashAlgorithm::kSha256));
    log->DropOldBoots();
    static_cast<void>(log->Replay(HashAlgorithm::kSha1));
  }
  return 0;
}
