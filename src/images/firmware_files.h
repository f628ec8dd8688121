// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "firmware/descriptor.h"

namespace vallum::images {

// Reads a file that this machine's own packages or its operator put there; links are followed.
// Errors: as ErrnoError; kInvalidInput (larger than limit). Blocks.
Result<Bytes> ReadLocalFile(const std::string& path, size_t limit);

// Reads every QEMU firmware descriptor (*.json) of the folders, for firmware::ResolveDescriptors. A
// link to /dev/null is one without content, which masks.
//   problems: gets what could not be read, and why. Blocks.
std::vector<firmware::DescriptorFile> ReadDescriptorFiles(
    const std::vector<std::string>& directories, std::vector<std::string>& problems);

}  // namespace vallum::images
