// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"
#include "formats/ovf.h"
#include "formats/reader.h"
#include "formats/tar.h"

// docs/formats/ova.md mirrors these constants.
namespace vallum::formats {

inline constexpr size_t kOvaMaxManifestBytes = 1U << 20U;

struct OvaDigest {
  std::string file;
  HashAlgorithm algorithm = HashAlgorithm::kSha256;
  Bytes digest;
};

// Parses an OVF manifest: lines such as "SHA256(disk.vmdk)= 0123...".
// Errors: kInvalidInput (another line; unknown algorithm; length of a digest; a file twice).
// Source: DSP0243, "Distribution": the manifest file.
Result<std::vector<OvaDigest>> ParseOvfManifest(ByteView text);

struct OvaImage {
  OvfEnvelope ovf;
  std::vector<TarMember> members;   // the descriptor is the first
  std::vector<OvaDigest> manifest;  // empty without one; each file is a member
  bool has_certificate = false;     // a .cert, whose signature is not looked at

  const TarMember* Find(std::string_view name) const;
};

// Opens an OVA: the archive, its descriptor, its manifest. The descriptor is compared with the
// manifest here; the digests of the disks are for who reads them, through a WindowReader.
// Errors: those of ListTar, ParseOvf, ParseOvfManifest; kInvalidInput (the first member is not the
// .ovf, or there are two), kCorrupt (a file that is not in the archive, or of another size; the
// descriptor's digest differs).
// Source: DSP0243 1.1 and 2.1, "Distribution as a single file".
Result<OvaImage> ParseOva(const RandomAccessReader& ova);

}  // namespace vallum::formats
