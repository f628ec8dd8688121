// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>

namespace vallum::agent {

// How long to wait before attempt number `failures` + 1: a random time between half of a limit and
// the whole of it; the limit doubles with each failure from 1 s up to 30 s, so that a thousand
// agents of a controller that comes back do not arrive together.
//   failures: attempts that failed in a row, at least 1.
//   random: any number; the same number gives the same time.
// Pure; thread-safe.
std::chrono::milliseconds ReconnectDelay(int failures, uint32_t random);

}  // namespace vallum::agent
