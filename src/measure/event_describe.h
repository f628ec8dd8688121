// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

#include "measure/event_log.h"

namespace vallum::measure {

// What an event says, in one printable line of at most kMaxEventDescription bytes: the variable and
// its value or keys, the program and where it came from, partitions, the loader's command, ...
// Data that its type does not explain is shown as text if it is text, else as its size and first
// bytes. A claim of the log, not a fact: see CheckContent.
std::string DescribeEvent(const EventLog& log, const LoggedEvent& event);
inline constexpr size_t kMaxEventDescription = 400;

}  // namespace vallum::measure
