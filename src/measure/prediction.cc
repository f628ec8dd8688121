// SPDX-License-Identifier: Apache-2.0
#include "measure/prediction.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/check.h"
#include "measure/event_digest.h"
#include "measure/pcr.h"

namespace vallum::measure {
namespace {

PcrComparison Compare(const PcrPrediction& predicted, std::span<const Bytes> measured) {
  PcrComparison result{predicted.pcr, PcrAgreement::kNotJudged, {}};
  if (predicted.state == PcrKnowledge::kUnknown) {
    result.reason = predicted.reason;
    return result;
  }
  result.agreement = PcrAgreement::kDiffers;
  for (size_t i = 0; i < predicted.events.size(); ++i) {
    const PredictedEvent& event = predicted.events[i];
    if (i == measured.size()) {
      result.reason = fmt::format("extend {} is missing: {}", i + 1, event.description);
      return result;
    }
    if (event.digest != measured[i]) {
      result.reason = fmt::format("extend {}: expected {} ({}), found {}", i + 1, event.description,
                                  ToHex(event.digest), ToHex(measured[i]));
      return result;
    }
  }
  if (predicted.state == PcrKnowledge::kPartial) {
    result.agreement = PcrAgreement::kAgrees;
    result.reason = predicted.reason;
    return result;
  }
  if (measured.size() > predicted.events.size()) {
    result.reason = fmt::format("extend {} was not expected: {}", predicted.events.size() + 1,
                                ToHex(measured[predicted.events.size()]));
    return result;
  }
  result.agreement = PcrAgreement::kEqual;
  return result;
}

}  // namespace

std::string_view PcrKnowledgeName(PcrKnowledge state) {
  switch (state) {
    case PcrKnowledge::kExact:
      return "exact";
    case PcrKnowledge::kPartial:
      return "partial";
    case PcrKnowledge::kUnknown:
      return "unknown";
  }
  return "";
}

Prediction KeepFirmwarePart(Prediction prediction, const std::string& reason) {
  constexpr PcrIndex kOwn[] = {PcrIndex::Of<0>(), PcrIndex::Of<2>(), PcrIndex::Of<3>(),
                               PcrIndex::Of<6>()};
  const Bytes separator = SeparatorDigest(prediction.bank);
  for (PcrPrediction& pcr : prediction.pcrs) {
    if (std::ranges::find(kOwn, pcr.pcr) != std::end(kOwn)) {
      continue;
    }
    const auto found = std::ranges::find(pcr.events, separator, &PredictedEvent::digest);
    const bool known = found != pcr.events.end() && pcr.pcr != PcrIndex::Of<1>();
    pcr.events.erase(known ? found + 1 : pcr.events.begin(), pcr.events.end());
    pcr.state = known ? PcrKnowledge::kPartial : PcrKnowledge::kUnknown;
    pcr.reason = reason;
    pcr.value.clear();
  }
  return prediction;
}

std::string_view PcrAgreementName(PcrAgreement agreement) {
  switch (agreement) {
    case PcrAgreement::kEqual:
      return "equal";
    case PcrAgreement::kAgrees:
      return "agrees";
    case PcrAgreement::kDiffers:
      return "differs";
    case PcrAgreement::kNotJudged:
      return "not judged";
  }
  return "";
}

const PcrPrediction* Prediction::Find(PcrIndex pcr) const {
  const auto found = std::find_if(pcrs.begin(), pcrs.end(),
                                  [&](const PcrPrediction& each) { return each.pcr == pcr; });
  return found == pcrs.end() ? nullptr : &*found;
}

PredictionBuilder::PredictionBuilder(HashAlgorithm bank, std::span<const PcrIndex> pcrs) {
  prediction_.bank = bank;
  for (const PcrIndex pcr : pcrs) {
    prediction_.pcrs.push_back({pcr, PcrKnowledge::kExact, {}, {}, {}});
  }
}

PcrPrediction& PredictionBuilder::Get(PcrIndex pcr) {
  const auto found = std::find_if(prediction_.pcrs.begin(), prediction_.pcrs.end(),
                                  [&](const PcrPrediction& each) { return each.pcr == pcr; });
  CHECK(found != prediction_.pcrs.end());
  return *found;
}

void PredictionBuilder::Extend(PcrIndex pcr, Bytes digest, std::string description) {
  CHECK(digest.size() == DigestSize(bank()));
  PcrPrediction& target = Get(pcr);
  if (target.state == PcrKnowledge::kExact) {
    target.events.push_back({pcr, std::move(digest), std::move(description)});
  }
}

void PredictionBuilder::Stop(PcrIndex pcr, std::string reason) {
  PcrPrediction& target = Get(pcr);
  if (target.state == PcrKnowledge::kExact) {
    target.state = target.events.empty() ? PcrKnowledge::kUnknown : PcrKnowledge::kPartial;
    target.reason = std::move(reason);
  }
}

Prediction PredictionBuilder::Finish() && {
  for (PcrPrediction& each : prediction_.pcrs) {
    if (each.state != PcrKnowledge::kExact) {
      continue;
    }
    std::vector<Bytes> digests;
    for (const PredictedEvent& event : each.events) {
      digests.push_back(event.digest);
    }
    auto value = ReplayPcr(prediction_.bank, digests);
    CHECK(value.has_value());  // Extend() checked every size
    each.value = *std::move(value);
  }
  return std::move(prediction_);
}

std::vector<PcrComparison> ComparePrediction(const Prediction& prediction,
                                             std::span<const PcrExtend> measured) {
  std::vector<PcrComparison> comparisons;
  for (const PcrPrediction& predicted : prediction.pcrs) {
    std::vector<Bytes> digests;
    for (const PcrExtend& extend : measured) {
      if (extend.pcr == predicted.pcr && extend.bank == prediction.bank) {
        digests.push_back(extend.digest);
      }
    }
    comparisons.push_back(Compare(predicted, digests));
  }
  return comparisons;
}

}  // namespace vallum::measure
