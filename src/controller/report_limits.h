// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "vallum/v1/resources.pb.h"

namespace vallum::controller {

// Of an instance's status as its host reports it: far below what the store takes, far above what
// an honest host says.
inline constexpr size_t kMaxReportedStatus = size_t{128} << 10U;

// A status that the store takes. Guests have a say in how long it is, so one that is too long must
// not cut its host off: first the lists of the boot's verdict are shortened, then all of the texts
// are left out; verdict, phase and numbers stay. What was left out is said. Pure.
v1::InstanceStatus BoundedStatus(v1::InstanceStatus status);

}  // namespace vallum::controller
