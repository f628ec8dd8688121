// SPDX-License-Identifier: Apache-2.0
#include "agent/boot_judge.h"

#include <utility>
#include <variant>

#include "base/text.h"
#include "measure/event_digest.h"

namespace vallum::agent {
namespace {

constexpr uint32_t kPcrBootManager = 5;
constexpr uint32_t kPcrSecureBoot = 7;
constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;
// TCG PC Client Platform Firmware Profile 1.05, section 3.3.4.6: measured into PCR 5 by the
// firmware itself, when the loader calls ExitBootServices and once that succeeded.
constexpr std::string_view kExitInvoked = "Exit Boot Services Invocation";
constexpr std::string_view kExitSucceeded = "Exit Boot Services Returned with Success";

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

// Reasons why the TPM's own PCRs are not what the record replays to.
std::vector<std::string> CompareWithTpm(const BootEvidence& evidence) {
  std::vector<std::string> reasons;
  for (const auto& [pcr, value] : evidence.tpm_values) {
    if (pcr.value() > kPcrSecureBoot) {
      continue;  // of what the guest's own programs extend, no record is kept here
    }
    const Bytes& replayed = evidence.replay.values[pcr.value()];
    if (value != replayed) {
      reasons.push_back("PCR " + std::to_string(pcr.value()) + " of the vTPM is " + ToHex(value) +
                        ", but the recorded extends give " + ToHex(replayed));
    }
  }
  return reasons;
}

void AddPcrs(const BootEvidence& evidence, v1::BootMeasured& out) {
  for (const auto& [pcr, value] : evidence.tpm_values) {
    v1::PcrValue& entry = *out.add_pcrs();
    entry.set_index(static_cast<int32_t>(pcr.value()));
    entry.set_bank("sha256");
    entry.set_digest(ToHex(value));
  }
}

// Judges PCR 7. Returns what contradicts; notes are worth knowing, but no contradiction.
std::vector<std::string> JudgePcr7(const BootEvidence& evidence, v1::BootMeasured& out,
                                   std::vector<std::string>& notes) {
  std::vector<std::string> reasons;
  if (evidence.progress.pcr7.empty()) {
    return reasons;
  }
  if (evidence.store == nullptr) {
    reasons.push_back("PCR 7 cannot be recomputed: " + evidence.store_problem);
    return reasons;
  }
  const auto explained =
      measure::ComputePcr7(*evidence.store, evidence.binaries, evidence.progress.pcr7);
  if (!explained) {
    reasons.push_back("PCR 7 cannot be recomputed: " + explained.error().Describe());
    return reasons;
  }
  out.set_secure_boot(ToProto(explained->secure_boot));
  out.set_pcr7_measured(ToHex(explained->measured_digest));
  out.set_pcr7_computed(ToHex(explained->computed_digest));
  if (!explained->matches) {
    reasons = explained->reasons;
    if (reasons.empty()) {
      reasons.emplace_back("PCR 7 is not what the variable store and the image's loaders give");
    }
    return reasons;
  }
  notes = explained->reasons;
  if (evidence.mode == v1::BOOT_MODE_SECURE &&
      explained->secure_boot != measure::SecureBootState::kOn) {
    reasons.emplace_back(
        "boot mode SECURE was asked for, but the firmware measured Secure Boot as " +
        std::string(measure::SecureBootStateName(explained->secure_boot)));
  }
  return reasons;
}

void SetReasons(v1::BootMeasured& out, const std::vector<std::string>& reasons) {
  constexpr size_t kReasonLimit = 500;
  out.clear_reasons();
  for (const std::string& reason : reasons) {
    out.add_reasons(Printable(reason, kReasonLimit));
  }
}

}  // namespace

BootProgress ReadProgress(const measure::ExtendLog& log) {
  BootProgress progress;
  for (const measure::ExtendRecord& record : log.records()) {
    if (std::holds_alternative<measure::TpmReset>(record.body)) {
      ++progress.tpm_resets;
    }
  }
  const Bytes separator = measure::SeparatorDigest(kBank);
  const Bytes invoked = measure::ActionDigest(kBank, kExitInvoked);
  const Bytes succeeded = measure::ActionDigest(kBank, kExitSucceeded);
  for (const measure::PcrExtend& extend : measure::ExtendsOfLastBoot(log, kBank)) {
    ++progress.extends;
    if (extend.pcr.value() == kPcrSecureBoot) {
      progress.pcr7.push_back(extend.digest);
      progress.configuration_done |= extend.digest == separator;
    } else if (extend.pcr.value() == kPcrBootManager) {
      progress.left_firmware |= extend.digest == invoked || extend.digest == succeeded;
    }
  }
  return progress;
}

v1::BootMeasured JudgeBoot(const BootEvidence& evidence) {
  v1::BootMeasured out;
  out.set_verdict(v1::BOOT_PENDING);
  out.set_secure_boot(v1::SECURE_BOOT_UNKNOWN);
  out.set_extends(evidence.progress.extends);
  out.set_tpm_resets(evidence.progress.tpm_resets);
  AddPcrs(evidence, out);
  std::vector<std::string> notes;
  std::vector<std::string> reasons = JudgePcr7(evidence, out, notes);
  if (evidence.refusal && !evidence.progress.left_firmware) {
    out.set_verdict(v1::BOOT_REFUSED);
    const bool by_shim = evidence.refusal->by == RefusedBy::kShim;
    const std::string who = by_shim ? "shim refused the loader that comes after it"
                                    : "the firmware refused " + evidence.refusal->boot_option;
    SetReasons(out, {who + ": " + evidence.refusal->cause});
    return out;
  }
  const bool decidable = evidence.progress.configuration_done || evidence.progress.left_firmware;
  if (!decidable) {
    return out;  // the order of PCR 7 is not complete yet
  }
  if (evidence.progress.pcr7.empty()) {
    reasons.emplace_back("the firmware measured nothing into PCR 7");
  }
  for (std::string& reason : CompareWithTpm(evidence)) {
    reasons.push_back(std::move(reason));
  }
  for (const std::string& gap : evidence.replay.gaps) {
    reasons.push_back("the record of the vTPM has a gap: " + gap);
  }
  if (!reasons.empty()) {
    out.set_verdict(v1::BOOT_DIVERGED);
    SetReasons(out, reasons);
    return out;
  }
  if (evidence.progress.left_firmware && !evidence.tpm_values.empty()) {
    out.set_verdict(v1::BOOT_VERIFIED);
  }
  SetReasons(out, notes);
  return out;
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

std::vector<measure::BootBinary> ToMeasureBinaries(const v1::DesiredInstance& desired) {
  std::vector<measure::BootBinary> binaries;
  for (const v1::BootBinary& binary : desired.boot_binaries()) {
    measure::BootBinary out;
    out.path = binary.path();
    if (auto digest = FromHex(binary.authenticode_sha256()); digest && digest->size() == 32) {
      out.authenticode_sha256 = *std::move(digest);
    }
    for (const std::string& certificate : binary.signer_certificates()) {
      out.signer_certificates.push_back(ToBytes(AsBytes(certificate)));
    }
    out.vendor_cert_section = ToBytes(AsBytes(binary.vendor_cert()));
    out.sbat_level_section = ToBytes(AsBytes(binary.sbat_level()));
    binaries.push_back(std::move(out));
  }
  return binaries;
}

}  // namespace vallum::agent
