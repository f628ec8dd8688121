// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "attest/pcrlock.h"
#include "base/bytes.h"

using namespace vallum;  // NOLINT: a fuzzer

// What a file records is matched by what it records.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text = AsText(std::as_bytes(std::span(data, size)));
  const auto records = attest::ParsePcrlock(text);
  if (!records.has_value() || records->empty()) return 0;
  const auto components = std::vector<attest::ReferenceComponent>{
      {.name = "a", .variants = {{.name = "", .records = *records}}}};
  const uint32_t pcr = records->front().pcr;
  const HashAlgorithm bank = records->front().digests.front().bank;
  std::vector<ByteView> digests;
  bool all = true;
  for (const attest::ReferenceRecord& record : *records) {
    if (record.pcr != pcr) continue;
    const size_t before = digests.size();
    for (const attest::BankDigest& each : record.digests) {
      if (each.bank == bank) digests.push_back(each.digest);
    }
    all = all && digests.size() == before + 1;
  }
  if (attest::MatchReference(components, pcr, bank, digests).complete != all) std::abort();
  return 0;
}
