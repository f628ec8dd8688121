// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "formats/reader.h"
#include "images/inspection.h"

namespace vallum::images {

// The disk that a guest sees, inside an image whose structure was checked whole.
struct OpenedDisk {
  std::unique_ptr<formats::RandomAccessReader> disk;  // reads the image, which must outlive it
  uint64_t cluster_size = 0;                          // bytes; 0 for formats without clusters
  std::string subformat;           // "streamOptimized", "dynamic", ...; "" for formats of one kind
  std::vector<std::string> facts;  // one line each, for people
  bool written = true;             // false: the image holds no data at all
};

// Parses and checks an image of one of the disk formats (qcow2, vmdk, vhd, vhdx, vdi), opens one
// that is a disk as it stands (gpt, mbr, raw), or the only disk of an OVA.
//   image: untrusted; nothing but the format that is named is tried, so detect first.
// Errors: kInvalidInput, kCorrupt (refused); kInternal (a format that holds no disk).
Result<OpenedDisk> OpenDisk(const formats::RandomAccessReader& image, DeclaredFormat format);

}  // namespace vallum::images
