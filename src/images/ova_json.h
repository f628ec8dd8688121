// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/result.h"
#include "formats/ova.h"

namespace vallum::images {

// An OVA as one JSON document: "name", "firmware" (unspecified, bios, efi), "secureBoot" (absent:
// it does not say), "vtpm", "cpus", "memory", "trustedService", "disks", "notUnderstood", "vallum"
// (see formats::OvfVallum), "members" (name, offset, size) and "manifest" (file, algorithm,
// digest).
std::string OvaToJson(const formats::OvaImage& ova);

// Reads an OVA in a confined child process (vallum-inspect ova) and returns that document. Its
// numbers and names are still a stranger's; it parses as a JSON object.
//   inspector: absolute path of vallum-inspect. image: readable, seekable; stays the caller's.
// Errors: those of ParseOva, kInvalidInput (the child crashed or ran out of time), kNotFound (it
// cannot be started). Blocks.
Result<std::string> DescribeOva(const std::string& inspector, int image);

}  // namespace vallum::images
