// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/text.h"
#include "base/units.h"
#include "cli/commands.h"
#include "cli/local_image.h"
#include "firmware/firmware_volume.h"
#include "images/inspection_json.h"
#include "measure/extend_log.h"
#include "measure/platform.h"
#include "measure/prediction.h"

namespace vallum::cli {
namespace {

struct PredictOptions {
  std::string file, format, variables, record, bank = "sha256";
  std::string firmware, memory, cpu;
  uint32_t vcpus = 1;
  uint8_t boot_disk_slot = 4;
  uint64_t failed_boot_options = 0;
};

constexpr size_t kMaxFile = size_t{64} << 20U;

Result<images::PredictedPlatform> ReadPlatform(const PredictOptions& options) {
  if (options.memory.empty() || options.cpu.empty()) {
    return InvalidInput("what the firmware measures depends on the machine")
        .WithFix("give --memory and --cpu with --firmware");
  }
  images::PredictedPlatform platform;
  ASSIGN_OR_RETURN(platform.firmware, ReadInputFile(options.firmware, firmware::kMaxFirmwareImage));
  ASSIGN_OR_RETURN(platform.machine.memory, ParseByteCount(options.memory));
  ASSIGN_OR_RETURN(platform.machine.cpu, measure::ParseGuestCpu(options.cpu));
  platform.machine.vcpus = options.vcpus;
  platform.machine.boot_disk_slot = options.boot_disk_slot;
  return platform;
}

// Says beside each PCR whether the record of a real boot agrees. Returns how many differ.
Result<size_t> AddComparison(const measure::Prediction& prediction, const std::string& path,
                             std::vector<Json>& rows) {
  ASSIGN_OR_RETURN(const Bytes text, ReadInputFile(path, kMaxFile));
  ASSIGN_OR_RETURN(const measure::ExtendLog log, measure::ParseExtendLog(text));
  const auto compared =
      measure::ComparePrediction(prediction, measure::ExtendsOfLastBoot(log, prediction.bank));
  size_t differ = 0;
  for (const measure::PcrComparison& each : compared) {
    for (Json& row : rows) {
      if (row["pcr"] != each.pcr.value()) continue;
      row["measured"] = measure::PcrAgreementName(each.agreement);
      if (each.agreement == measure::PcrAgreement::kDiffers) {
        ++differ;
        row["reason"] = each.reason;
      }
    }
  }
  return differ;
}

Result<void> Predict(Tool* tool, const PredictOptions& options) {
  ASSIGN_OR_RETURN(const HashAlgorithm bank, measure::ParseBankName(options.bank));
  images::InspectionRequest request;
  request.prediction.emplace();
  ASSIGN_OR_RETURN(request.prediction->variables, ReadInputFile(options.variables, kMaxFile));
  request.prediction->failed_boot_options = options.failed_boot_options;
  if (!options.firmware.empty()) {
    ASSIGN_OR_RETURN(request.prediction->platform, ReadPlatform(options));
  }
  ASSIGN_OR_RETURN(const LocalImage image, LocalImage::Open(options.file));
  ASSIGN_OR_RETURN(const images::InspectedImage inspected,
                   image.Inspect(tool->environment().inspector, options.format, request));
  const images::Inspection& found = inspected.inspection();
  const measure::Prediction* prediction = nullptr;
  for (const measure::Prediction& each : found.predictions) {
    if (each.bank == bank) prediction = &each;
  }
  if (prediction == nullptr) {
    return InvalidInput(Printable(options.file) + ": " +
                        (found.predictions.empty() && !found.facts.empty()
                             ? found.facts.back()
                             : "there is no prediction in the bank " + options.bank));
  }
  const Json full = Json::parse(images::InspectionToJson(found));
  std::vector<Json> rows;
  for (const Json& each : full["predictions"]) {
    if (each["bank"] != options.bank) continue;
    for (const Json& pcr : each["pcrs"]) rows.push_back(pcr);
  }
  size_t differ = 0;
  if (!options.record.empty()) {
    ASSIGN_OR_RETURN(differ, AddComparison(*prediction, options.record, rows));
  }
  static const std::vector<Column> kColumns = {{"PCR", "pcr"},
                                               {"STATE", "state"},
                                               {"VALUE", "value"},
                                               {"MEASURED", "measured"},
                                               {"BECAUSE", "reason"}};
  RETURN_IF_ERROR(tool->Show(kColumns, rows, Json{{"bank", options.bank}, {"pcrs", rows}}));
  if (differ == 0) return Ok();
  return Conflict(std::to_string(differ) + " PCRs were measured otherwise than predicted")
      .WithFix("the first event that differs stands beside each");
}

}  // namespace

void AddPredictCommand(CLI::App* group, Tool* tool) {
  auto options = std::make_shared<PredictOptions>();
  CLI::App* predict = group->add_subcommand(
      "predict", "Predict the PCRs of a boot from a disk and a variable store, without a server");
  predict->add_option("FILE", options->file, "Disk image")->required();
  predict
      ->add_option("--variables", options->variables,
                   "UEFI variables before the boot: OVMF_VARS*.fd, an instance's vars.fd")
      ->required();
  predict->add_option("--firmware", options->firmware,
                      "Code file that QEMU runs (OVMF_CODE*.fd): predicts PCR 0 to 3 and 6 too");
  predict->add_option("--memory", options->memory, "The machine's memory: 512M, 2G");
  predict->add_option("--vcpus", options->vcpus, "The machine's processors")
      ->check(CLI::Range(1, 255))
      ->capture_default_str();
  predict->add_option("--cpu", options->cpu,
                      "What the guest's processor says: tcg, or VENDOR:ADDRESS-BITS as "
                      "/proc/cpuinfo has them (GenuineIntel:46)");
  predict->add_option("--boot-disk-slot", options->boot_disk_slot, "PCI slot of the root disk")
      ->check(CLI::Range(1, 31))
      ->capture_default_str();
  predict->add_option("--disk-format", options->format,
                      "What it is declared as (default: what the content is)");
  predict->add_option("--bank", options->bank, "sha256 or sha384")->capture_default_str();
  predict->add_option("--failed-boot-options", options->failed_boot_options,
                      "Boot options that the firmware tries in vain before this disk");
  predict->add_option("--record", options->record,
                      "What vallum-vtpm recorded of a boot, to compare with; exit code 4 if a PCR "
                      "differs");
  predict->callback([=] { tool->action = [=] { return Predict(tool, *options); }; });
}

}  // namespace vallum::cli
