// SPDX-License-Identifier: Apache-2.0
#include "images/boot_prediction.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "firmware/variable_store.h"
#include "formats/fields.h"
#include "formats/pe.h"
#include "images/boot_binaries.h"
#include "images/boot_config.h"
#include "images/esp.h"
#include "measure/firmware_measurements.h"
#include "measure/predict.h"

namespace vallum::images {
namespace {

using measure::BootStage;
using measure::ChainBinary;

constexpr std::array kBanks = {HashAlgorithm::kSha256, HashAlgorithm::kSha384};
constexpr size_t kGptEntryBytes = 128;
constexpr size_t kGptEntries = 128;
constexpr size_t kMaxChain = 4;

std::string TextOf(const formats::PeImage& pe, std::string_view section) {
  const std::optional<ByteView> content = pe.Section(section);
  const std::string_view text = content.has_value() ? AsText(*content) : std::string_view();
  return std::string(text.substr(0, text.find('\0')));
}

// "6.1.0-56-cloud-amd64": the setup header points to it (Linux, Documentation/arch/x86/boot).
std::string KernelRelease(ByteView file) {
  if (!formats::HasText(file, 0x202, "HdrS")) return "";
  const size_t at = formats::U16Le(file, 0x20e) + size_t{0x200};
  const std::string_view text = AsText(file).substr(std::min(at, file.size()), 64);
  return std::string(text.substr(0, text.find(' ')));
}

// What is read of a boot while its bytes are held: a unified kernel's sections are views.
struct Reading {
  measure::BootInput input;
  std::vector<std::unique_ptr<Bytes>> held;
};

Result<const Bytes*> Hold(const Esp& esp, const std::string& path, Reading& reading) {
  const EspFile* const file = esp.Find(path);
  if (file == nullptr) return NotFound(path + " does not exist on the EFI system partition");
  ASSIGN_OR_RETURN(Bytes content, esp.Read(*file));
  reading.held.push_back(std::make_unique<Bytes>(std::move(content)));
  return reading.held.back().get();
}

Result<void> AddStub(const formats::PeImage& pe, Reading& reading) {
  for (const formats::PeSection& section : pe.sections()) {
    reading.input.stub_sections.push_back(
        {.name = section.name, .content = pe.Section(section.name).value_or(ByteView())});
  }
  ASSIGN_OR_RETURN(const formats::PeImage inside,
                   formats::PeImage::Parse(pe.Section(".linux").value_or(ByteView())));
  ASSIGN_OR_RETURN(ChainBinary kernel, DescribeForPrediction("kernel inside", inside, kBanks));
  reading.input.chain.push_back(std::move(kernel));
  return Ok();
}

Result<void> ReadChain(const Esp& esp, Reading& reading) {
  std::string path = "\\EFI\\BOOT\\BOOTX64.EFI";
  while (reading.input.chain.size() < kMaxChain) {
    ASSIGN_OR_RETURN(const Bytes* const content, Hold(esp, path, reading));
    ASSIGN_OR_RETURN(const formats::PeImage pe, formats::PeImage::Parse(*content));
    ASSIGN_OR_RETURN(ChainBinary binary, DescribeForPrediction(path, pe, kBanks));
    const BootStage stage = binary.stage;
    reading.input.chain.push_back(std::move(binary));
    const std::string folder(FolderOf(path));
    switch (stage) {
      case BootStage::kShim:
        if (esp.Find(folder + "\\fbx64.efi") != nullptr) {
          return InvalidInput("the shim runs its fallback program, which restarts the machine")
              .WithFix("predict the boot of a disk without " + folder + "\\fbx64.efi");
        }
        path = folder + "\\grubx64.efi";
        continue;
      case BootStage::kGrub:
        reading.input.grub = DescribeGrub(esp, pe, folder, kBanks);
        return Ok();
      case BootStage::kStub:
        return AddStub(pe, reading);
      case BootStage::kKernel:
        return Ok();
    }
  }
  return InvalidInput("the boot chain is longer than is predicted");
}

}  // namespace

Result<ChainBinary> DescribeForPrediction(const std::string& path, const formats::PeImage& pe,
                                          std::span<const HashAlgorithm> banks) {
  ASSIGN_OR_RETURN(const DescribedBinary described, DescribeBootBinary(path, pe));
  ChainBinary out;
  std::string& to = out.binary.path = path;
  std::ranges::replace(to, '\\', '/');
  ASSIGN_OR_RETURN(out.binary.authenticode_sha256, FromHex(described.binary.authenticode_sha256));
  out.binary.signer_certificates = described.binary.certificates;
  out.binary.vendor_cert_section = described.binary.vendor_cert_section;
  out.binary.sbat_level_section = described.binary.sbat_level_section;
  for (const HashAlgorithm bank : banks) {
    ASSIGN_OR_RETURN(out.authenticode[bank], pe.AuthenticodeDigest(bank));
  }
  if (pe.Section(".vendor_cert").has_value()) {
    out.stage = BootStage::kShim;
    out.version = TextOf(pe, ".sbat");
  } else if (pe.Section("mods").has_value()) {
    out.stage = BootStage::kGrub;
    out.version = TextOf(pe, ".sbat");
  } else if (pe.Section(".linux").has_value()) {
    out.stage = BootStage::kStub;
    out.version = TextOf(pe, ".sdmagic");
  } else {
    out.stage = BootStage::kKernel;
    out.version = KernelRelease(pe.file());
  }
  return out;
}

Result<measure::FirmwareMeasurements> MeasurePlatform(const PredictionRequest& request) {
  if (!request.platform.has_value()) return measure::FirmwareMeasurements();
  Result<measure::FirmwareMeasurements> firmware =
      measure::MeasureFirmware(request.platform->firmware, kBanks);
  if (!firmware.has_value())
    return std::move(firmware).error().Context("reading the firmware's code file");
  return firmware;
}

Result<std::vector<measure::Prediction>> PredictFromDisk(
    const formats::RandomAccessReader& disk, const formats::GptTable& table,
    const PredictionRequest& request, const measure::FirmwareMeasurements& firmware) {
  ASSIGN_OR_RETURN(const auto store, firmware::VariableStore::Parse(request.variables));
  ASSIGN_OR_RETURN(const std::unique_ptr<Esp> esp, Esp::Open(disk, table));
  Reading reading;
  reading.input.failed_boot_options = request.failed_boot_options;
  ASSIGN_OR_RETURN(reading.input.gpt_header,
                   formats::ReadBytesAt(disk, table.sector_size, table.sector_size));
  ASSIGN_OR_RETURN(
      reading.input.gpt_entries,
      formats::ReadBytesAt(disk, uint64_t{2} * table.sector_size, kGptEntryBytes * kGptEntries));
  RETURN_IF_ERROR(ReadChain(*esp, reading));
  if (request.platform.has_value()) {
    reading.input.platform = {.firmware = &firmware, .machine = request.platform->machine};
  }
  std::vector<measure::Prediction> predictions;
  for (const HashAlgorithm bank : kBanks) {
    ASSIGN_OR_RETURN(measure::Prediction prediction,
                     measure::PredictBoot(bank, store, reading.input));
    predictions.push_back(std::move(prediction));
  }
  return predictions;
}

}  // namespace vallum::images
