// SPDX-License-Identifier: Apache-2.0
#include "agent/boot_trace.h"

#include <variant>

namespace vallum::agent {
namespace {

constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;
constexpr uint32_t kLastFirmwarePcr = 7;
constexpr uint32_t kImaPcr = 10;
constexpr uint32_t kLastEvidencePcr = 14;

}  // namespace

BootTrace::Change BootTrace::Take(const measure::ExtendRecord& record) {
  if (const auto* extend = std::get_if<measure::PcrExtend>(&record.body)) {
    return TakeExtend(record, *extend);
  }
  if (const auto* opaque = std::get_if<measure::OpaqueChange>(&record.body)) {
    return TakeOpaque(record, *opaque);
  }
  replayer_.Take(record.body);
  if (std::holds_alternative<measure::TpmReset>(record.body)) {
    events_.clear();
    gaps_.clear();
    later_gap_.clear();
    extends_ = 0;
    left_firmware_ = handed_over_ = lost_ = false;
    return Change::kNewBoot;
  }
  return std::holds_alternative<measure::TpmStartup>(record.body) ? Change::kVerdict
                                                                  : Change::kNothing;
}

BootTrace::Change BootTrace::TakeExtend(const measure::ExtendRecord& record,
                                        const measure::PcrExtend& extend) {
  if (extend.bank != kBank) {
    return Change::kNothing;
  }
  ++extends_;
  const uint32_t pcr = extend.pcr.value();
  const bool replayed = pcr <= kLastFirmwarePcr;
  if (replayed) {
    replayer_.Take(record.body);
  }
  if (handed_over_) {
    return replayed ? Change::kValues : Change::kNothing;
  }
  if (pcr == kImaPcr || pcr > kLastEvidencePcr) {
    return Change::kNothing;
  }
  MeasuredExtend event{extend.pcr, extend.digest, record.time};
  left_firmware_ |= IsHandOver(event);
  handed_over_ = EndsBoot(event);
  if (events_.size() == kMaxBootExtends) {
    if (gaps_.empty()) {
      gaps_.push_back("more than " + std::to_string(kMaxBootExtends) + " extends");
    }
    return replayed ? Change::kVerdict : Change::kNothing;
  }
  events_.push_back(std::move(event));
  return replayed ? Change::kVerdict : Change::kEvidence;
}

// After the hand-over it is what a program of the guest did.
BootTrace::Change BootTrace::TakeOpaque(const measure::ExtendRecord& record,
                                        const measure::OpaqueChange& change) {
  if (!handed_over_) {
    replayer_.Take(record.body);
    return Change::kVerdict;
  }
  if (later_gap_.empty()) {
    later_gap_ = change.what;
  }
  return Change::kValues;
}

void BootTrace::NoteLoss() { lost_ = true; }

void BootTrace::Describe(BootFacts& facts) const {
  const int resets = facts.progress.tpm_resets;
  facts.events = events_;
  facts.progress = ReadProgress(events_);
  facts.progress.tpm_resets = resets;
  facts.progress.extends = extends_;
  facts.progress.left_firmware |= left_firmware_;
  facts.replay = replayer_.Get();
  facts.gaps = gaps_;
  if (lost_) {
    facts.gaps.emplace_back("records were dropped before they were read");
  }
  facts.later_gap = later_gap_;
}

}  // namespace vallum::agent
