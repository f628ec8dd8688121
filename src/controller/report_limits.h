// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "base/result.h"
#include "vallum/v1/agent.pb.h"
#include "vallum/v1/resources.pb.h"

namespace vallum::controller {

// Of an instance's status as its host reports it: far below what the store takes, far above what
// an honest host says.
inline constexpr size_t kMaxReportedStatus = size_t{128} << 10U;

// A status that the store takes. Guests have a say in how long it is, so one that is too long must
// not cut its host off: first the lists of the boot's verdict are shortened, then all of the texts
// are left out; verdict, phase and numbers stay. What was left out is said. Pure.
v1::InstanceStatus BoundedStatus(v1::InstanceStatus status);

// Of what a host says of itself, which is kept in its record: a record that grows past what the
// store takes could not be changed any more, not even to say that the host is not trusted.
inline constexpr size_t kMaxCapabilities = size_t{64} << 10U;
inline constexpr size_t kMaxHelloText = 64;  // boot id, version, an instance's uid

// Errors: kInvalidInput (more than that, with what and how much). Pure.
Result<void> CheckCapabilities(const v1::HostCapabilities& capabilities);
Result<void> CheckHello(const v1::Hello& hello);

}  // namespace vallum::controller
