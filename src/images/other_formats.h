// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "formats/reader.h"
#include "images/inspection.h"

// Formats that hold no guest's disk as such. Each function checks the whole structure and says what
// it found, one line each. Errors: kInvalidInput, kCorrupt, kExhausted (refused).
namespace vallum::images {

using Facts = std::vector<std::string>;

// An ISO 9660 or UDF medium.
Result<Facts> DescribeMedium(const formats::RandomAccessReader& image);
// A LUKS volume, version 1 or 2.
Result<Facts> DescribeLuks(const formats::RandomAccessReader& image);
// What direct boot can start: a bzImage or a PE program.
Result<Facts> DescribeKernel(const formats::RandomAccessReader& image);
Result<Facts> DescribeInitrd(const formats::RandomAccessReader& image);

// A disk inside an OVA.
struct OvaDisk {
  std::string name;  // of the tar's member
  uint64_t offset = 0;
  uint64_t size = 0;
  DeclaredFormat format = DeclaredFormat::kVmdk;  // as the OVF declares it
};
// The disks that an OVA's OVF names, in its order: the first is what the machine starts from.
//   facts: of the OVF, added at the end.
Result<std::vector<OvaDisk>> ListOvaDisks(const formats::RandomAccessReader& image, Facts& facts);

}  // namespace vallum::images
