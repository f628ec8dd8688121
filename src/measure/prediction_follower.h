// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/units.h"
#include "measure/prediction.h"

namespace vallum::measure {

// The first extend of a boot that is not what was predicted.
struct PredictionDifference {
  PcrIndex pcr;
  size_t event = 0;  // which extend of that PCR since power-on, from 1
  Bytes measured;    // empty: it was not made at all
  Bytes expected;    // empty: nothing more was predicted for this PCR
  std::string expected_what;
  // "extend 7 of PCR 4 is 9f86..., expected 60fc... (EFI/BOOT/grubx64.efi (by shim))"
  std::string Describe() const;
};

// What one extend is to a prediction.
enum class PredictionStep {
  kAsPredicted,
  kDiffers,
  kNotPredicted,  // nothing is predicted about it
};

// Compares a boot with its prediction while it is measured. A value that refers to the prediction,
// which outlives it. Not thread-safe.
class PredictionFollower {
 public:
  explicit PredictionFollower(const Prediction& prediction) : prediction_(&prediction) {}

  // Takes the next extend of the prediction's bank, in the order of the boot.
  PredictionStep Take(PcrIndex pcr, const Bytes& digest);
  // What was predicted ends here: the operating system took over, and what follows is its own.
  // Events that did not come are differences.
  void End();
  bool ended() const { return ended_; }
  // The first one of each PCR, in the order in which they were found.
  const std::vector<PredictionDifference>& differences() const { return differences_; }
  // The event that is predicted to come next in a PCR, or nullptr.
  const PredictedEvent* Next(PcrIndex pcr) const;

 private:
  const Prediction* prediction_;
  std::array<size_t, PcrIndex::kCount> taken_{};
  std::array<bool, PcrIndex::kCount> differs_{};
  std::vector<PredictionDifference> differences_;
  bool ended_ = false;
};

}  // namespace vallum::measure
