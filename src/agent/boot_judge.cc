// SPDX-License-Identifier: Apache-2.0
#include "agent/boot_judge.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "agent/boot_words.h"
#include "agent/messages.h"
#include "base/text.h"
#include "measure/event_digest.h"

namespace vallum::agent {
namespace {

constexpr PcrIndex kBootManagerPcr = PcrIndex::Of<5>();
constexpr PcrIndex kSecureBootPcr = PcrIndex::Of<7>();
constexpr PcrIndex kMokPcr = PcrIndex::Of<14>();
constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;
constexpr size_t kReasonLimit = 500;
constexpr int kMaxGaps = 8;

v1::SecureBootState ToProto(measure::SecureBootState state) {
  switch (state) {
    case measure::SecureBootState::kOn:
      return v1::SECURE_BOOT_ON;
    case measure::SecureBootState::kOff:
      return v1::SECURE_BOOT_OFF;
    case measure::SecureBootState::kUnknown:
      return v1::SECURE_BOOT_UNKNOWN;
  }
  return v1::SECURE_BOOT_UNKNOWN;
}

// Firmware, loaders and what they are allowed by; the rest is the kernel's and what it is told.
bool IsEarly(PcrIndex pcr) { return pcr <= kSecureBootPcr || pcr == kMokPcr; }

// Collects what contradicts and makes the verdict of it.
class Judge {
 public:
  Judge(const BootFacts& facts, v1::BootMeasured& out)
      : facts_(facts), reading_(facts), out_(out) {}

  void Run() {
    out_.set_verdict(v1::BOOT_PENDING);
    out_.set_early(v1::BOOT_PENDING);
    out_.set_late(v1::BOOT_PENDING);
    out_.set_secure_boot(v1::SECURE_BOOT_UNKNOWN);
    out_.set_extends(facts_.progress.extends);
    out_.set_tpm_resets(facts_.progress.tpm_resets);
    AddPcrs();
    for (v1::BootStage& stage : ReadStages(facts_, reading_)) {
      *out_.add_stages() = std::move(stage);
    }
    JudgeEvents();
    JudgePcr7();
    if (facts_.refusal && !facts_.progress.left_firmware) {
      out_.set_verdict(v1::BOOT_REFUSED);
      out_.set_early(v1::BOOT_REFUSED);
      out_.clear_first_difference();
      return SetReasons(ExplainRefusal(*facts_.refusal, facts_.forecast));
    }
    if (Decidable()) {
      JudgeKeys();
      NoteNotPredicted();
      CompareWithTpm();
      for (const std::string& gap : facts_.replay.gaps) {
        Early("the record of the vTPM has a gap: " + gap);
      }
      for (const std::string& gap : facts_.gaps) {
        Early("the record of the boot has a gap: " + gap);
      }
    }
    Conclude();
  }

 private:
  // Before this the order of PCR 7 is not complete.
  bool Decidable() const {
    return facts_.progress.configuration_done || facts_.progress.left_firmware;
  }
  void Early(std::string reason) { early_.push_back(std::move(reason)); }

  void AddPcrs() {
    for (const auto& [pcr, value] : facts_.tpm_values) {
      v1::PcrValue& entry = *out_.add_pcrs();
      entry.set_index(static_cast<int32_t>(pcr.value()));
      entry.set_bank("sha256");
      entry.set_digest(ToHex(value));
    }
  }

  void JudgeEvents() {
    for (const measure::PredictionDifference& difference : reading_.differences()) {
      const std::string name = reading_.NameOf(difference.pcr, difference.measured);
      std::string words = difference.Describe();
      if (!name.empty()) {
        words += "; what was measured is " + name;
      }
      (IsEarly(difference.pcr) ? early_ : late_).push_back(std::move(words));
      if (out_.has_first_difference()) {
        continue;
      }
      v1::BootDifference& first = *out_.mutable_first_difference();
      first.set_pcr(static_cast<int32_t>(difference.pcr.value()));
      first.set_event(static_cast<int32_t>(difference.event));
      first.set_measured(ToHex(difference.measured));
      first.set_expected(ToHex(difference.expected));
      first.set_expected_what(Printable(difference.expected_what, kReasonLimit));
      first.set_measured_what(Printable(name, kReasonLimit));
      first.set_expected_from("prediction");
    }
  }

