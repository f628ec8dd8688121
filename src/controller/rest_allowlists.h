// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <variant>

#include "controller/principal.h"
#include "controller/rest_context.h"
#include "http/message.h"
#include "http/router.h"

namespace vallum::controller {

// PUT /v1/allowlists/{name}/content: a runtime policy of Keylime, or lines of sha256sum. It is read
// before anything of it is kept; what cannot be read changes nothing.
std::variant<http::Response, std::unique_ptr<http::UploadSink>> StartAllowListUpload(
    RestContext& context, const http::Request& request, const Principal& principal);

}  // namespace vallum::controller
