// SPDX-License-Identifier: Apache-2.0
#include "measure/prediction_follower.h"

#include <fmt/format.h>

namespace vallum::measure {

std::string PredictionDifference::Describe() const {
  const std::string where = fmt::format("extend {} of PCR {}", event, pcr.value());
  if (measured.empty()) {
    return fmt::format("{} is missing: expected {} ({})", where, ToHex(expected), expected_what);
  }
  if (expected.empty()) {
    return fmt::format("{} was not expected: {}", where, ToHex(measured));
  }
  return fmt::format("{} is {}, expected {} ({})", where, ToHex(measured), ToHex(expected),
                     expected_what);
}

const PredictedEvent* PredictionFollower::Next(PcrIndex pcr) const {
  const PcrPrediction* predicted = prediction_->Find(pcr);
  const size_t taken = taken_[pcr.value()];
  return predicted == nullptr || taken >= predicted->events.size() ? nullptr
                                                                   : &predicted->events[taken];
}

PredictionStep PredictionFollower::Take(PcrIndex pcr, const Bytes& digest) {
  const PcrPrediction* predicted = prediction_->Find(pcr);
  if (ended_ || predicted == nullptr) {
    return PredictionStep::kNotPredicted;
  }
  const PredictedEvent* next = Next(pcr);
  const size_t number = ++taken_[pcr.value()];
  if (next != nullptr && next->digest == digest) {
    return PredictionStep::kAsPredicted;
  }
  // Only of an exact prediction the end is known.
  if (next == nullptr && predicted->state != PcrKnowledge::kExact) {
    return PredictionStep::kNotPredicted;
  }
  if (!differs_[pcr.value()]) {
    differs_[pcr.value()] = true;
    differences_.push_back({.pcr = pcr,
                            .event = number,
                            .measured = digest,
                            .expected = next == nullptr ? Bytes() : next->digest,
                            .expected_what = next == nullptr ? "" : next->description});
  }
  return PredictionStep::kDiffers;
}

void PredictionFollower::End() {
  if (ended_) {
    return;
  }
  for (const PcrPrediction& predicted : prediction_->pcrs) {
    const PredictedEvent* next = Next(predicted.pcr);
    if (next != nullptr && !differs_[predicted.pcr.value()]) {
      differences_.push_back({.pcr = predicted.pcr,
                              .event = taken_[predicted.pcr.value()] + 1,
                              .measured = {},
                              .expected = next->digest,
                              .expected_what = next->description});
    }
  }
  ended_ = true;
}

}  // namespace vallum::measure