  // Where the prediction of PCR 7 is exact it decides, since it also knows which authority each
  // program needs. Otherwise each extend must be explained by the store and the loaders. Both read
  // the authorities from measure/authorities.h.
  bool PredictsPcr7() const {
    if (facts_.forecast == nullptr || !facts_.forecast->prediction) {
      return false;
    }
    const measure::PcrPrediction* pcr7 = facts_.forecast->prediction->Find(kSecureBootPcr);
    return pcr7 != nullptr && pcr7->state == measure::PcrKnowledge::kExact;
  }

  void JudgePcr7() {
    if (facts_.progress.pcr7.empty()) {
      if (Decidable()) {
        Early("the firmware measured nothing into PCR 7");
      }
      return;
    }
    if (facts_.store == nullptr) {
      return Early("PCR 7 cannot be recomputed: " + facts_.store_problem);
    }
    const auto explained =
        measure::ComputePcr7(*facts_.store, facts_.binaries, facts_.progress.pcr7);
    if (!explained) {
      return Early("PCR 7 cannot be recomputed: " + explained.error().Describe());
    }
    out_.set_secure_boot(ToProto(explained->secure_boot));
    out_.set_pcr7_measured(ToHex(explained->measured_digest));
    out_.set_pcr7_computed(ToHex(explained->computed_digest));
    if (!Decidable()) {
      return;
    }
    if (explained->matches) {
      notes_.insert(notes_.end(), explained->reasons.begin(), explained->reasons.end());
    } else if (!PredictsPcr7()) {
      AddUnexplained(*explained);
    }
    if (facts_.mode == v1::BOOT_MODE_SECURE &&
        explained->secure_boot != measure::SecureBootState::kOn) {
      Early("boot mode SECURE was asked for, but the firmware measured Secure Boot as " +
            std::string(measure::SecureBootStateName(explained->secure_boot)));
    }
  }

  void AddUnexplained(const measure::Pcr7Explanation& explained) {
    early_.insert(early_.end(), explained.reasons.begin(), explained.reasons.end());
    if (explained.reasons.empty()) {
      Early("PCR 7 is not what the variable store and the image's loaders give");
    }
    const auto found = std::ranges::find(explained.events, measure::Pcr7EventKind::kUnexplained,
                                         &measure::Pcr7Event::kind);
    if (found == explained.events.end() || out_.has_first_difference()) {
      return;
    }
    v1::BootDifference& first = *out_.mutable_first_difference();
    first.set_pcr(static_cast<int32_t>(kSecureBootPcr.value()));
    first.set_event(static_cast<int32_t>(found - explained.events.begin()) + 1);
    first.set_measured(ToHex(found->measured));
    first.set_expected_what("what the variable store and the loaders admit");
    first.set_measured_what(
        Printable(reading_.NameOf(kSecureBootPcr, found->measured), kReasonLimit));
    first.set_expected_from(facts_.assigned == nullptr ? "variable store" : facts_.assigned->label);
  }

  void JudgeKeys() {
    if (facts_.assigned == nullptr || facts_.store == nullptr) {
      return;
    }
    auto compared = CompareKeys(*facts_.store, *facts_.assigned);
    if (!compared) {
      return Early("the keys cannot be compared: " + compared.error().Describe());
    }
    // Without Secure Boot the keys decide nothing, and the guest may enrol its own.
    const bool decides = facts_.mode == v1::BOOT_MODE_SECURE;
    for (std::string& words : compared->contradictions) {
      (decides ? early_ : notes_).push_back(std::move(words));
    }
    notes_.insert(notes_.end(), compared->notes.begin(), compared->notes.end());
    if (decides && compared->first && !out_.has_first_difference()) {
      v1::BootDifference& first = *out_.mutable_first_difference();
      first.set_pcr(static_cast<int32_t>(kSecureBootPcr.value()));
      first.set_event(compared->first->event);
      first.set_measured(ToHex(compared->first->measured));
      first.set_expected(ToHex(compared->first->expected));
      first.set_expected_what("variable " + compared->first->variable + " of " +
                              Printable(facts_.assigned->label, kReasonLimit));
      first.set_expected_from(Printable(facts_.assigned->label, kReasonLimit));
    }
  }

