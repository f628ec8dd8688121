// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.h"
#include "formats/reader.h"
#include "images/inspection.h"

namespace vallum::images {

// What is kept of the beginning of an upload: the signature of every format that has one in front.
inline constexpr size_t kFrontBytes = size_t{64} << 10U;

// Judges an upload by its beginning, so that one that will be refused need not be sent whole. Says
// only what the rest cannot change: another format than declared, several formats, or a qcow2 whose
// header is refused. The whole image is inspected later all the same.
//   front: the first kFrontBytes at least; untrusted.
//   size: of the whole, as announced; 0: not known.
// Errors: as Inspect.
Result<void> InspectFront(const formats::RandomAccessReader& front, uint64_t size,
                          DeclaredFormat declared);

}  // namespace vallum::images
