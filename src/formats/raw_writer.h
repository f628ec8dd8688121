// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.h"
#include "formats/byte_sink.h"
#include "formats/reader.h"

namespace vallum::formats {

// Writes the disk as it stands, zeroes for its holes: disk.size() bytes, which the caller bounds.
// Holes are not read. Memory: 2 MiB.
// Errors: those of the disk and of the sink.
Result<void> WriteRaw(const RandomAccessReader& disk, ByteSink& out);

}  // namespace vallum::formats
