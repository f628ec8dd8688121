// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"

namespace vallum::formats {

// `RW 16384 SPARSE "disk.vmdk"`; untrusted text.
struct VmdkExtent {
  uint64_t line_offset = 0;  // in the file
  std::string access;
  uint64_t sectors = 0;
  std::string type;
  std::string name;  // empty when the line has none
  std::string rest;  // what follows the name
};

// The text that says what a VMDK is made of.
struct VmdkDescriptor {
  uint32_t version = 0;
  uint32_t cid = 0;
  std::string create_type;
  std::string encoding;      // empty: UTF-8
  std::string adapter_type;  // ddb.adapterType, may be empty
  std::vector<VmdkExtent> extents;
};

// An error about a VMDK, with the fix.
Error VmdkRefused(std::string message,
                  std::string fix = "check it where it came from: qemu-img check <this image>");

// Reads a descriptor: lines of UTF-8 or of a code page that extends ASCII, each a comment, an
// extent or a `key=value`; unknown keys are accepted only below `ddb.`.
//   text: without the zero bytes that end it; untrusted.
//   offset: where it stands in the file, for messages.
// Errors: kInvalidInput (a line that is none of these, characters, encoding, version, keys missing,
// unknown or twice; a parent or a change tracking file).
// Source: VMware Virtual Disk Format 5.0, "The Descriptor File".
Result<VmdkDescriptor> ParseVmdkDescriptor(ByteView text, uint64_t offset);

}  // namespace vallum::formats
