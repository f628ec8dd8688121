// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>

#include "attest/serialized_pcrs.h"
#include "measure/pcr_selection.h"

using namespace vallum;  // NOLINT: a fuzzer

namespace {

void CheckSizes(const attest::PcrBanks& pcrs) {
  for (const auto& [bank, values] : pcrs) {
    for (const auto& [pcr, value] : values) {
      if (value.size() != DigestSize(bank)) std::abort();
    }
  }
}

// A line that says which PCRs, and their values behind it.
void ReadValues(std::string_view text) {
  const size_t end = std::min(text.find('\n'), text.size());
  const auto selections = measure::ParsePcrSelections(text.substr(0, end));
  if (!selections.has_value()) return;
  const auto again = measure::ParsePcrSelections(measure::FormatPcrSelections(*selections));
  if (!again.has_value() || *again != *selections) std::abort();
  const auto values =
      attest::ParsePcrValues(AsBytes(text.substr(std::min(end + 1, text.size()))), *selections);
  if (values.has_value()) CheckSizes(*values);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteView input = std::as_bytes(std::span(data, size));
  ReadValues(AsText(input));
  const auto parsed = attest::ParseSerializedPcrs(input);
  if (parsed.has_value()) CheckSizes(*parsed);
  return 0;
}
