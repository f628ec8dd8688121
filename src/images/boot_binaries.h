// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/result.h"
#include "formats/pe.h"
#include "images/inspection.h"

namespace vallum::images {

inline constexpr size_t kMaxBootBinaries = 64;
inline constexpr size_t kMaxSbatBytes = 64 * 1024;
inline constexpr size_t kMaxVendorCertBytes = 256 * 1024;
// Certificates that are kept of one binary, over all its signatures.
inline constexpr size_t kMaxBinaryCertificates = 64;

// Whether an error is about what the image holds (which is reported) or about reading it (which
// ends the inspection).
bool IsAboutContent(const Error& error);

struct DescribedBinary {
  BootBinary binary;
  std::vector<std::string> facts;  // what was left out of it, and why
};
// Describes one PE program. Errors: kInvalidInput (not a program that firmware would hash).
Result<DescribedBinary> DescribeBootBinary(std::string path, const formats::PeImage& pe);

// "signed by CN=... (and 1 more)", "unsigned".
std::string DescribeSigner(const BootBinary& binary);

}  // namespace vallum::images
