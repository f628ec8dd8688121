// SPDX-License-Identifier: Apache-2.0
#include "controller/boot_verdicts.h"

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/digest.h"
#include "base/text.h"
#include "controller/boot_judgement.h"
#include "controller/instance_keys.h"
#include "controller/resource_store.h"
#include "controller/verdict_words.h"

namespace vallum::controller {
namespace {

constexpr int kMaxReasons = 8;
constexpr int kMaxAcceptedChanges = 32;
constexpr size_t kMaxCompared = 1024;

bool IsFinal(v1::BootVerdict verdict) {
  return verdict == v1::BOOT_VERIFIED || verdict == v1::BOOT_DIVERGED ||
         verdict == v1::BOOT_REFUSED || verdict == v1::BOOT_UNMEASURED;
}

// The evidence is of the boot that the agent speaks of.
// A vTPM's resets are counted anew in each run of its guest.
bool IsSameBoot(const v1::BootEvidence& evidence, const v1::BootMeasured& word) {
  return evidence.tpm_resets() == word.tpm_resets() &&
         evidence.boot_sequence() == word.boot_sequence() &&
         FromTimestamp(evidence.run_started_at()) == FromTimestamp(word.run_started_at());
}

// The host has looked at the disk: until then nobody knows which programs are on it, who signed
// them, and what is exactly predicted and so not compared here.
bool HasForecast(const v1::BootEvidence& evidence) {
  return !evidence.prediction().empty() || !evidence.prediction_problem().empty();
}

// The evidence is of a boot before the one that the agent speaks of.
bool IsEarlier(const v1::BootEvidence& evidence, const v1::BootMeasured& word) {
  if (!evidence.has_run_started_at() || !word.has_run_started_at()) return false;
  const WallTime run = FromTimestamp(evidence.run_started_at());
  const WallTime now = FromTimestamp(word.run_started_at());
  return run < now || (run == now && evidence.boot_sequence() < word.boot_sequence());
}

// The same, up to its end.
bool IsOf(const v1::BootEvidence& evidence, const v1::BootMeasured& word) {
  return IsSameBoot(evidence, word) && IsComplete(evidence);
}

// Whether the boot of the evidence had begun before the word was given. One clock: the host's.
bool BeganBefore(const v1::BootEvidence& evidence, const v1::BootMeasured& word) {
  if (evidence.events().empty() || !word.has_measured_at() || !evidence.events(0).has_time()) {
    return true;
  }
  return FromTimestamp(evidence.events(0).time()) <= FromTimestamp(word.measured_at());
}

// What a baseline is learned from: a whole boot, recorded without gaps.
//   kExhausted: a boot like this one can never be learned.
Result<void> CheckWhole(const v1::BootEvidence& evidence) {
  if (IsEmptied(evidence)) {
    return Exhausted(evidence.gaps(0));
  }
  if (!evidence.gaps().empty()) {
    return Conflict("the record of the boot has a gap: " + Printable(evidence.gaps(0)))
        .WithFix("boot the instance again");
  }
  const std::vector<v1::MeasuredEvent> own = OwnEvents(evidence);
  if (!IsComplete(evidence)) {
    return Conflict("the boot is not over")
        .WithFix("try again once the operating system has taken over");
  }
  if (own.size() > static_cast<size_t>(kMaxBaselineEvents)) {
    return Exhausted("the boot has " + std::to_string(own.size()) +
                     " extends, a baseline at most " + std::to_string(kMaxBaselineEvents));
  }
  return Ok();
}

v1::BaselineSpec SpecOf(const v1::BootEvidence& evidence, const std::string& origin) {
  v1::BaselineSpec spec;
  spec.set_origin(origin);
  for (v1::MeasuredEvent& event : OwnEvents(evidence)) {
    *spec.add_events() = std::move(event);
  }
  return spec;
}

// The keys by which the instance was meant to start, with what os_secure_boot_signature adds; else
// those that its firmware holds.
v1::KeySetContent KeysOf(const v1::Instance& instance, const v1::BootEvidence& evidence,
                         const View& view) {
  const v1::BootEffective& effective = instance.status().boot().effective();
  if (effective.key_set().empty()) return evidence.keys();
  v1::Instance started;
  *started.mutable_metadata() = instance.metadata();
  *started.mutable_spec() = instance.spec();
  started.mutable_spec()->set_key_set(effective.key_set());
  started.mutable_spec()->set_key_set_version(effective.key_set_version());
  Result<v1::KeySetContent> content = ContentFor(view, started);
  return content.has_value() ? *std::move(content) : evidence.keys();
}

// The join of the agent's word with what the baseline says.
v1::BootMeasured Join(const v1::Instance& instance, const v1::Baseline& baseline,
                      const measure::BaselineJudgement& judgement, v1::BootMeasured measured) {
  int differing = 0;
  std::vector<std::string> reasons;
  for (const measure::BaselineDifference& each : judgement.differences) {
    if (each.accepted) {
      if (measured.accepted_changes_size() < kMaxAcceptedChanges) {
        measured.add_accepted_changes(each.words);
      }
      continue;
    }
    each.early ? measured.set_early(v1::BOOT_DIVERGED) : measured.set_late(v1::BOOT_DIVERGED);
    if (++differing <= kMaxReasons) reasons.push_back(each.words);
  }
  const measure::BaselineDifference* first = judgement.First();
  if (first == nullptr) {
    return measured;
  }
  const bool refused = measured.verdict() == v1::BOOT_REFUSED;
  const google::protobuf::RepeatedPtrField<std::string> said = measured.reasons();
  // What `watch-boot` shows.
  for (v1::BootStage& stage : *measured.mutable_stages()) {
    for (const measure::BaselineDifference& each : judgement.differences) {
      if (!each.accepted && !each.measured.empty() && stage.digest() == ToHex(each.measured)) {
        stage.set_as_expected(false);
      }
    }
  }
  measured.set_verdict(v1::BOOT_DIVERGED);
  *measured.mutable_first_difference() = ToProto(*first);
  measured.clear_reasons();
  measured.add_reasons("the boot is not what the instance is meant to boot (its baseline, " +
                       Printable(baseline.spec().origin()) + ")");
  for (const std::string& reason : reasons) {
    measured.add_reasons(reason);
  }
  if (differing > kMaxReasons) {
    measured.add_reasons("and " + std::to_string(differing - kMaxReasons) + " more");
  }
  const std::string& name = instance.metadata().name();
  measured.add_reasons("if the change is meant: vallum instance baseline accept " + name +
                       "; `vallum instance baseline diff " + name + "` shows all of it");
  for (int i = 0; refused && i < std::min(said.size(), kMaxReasons); ++i) {
    measured.add_reasons("the firmware also refused: " + said[i]);
  }
  return measured;
}

// Of everything that a comparison depends on, but for the words of artefacts.
std::string WhatDecides(const JudgementInput& input, int64_t baseline_revision) {
  Hasher hasher(HashAlgorithm::kSha256);
  const auto add = [&](const std::string& part) {
    hasher.Update(AsBytes(std::to_string(part.size()) + " " + part));
  };
  add(EventsSha256(input.evidence));
  add(std::to_string(baseline_revision));
  add(input.platform);
  add(input.secure_boot ? "Secure Boot" : "");
  add(input.accept_signed_updates ? "signed updates" : "");
  add(input.extent == measure::BootExtent::kWhole ? "whole" : "under way");
  add(input.keys.SerializeAsString());
  for (const v1::BootBinary& binary : input.evidence.boot_binaries()) {
    add(binary.SerializeAsString());
  }
  for (const v1::PredictedPcr& pcr : input.evidence.prediction()) {
    add(std::to_string(pcr.pcr()) + pcr.knowledge());
  }
  return ToHex(hasher.Finish());
}

v1::BootMeasured Undecided(v1::BootMeasured measured, v1::BootVerdict verdict,
                           const std::string& reason) {
  measured.set_verdict(verdict);
  measured.clear_reasons();
  measured.add_reasons(reason);
  return measured;
}

}  // namespace

std::string EventsSha256(const v1::BootEvidence& evidence) {
  Hasher hasher(HashAlgorithm::kSha256);
  for (const v1::MeasuredEvent& event : OwnEvents(evidence)) {
    const auto pcr = static_cast<std::byte>(event.pcr());
    hasher.Update(ByteView(&pcr, 1));
    hasher.Update(AsBytes(event.digest()));
  }
  return ToHex(hasher.Finish());
}

std::string PlatformOf(const v1::Instance& instance, const View& view) {
  const v1::BootEffective& effective = instance.status().boot().effective();
  const auto host = view.Get<v1::Host>(instance.status().host());
  if (host == nullptr || effective.firmware_sha256().empty()) {
    return {};
  }
  return "host " + host->metadata().name() + ", QEMU " +
         host->status().capabilities().hypervisor_version() + ", firmware sha256 " +
         effective.firmware_sha256() + ", machine " + effective.machine() + ", keys " +
         effective.key_set_sha256();
}

v1::PoolSpec PoolOf(const v1::Instance& instance, const View& view) {
  const std::string& name = instance.spec().pool();
  const auto pool = view.Get<v1::Pool>(name.empty() ? "default" : name);
  return pool == nullptr ? v1::PoolSpec() : pool->spec();
}

Result<void> BootVerdicts::TakeEvidence(const std::string& uid, v1::BootEvidence evidence) {
  evidence = Bounded(std::move(evidence));
  const auto before = parts_.book.Record(uid);
  v1::BootRecord record = before == nullptr ? v1::BootRecord() : *before;
  const v1::BootEvidence& old = record.spec().evidence();
  // The steps at which losing what came would lose more than the next report brings.
  const bool step =
      before == nullptr || old.tpm_resets() != evidence.tpm_resets() ||
      old.boot_sequence() != evidence.boot_sequence() ||
      old.run_started_at().SerializeAsString() != evidence.run_started_at().SerializeAsString() ||
      old.left_firmware() != evidence.left_firmware() || IsComplete(old) != IsComplete(evidence) ||
      old.prediction_size() != evidence.prediction_size() ||
      old.gaps_size() != evidence.gaps_size();
  *record.mutable_spec()->mutable_evidence() = std::move(evidence);
  return parts_.book.SetRecord(uid, std::move(record),
                               step ? BootBook::Keep::kFile : BootBook::Keep::kMemory);
}

Result<void> BootVerdicts::TakeWord(const std::string& uid, const v1::BootMeasured& word) {
  const auto before = parts_.book.Record(uid);
  if (before == nullptr && word.verdict() == v1::BOOT_VERDICT_UNSPECIFIED) {
    return Ok();
  }
  v1::BootRecord record = before == nullptr ? v1::BootRecord() : *before;
  const v1::BootMeasured old = record.spec().agent();
  const bool another = IsFinal(old.verdict()) && !IsFinal(word.verdict()) &&
                       BeganBefore(record.spec().evidence(), old);
  if (another || IsEarlier(record.spec().evidence(), word)) {
    record.mutable_spec()->clear_evidence();
  }
  *record.mutable_spec()->mutable_agent() = word;
  const bool step =
      old.verdict() != word.verdict() || old.stages_size() != word.stages_size() ||
      old.tpm_resets() != word.tpm_resets() ||
      old.run_started_at().SerializeAsString() != word.run_started_at().SerializeAsString();
  return parts_.book.SetRecord(uid, std::move(record),
                               step ? BootBook::Keep::kFile : BootBook::Keep::kMemory);
}

JudgementInput BootVerdicts::InputOf(const v1::Instance& instance, const v1::BootRecord& record,
                                     const v1::Baseline& baseline, const v1::KeySetContent& keys,
                                     measure::BootExtent extent) const {
  return {.evidence = record.spec().evidence(),
          .baseline = baseline.spec(),
          .platform = PlatformOf(instance, parts_.view),
          .secure_boot = record.spec().agent().secure_boot() == v1::SECURE_BOOT_ON,
          .accept_signed_updates = PoolOf(instance, parts_.view).accept_signed_updates(),
          .keys = keys,
          .artefacts = parts_.artefacts,
          .tenant = instance.metadata().tenant(),
          .extent = extent};
}

measure::BaselineJudgement BootVerdicts::Compare(const v1::Instance& instance,
                                                 const v1::BootRecord& record,
                                                 const v1::Baseline& baseline,
                                                 measure::BootExtent extent) {
  const v1::KeySetContent keys = KeysOf(instance, record.spec().evidence(), parts_.view);
  const JudgementInput input = InputOf(instance, record, baseline, keys, extent);
  const std::string what = WhatDecides(input, baseline.metadata().revision());
  const std::string& uid = instance.metadata().uid();
  {
    const std::lock_guard lock(mutex_);
    const auto found = compared_.find(uid);
    if (found != compared_.end() && found->second.what == what) return found->second.judgement;
  }
  measure::BaselineJudgement judgement = JudgeEvidence(input);
  const std::lock_guard lock(mutex_);
  ++comparisons_;
  // Instances that are gone are forgotten with all others.
  if (compared_.size() >= kMaxCompared) compared_.clear();
  compared_[uid] = {what, judgement};
  return judgement;
}

uint64_t BootVerdicts::comparisons() {
  const std::lock_guard lock(mutex_);
  return comparisons_;
}

v1::BootMeasured BootVerdicts::JudgeUnderWay(const v1::Instance& instance,
                                             const v1::BootRecord& record,
                                             v1::BootMeasured measured) {
  const v1::BootEvidence& evidence = record.spec().evidence();
  // With a gap there may be too little, but not too much: the agent's own verdict says so.
  if (!HasForecast(evidence) || !evidence.gaps().empty() || !IsSameBoot(evidence, measured)) {
    return measured;
  }
  // One that cannot be read is said when the boot is over.
  const auto baseline = parts_.book.Baseline(instance.metadata().uid());
  if (!baseline.has_value() || *baseline == nullptr) {
    return measured;
  }
  const measure::BaselineJudgement judgement =
      Compare(instance, record, **baseline, measure::BootExtent::kUnderWay);
  return judgement.First() == nullptr ? measured
                                      : Join(instance, **baseline, judgement, std::move(measured));
}

void BootVerdicts::LearnPlatform(const v1::Instance& instance, const v1::BootRecord& record,
                                 const v1::Baseline& baseline, Judged& out) {
  const v1::KeySetContent no_keys;
  const JudgementInput input =
      InputOf(instance, record, baseline, no_keys, measure::BootExtent::kWhole);
  const std::vector<int> pcrs = UncomparedPcrs(input);
  if (pcrs.empty()) {
    return;
  }
  const bool pinned = baseline.spec().pinned();
  const bool learns = !pinned && !input.platform.empty();
  const std::string what = pinned    ? "and it is pinned"
                           : !learns ? "and what this one is is not known"
                                     : "and this one is learned now";
  for (const int pcr : pcrs) {
    out.measured.add_reasons("PCR " + std::to_string(pcr) +
                             " was compared with nothing: the baseline is of another platform, " +
                             what);
  }
  if (!learns) {
    return;
  }
  // What it was until now is in the event; a store that fails now is asked at the next report.
  if (Store(instance, WithPlatformOf(record.spec().evidence(), baseline.spec()), &baseline)
          .has_value()) {
    out.platform = "was " +
                   (baseline.spec().platform().empty() ? "unknown" : baseline.spec().platform()) +
                   "; is " + input.platform;
  }
}

void BootVerdicts::Learn(const v1::Instance& instance, const v1::BootEvidence& evidence,
                         Judged& out) {
  Result<void> learned = CheckWhole(evidence);
  if (learned.has_value()) {
    const auto stored =
        Store(instance, SpecOf(evidence, "learned at the first verified boot"), nullptr);
    out.learned = stored.has_value();
    if (out.learned) return;
    learned = stored.error();
    out.again = learned.error().code() != ErrorCode::kExhausted;
  }
  // A boot that cannot be compared with later ones is not verified: it would be without a baseline.
  const bool never = learned.error().code() == ErrorCode::kExhausted;
  out.measured = Undecided(out.measured, never ? v1::BOOT_DIVERGED : v1::BOOT_PENDING,
                           "the boot cannot be learned as what the instance is meant to boot: " +
                               learned.error().Describe() +
                               (learned.error().fix().empty() ? "" : "; " + learned.error().fix()));
}

BootVerdicts::Judged BootVerdicts::Judge(const v1::Instance& instance) {
  const auto record = parts_.book.Record(instance.metadata().uid());
  Judged out;
  if (record == nullptr) {
    return out;
  }
  out.measured = record->spec().agent();
  if (out.measured.has_first_difference() &&
      out.measured.first_difference().measured_what().empty()) {
    const Result<Bytes> digest = FromHex(out.measured.first_difference().measured());
    if (digest.has_value()) {
      out.measured.mutable_first_difference()->set_measured_what(
          parts_.artefacts.Describe(*digest, instance.metadata().tenant()));
    }
  }
  const v1::BootVerdict word = out.measured.verdict();
  if (word == v1::BOOT_PENDING || word == v1::BOOT_REFUSED) {
    out.measured = JudgeUnderWay(instance, *record, std::move(out.measured));
    return out;
  }
  if (word != v1::BOOT_VERIFIED) {
    return out;
  }
  const auto baseline = parts_.book.Baseline(instance.metadata().uid());
  if (!baseline.has_value()) {
    out.measured = Undecided(out.measured, v1::BOOT_DIVERGED,
                             "the boot cannot be compared with what the instance is meant to "
                             "boot: " +
                                 baseline.error().Describe());
    return out;
  }
  const v1::BootEvidence& evidence = record->spec().evidence();
  // While its record is on the way, a boot is not verified: ended now, it would not have been
  // learned, and the next one would be the first.
  if (!IsOf(evidence, out.measured) && evidence.gaps().empty()) {
    out.measured = Undecided(out.measured, v1::BOOT_PENDING,
                             "the host has not sent the record of this boot yet, which is compared "
                             "with the instance's baseline");
    return out;
  }
  if (*baseline == nullptr) {
    Learn(instance, evidence, out);
    return out;
  }
  if (!evidence.gaps().empty()) {
    out.measured = Undecided(out.measured, v1::BOOT_DIVERGED,
                             "the boot cannot be compared with what the instance is meant to "
                             "boot: " +
                                 Printable(evidence.gaps(0)));
    return out;
  }
  const measure::BaselineJudgement judgement =
      Compare(instance, *record, **baseline, measure::BootExtent::kWhole);
  out.measured = Join(instance, **baseline, judgement, out.measured);
  if (out.measured.verdict() == v1::BOOT_VERIFIED) {
    LearnPlatform(instance, *record, **baseline, out);
  }
  return out;
}

Result<v1::BootRecord> BootVerdicts::Record(const v1::Instance& instance) {
  const auto record = parts_.book.Record(instance.metadata().uid());
  if (record == nullptr) {
    return NotFound("no boot of instance " + instance.metadata().name() + " was measured yet")
        .WithFix("start it, and wait until its firmware runs");
  }
  v1::BootRecord out = *record;
  *out.mutable_metadata() = instance.metadata();
  *out.mutable_measured() = instance.status().boot().measured();
  return out;
}

Result<v1::Baseline> BootVerdicts::Find(const v1::Instance& instance) {
  ASSIGN_OR_RETURN(const auto baseline, parts_.book.Baseline(instance.metadata().uid()));
  if (baseline == nullptr) {
    return NotFound("instance " + instance.metadata().name() + " has no baseline yet")
        .WithFix("it is learned at the first boot that is VERIFIED");
  }
  return *baseline;
}

Result<v1::Baseline> BootVerdicts::Baseline(const v1::Instance& instance) { return Find(instance); }

Result<v1::BaselineDiff> BootVerdicts::Diff(const v1::Instance& instance) {
  ASSIGN_OR_RETURN(const v1::Baseline baseline, Find(instance));
  ASSIGN_OR_RETURN(const v1::BootRecord record, Record(instance));
  const v1::BootEvidence& evidence = record.spec().evidence();
  v1::BaselineDiff out;
  out.set_verdict(record.measured().verdict());
  out.set_pinned(baseline.spec().pinned());
  if (!IsComplete(evidence)) {
    return Conflict("the boot of instance " + instance.metadata().name() + " is not over")
        .WithFix("try again once the operating system has taken over; `vallum instance show " +
                 instance.metadata().name() + "` says what differs so far");
  }
  out.set_events_sha256(EventsSha256(evidence));
  const measure::BaselineJudgement judgement =
      Compare(instance, record, baseline, measure::BootExtent::kWhole);
  for (const measure::BaselineDifference& each : judgement.differences) {
    v1::BaselineChange& change = *out.add_changes();
    *change.mutable_difference() = ToProto(each);
    change.set_accepted(each.accepted);
    change.set_words(each.words);
  }
  return out;
}

Result<v1::Baseline> BootVerdicts::Store(const v1::Instance& instance, v1::BaselineSpec spec,
                                         const v1::Baseline* before) {
  v1::Baseline baseline;
  if (before != nullptr) {
    *baseline.mutable_metadata() = before->metadata();
    spec.set_pinned(before->spec().pinned());
  } else {
    *baseline.mutable_metadata()->mutable_create_time() = ToTimestamp(parts_.clock.Now());
  }
  baseline.mutable_metadata()->set_name(instance.metadata().name());
  baseline.mutable_metadata()->set_tenant(instance.metadata().tenant());
  spec.set_instance_uid(instance.metadata().uid());
  spec.set_platform(PlatformOf(instance, parts_.view));
  *spec.mutable_time() = ToTimestamp(parts_.clock.Now());
  *baseline.mutable_spec() = std::move(spec);
  return parts_.book.SetBaseline(std::move(baseline),
                                 before == nullptr ? 0 : before->metadata().revision());
}

Result<v1::Baseline> BootVerdicts::Accept(const v1::Instance& instance,
                                          const std::string& events_sha256,
                                          const std::string& user) {
  ASSIGN_OR_RETURN(const v1::BootRecord record, Record(instance));
  const v1::BootEvidence& evidence = record.spec().evidence();
  RETURN_IF_ERROR(CheckWhole(evidence));
  const v1::BootMeasured& word = record.spec().agent();
  if (word.verdict() != v1::BOOT_VERIFIED) {
    return Conflict("the host's own judgement of the boot is " + VerdictWord(word.verdict()) +
                    ", which no baseline changes")
        .WithFix("see the reasons in `vallum instance show " + instance.metadata().name() + "`");
  }
  if (!IsOf(evidence, word) ||
      (!events_sha256.empty() && ToLower(events_sha256) != EventsSha256(evidence))) {
    return Conflict("instance " + instance.metadata().name() +
                    " has booted again since, and measured something else")
        .WithFix("look at `vallum instance baseline diff " + instance.metadata().name() +
                 "` again");
  }
  ASSIGN_OR_RETURN(const auto before, parts_.book.Baseline(instance.metadata().uid()));
  return Store(instance, SpecOf(evidence, "accepted by " + user), before.get());
}

Result<v1::Baseline> BootVerdicts::Replace(const v1::Instance& instance,
                                           const v1::BaselineSpec& wanted,
                                           const std::string& user) {
  if (wanted.events().empty() || wanted.events_size() > kMaxBaselineEvents) {
    return InvalidInput("spec.events: " + std::to_string(wanted.events_size()) +
                        " extends are not from 1 to " + std::to_string(kMaxBaselineEvents));
  }
  v1::BootEvidence evidence;
  for (const v1::MeasuredEvent& event : wanted.events()) {
    *evidence.add_events() = event;
  }
  if (Bounded(evidence).events_size() != wanted.events_size()) {
    return InvalidInput(
               "spec.events: a digest is no SHA-256, or a pcr is not one of 0 to 9 and 11 "
               "to 14")
        .WithFix("take the events of another baseline: GET /v1/instances/{name}/baseline");
  }
  ASSIGN_OR_RETURN(const auto before, parts_.book.Baseline(instance.metadata().uid()));
  return Store(instance, SpecOf(Bounded(std::move(evidence)), "set by " + user), before.get());
}

Result<v1::Baseline> BootVerdicts::SetPinned(const v1::Instance& instance, bool pinned) {
  ASSIGN_OR_RETURN(v1::Baseline baseline, Find(instance));
  if (baseline.spec().pinned() == pinned) {
    return baseline;
  }
  baseline.mutable_spec()->set_pinned(pinned);
  const int64_t from = baseline.metadata().revision();
  return parts_.book.SetBaseline(std::move(baseline), from);
}

Result<v1::Baseline> BootVerdicts::Pin(const v1::Instance& instance) {
  return SetPinned(instance, true);
}

Result<v1::Baseline> BootVerdicts::Unpin(const v1::Instance& instance) {
  return SetPinned(instance, false);
}

}  // namespace vallum::controller
