// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>

#include "controller/rest_context.h"

namespace vallum::controller {

// The OpenAPI 3.0 document of these routes, as JSON; schemas come from the protobuf descriptors, so
// that it cannot say anything else than the API does. Pure.
std::string MakeOpenApi(std::span<const ApiRoute> routes);

}  // namespace vallum::controller
