// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace vallum::firmware {

enum class FirmwareInterface { kBios, kOpenfirmware, kUboot, kUefi };
enum class MappingDevice { kFlash, kKernel, kMemory };
enum class FlashMode {
  kSplit,      // code read-only, variables in a file of their own
  kCombined,   // code and variables in one writable file
  kStateless,  // no variables are kept
};

struct FirmwareFile {
  std::string path;
  std::string format;  // "raw", "qcow2"
  bool operator==(const FirmwareFile&) const = default;
};

struct FirmwareMapping {
  MappingDevice device = MappingDevice::kFlash;
  FlashMode mode = FlashMode::kSplit;  // of kFlash only
  FirmwareFile executable;             // format is "raw" for kKernel and kMemory
  FirmwareFile nvram_template;         // path "" unless kFlash and kSplit
  bool operator==(const FirmwareMapping&) const = default;
};

struct FirmwareTarget {
  std::string architecture;           // "x86_64"
  std::vector<std::string> machines;  // globs, "pc-q35-*"
  bool operator==(const FirmwareTarget&) const = default;
};

// One firmware that a host offers: a descriptor of QEMU's docs/interop/firmware.json. QEMU's
// built-in SeaBIOS, which has no descriptor on Debian, is BuiltinBios().
struct FirmwareDescriptor {
  std::string source;  // the descriptor's path; kBuiltinSource for the one inside QEMU
  std::string description;
  std::vector<FirmwareInterface> interfaces;
  FirmwareMapping mapping;
  std::vector<FirmwareTarget> targets;
  std::vector<std::string> features;  // as spelled by QEMU: "secure-boot", "requires-smm", ...
  std::vector<std::string> tags;

  bool HasFeature(std::string_view feature) const;
  bool HasInterface(FirmwareInterface interface) const;
};

inline constexpr std::string_view kBuiltinSource = "built into QEMU";
inline constexpr size_t kMaxDescriptorSize = size_t{64} << 10U;

// Parses one descriptor.
//   source: its path, for messages and FirmwareDescriptor::source.
//   json: at most kMaxDescriptorSize; untrusted.
// Unknown members and unknown features are kept out of the way: QEMU may add them.
// Errors: kInvalidInput (not JSON, a required member missing or of the wrong type, an unknown
// interface or device); kExhausted (too large).
Result<FirmwareDescriptor> ParseDescriptor(std::string_view source, ByteView json);

// The machine's default firmware: type BIOS, no files, all x86 machines; QEMU starts it when no
// flash is given. mapping.executable.path is "".
FirmwareDescriptor BuiltinBios();

// One file of a descriptor folder, as read by the caller.
struct DescriptorFile {
  std::string directory;
  std::string name;  // "40-edk2-x86_64-secure-enrolled.json"
  Bytes content;     // empty: masks files of that name in later folders
};

// The folders to read, most important first.
//   config_home: the user's configuration folder ($XDG_CONFIG_HOME or ~/.config); "" for none.
std::vector<std::string> DescriptorDirectories(std::string_view config_home);

struct DescriptorSet {
  std::vector<FirmwareDescriptor> descriptors;  // most important first
  std::vector<std::string> problems;            // files left out, and why
};

// Applies QEMU's precedence: a name in an earlier folder masks it in later ones, an empty file
// masks and adds nothing, the rest is sorted by name (bytewise). BuiltinBios() is added last.
// A file that does not parse is reported in problems and masks as well. Files whose names do not
// end in ".json" are ignored.
//   files: in any order; the order of `directories` decides.
DescriptorSet ResolveDescriptors(const std::vector<std::string>& directories,
                                 const std::vector<DescriptorFile>& files);

enum class FirmwareType { kBios, kUefi };
enum class SecureBootSupport {
  kAbsent,    // refuse firmware that enforces Secure Boot with keys of its own
  kRequired,  // secure-boot and requires-smm
};
enum class KeyEnrolment {
  kAny,
  kEnrolled,  // the template carries keys (enrolled-keys)
  kBlank,     // the template carries none
};

struct FirmwareQuery {
  FirmwareType type = FirmwareType::kUefi;
  SecureBootSupport secure_boot = SecureBootSupport::kAbsent;
  KeyEnrolment keys = KeyEnrolment::kAny;
  std::string architecture = "x86_64";
  std::string machine = "pc-q35-7.2";  // the versioned name; "q35" and "pc" are accepted
};

// Picks the first descriptor that fits. UEFI wants flash in split mode, so that each instance has
// its own variables. secure_boot kAbsent prefers firmware without secure-boot, then any whose
// template is blank.
// Errors: kNotFound, naming what was wanted and, for each descriptor, the first thing that it
// lacks.
Result<FirmwareDescriptor> SelectFirmware(const std::vector<FirmwareDescriptor>& descriptors,
                                          const FirmwareQuery& query);

}  // namespace vallum::firmware
