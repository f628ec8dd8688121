// SPDX-License-Identifier: Apache-2.0
// What OVMF measures of itself and of its boot options: PCR 0, 1, 2, 3 and 6.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/text.h"
#include "measure/event_digest.h"
#include "measure/firmware_measurements.h"
#include "measure/predict_stages.h"

namespace vallum::measure {
namespace {

using firmware::MakeGuid;

constexpr uint64_t kGiB = uint64_t{1} << 30U;
constexpr uint64_t kMaxMemory = uint64_t{512} << 30U;  // above QEMU moves memory on AMD
constexpr uint32_t kMaxVcpus = 255;

// EFI_MEMORY_TYPE_INFORMATION: type (4 bytes), number of pages (4).
constexpr size_t kMemoryTypes = 5;  // and one that ends them
constexpr size_t kMemoryTypeSize = 8;
constexpr size_t kMaxMemoryTypes = 17;  // EfiMaxMemoryType + 1
constexpr firmware::Guid kMemoryTypeGuid =
    MakeGuid(0x4c19049f, 0x4137, 0x4dd3, {0x9c, 0x10, 0x8b, 0x97, 0xa8, 0x3f, 0xfd, 0xfa});

constexpr firmware::Guid kShellFile =
    MakeGuid(0x7c04a583, 0x9e3e, 0x4f1c, {0xad, 0x65, 0xe0, 0x52, 0x68, 0xd0, 0xb4, 0xd1});
// mBmAutoCreateBootOptionGuid of EDK II: the optional data of options that it made itself.
constexpr firmware::Guid kAutoCreated =
    MakeGuid(0x8108ac4e, 0x9f11, 0x4d59, {0x85, 0x0e, 0xe2, 0x1a, 0x52, 0x2c, 0x59, 0xb2});

constexpr uint64_t AlignUp(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

// Where the 64-bit PCI window lies (MemDetect.c of PlatformInitLib, EDK II 2022.11).
struct AddressSpace {
  uint64_t first_non_address = 0;
  uint8_t width = 0;
  uint64_t mmio_base = 0;
  uint64_t mmio_size = 32 * kGiB;
};

// PlatformAddressWidthFromCpuid with its quirk for QEMU; nothing: the firmware does not believe it.
std::optional<uint8_t> BelievedWidth(const GuestCpu& cpu) {
  const uint8_t bits = cpu.physical_bits;
  if (bits > 40) return cpu.gigabyte_pages ? std::min<uint8_t>(bits, 47) : uint8_t{40};
  const bool intel = cpu.vendor == "GenuineIntel" && (bits == 36 || bits == 39);
  const bool amd = cpu.vendor == "AuthenticAMD" && bits == 40;
  return intel || amd ? std::optional(bits) : std::nullopt;
}

// QEMU's q35 puts memory from 2.75 GiB on above 4 GiB, but for the first 2 GiB.
uint64_t LowMemory(uint64_t memory) { return memory >= 0xb0000000 ? 0x80000000 : memory; }

AddressSpace ComputeAddressSpace(const MachineInput& machine) {
  const uint64_t memory = machine.memory.bytes();
  AddressSpace space;
  space.mmio_base = AlignUp(4 * kGiB + memory - LowMemory(memory), space.mmio_size);
  space.first_non_address = space.mmio_base + space.mmio_size;
  const std::optional<uint8_t> width = BelievedWidth(machine.cpu);
  if (!width.has_value()) {
    space.width =
        std::max<uint8_t>(36, static_cast<uint8_t>(std::bit_width(space.first_non_address - 1)));
    return space;
  }
  space.width = *width;
  const uint64_t end = uint64_t{1} << *width;
  const uint64_t window = end / 8;
  if (space.mmio_size < window && space.mmio_base + window < end) {
    space.mmio_size = window;
    space.mmio_base = end - window;
  }
  return space;
}

// EFI_HOB_PLATFORM_INFO without its header, packed (PlatformInitLib.h of EDK II 2022.11), as it is
// when the volume around it is measured.
Bytes EncodePlatformInfo(const MachineInput& machine, const PeiLayout& layout) {
  constexpr uint16_t kQ35 = 0x29c0;
  const AddressSpace space = ComputeAddressSpace(machine);
  const bool smm = layout.keeps_variables;
  const bool low_is_large = LowMemory(machine.memory.bytes()) > 0x80000000;
  ByteWriter out;
  out.Zeros(24);                                            // GuidHeader, filled in a copy only
  out.U16Le(kQ35).Zeros(8).U8(0).U32Le(0);                  // no SEV, whole boot
  out.U8(0);                                                // no resume from memory
  out.U8(smm ? 1 : 0).U8(smm ? 1 : 0).U16Le(smm ? 16 : 0);  // SMRAM; also at its default; MiB
  out.U64Le(space.first_non_address).U8(space.width);
  out.U32Le(low_is_large ? 0xb0000000 : 0x80000000).U32Le(0);  // uncached from here on
  out.U8(0).Zeros(8);
  out.U64Le(space.mmio_base).U64Le(space.mmio_size);
  out.U32Le(0xc0000000).U32Le(0x3c000000);  // behind the configuration space of PCI Express
  out.U64Le(0x6000).U64Le(0xa000);          // I/O ports
  out.Zeros(8);
  out.U32Le(machine.vcpus).U32Le(machine.vcpus).U32Le(64);
  return std::move(out.Zeros(8)).Take();
}

// Raises the numbers of pages to what MemoryTypeInformation says (MemTypeInfo.c of PlatformPei).
Result<void> ApplyMemoryTypes(const firmware::VariableStore& store, std::span<std::byte> types) {
  const firmware::Variable* hint = store.Find("MemoryTypeInformation", kMemoryTypeGuid);
  if (hint == nullptr || hint->data.size() % kMemoryTypeSize != 0 ||
      hint->data.size() > kMaxMemoryTypes * kMemoryTypeSize) {
    return Ok();
  }
  for (size_t i = 0; i < kMemoryTypes; ++i) {
    ByteCursor own(ByteView(types).subspan(i * kMemoryTypeSize, kMemoryTypeSize));
    ASSIGN_OR_RETURN(const uint32_t type, own.ReadU32Le());
    ASSIGN_OR_RETURN(const uint32_t pages, own.ReadU32Le());
    ByteCursor hints(hint->data);
    while (hints.remaining() != 0) {
      ASSIGN_OR_RETURN(const uint32_t hint_type, hints.ReadU32Le());
      ASSIGN_OR_RETURN(const uint32_t hint_pages, hints.ReadU32Le());
      if (hint_type != type) continue;
      ByteWriter raised;
      raised.U32Le(std::max(pages, hint_pages));
      std::ranges::copy(raised.bytes(), types.begin() + static_cast<ptrdiff_t>(i * kMemoryTypeSize +
                                                                               sizeof(uint32_t)));
      break;
    }
  }
  return Ok();
}

// The PEI volume as it is when it is measured: it runs where it lies and keeps its variables there.
Result<Bytes> RunningPeiVolume(const BootRun& run, const FirmwareMeasurements& firmware,
                               const MachineInput& machine) {
  const PeiLayout& layout = *firmware.layout;
  Bytes volume = firmware.pei_volume;
  const Bytes info = EncodePlatformInfo(machine, layout);
  CHECK(layout.platform_info + info.size() <= layout.fw_cfg_flags &&
        layout.fw_cfg_flags + 2 <= volume.size());
  std::ranges::copy(info, volume.begin() + static_cast<ptrdiff_t>(layout.platform_info));
  volume[layout.fw_cfg_flags] = volume[layout.fw_cfg_flags + 1] = std::byte{1};
  if (layout.keeps_variables) {
    RETURN_IF_ERROR(ApplyMemoryTypes(
        run.store, std::span(volume).subspan(layout.memory_types, kMemoryTypes * kMemoryTypeSize)));
  }
  return volume;
}

void PutNode(ByteWriter& out, uint8_t type, uint8_t subtype, ByteView data) {
  out.U8(type).U8(subtype).U16Le(static_cast<uint16_t>(data.size() + 4)).Raw(data);
}

// EFI_LOAD_OPTION.
Bytes EncodeOption(uint32_t attributes, std::string_view description, ByteView path,
                   ByteView optional) {
  ByteWriter out;
  out.U32Le(attributes).U16Le(static_cast<uint16_t>(path.size()));
  for (const char c : description) out.U8(static_cast<uint8_t>(c)).U8(0);
  return std::move(out.U16Le(0).Raw(path).Raw(optional)).Take();
}

Bytes FirmwareFilePath(const firmware::Guid& volume, const firmware::Guid& file) {
  ByteWriter path;
  PutNode(path, 4, 7, volume.bytes);  // MEDIA_PIWG_FW_VOL_DP
  PutNode(path, 4, 6, file.bytes);    // MEDIA_PIWG_FW_FILE_DP
  PutNode(path, 0x7f, 0xff, {});
  return std::move(path).Take();
}

Bytes DiskPath(uint8_t slot) {
  ByteWriter root;
  root.U32Le(0x0a0341d0).U32Le(0);  // PNP0A03, the first
  ByteWriter pci;
  pci.U8(0).U8(slot);
  ByteWriter path;
  PutNode(path, 2, 1, root.bytes());
  PutNode(path, 1, 1, pci.bytes());
  PutNode(path, 0x7f, 0xff, {});
  return std::move(path).Take();
}

struct BootOption {
  uint16_t number;
  std::string what;
  Bytes data;
};

std::string OptionName(uint16_t number) { return fmt::format("Boot{:04X}", number); }

// The options that OVMF makes itself, in the order of BootOrder: QEMU's boot order holds the disk
// alone, and of the others those in the firmware's volume stay.
std::array<BootOption, 3> MakeOptions(const FirmwareMeasurements& firmware,
                                      const MachineInput& machine) {
  constexpr uint32_t kActive = 1;
  constexpr uint32_t kMenu = 0x109;  // active, hidden, an application
  return {{{1, "the disk",
            EncodeOption(kActive, "UEFI Misc Device", DiskPath(machine.boot_disk_slot),
                         kAutoCreated.bytes)},
           {0, firmware.menu_name,
            EncodeOption(kMenu, firmware.menu_name,
                         FirmwareFilePath(firmware.dxe_name, kBootMenuFile), {})},
           {2, "the shell",
            EncodeOption(kActive, "EFI Internal Shell",
                         FirmwareFilePath(firmware.dxe_name, kShellFile), {})}}};
}

Bytes EncodeOrder(std::span<const BootOption> options) {
  ByteWriter order;
  for (const BootOption& option : options) order.U16Le(option.number);
  return std::move(order).Take();
}

// Whether the firmware will write exactly these options. "" if so, or why not. A store without
// BootOrder has none: OVMF numbers from 0 and overwrites what stands there.
std::string WhyOtherOptions(const firmware::VariableStore& store,
                            std::span<const BootOption> options) {
  const firmware::Variable* order = store.Find("BootOrder", firmware::kGlobalVariableGuid);
  if (order == nullptr) return "";
  if (order->data != EncodeOrder(options)) {
    return "the variable store has a boot order that OVMF did not make by itself";
  }
  for (const BootOption& option : options) {
    const firmware::Variable* stored =
        store.Find(OptionName(option.number), firmware::kGlobalVariableGuid);
    if (stored == nullptr || stored->data != option.data) {
      return fmt::format("{} of the variable store is not {} as OVMF writes it",
                         OptionName(option.number), option.what);
    }
  }
  return "";
}

void PredictBootOptions(const BootRun& run, const FirmwareMeasurements& firmware,
                        const MachineInput& machine) {
  const auto options = MakeOptions(firmware, machine);
  if (const std::string reason = WhyOtherOptions(run.store, options); !reason.empty()) {
    run.out.Stop(kConfigurationPcr, reason);
    return;
  }
  // EV_EFI_VARIABLE_BOOT is the digest of the data alone (MeasureVariable of Tcg2Dxe).
  run.ExtendBytes(kConfigurationPcr, EncodeOrder(options), "BootOrder");
  for (const BootOption& option : options) {
    run.ExtendBytes(kConfigurationPcr, option.data,
                    fmt::format("{}: {}", OptionName(option.number), Printable(option.what)));
  }
}

std::string WhyUnknownMachine(const MachineInput& machine) {
  if (machine.memory.bytes() == 0 || machine.memory.bytes() > kMaxMemory) {
    return fmt::format("the layout of {} of memory is not followed",
                       FormatByteCount(machine.memory));
  }
  if (machine.vcpus == 0 || machine.vcpus > kMaxVcpus) {
    return fmt::format("{} processors are not followed", machine.vcpus);
  }
  if (machine.cpu.physical_bits < 36 || machine.cpu.physical_bits > 57) {
    return fmt::format("a processor with {} address bits is not followed",
                       machine.cpu.physical_bits);
  }
  return "";
}

Result<void> PredictKnownBuild(const BootRun& run, const PlatformInput& platform) {
  const FirmwareMeasurements& firmware = *platform.firmware;
  // PcdFirmwareVersionString is empty in the known builds: its closing zero is all.
  run.ExtendBytes(kFirmwarePcr, Bytes(2), "firmware version \"\"");
  const std::string unknown = WhyUnknownMachine(platform.machine);
  if (unknown.empty()) {
    ASSIGN_OR_RETURN(const Bytes pei, RunningPeiVolume(run, firmware, platform.machine));
    run.ExtendBytes(kFirmwarePcr, pei, "PEI volume, as it runs");
  } else {
    run.out.Stop(kFirmwarePcr, unknown);
  }
  run.ExtendKnown(kFirmwarePcr, firmware.dxe_volume, "DXE volume");
  PredictBootOptions(run, firmware, platform.machine);
  return Ok();
}

}  // namespace

GuestCpu TcgCpu() { return {"AuthenticAMD", 40, true}; }

Result<GuestCpu> ParseGuestCpu(const std::string& text) {
  if (text == "tcg") return TcgCpu();
  const size_t colon = text.find(':');
  GuestCpu cpu;
  const char* const end = text.data() + text.size();
  if (colon != std::string::npos) {
    cpu.vendor = text.substr(0, colon);
    const auto parsed = std::from_chars(text.data() + colon + 1, end, cpu.physical_bits);
    if (parsed.ec == std::errc() && parsed.ptr == end && !cpu.vendor.empty()) return cpu;
  }
  return InvalidInput(fmt::format("processor '{}'", Printable(text)))
      .WithFix("'tcg', or vendor and address bits: GenuineIntel:46 (/proc/cpuinfo says both)");
}

Result<void> PredictPlatform(const BootRun& run) {
  const PlatformInput& platform = *run.input.platform;
  if (platform.firmware->layout.has_value()) {
    RETURN_IF_ERROR(PredictKnownBuild(run, platform));
  } else {
    const std::string reason = "a build of the firmware that is not known";
    run.out.Stop(kFirmwarePcr, reason);
    run.out.Stop(kConfigurationPcr, reason);
  }
  for (const PcrIndex pcr :
       {kFirmwarePcr, kConfigurationPcr, kDriversPcr, kDriverDataPcr, kPlatformPcr}) {
    run.out.Extend(pcr, SeparatorDigest(run.out.bank()), "separator");
  }
  return Ok();
}

}  // namespace vallum::measure
