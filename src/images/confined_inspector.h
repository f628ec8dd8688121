// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"
#include "base/units.h"
#include "images/inspection.h"

namespace vallum::images {

// vallum-inspect in the folder of the running program.
std::string InspectorBesideThisProgram();

// Inspects an upload in a child process (vallum-inspect) that has the image as its only file, a
// strict seccomp list, no new privileges and limits on memory, time and files. A child that
// crashes, is killed or takes too long is a refusal. Thread-safe.
class ConfinedInspector {
 public:
  struct Options {
    std::string program;  // absolute path of vallum-inspect
    std::chrono::milliseconds timeout = std::chrono::seconds(30);
  };

  explicit ConfinedInspector(Options options) : options_(std::move(options)) {}

  // Inspects the file behind a descriptor, from offset 0; the descriptor's position is not used.
  //   image: readable, seekable; stays the caller's.
  //   digest: SHA-256 of the whole content, known to the caller.
  //   request: what to look for beside; as JSON at most kMaxRequestBytes.
  // Errors: kInvalidInput (refused; also: the inspector crashed or ran out of time on it),
  // kExhausted (the request is too large), kInternal, kNotFound (vallum-inspect cannot be started).
  Result<InspectedImage> Inspect(int image, DeclaredFormat declared, const Sha256Digest& digest,
                                 const InspectionRequest& request = {}) const;

  // InspectInstanceDisk() in such a child. Whoever writes the overlay may go on with it meanwhile.
  //   overlay, base: readable, seekable; stay the caller's.
  // Errors: as Inspect.
  Result<Inspection> InspectInstanceDisk(int overlay, int base, DeclaredFormat base_format,
                                         const InspectionRequest& request) const;

  // InspectFront() in such a child. Errors: as Inspect.
  //   front: the beginning of an upload. size: of all of it, 0 when it is not known.
  Result<void> InspectFront(ByteView front, uint64_t size, DeclaredFormat declared) const;

 private:
  Options options_;
};

}  // namespace vallum::images
