// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

#include "vallum/v1/agent.pb.h"

namespace vallum::agent {

// Reads what the kernel says of the host's state: kernel, command line, lockdown, IOMMU, swap,
// kdump, processor, Secure Boot. What cannot be read stays empty or "unknown".
//   root: under which /proc and /sys lie; "/" but for tests.
v1::HostFacts ReadHostFacts(const std::filesystem::path& root);

}  // namespace vallum::agent
