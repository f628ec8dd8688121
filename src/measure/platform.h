// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/units.h"

namespace vallum::measure {

// What CPUID tells the firmware of the processor.
struct GuestCpu {
  std::string vendor;         // "GenuineIntel", "AuthenticAMD"
  uint8_t physical_bits = 0;  // of an address
  bool gigabyte_pages = true;
};

// The processor of QEMU's TCG with -cpu max.
GuestCpu TcgCpu();

// Parses "tcg" or "VENDOR:BITS", such as "GenuineIntel:46" (with 1 GiB pages, as all processors
// have that KVM gives more than 40 bits to). Errors: kInvalidInput.
Result<GuestCpu> ParseGuestCpu(const std::string& text);

// A virtual machine as src/vm makes it: q35, resume from memory switched off, no memory or
// processor to be added later, one virtio-blk disk that it boots from, no option ROM.
struct MachineInput {
  ByteCount memory;
  uint32_t vcpus = 1;
  GuestCpu cpu;
  uint8_t boot_disk_slot = 4;  // the PCI device number
};

struct FirmwareMeasurements;

struct PlatformInput {
  const FirmwareMeasurements* firmware;  // the caller keeps it
  MachineInput machine;
};

}  // namespace vallum::measure
