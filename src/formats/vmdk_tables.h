// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/result.h"
#include "formats/reader.h"
#include "formats/vmdk.h"

namespace vallum::formats {

// Types of the markers in a stream.
inline constexpr uint32_t kVmdkEndOfStream = 0;
inline constexpr uint32_t kVmdkGrainTable = 1;
inline constexpr uint32_t kVmdkGrainDirectory = 2;
inline constexpr uint32_t kVmdkFooter = 3;
inline constexpr uint64_t kVmdkFooterSectors = 3;  // marker, footer, end of stream

// What stands before the data of a grain in a stream.
struct VmdkGrainMarker {
  uint64_t lba = 0;
  uint32_t bytes = 0;  // compressed
};
inline constexpr uint64_t kVmdkGrainMarkerBytes = 12;

// Reads and checks the marker of a grain.
//   sector: from the grain table.
//   grain: its number, from 0.
// Errors: kInvalidInput (another grain's, a size of 0 or more than twice a grain, past the end).
Result<VmdkGrainMarker> ReadVmdkGrainMarker(const RandomAccessReader& image,
                                            const VmdkHeader& header, uint64_t sector,
                                            uint64_t grain);

// Checks that a sector is the marker of a type.
//   sectors: how many follow it that it speaks for.
// Errors: kInvalidInput.
Result<void> CheckVmdkMarker(const RandomAccessReader& image, uint64_t sector, uint32_t type,
                             uint64_t sectors);

// Walks the directories and tables of an image whose header was checked; fills `tables` and the
// counts. Errors: kInvalidInput, naming the table and the entry.
Result<void> CheckVmdkTables(const RandomAccessReader& image, VmdkImage& out);

}  // namespace vallum::formats
