// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "measure/boot_chain.h"

namespace vallum::measure {

inline constexpr size_t kGrubMaxCommands = 4096;
inline constexpr size_t kGrubMaxSourceDepth = 8;
inline constexpr size_t kGrubMaxWordBytes = size_t{64} << 10U;
inline constexpr size_t kGrubMaxTextBytes = size_t{4} << 20U;  // of all commands together
inline constexpr size_t kGrubMaxRunBytes = size_t{16} << 20U;  // of all scripts as they are run

// What GRUB measures, in the order in which it does.
struct GrubEvent {
  enum class Kind {
    kCommand,            // PCR 8: a command with its words expanded, joined by blanks
    kKernelCommandLine,  // PCR 8: the kernel's path and arguments
    kFile,               // PCR 9: a file's content
    kKernel,             // the same file as a program: PCR 4 when shim verifies it
  };
  Kind kind = Kind::kCommand;
  std::string text;                // what is hashed, or the file's path with its device
  const GrubFile* file = nullptr;  // of kFile; points into the input
};

struct GrubRun {
  std::vector<GrubEvent> events;
  // Empty when the script was followed until the kernel starts; else where and why it could not be
  // followed further: all events before that are certain.
  std::string stopped;
};

// Follows GRUB 2.06 from its embedded script to the start of a kernel, without a person at the
// keys. Known are: set, export, `[`, if, source, search (by uuid, label), insmod, serial,
// terminal_output, terminal_input, echo, true, menuentry, linux, initrd, boot. See
// docs/boot-measurement.md.
//   input: untrusted; it must outlive the result.
// Work is bounded by the constants above.
GrubRun RunGrub(const GrubInput& input);

}  // namespace vallum::measure
