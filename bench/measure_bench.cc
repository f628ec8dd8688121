// SPDX-License-Identifier: Apache-2.0
// Parsing and replaying an event log beside the hashing that a replay cannot do without.
//   measure_bench [log]   default: the 153 events of $VALLUM_VECTORS/quotes/hpe/uefi_log.bin

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/digest.h"
#include "input.h"
#include "measure/bank_hasher.h"
#include "measure/event_content.h"
#include "measure/event_log.h"
#include "measure/event_log_replay.h"
#include "measure/event_log_secure_boot.h"
#include "median.h"

namespace {

namespace measure = vallum::measure;
using measure::EventLog;
using vallum::Bytes;
using vallum::bench::InputPath;
using vallum::bench::ReadFile;

constexpr int kRounds = 400;
constexpr double kTargetMs = 0.10;
constexpr auto kBank = vallum::HashAlgorithm::kSha256;

template <typename Work>
double MedianMs(Work work) {
  return vallum::bench::MedianMs(kRounds, work);
}

EventLog Parse(const Bytes& bytes) {
  auto log = EventLog::Parse(bytes, measure::EventLogKind::kTpm);
  CHECK(log.has_value());
  return *std::move(log);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string path = InputPath(argc, argv, "quotes/hpe/uefi_log.bin");
  const Bytes bytes = ReadFile(path);
  if (bytes.empty()) {
    std::printf("measure: skipped, VALLUM_VECTORS is absent and no log was named\n");
    return 0;
  }
  const EventLog log = Parse(bytes);
  const auto extends = static_cast<size_t>(std::ranges::count_if(
      log.events(), [&](const measure::LoggedEvent& event) { return log.Extends(event); }));

  const double hashing = MedianMs([&] {
    measure::BankHasher hasher(kBank, measure::HashBackend::kOpenSsl);
    Bytes value(vallum::DigestSize(kBank));
    const Bytes digest(value.size());
    for (size_t i = 0; i < extends; ++i) hasher.Extend(value, digest);
  });
  const double parse = MedianMs([&] { CHECK(!Parse(bytes).events().empty()); });
  const double replay =
      MedianMs([&] { CHECK(measure::ReplayEventLog(Parse(bytes), kBank).has_value()); });
  const double contents = MedianMs([&] { CHECK(measure::CheckContents(log).checked > 0); });
  const double policy = MedianMs(
      [&] { static_cast<void>(measure::ReadSecureBootPolicy(log, kBank).problems.size()); });

  std::printf("%zu events, %zu extends, %zu bytes, median of %d\n", log.events().size(), extends,
              bytes.size(), kRounds);
  std::printf("hashing by OpenSSL (reference) %.4f ms\n", hashing);
  std::printf("parse                         %.4f ms\n", parse);
  std::printf("parse and replay, one bank    %.4f ms  (%.2f x hashing; target %.2f ms: %s)\n",
              replay, replay / hashing, kTargetMs, replay <= kTargetMs ? "met" : "MISSED");
  std::printf("judge contents, all banks     %.4f ms\n", contents);
  std::printf("Secure Boot policy            %.4f ms\n", policy);
  return 0;
}
