// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/gpt.h"
#include "formats/reader.h"
#include "images/inspection.h"

namespace vallum::images {

inline constexpr size_t kMaxBootBinaries = 64;
inline constexpr size_t kMaxBootBinaryBytes = size_t{32} << 20U;  // one file, held in memory
inline constexpr size_t kMaxBootBytesRead = size_t{256} << 20U;   // all files together
inline constexpr size_t kMaxEspDirectories = 256;
inline constexpr size_t kMaxEspDepth = 8;
inline constexpr size_t kMaxSbatBytes = 64 * 1024;
inline constexpr size_t kMaxVendorCertBytes = 256 * 1024;
// Certificates that are kept of one binary, over all its signatures.
inline constexpr size_t kMaxBinaryCertificates = 64;

struct BootBinaryReport {
  std::vector<BootBinary> binaries;
  std::vector<std::string> facts;  // also what could not be read, and why
};

// Collects every *.efi under \EFI of the EFI system partitions. What the limits leave out or what
// is damaged becomes a fact: it is the guest's problem, not the host's.
// Errors: only those of the reader that are not about the content.
Result<BootBinaryReport> CollectBootBinaries(const formats::RandomAccessReader& disk,
                                             const formats::GptTable& table);

struct DescribedBinary {
  BootBinary binary;
  std::vector<std::string> facts;  // what was left out of it, and why
};
// Describes one PE program. Errors: kInvalidInput (not a PE that firmware would hash).
Result<DescribedBinary> DescribeBootBinary(std::string path, ByteView file);

}  // namespace vallum::images
