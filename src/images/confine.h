// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "base/result.h"
#include "base/units.h"

namespace vallum::images {

// What vallum-inspect may use.
inline constexpr ByteCount kInspectMemory =
    ByteCount::MiB(512);  // address space, libraries included
inline constexpr unsigned kInspectCpuSeconds = 10;

struct Confinement {
  int image;                     // the only descriptor that may be read, but for base
  std::span<const int> outputs;  // the only ones that may be written
  unsigned cpu_seconds = kInspectCpuSeconds;
  int base = -1;  // the disk that the image was laid over; -1: none
};

// Gives up, for good, everything that reading one descriptor and writing the outputs does not need:
// root's identity, new privileges, core dumps, new files and processes, and every system call that
// is not on a short list (a forbidden one ends the process). Call it before the first byte of the
// image is read, while there is one thread.
// Errors: kInternal, kDenied (the kernel refused one of these steps).
Result<void> ConfineSelf(const Confinement& confinement);

}  // namespace vallum::images
