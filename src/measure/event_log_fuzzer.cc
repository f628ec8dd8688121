// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <numeric>
#include <span>
#include <vector>

#include "measure/device_path.h"
#include "measure/event_content.h"
#include "measure/event_data.h"
#include "measure/event_describe.h"
#include "measure/event_log.h"
#include "measure/event_log_replay.h"
#include "measure/event_log_secure_boot.h"

using namespace vallum;  // NOLINT: a fuzzer

namespace {

void Expect(bool holds) {
  if (!holds) {
    std::abort();
  }
}

void Judge(const measure::EventLog& log, HashAlgorithm bank) {
  const auto replay = measure::ReplayEventLog(log, bank);
  if (!replay.has_value()) {
    return;
  }
  // A log must agree with its own replay.
  const uint32_t index = log.kind() == measure::EventLogKind::kTpm ? 7 : 1;
  const measure::KnownRegister known{.index = index, .value = replay->values[index]};
  const auto compared = measure::CompareEventLog(log, bank, std::span(&known, 1));
  Expect(compared.has_value() && compared->Agrees());
  const measure::KnownRegister other{.index = 0, .value = Bytes(DigestSize(bank), std::byte{9})};
  Expect(!measure::CompareEventLog(log, bank, std::span(&other, 1))->Agrees());
  const auto policy = measure::ReadSecureBootPolicy(log, bank);
  Expect(policy.problems.size() <= measure::kMaxPolicyProblems);
}

// Events together must be judged as each alone.
void CheckTogether(const measure::EventLog& log, HashAlgorithm bank) {
  measure::BankHasher hasher(bank);
  std::vector<size_t> numbers(log.events().size());
  std::iota(numbers.begin(), numbers.end(), size_t{0});
  const auto checks = measure::CheckContent(log, numbers, hasher);
  for (const size_t number : numbers) {
    Expect(checks[number] == measure::CheckContent(log, log.events()[number], hasher));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteView input = std::as_bytes(std::span(data, size));
  for (const auto kind : {measure::EventLogKind::kTpm, measure::EventLogKind::kConfidential}) {
    const auto log = measure::EventLog::Parse(input, kind);
    if (!log.has_value()) {
      continue;
    }
    Expect(log->size() + log->tail_size() == input.size());
    for (const measure::LoggedEvent& event : log->events()) {
      Expect(measure::DescribeEvent(*log, event).size() <= 4 * measure::kMaxEventDescription);
    }
    for (const measure::LogBank& bank : log->banks()) {
      if (bank.hash.has_value()) {
        Judge(*log, *bank.hash);
        CheckTogether(*log, *bank.hash);
      }
    }
    for (const auto& mismatch : measure::CheckContents(*log).mismatches) {
      static_cast<void>(measure::DescribeMismatch(*log, mismatch));
    }
  }
  static_cast<void>(measure::DevicePathToText(input));
  static_cast<void>(measure::ParseCcelTable(input));
  return 0;
}
