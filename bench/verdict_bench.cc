// SPDX-License-Identifier: Apache-2.0
// The controller's half of a verdict: a boot of 250 extends compared with its baseline, once the
// same and once with a change in every tenth, beside the SHA-256 of the same digests.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/digest.h"
#include "controller/boot_judgement.h"
#include "controller/known_artefacts.h"
#include "controller/view.h"
#include "median.h"
#include "store/memory_store.h"

namespace {

namespace controller = vallum::controller;
namespace v1 = vallum::v1;

constexpr int kRounds = 200;
constexpr int kEvents = 250;
constexpr double kTargetMs = 2.0;

// Most of a real one's are GRUB's commands and files.
v1::BootEvidence MakeEvidence(const std::string& changed) {
  v1::BootEvidence evidence;
  v1::PredictedPcr& prediction = *evidence.add_prediction();
  prediction.set_pcr(8);
  prediction.set_knowledge("exact");
  for (int i = 0; i < kEvents; ++i) {
    v1::MeasuredEvent& event = *evidence.add_events();
    event.set_pcr(i % 10 == 0 ? 4 : 8 + i % 2);
    const std::string content = std::to_string(i) + (i % 10 == 5 ? changed : "");
    event.set_digest(std::string(
        vallum::AsText(vallum::Digest(vallum::HashAlgorithm::kSha256, vallum::AsBytes(content)))));
    event.set_what("command: linux /vmlinuz-" + content);
    *prediction.add_events() = event;
  }
  evidence.set_left_firmware(true);
  return evidence;
}

template <typename Work>
double MedianMs(Work work) {
  return vallum::bench::MedianMs(kRounds, work);
}

}  // namespace

int main() {
  const vallum::SystemClock clock;
  vallum::store::MemoryStore store(clock);
  const auto view = controller::View::Create(store);
  CHECK(view.has_value());
  const controller::KnownArtefacts artefacts(**view);
  const v1::BootEvidence same = MakeEvidence("");
  const v1::BootEvidence other = MakeEvidence("changed");
  v1::BaselineSpec baseline;
  *baseline.mutable_events() = same.events();
  const v1::KeySetContent keys;
  const std::string tenant;
  size_t differences = 0;
  const auto judge = [&](const v1::BootEvidence& evidence) {
    return MedianMs([&] {
      differences = controller::JudgeEvidence({.evidence = evidence,
                                               .baseline = baseline,
                                               .platform = {},
                                               .secure_boot = true,
                                               .accept_signed_updates = true,
                                               .keys = keys,
                                               .artefacts = artefacts,
                                               .tenant = tenant,
                                               .extent = vallum::measure::BootExtent::kWhole})
                        .differences.size();
    });
  };
  const double reference = MedianMs([&] {
    for (const v1::MeasuredEvent& event : same.events()) {
      vallum::Sha256(vallum::AsBytes(event.digest()));
    }
  });
  const double equal = judge(same);
  CHECK(differences == 0);
  const double differing = judge(other);
  CHECK(differences == kEvents / 10);
  std::printf(
      "verdict by baseline, %d extends: the same %.3f ms, %zu of them changed %.3f ms (target "
      "%.1f), "
      "SHA-256 of the digests %.3f ms\n",
      kEvents, equal, differences, differing, kTargetMs, reference);
  return 0;
}
