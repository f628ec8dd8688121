// SPDX-License-Identifier: Apache-2.0
#include "agent/boot_words.h"

#include <algorithm>
#include <utility>

#include "agent/messages.h"
#include "base/text.h"
#include "measure/event_digest.h"

namespace vallum::agent {
namespace {

using images::LinkReport;
using images::LinkRole;

constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;
constexpr PcrIndex kImages = PcrIndex::Of<4>();
// A loader may extend anything any number of times; the firmware's and loaders' steps are few.
constexpr size_t kMaxStages = 16;

const std::map<Bytes, std::string>& Constants() {
  static const std::map<Bytes, std::string> kConstants = [] {
    std::map<Bytes, std::string> map = {
        {measure::SeparatorDigest(kBank), "separator"},
        {measure::ErrorSeparatorDigest(kBank), "the firmware's mark for failed measurements"}};
    for (const std::string_view action : measure::kBootActions) {
      map.emplace(measure::ActionDigest(kBank, action), "action \"" + std::string(action) + "\"");
    }
    return map;
  }();
  return kConstants;
}

std::string StageName(LinkRole role) {
  switch (role) {
    case LinkRole::kUnifiedKernel:
      return "kernel";
    case LinkRole::kBootManager:
      return "boot manager";
    case LinkRole::kShim:
    case LinkRole::kFallback:
    case LinkRole::kGrub:
    case LinkRole::kKernel:
    case LinkRole::kOther:
      break;
  }
  return std::string(images::LinkRoleName(role));
}

v1::BootStage MakeStage(std::string name, const MeasuredExtend& event,
                        const ExplainedExtend& explained) {
  v1::BootStage stage;
  stage.set_name(std::move(name));
  stage.set_detail(Printable(explained.what));
  *stage.mutable_time() = ToTimestamp(event.time);
  stage.set_pcr(static_cast<int32_t>(event.pcr.value()));
  stage.set_digest(ToHex(event.digest));
  stage.set_as_expected(explained.step != measure::PredictionStep::kDiffers);
  return stage;
}

std::string DescribeLink(const LinkReport& link) {
  return Printable(link.path) + " (Authenticode SHA-256 " + link.authenticode_sha256 + ", " +
         (link.signer.empty() ? "unsigned" : "signed by " + Printable(link.signer)) + ")";
}

}  // namespace

std::string DescribeProgram(const v1::BootBinary& binary) {
  if (binary.of_firmware()) return Printable(binary.path()) + ", a program of the firmware itself";
  return Printable(binary.path()) +
         (binary.signer().empty() ? ", unsigned" : ", signed by " + Printable(binary.signer()));
}

BootReading::BootReading(const BootFacts& facts) : facts_(facts) {
  static const measure::Prediction kNone;
  const measure::Prediction* prediction = &kNone;
  if (facts.forecast != nullptr) {
    for (const v1::BootBinary& binary : facts.forecast->binaries) {
      if (auto digest = FromHex(binary.authenticode_sha256()); digest) {
        programs_.emplace(*std::move(digest), &binary);
      }
    }
    if (facts.forecast->prediction) {
      prediction = &*facts.forecast->prediction;
    }
  }
  for (const measure::PcrPrediction& pcr : prediction->pcrs) {
    for (size_t i = 0; i < pcr.events.size(); ++i) {
      const measure::PredictedEvent& event = pcr.events[i];
      predicted_.emplace(event.digest, "what is predicted as extend " + std::to_string(i + 1) +
                                           " of PCR " + std::to_string(pcr.pcr.value()) + ": " +
                                           event.description);
    }
  }
  measure::PredictionFollower follower(*prediction);
  for (const MeasuredExtend& event : facts.events) {
    const measure::PredictedEvent* next = follower.Next(event.pcr);
    const std::string expected = next == nullptr ? "" : next->description;
    ExplainedExtend explained;
    explained.step = follower.Take(event.pcr, event.digest);
    const bool as_predicted = explained.step == measure::PredictionStep::kAsPredicted;
    explained.what = as_predicted ? expected : NameOf(event.pcr, event.digest);
    if (const auto found = programs_.find(event.digest);
        event.pcr == kImages && found != programs_.end()) {
      explained.binary = found->second;
      explained.what = DescribeProgram(*found->second);
    }
    extends_.push_back(std::move(explained));
    if (EndsBoot(event)) {
      follower.End();
    }
  }
  differences_ = follower.differences();
}

std::string BootReading::NameOf(PcrIndex pcr, const Bytes& digest) const {
  if (const auto found = Constants().find(digest); found != Constants().end()) {
    return found->second;
  }
  if (const auto found = programs_.find(digest); pcr == kImages && found != programs_.end()) {
    return "Authenticode digest of " + DescribeProgram(*found->second);
  }
  const auto found = predicted_.find(digest);
  return found == predicted_.end() ? "" : found->second;
}

std::string BootReading::RoleOf(const v1::BootBinary& binary) const {
  if (facts_.forecast != nullptr && facts_.forecast->preflight) {
    for (const LinkReport& link : facts_.forecast->preflight->chain) {
      if (link.authenticode_sha256 == binary.authenticode_sha256()) {
        return StageName(link.role);
      }
    }
  }
  if (binary.of_firmware()) return "firmware's own program";
  return binary.vendor_cert().empty() ? "program" : "shim";
}

std::vector<v1::BootStage> ReadStages(const BootFacts& facts, const BootReading& reading) {
  std::vector<v1::BootStage> stages;
  const auto has = [&](const std::string& name) {
    return std::ranges::any_of(stages, [&](const auto& stage) { return stage.name() == name; });
  };
  for (size_t i = 0; i < facts.events.size(); ++i) {
    const MeasuredExtend& event = facts.events[i];
    const ExplainedExtend& explained = reading.extends()[i];
    if (stages.empty()) {
      stages.push_back(MakeStage("firmware", event, explained));
    }
    if (explained.binary != nullptr) {
      // shim's protocol measures a kernel twice.
      const std::string name = reading.RoleOf(*explained.binary);
      if (!has(name)) {
        stages.push_back(MakeStage(name, event, explained));
      }
    } else if (event.pcr == kImages && explained.step == measure::PredictionStep::kDiffers &&
               stages.size() < kMaxStages) {
      stages.push_back(MakeStage("unknown program", event, explained));
    } else if (IsHandOver(event) && !has("operating system")) {
      stages.push_back(MakeStage("operating system", event, explained));
    }
  }
  return stages;
}

std::vector<std::string> ExplainRefusal(const FirmwareRefusal& refusal,
                                        const BootForecast* forecast) {
  std::vector<std::string> reasons;
  const bool by_firmware = refusal.by == RefusedBy::kFirmware;
  const bool of_itself = refusal.by == RefusedBy::kShimOfItself;
  const std::string who = by_firmware ? "the firmware refused " + refusal.boot_option
                          : of_itself ? "shim refused to run"
                                      : "shim refused the loader that comes after it";
  reasons.push_back(who + ": " + refusal.cause);
  if (forecast == nullptr || !forecast->preflight) {
    return reasons;
  }
  for (const LinkReport& link : forecast->preflight->chain) {
    const bool meant =
        of_itself ? link.role == LinkRole::kShim : (link.verified_by == "firmware") == by_firmware;
    if (link.allowed || !meant) {
      continue;
    }
    reasons.push_back(DescribeLink(link) + " is refused: " + Join(link.reasons, "; "));
  }
  if (reasons.size() == 1) {
    reasons.emplace_back(
        "the pre-flight of the disk finds no program that these keys refuse: what was refused is "
        "not what the disk starts by itself");
  }
  return reasons;
}

}  // namespace vallum::agent
