// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "formats/reader.h"

// docs/formats/ova.md mirrors these constants.
namespace vallum::formats {

inline constexpr size_t kTarBlock = 512;
inline constexpr size_t kTarMaxMembers = 1024;
inline constexpr size_t kTarMaxPaxBytes = 64 * 1024;            // one pax header
inline constexpr uint64_t kTarMaxPadding = uint64_t{1} << 20U;  // zeroes after the end blocks

struct TarMember {
  std::string name;     // see IsPackageName
  uint64_t offset = 0;  // of its content, in the archive
  uint64_t size = 0;    // bytes
};

// Lists the regular files of a tar archive (POSIX ustar, pax, GNU) in order, without reading them.
//   tar: untrusted.
// Errors: kInvalidInput (naming the offset: no ustar header; checksum; a size that is no number or
// not inside; links, directories, devices, sparse files, GNU long names; a name that is not plain;
// limits; bytes after the end), kCorrupt (a name twice).
// Source: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Header Block"; GNU tar, "Basic Tar
// Format".
Result<std::vector<TarMember>> ListTar(const RandomAccessReader& tar);

}  // namespace vallum::formats
