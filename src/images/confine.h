// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.h"
#include "base/units.h"

namespace vallum::images {

// What vallum-inspect may use.
inline constexpr ByteCount kInspectMemory =
    ByteCount::MiB(512);  // address space, libraries included
inline constexpr unsigned kInspectCpuSeconds = 10;

// Gives up, for good, everything that reading one descriptor and writing standard output does not
// need: root's identity, new privileges, core dumps, new files and processes, and every system call
// that is not on a short list (a forbidden one ends the process). Call it before the first byte of
// the image is read, while there is one thread.
//   image: the only descriptor that may be read.
// Errors: kInternal, kDenied (the kernel refused one of these steps).
Result<void> ConfineSelf(int image);

}  // namespace vallum::images
