// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "controller/known_artefacts.h"
#include "measure/baseline.h"
#include "vallum/v1/resources.pb.h"

namespace vallum::controller {

// Of one boot; what is kept and compared is bounded by these.
inline constexpr int kMaxBootEvents = 4096;
inline constexpr size_t kMaxEvidenceBytes = size_t{768} << 10U;
inline constexpr int kMaxBaselineEvents = 2048;

// Evidence within its limits: extends of PCR 0 to 9 and 11 to 14 with digests of 32 bytes. What is
// too large loses its content and says so in `gaps`. Pure.
v1::BootEvidence Bounded(v1::BootEvidence evidence);
// Whether Bounded() has taken its content. Pure.
bool IsEmptied(const v1::BootEvidence& evidence);

// The extends that are the boot's own, each with words from the evidence or its prediction, without
// times. Pure.
std::vector<v1::MeasuredEvent> OwnEvents(const v1::BootEvidence& evidence);
// The record goes as far as the operating system. Pure.
bool IsComplete(const v1::BootEvidence& evidence);

struct JudgementInput {
  const v1::BootEvidence& evidence;
  const v1::BaselineSpec& baseline;
  std::string platform;             // where the boot ran
  bool secure_boot;                 // seen on: firmware has verified what it started
  bool accept_signed_updates;       // of the pool; means nothing without Secure Boot
  const v1::KeySetContent& keys;    // that decide whose signer is accepted
  const KnownArtefacts& artefacts;  // for words
  const std::string& tenant;        // of the instance: whose artefacts may be named
  measure::BootExtent extent;
};
// Compares a boot with a baseline. Thread-safe.
measure::BaselineJudgement JudgeEvidence(const JudgementInput& input);

// PCRs of the platform that this boot measured and that neither the prediction nor the baseline
// says anything exact of. Pure.
std::vector<int> UncomparedPcrs(const JudgementInput& input);
// The baseline with what this boot measured of the platform, all of it, instead of its own. Pure.
v1::BaselineSpec WithPlatformOf(const v1::BootEvidence& evidence, const v1::BaselineSpec& baseline);

// In the API's form.
v1::BootDifference ToProto(const measure::BaselineDifference& difference);

}  // namespace vallum::controller
