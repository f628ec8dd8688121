// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/units.h"
#include "measure/extend_log.h"

namespace vallum::measure {

// One extend that a boot will make.
struct PredictedEvent {
  PcrIndex pcr;
  Bytes digest;             // of the prediction's bank
  std::string description;  // what is hashed, in words
};

enum class PcrKnowledge {
  kExact,    // all events, so that the value is known
  kPartial,  // `events` come first, in this order; what follows is not known
  kUnknown,  // not even the first event is known
};
std::string_view PcrKnowledgeName(PcrKnowledge state);  // "exact", "partial", "unknown"

struct PcrPrediction {
  PcrIndex pcr;
  PcrKnowledge state = PcrKnowledge::kExact;
  std::string reason;  // what cannot be known and why; empty when exact
  std::vector<PredictedEvent> events;
  Bytes value;  // the PCR after these events when exact; empty otherwise
};

// What a boot will extend, from power-on until the operating system's kernel runs. A value.
struct Prediction {
  HashAlgorithm bank = HashAlgorithm::kSha256;
  std::vector<PcrPrediction> pcrs;  // by number; PCRs that are not listed are not predicted

  const PcrPrediction* Find(PcrIndex pcr) const;  // nullptr when not predicted
};

// Collects a prediction in the order of the boot. Not thread-safe.
class PredictionBuilder {
 public:
  // pcrs: those that will be predicted; each begins exact and without events.
  PredictionBuilder(HashAlgorithm bank, std::span<const PcrIndex> pcrs);

  HashAlgorithm bank() const { return prediction_.bank; }
  // Adds an event, unless the PCR was stopped: only what certainly comes first is kept.
  void Extend(PcrIndex pcr, Bytes digest, std::string description);
  // Nothing is known of this PCR from here on. The first reason stays.
  void Stop(PcrIndex pcr, std::string reason);
  // Replays the exact ones. The builder is used up.
  Prediction Finish() &&;

 private:
  PcrPrediction& Get(PcrIndex pcr);
  Prediction prediction_;
};

// What is left of a prediction of which only the firmware's own part is known to hold, because it
// may start another program: of PCR 0, 2, 3 and 6 everything, of the others what comes up to the
// separator, with the reason. Boot options are measured into PCR 1.
Prediction KeepFirmwarePart(Prediction prediction, const std::string& reason);

enum class PcrAgreement {
  kEqual,      // an exact prediction, and exactly its events were measured
  kAgrees,     // a partial one whose events were measured first
  kDiffers,    // an event differs, is missing or is too many
  kNotJudged,  // nothing was predicted
};
std::string_view PcrAgreementName(PcrAgreement agreement);  // "equal", "agrees", ...

struct PcrComparison {
  PcrIndex pcr;
  PcrAgreement agreement = PcrAgreement::kNotJudged;
  std::string reason;  // of kDiffers: the first event that differs, as expected and as found
};

// Compares each predicted PCR with what was measured.
//   measured: extends of the prediction's bank since the TPM's last reset, in order; other PCRs
//     and other banks are left out.
std::vector<PcrComparison> ComparePrediction(const Prediction& prediction,
                                             std::span<const PcrExtend> measured);

}  // namespace vallum::measure
