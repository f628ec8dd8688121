// SPDX-License-Identifier: Apache-2.0
// predict_boot DISK VARIABLES [RECORD [FAILED_OPTIONS]]: predicts a boot from a raw disk and a
// variable store, in both banks, prints the SHA-256 events, and compares them with a record of
// vallum-vtpm. For tests: reads what the tests themselves made. Exit code 1 when a PCR differs.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <sstream>
#include <utility>

#include "base/text.h"
#include "firmware/grub_image.h"
#include "formats/fat.h"
#include "formats/fields.h"
#include "formats/gpt.h"
#include "formats/pe.h"
#include "images/boot_binaries.h"
#include "measure/predict.h"

namespace vallum::measure {
namespace {

constexpr size_t kMaxFile = size_t{64} << 20U;
constexpr size_t kSectorSize = 512;

Result<Bytes> ReadWhole(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in.good()) {
    return NotFound(path);
  }
  std::ostringstream text;
  text << in.rdbuf();
  return ToBytes(AsBytes(text.str()));
}

BankDigests Both(const std::function<Bytes(HashAlgorithm)>& digest) {
  return {{HashAlgorithm::kSha256, digest(HashAlgorithm::kSha256)},
          {HashAlgorithm::kSha384, digest(HashAlgorithm::kSha384)}};
}

std::string TextOf(const formats::PeImage& pe, std::string_view section) {
  const auto content = pe.Section(section);
  const std::string_view text = content.has_value() ? AsText(*content) : std::string_view{};
  return std::string(text.substr(0, text.find('\0')));
}

// "6.1.0-56-cloud-amd64": the setup header points to it (Linux, Documentation/x86/boot.rst).
std::string KernelRelease(ByteView file) {
  if (!formats::HasText(file, 0x202, "HdrS")) {
    return "";
  }
  const size_t at = formats::U16Le(file, 0x20e) + 0x200U;
  const std::string_view text = AsText(file).substr(std::min(at, file.size()), 64);
  return std::string(text.substr(0, text.find(' ')));
}

Result<ChainBinary> Describe(const std::string& path, ByteView file) {
  ASSIGN_OR_RETURN(const auto pe, formats::PeImage::Parse(file));
  ASSIGN_OR_RETURN(const auto described, images::DescribeBootBinary(path, file));
  ChainBinary out;
  out.binary.path = path;
  ASSIGN_OR_RETURN(out.binary.authenticode_sha256, FromHex(described.binary.authenticode_sha256));
  out.binary.signer_certificates = described.binary.certificates;
  out.binary.vendor_cert_section = described.binary.vendor_cert_section;
  out.binary.sbat_level_section = described.binary.sbat_level_section;
  out.authenticode =
      Both([&](HashAlgorithm bank) { return pe.AuthenticodeDigest(bank).value_or(Bytes{}); });
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
    out.version = KernelRelease(file);
  }
  return out;
}

// The EFI system partition of the disk.
struct Esp {
  std::vector<std::pair<std::string, Bytes>> files;  // "/EFI/BOOT/BOOTX64.EFI"
  uint32_t partition = 0;
  std::string uuid;

  const Bytes* Find(std::string_view path) const {
    for (const auto& [name, content] : files) {
      if (ToLower(name) == ToLower(path)) {
        return &content;
      }
    }
    return nullptr;
  }
};

Result<void> ReadFolder(const formats::FatVolume& volume, const formats::FatEntry& folder,
                        const std::string& path, Esp& esp) {
  ASSIGN_OR_RETURN(const auto entries, volume.List(folder));
  for (const auto& entry : entries) {
    const std::string name = path + "/" + entry.name;
    if (entry.kind == formats::FatEntryKind::kDirectory) {
      RETURN_IF_ERROR(ReadFolder(volume, entry, name, esp));
    } else {
      ASSIGN_OR_RETURN(Bytes content, volume.Read(entry, kMaxFile));
      esp.files.emplace_back(name, std::move(content));
    }
  }
  return Ok();
}

Result<Esp> ReadEsp(const formats::RandomAccessReader& disk) {
  ASSIGN_OR_RETURN(const auto table, formats::ParseGpt(disk, kSectorSize));
  for (const auto& partition : table.partitions) {
    if (formats::FormatGuid(partition.type) != formats::kEspTypeGuid) {
      continue;
    }
    ASSIGN_OR_RETURN(const auto window,
                     formats::WindowReader::Create(disk, partition.first_lba * kSectorSize,
                                                   partition.sectors() * kSectorSize));
    ASSIGN_OR_RETURN(const auto volume, formats::FatVolume::Open(window));
    ASSIGN_OR_RETURN(const Bytes boot, formats::ReadBytesAt(window, 0, kSectorSize));
    Esp esp;
    esp.partition = partition.number;
    const size_t serial = volume.kind() == formats::FatKind::kFat32 ? 67 : 39;
    esp.uuid = fmt::format("{:04X}-{:04X}", formats::U16Le(boot, serial + 2),
                           formats::U16Le(boot, serial));
    RETURN_IF_ERROR(ReadFolder(volume, volume.Root(), "", esp));
    return esp;
  }
  return NotFound("an EFI system partition");
}

