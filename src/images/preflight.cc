// SPDX-License-Identifier: Apache-2.0
#include "images/preflight.h"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/text.h"

namespace vallum::images {

std::string_view LinkRoleName(LinkRole role) {
  switch (role) {
    case LinkRole::kShim:
      return "shim";
    case LinkRole::kFallback:
      return "fallback";
    case LinkRole::kGrub:
      return "grub";
    case LinkRole::kBootManager:
      return "boot_manager";
    case LinkRole::kUnifiedKernel:
      return "unified_kernel";
    case LinkRole::kKernel:
      return "kernel";
    case LinkRole::kOther:
      return "program";
  }
  return "program";
}

std::string_view BootableName(Bootable bootable) {
  switch (bootable) {
    case Bootable::kYes:
      return "yes";
    case Bootable::kAsFarAsKnown:
      return "as_far_as_known";
    case Bootable::kNo:
      return "no";
  }
  return "no";
}

std::string_view ReadinessName(SecureBootReadiness readiness) {
  switch (readiness) {
    case SecureBootReadiness::kNotSupported:
      return "not_supported";
    case SecureBootReadiness::kDisabled:
      return "disabled";
    case SecureBootReadiness::kFirstBoot:
      return "first_boot";
    case SecureBootReadiness::kReady:
      return "ready";
    case SecureBootReadiness::kReadyNoDbx:
      return "ready_no_dbx";
    case SecureBootReadiness::kSetupMode:
      return "setup_mode";
    case SecureBootReadiness::kCertsIncomplete:
      return "certs_incomplete";
  }
  return "not_supported";
}

SecureBootReadiness ReadinessOf(const firmware::KeySet& keys) {
  if (keys.pk.empty()) return SecureBootReadiness::kSetupMode;
  if (!keys.secure_boot) return SecureBootReadiness::kDisabled;
  if (keys.kek.empty() || keys.db.empty()) return SecureBootReadiness::kCertsIncomplete;
  return keys.dbx.empty() ? SecureBootReadiness::kReadyNoDbx : SecureBootReadiness::kReady;
}

KeySetReport ReportWithoutChain(const firmware::KeySet& keys, std::string reason) {
  KeySetReport report;
  report.key_set = keys.name;
  report.readiness = SecureBootReadiness::kNotSupported;
  report.bootable = Bootable::kNo;
  report.reasons.push_back(std::move(reason));
  report.fixes.emplace_back(
      "use an image with a GPT, an EFI system partition and \\EFI\\BOOT\\BOOTX64.EFI");
  return report;
}

std::string Summarize(const KeySetReport& report) {
  std::string line = "bootable under key set " + Printable(report.key_set) + ": ";
  switch (report.bootable) {
    case Bootable::kYes:
      return line + "yes";
    case Bootable::kAsFarAsKnown:
      line += "as far as known";
      break;
    case Bootable::kNo:
      line += "no";
      break;
  }
  return report.reasons.empty() ? line : line + ", because " + Join(report.reasons, "; ");
}

}  // namespace vallum::images
