// SPDX-License-Identifier: Apache-2.0
#include "controller/report_limits.h"

#include <string>

namespace vallum::controller {
namespace {

constexpr int kMaxReasons = 8;
constexpr int kMaxStages = 64;
constexpr int kMaxChanges = 32;

template <typename List>
int Shorten(List& list, int most) {
  const int more = list.size() - most;
  if (more > 0) list.DeleteSubrange(most, more);
  return more > 0 ? more : 0;
}

void ShortenLists(v1::BootMeasured& measured) {
  const int reasons = Shorten(*measured.mutable_reasons(), kMaxReasons);
  if (reasons > 0) measured.add_reasons("and " + std::to_string(reasons) + " more");
  const int others = Shorten(*measured.mutable_stages(), kMaxStages) +
                     Shorten(*measured.mutable_accepted_changes(), kMaxChanges) +
                     Shorten(*measured.mutable_pcrs(), kMaxChanges);
  if (others > 0) {
    measured.add_reasons("the host said more of this boot than is kept: " + std::to_string(others) +
                         " stages, changes and PCRs are left out");
  }
}

// Everything in it has a size of its own.
v1::InstanceStatus WithoutTexts(const v1::InstanceStatus& status, size_t bytes) {
  const std::string words = "what the host reported of the instance has " + std::to_string(bytes) +
                            " bytes, more than the " + std::to_string(kMaxReportedStatus) +
                            " that are kept: its texts are left out";
  v1::InstanceStatus out;
  out.set_phase(status.phase());
  out.set_reason(words);
  out.set_observed_generation(status.observed_generation());
  out.set_observed_reboot_count(status.observed_reboot_count());
  if (status.has_started_at()) *out.mutable_started_at() = status.started_at();
  out.set_progress_percent(status.progress_percent());
  const v1::BootEffective& effective = status.boot().effective();
  out.mutable_boot()->mutable_effective()->set_type(effective.type());
  out.mutable_boot()->mutable_effective()->set_mode(effective.mode());
  const v1::BootMeasured& measured = status.boot().measured();
  v1::BootMeasured& kept = *out.mutable_boot()->mutable_measured();
  kept.set_verdict(measured.verdict());
  kept.set_early(measured.early());
  kept.set_late(measured.late());
  kept.set_secure_boot(measured.secure_boot());
  kept.set_extends(measured.extends());
  kept.set_tpm_resets(measured.tpm_resets());
  if (measured.has_measured_at()) *kept.mutable_measured_at() = measured.measured_at();
  if (measured.has_run_started_at()) {
    *kept.mutable_run_started_at() = measured.run_started_at();
  }
  kept.set_boot_sequence(measured.boot_sequence());
  kept.add_reasons(words);
  return out;
}

Result<void> CheckText(const char* what, const std::string& text) {
  if (text.size() <= kMaxHelloText) return Ok();
  return InvalidInput(std::string("Hello: ") + what + " has " + std::to_string(text.size()) +
                      " bytes, more than the " + std::to_string(kMaxHelloText) + " that are taken")
      .WithFix("run the agent that this controller's version comes with");
}

}  // namespace

Result<void> CheckCapabilities(const v1::HostCapabilities& capabilities) {
  const size_t bytes = capabilities.ByteSizeLong();
  if (bytes <= kMaxCapabilities) return Ok();
  return InvalidInput("the host's capabilities have " + std::to_string(bytes) +
                      " bytes, more than " + "the " + std::to_string(kMaxCapabilities) +
                      " that are taken")
      .WithFix("see which of its firmware, bridges or probes are that many or that long");
}

Result<void> CheckHello(const v1::Hello& hello) {
  RETURN_IF_ERROR(CheckText("boot_id", hello.boot_id()));
  RETURN_IF_ERROR(CheckText("agent_version", hello.agent_version()));
  for (const v1::InstanceReport& report : hello.instances()) {
    RETURN_IF_ERROR(CheckText("an instance's uid", report.uid()));
  }
  return CheckCapabilities(hello.capabilities());
}

v1::InstanceStatus BoundedStatus(v1::InstanceStatus status) {
  const size_t bytes = status.ByteSizeLong();
  if (bytes <= kMaxReportedStatus) return status;
  ShortenLists(*status.mutable_boot()->mutable_measured());
  return status.ByteSizeLong() <= kMaxReportedStatus ? status : WithoutTexts(status, bytes);
}

}  // namespace vallum::controller