Result<GrubInput> DescribeGrub(const Esp& esp, ByteView program) {
  ASSIGN_OR_RETURN(const auto pe, formats::PeImage::Parse(program));
  ASSIGN_OR_RETURN(const auto image, firmware::ParseGrubModules(*pe.Section("mods")));
  GrubInput grub;
  grub.device = fmt::format("hd0,gpt{}", esp.partition);
  grub.directory = "/EFI/BOOT";
  grub.prefix = image.prefix;
  const formats::MemoryReader memory(image.memdisk);
  ASSIGN_OR_RETURN(const auto memdisk, formats::FatVolume::Open(memory));
  ASSIGN_OR_RETURN(const auto entry, memdisk.Find("grub.cfg"));
  ASSIGN_OR_RETURN(const Bytes script, memdisk.Read(entry, kMaxFile));
  grub.embedded_script = std::string(AsText(script));
  GrubVolume& volume = grub.volumes.emplace_back();
  volume.device = grub.device;
  volume.ignores_case = true;
  volume.uuid = esp.uuid;
  for (const auto& [name, content] : esp.files) {
    GrubFile& file = volume.files.emplace_back();
    file.path = name;
    file.digests = Both([&, &bytes = content](HashAlgorithm bank) { return Digest(bank, bytes); });
    if (name.ends_with(".cfg")) {
      file.script = std::string(AsText(content));
    }
    if (auto kernel = Describe(name, content);
        kernel.has_value() && kernel->stage == BootStage::kKernel) {
      grub.kernels.push_back(*std::move(kernel));
    }
  }
  return grub;
}

Result<BootInput> DescribeDisk(const formats::RandomAccessReader& disk, const Esp& esp) {
  BootInput input;
  ASSIGN_OR_RETURN(input.gpt_header, formats::ReadBytesAt(disk, kSectorSize, kSectorSize));
  ASSIGN_OR_RETURN(input.gpt_entries, formats::ReadBytesAt(disk, 2 * kSectorSize, 128 * 128));
  for (std::string path = "/EFI/BOOT/BOOTX64.EFI"; !path.empty();) {
    const Bytes* file = esp.Find(path);
    if (file == nullptr) {
      return NotFound(path);
    }
    ASSIGN_OR_RETURN(const auto binary, Describe(path, *file));
    input.chain.push_back(binary);
    path = binary.stage == BootStage::kShim ? "/EFI/BOOT/grubx64.efi" : "";
    if (binary.stage == BootStage::kGrub) {
      ASSIGN_OR_RETURN(input.grub, DescribeGrub(esp, *file));
    }
    if (binary.stage == BootStage::kStub) {
      ASSIGN_OR_RETURN(const auto pe, formats::PeImage::Parse(*file));
      for (const auto& section : pe.sections()) {
        input.stub_sections.push_back({section.name, *pe.Section(section.name)});
      }
      ASSIGN_OR_RETURN(const auto kernel, Describe("kernel inside", *pe.Section(".linux")));
      input.chain.push_back(kernel);
    }
  }
  return input;
}

void Print(const Prediction& prediction) {
  for (const PcrPrediction& pcr : prediction.pcrs) {
    std::cout << fmt::format("{} PCR {}: {} {}{}\n", HashAlgorithmName(prediction.bank),
                             pcr.pcr.value(), PcrKnowledgeName(pcr.state), ToHex(pcr.value),
                             pcr.reason);
    for (const PredictedEvent& event : pcr.events) {
      std::cout << fmt::format("  {} {}\n", ToHex(event.digest), event.description);
    }
  }
}

Result<bool> Run(const std::vector<std::string>& arguments) {
  ASSIGN_OR_RETURN(const Bytes content, ReadWhole(arguments[0]));
  ASSIGN_OR_RETURN(const Bytes variables, ReadWhole(arguments[1]));
  ASSIGN_OR_RETURN(const auto store, firmware::VariableStore::Parse(variables));
  const formats::MemoryReader disk(content);
  ASSIGN_OR_RETURN(const Esp esp, ReadEsp(disk));
  ASSIGN_OR_RETURN(BootInput input, DescribeDisk(disk, esp));
  if (arguments.size() > 3) {
    input.failed_boot_options = std::stoul(arguments[3]);
  }
  ExtendLog log;
  if (arguments.size() > 2) {
    ASSIGN_OR_RETURN(const Bytes record, ReadWhole(arguments[2]));
    ASSIGN_OR_RETURN(log, ParseExtendLog(record));
  }
  bool differs = false;
  for (const HashAlgorithm bank : {HashAlgorithm::kSha256, HashAlgorithm::kSha384}) {
    ASSIGN_OR_RETURN(const Prediction prediction, PredictBoot(bank, store, input));
    Print(prediction);
    const auto measured = ExtendsOfLastBoot(log, bank);
    if (measured.empty()) {
      continue;  // a vTPM has the banks that it was made with
    }
    for (const PcrComparison& each : ComparePrediction(prediction, measured)) {
      std::cout << fmt::format("compare {} PCR {}: {} {}\n", HashAlgorithmName(bank),
                               each.pcr.value(), PcrAgreementName(each.agreement), each.reason);
      differs = differs || each.agreement == PcrAgreement::kDiffers;
    }
  }
  return differs;
}

}  // namespace
}  // namespace vallum::measure

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() < 2) {
    std::cerr << "predict_boot DISK VARIABLES [RECORD [FAILED_OPTIONS]]\n";
    return 2;
  }
  const auto differs = vallum::measure::Run(arguments);
  if (!differs.has_value()) {
    std::cerr << differs.error().Describe() << "\n";
    return 2;
  }
  return *differs ? 1 : 0;
}
