// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "measure/authorities.h"
#include "measure/grub_script.h"
#include "measure/predict_stages.h"

namespace vallum::measure {
namespace {

// The builds whose measurements were compared with real boots.
constexpr std::string_view kKnownVersion = "2.06-13+deb12u2";

const ChainBinary* FindKernel(const GrubInput& input, const std::string& path) {
  const auto found =
      std::find_if(input.kernels.begin(), input.kernels.end(),
                   [&](const ChainBinary& kernel) { return kernel.binary.path == path; });
  return found == input.kernels.end() ? nullptr : &*found;
}

// A kernel under Secure Boot: GRUB asks shim's protocol, which measures what it verifies: once for
// the verifier of files and once for the loader.
Result<void> VerifyKernel(const BootRun& run, const ChainBinary& grub, const ChainBinary& shim,
                          const std::string& path) {
  const ChainBinary* kernel = FindKernel(*run.input.grub, path);
  if (kernel == nullptr) {
    const std::string reason = fmt::format("{} is no program that is known", Printable(path));
    run.out.Stop(kImagesPcr, reason);
    run.out.Stop(kPolicyPcr, reason);
    return Ok();
  }
  ASSIGN_OR_RETURN(const auto authority, ShimAuthority(run.store, shim.binary, kernel->binary));
  ASSIGN_OR_RETURN(const auto before, ShimAuthority(run.store, shim.binary, grub.binary));
  if (!authority.has_value()) {
    const std::string reason =
        fmt::format("neither db nor shim admits {}: shim refuses it", Printable(path));
    run.out.Stop(kImagesPcr, reason);
    run.out.Stop(kPolicyPcr, reason);
    return Ok();
  }
  const Bytes digest = authority->DigestIn(run.out.bank());
  if (!before.has_value() || before->DigestIn(run.out.bank()) != digest) {
    run.out.Extend(kPolicyPcr, digest, authority->explanation);  // each authority once
  }
  run.ExtendImage(*kernel, "shim for GRUB's verifier");
  run.ExtendImage(*kernel, "shim for GRUB's loader");
  return Ok();
}

Result<void> Replay(const BootRun& run, const GrubRun& script, const ChainBinary& grub,
                    const ChainBinary* shim) {
  size_t kernels = 0;
  for (const GrubEvent& event : script.events) {
    switch (event.kind) {
      case GrubEvent::Kind::kCommand:
        run.ExtendText(kCommandsPcr, event.text, "command: " + Printable(event.text));
        break;
      case GrubEvent::Kind::kKernelCommandLine:
        run.ExtendText(kCommandsPcr, event.text, "kernel command line: " + Printable(event.text));
        break;
      case GrubEvent::Kind::kFile:
        run.ExtendKnown(kFilesPcr, event.file->digests, "file " + Printable(event.text));
        break;
      case GrubEvent::Kind::kKernel:
        if (++kernels > 1) {
          run.out.Stop(kImagesPcr, "GRUB loads more than one kernel");
          run.out.Stop(kPolicyPcr, "GRUB loads more than one kernel");
        } else if (run.secure_boot && shim != nullptr) {
          RETURN_IF_ERROR(VerifyKernel(run, grub, *shim, event.text));
        }
        break;
    }
  }
  return Ok();
}

void StopAll(const BootRun& run, const std::string& reason) {
  run.out.Stop(kCommandsPcr, reason);
  run.out.Stop(kFilesPcr, reason);
  run.out.Stop(kImagesPcr, reason);  // it may start a program by the firmware
  if (run.secure_boot) {
    run.out.Stop(kPolicyPcr, reason);
  }
}

}  // namespace

Result<void> PredictGrub(const BootRun& run, const ChainBinary& grub, const ChainBinary* shim) {
  const std::string version = FindSbatVersion(grub.version, "grub.debian");
  if (version != kKnownVersion) {
    StopAll(run, fmt::format("what GRUB {} measures was not compared with a real boot; {} was",
                             version.empty() ? "of an unknown version" : Printable(version, 40),
                             kKnownVersion));
    return Ok();
  }
  if (!run.input.grub.has_value()) {
    StopAll(run, "GRUB's configuration was not given");
    return Ok();
  }
  if (run.secure_boot && shim == nullptr) {
    StopAll(run, "GRUB starts no kernel under Secure Boot without shim");
    return Ok();
  }
  const GrubRun script = RunGrub(*run.input.grub);
  RETURN_IF_ERROR(Replay(run, script, grub, shim));
  if (!script.stopped.empty()) {
    StopAll(run, script.stopped);
  }
  return Ok();
}

}  // namespace vallum::measure
