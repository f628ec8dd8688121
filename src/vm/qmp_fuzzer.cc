// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>

#include "vm/qmp_client.h"

// A hostile QEMU: any bytes, arriving in two pieces cut where the first byte says.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) {
    return 0;
  }
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t cut = data[0] < text.size() ? data[0] : text.size();
  vallum::vm::LineSplitter splitter;
  if (!splitter.Feed(text.substr(0, cut)).has_value() ||
      !splitter.Feed(text.substr(cut)).has_value()) {
    return 0;
  }
  while (const auto line = splitter.Next()) {
    const auto message = vallum::vm::ParseQmpMessage(*line);
    static_cast<void>(message.has_value());
  }
  return 0;
}
