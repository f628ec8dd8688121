// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/result.h"
#include "images/convert.h"
#include "images/inspection.h"

namespace vallum::images {

// Converts an accepted image to a format of the store, in a child process (vallum-inspect) that is
// confined as that of ConfinedInspector is. Thread-safe.
class ConfinedConverter {
 public:
  struct Options {
    std::string program;  // absolute path of vallum-inspect
    // Instead of ConvertTimeout() of the disk's size.
    std::optional<std::chrono::milliseconds> timeout;
  };
  // Takes the next bytes of the output, such as BlobUpload::Append.
  using Write = std::function<Result<void>(ByteView)>;
  // Bytes written, and how many there will be.
  using Progress = std::function<void(uint64_t done, uint64_t total)>;

  explicit ConfinedConverter(Options options) : options_(std::move(options)) {}

  // Converts the file behind a descriptor; the descriptor's position is not used.
  //   image: readable, seekable; stays the caller's.
  //   proof: of this file. Its size is compared here; its digest by the caller, with
  //   CheckUnchanged.
  //   write: called in order; the time that it takes does not count. What it was given before an
  //   error is to be thrown away.
  //   progress: may be empty; called after each write.
  // Errors: kInvalidInput (refused, in the words of the child; also: it crashed, ran out of time or
  // wrote another amount than it announced), kCorrupt (proof is not of this file), kInternal,
  // kNotFound (vallum-inspect cannot be started), those of write.
  Result<void> Convert(int image, const InspectedImage& proof, StoreFormat target,
                       const Write& write, const Progress& progress) const;

  // An instance's disk with the image below it, as one qcow2 that stands alone: see FlattenOverlay.
  //   overlay, base: readable, seekable; stay the caller's; neither changes meanwhile.
  //   virtual_size: of the overlay, bytes.
  //   announce: is told the size of the output, exactly, before its first byte.
  // The rest, and errors: as Convert.
  Result<void> Flatten(int overlay, int base, DeclaredFormat base_format, uint64_t virtual_size,
                       const std::function<Result<void>(uint64_t)>& announce, const Write& write,
                       const Progress& progress) const;

 private:
  Options options_;
};

}  // namespace vallum::images
