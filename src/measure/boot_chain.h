// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "measure/platform.h"
#include "measure/secure_boot_pcr.h"

// What a prediction needs to know of a boot: read by the caller from the disk, the firmware file
// and the variable store. Plain values; the content is untrusted.
namespace vallum::measure {

// The digest of one thing in each bank that the caller computed.
using BankDigests = std::map<HashAlgorithm, Bytes>;

enum class BootStage {
  kShim,
  kGrub,
  kStub,    // a unified kernel image, begun by systemd-stub
  kKernel,  // Linux, by its own EFI stub
};

// A PE program of the chain.
struct ChainBinary {
  BootStage stage = BootStage::kKernel;
  BootBinary binary;         // path as on its volume: "EFI/BOOT/BOOTX64.EFI", "vmlinuz"
  BankDigests authenticode;  // Authenticode digests
  // What it says of itself: the text of .sbat (shim, GRUB), of .sdmagic (systemd-stub), the release
  // in its setup header (kernel: "6.1.0-56-cloud-amd64").
  std::string version;
};

// A section of a unified kernel image as it is in memory: VirtualSize bytes, filled with zeros.
struct ImageSection {
  std::string name;
  ByteView content;  // the caller keeps it
};

// A file that GRUB could read.
struct GrubFile {
  std::string path;                   // "/EFI/debian/grub.cfg"
  BankDigests digests;                // of the whole file
  std::optional<std::string> script;  // its text, when it could be a configuration file
};

// A file system that GRUB can read. Files that are not listed do not exist.
struct GrubVolume {
  std::string device;  // as GRUB calls it: "hd0,gpt1"
  bool ignores_case = false;
  std::string uuid;   // as GRUB shows it: "5A11-0001"
  std::string label;  // "" for none
  std::vector<GrubFile> files;
};

struct GrubInput {
  std::string device;           // where GRUB itself was loaded from
  std::string directory;        // its folder there: "/EFI/BOOT"
  std::string prefix;           // built into it: "/EFI/debian"
  std::string embedded_script;  // built into it, what it runs first; see docs/boot-measurement.md
  std::vector<GrubVolume> volumes;
  std::vector<ChainBinary> kernels;  // the PE programs among the files; path as in GrubFile
};

struct BootInput {
  // In the order in which they start each other; the first is what the firmware loads. A chain with
  // GRUB ends with it; behind kStub stands the kernel inside it.
  std::vector<ChainBinary> chain;
  // Boot options that the firmware tries in vain before the one that holds the chain.
  size_t failed_boot_options = 0;
  Bytes gpt_header;   // LBA 1 of the disk that the loader is on; empty when it has no GPT
  Bytes gpt_entries;  // the primary entry array
  std::optional<GrubInput> grub;
  std::vector<ImageSection> stub_sections;
  // Credentials and extensions beside a unified kernel image (*.cred, *.raw) that it would pass on.
  std::vector<std::string> stub_extras;
  // What the boot option hands to the first program; ASCII. Boot options that the firmware makes
  // itself hand over nothing.
  std::string load_options;
  // Without it PCR 0 to 3 and 6 are not predicted.
  std::optional<PlatformInput> platform;
};

}  // namespace vallum::measure