  // Whether the TPM's own PCRs are what the record replays to. Of what the guest's own programs
  // extend, no complete record is kept here.
  void CompareWithTpm() {
    if (!facts_.later_gap.empty()) {
      notes_.push_back("the PCRs of the vTPM are not compared with its record any more: " +
                       facts_.later_gap);
      return;
    }
    for (const auto& [pcr, value] : facts_.tpm_values) {
      const Bytes& replayed = facts_.replay.values[pcr.value()];
      if (pcr <= kSecureBootPcr && value != replayed) {
        Early("PCR " + std::to_string(pcr.value()) + " of the vTPM is " + ToHex(value) +
              ", but the recorded extends give " + ToHex(replayed));
      }
    }
  }

  // The first extend of a PCR that the prediction says nothing of, from 1; nothing: all that was
  // measured was compared. PCR 7 is explained in any case.
  std::optional<size_t> FirstNotPredicted(PcrIndex pcr) const {
    const auto measured =
        static_cast<size_t>(std::ranges::count(facts_.events, pcr, &MeasuredExtend::pcr));
    const measure::PcrPrediction* predicted =
        facts_.forecast->prediction ? facts_.forecast->prediction->Find(pcr) : nullptr;
    const bool exact = predicted != nullptr && predicted->state == measure::PcrKnowledge::kExact;
    const size_t known = predicted == nullptr ? 0 : predicted->events.size();
    if (exact || pcr == kSecureBootPcr || measured <= known) {
      return std::nullopt;
    }
    return known + 1;
  }

  // A verdict must not look as if more had been compared than was.
  void NoteNotPredicted() {
    if (facts_.forecast == nullptr || !facts_.progress.left_firmware) {
      return;
    }
    const auto& prediction = facts_.forecast->prediction;
    std::vector<std::pair<std::string, std::vector<std::string>>> by_reason;
    for (uint32_t i = 0; i <= kMokPcr.value(); ++i) {
      const PcrIndex pcr = *PcrIndex::Create(i);
      const auto first = FirstNotPredicted(pcr);
      if (!first) {
        continue;
      }
      const measure::PcrPrediction* predicted = prediction ? prediction->Find(pcr) : nullptr;
      const std::string reason = predicted != nullptr ? predicted->reason
                                 : !prediction        ? facts_.forecast->problem
                                                      : "this host cannot predict it";
      auto found = std::ranges::find(by_reason, reason, &decltype(by_reason)::value_type::first);
      if (found == by_reason.end()) {
        found = by_reason.insert(by_reason.end(), {reason, {}});
      }
      found->second.push_back(std::to_string(i) +
                              (*first == 1 ? "" : " (from extend " + std::to_string(*first) + ")"));
    }
    for (const auto& [reason, pcrs] : by_reason) {
      notes_.push_back("not compared with a prediction: PCR " + Join(pcrs, ", ") + ": " + reason);
    }
  }

  bool KernelStarted() const {
    return facts_.progress.left_firmware ||
           std::ranges::any_of(out_.stages(), [](const v1::BootStage& stage) {
             return stage.name() == images::LinkRoleName(images::LinkRole::kKernel);
           });
  }

  void Conclude() {
    const bool forecast = facts_.forecast != nullptr;
    const bool whole = facts_.progress.left_firmware && !facts_.tpm_values.empty() && forecast;
    if (!early_.empty()) {
      out_.set_early(v1::BOOT_DIVERGED);
    } else if (forecast && Decidable() && KernelStarted()) {
      out_.set_early(v1::BOOT_VERIFIED);
    }
    if (!late_.empty()) {
      out_.set_late(v1::BOOT_DIVERGED);
    } else if (whole) {
      out_.set_late(v1::BOOT_VERIFIED);
    }
    if (early_.empty() && late_.empty()) {
      out_.set_verdict(whole ? v1::BOOT_VERIFIED : v1::BOOT_PENDING);
      return SetReasons(notes_);
    }
    out_.set_verdict(v1::BOOT_DIVERGED);
    early_.insert(early_.end(), late_.begin(), late_.end());
    SetReasons(early_);
  }

  // A guest can give any number of them.
  void SetReasons(const std::vector<std::string>& reasons) {
    const size_t told = std::min(reasons.size(), kMaxReasons);
    for (const std::string& reason : std::span(reasons).first(told)) {
      out_.add_reasons(Printable(reason, kReasonLimit));
    }
    if (reasons.size() > told) {
      out_.add_reasons("and " + std::to_string(reasons.size() - told) + " more");
    }
  }

