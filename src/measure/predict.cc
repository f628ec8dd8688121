// SPDX-License-Identifier: Apache-2.0
#include "measure/predict.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "base/text.h"
#include "measure/event_digest.h"
#include "measure/predict_stages.h"

namespace vallum::measure {
namespace {

// Those of PredictPlatform.
constexpr PcrIndex kPlatformPcrs[] = {kFirmwarePcr, kConfigurationPcr, kDriversPcr, kDriverDataPcr,
                                      kPlatformPcr};
constexpr PcrIndex kPredicted[] = {kImagesPcr,     kTablePcr,      kPolicyPcr,
                                   kCommandsPcr,   kFilesPcr,      kSectionsPcr,
                                   kParametersPcr, kExtensionsPcr, kMokPcr};

Result<void> PredictChain(const BootRun& run) {
  const std::vector<ChainBinary>& chain = run.input.chain;
  for (size_t i = 0; i < chain.size(); ++i) {
    const ChainBinary* before = i == 0 ? nullptr : &chain[i - 1];
    const ChainBinary* next = i + 1 == chain.size() ? nullptr : &chain[i + 1];
    switch (chain[i].stage) {
      case BootStage::kShim:
        RETURN_IF_ERROR(PredictShim(run, chain[i], next));
        break;
      case BootStage::kGrub:
        return PredictGrub(run, chain[i], before);
      case BootStage::kStub:
        PredictStub(run, chain[i], next);
        return Ok();
      case BootStage::kKernel:
        PredictKernel(run, chain[i], before == nullptr ? run.input.load_options : "", nullptr);
        return Ok();
    }
  }
  for (const PcrIndex pcr : kPredicted) {
    run.out.Stop(pcr, "what shim starts is not known");
  }
  return Ok();
}

}  // namespace

void BootRun::ExtendKnown(PcrIndex pcr, const BankDigests& digests,
                          const std::string& description) const {
  const auto found = digests.find(out.bank());
  if (found == digests.end() || found->second.size() != DigestSize(out.bank())) {
    out.Stop(pcr, fmt::format("no {} digest of {} was given", HashAlgorithmName(out.bank()),
                              description));
    return;
  }
  out.Extend(pcr, found->second, description);
}

void BootRun::ExtendText(PcrIndex pcr, std::string_view text,
                         const std::string& description) const {
  ExtendBytes(pcr, AsBytes(text), description);
}

void BootRun::ExtendBytes(PcrIndex pcr, ByteView data, const std::string& description) const {
  out.Extend(pcr, Digest(out.bank(), data), description);
}

void BootRun::ExtendImage(const ChainBinary& binary, std::string_view by) const {
  ExtendKnown(kImagesPcr, binary.authenticode,
              fmt::format("{} (by {})", Printable(binary.binary.path), by));
}

std::string FindSbatVersion(std::string_view sbat, std::string_view component) {
  for (const std::string& line : Split(sbat, '\n')) {
    const std::vector<std::string> fields = Split(line, ',');
    if (fields.size() >= 5 && fields[0] == component) {
      return fields[4];
    }
  }
  return "";
}

Result<Prediction> PredictBoot(HashAlgorithm bank, const firmware::VariableStore& store,
                               const BootInput& input) {
  if (input.chain.empty()) {
    return InvalidInput("a boot without a program");
  }
  std::vector<PcrIndex> pcrs(std::begin(kPredicted), std::end(kPredicted));
  if (input.platform.has_value()) {
    pcrs.insert(pcrs.end(), std::begin(kPlatformPcrs), std::end(kPlatformPcrs));
    std::ranges::sort(pcrs);
  }
  PredictionBuilder out(bank, pcrs);
  const BootRun run{store, input, DeriveSecureBoot(store) == firmware::SecureBootSetting::kOn, out};
  if (input.platform.has_value()) {
    RETURN_IF_ERROR(PredictPlatform(run));
  }
  RETURN_IF_ERROR(PredictFirmware(run));
  RETURN_IF_ERROR(PredictChain(run));
  // The kernel, or GRUB for it, leaves the firmware.
  for (const std::string_view action : {kActionExitInvoked, kActionExitSucceeded}) {
    run.ExtendText(kTablePcr, action, fmt::format("action \"{}\"", action));
  }
  return std::move(out).Finish();
}

}  // namespace vallum::measure