  const BootFacts& facts_;
  const BootReading reading_;
  v1::BootMeasured& out_;
  std::vector<std::string> early_;
  std::vector<std::string> late_;
  std::vector<std::string> notes_;  // worth knowing, but no contradiction
};

// What can be spared goes until the rest fits. The extends themselves always do.
void Bound(v1::BootEvidence& evidence) {
  static_assert(kMaxBootExtends * 64 < kMaxEvidenceBytes);
  if (evidence.ByteSizeLong() <= kMaxEvidenceBytes) {
    return;
  }
  for (v1::MeasuredEvent& event : *evidence.mutable_events()) {
    event.clear_what();
  }
  if (evidence.ByteSizeLong() > kMaxEvidenceBytes) {
    evidence.clear_prediction();
    evidence.set_prediction_problem("the prediction is too large to be kept");
  }
  if (evidence.ByteSizeLong() > kMaxEvidenceBytes) {
    evidence.clear_boot_binaries();
  }
  if (evidence.ByteSizeLong() > kMaxEvidenceBytes) {
    evidence.clear_keys();
  }
}

}  // namespace

bool EndsBoot(const MeasuredExtend& event) {
  static const Bytes kSucceeded = measure::ActionDigest(kBank, measure::kActionExitSucceeded);
  return event.pcr == kBootManagerPcr && event.digest == kSucceeded;
}

bool IsHandOver(const MeasuredExtend& event) {
  static const Bytes kInvoked = measure::ActionDigest(kBank, measure::kActionExitInvoked);
  return EndsBoot(event) || (event.pcr == kBootManagerPcr && event.digest == kInvoked);
}

BootProgress ReadProgress(std::span<const MeasuredExtend> events) {
  BootProgress progress;
  const Bytes separator = measure::SeparatorDigest(kBank);
  for (const MeasuredExtend& event : events) {
    if (event.pcr == kSecureBootPcr) {
      progress.pcr7.push_back(event.digest);
      progress.configuration_done |= event.digest == separator;
    }
    progress.left_firmware |= IsHandOver(event);
    if (EndsBoot(event)) {
      break;
    }
  }
  return progress;
}

v1::BootMeasured JudgeBoot(const BootFacts& facts) {
  v1::BootMeasured out;
  Judge(facts, out).Run();
  return out;
}

v1::BootEvidence MakeEvidence(const BootFacts& facts) {
  const BootReading reading(facts);
  v1::BootEvidence evidence;
  evidence.set_tpm_resets(facts.progress.tpm_resets);
  evidence.set_left_firmware(facts.progress.left_firmware);
  for (size_t i = 0; i < std::min(facts.events.size(), kMaxBootExtends); ++i) {
    const MeasuredExtend& event = facts.events[i];
    v1::MeasuredEvent& out = *evidence.add_events();
    out.set_pcr(static_cast<int32_t>(event.pcr.value()));
    out.set_digest(std::string(AsText(event.digest)));
    out.set_what(Printable(reading.extends()[i].what));
    *out.mutable_time() = ToTimestamp(event.time);
    if (EndsBoot(event)) {
      break;
    }
  }
  for (const auto* gaps : {&facts.gaps, &facts.replay.gaps}) {
    for (const std::string& gap : *gaps) {
      if (evidence.gaps_size() < kMaxGaps) {
        evidence.add_gaps(Printable(gap, kReasonLimit));
      }
    }
  }
  if (facts.store != nullptr) {
    *evidence.mutable_keys() = ToContent(*facts.store);
  }
  if (facts.forecast != nullptr) {
    AddToEvidence(*facts.forecast, evidence);
  }
  Bound(evidence);
  return evidence;
}

v1::BootMeasured UnmeasuredBoot(const v1::BootEffective& effective) {
  v1::BootMeasured out;
  out.set_verdict(v1::BOOT_UNMEASURED);
  const bool bios = effective.type() == v1::BOOT_TYPE_BIOS;
  // BIOS has no Secure Boot; with UEFI and no TPM nobody saw what it was.
  out.set_secure_boot(bios ? v1::SECURE_BOOT_OFF : v1::SECURE_BOOT_UNKNOWN);
  out.add_reasons(bios ? "boot type BIOS: there is no chain to measure"
                       : "the instance has no vTPM (tpm_model=none)");
  return out;
}

}  // namespace vallum::agent
