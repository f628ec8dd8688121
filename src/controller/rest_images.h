// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <variant>

#include "controller/principal.h"
#include "controller/rest_context.h"
#include "http/message.h"
#include "http/router.h"

namespace vallum::controller {

// PUT /v1/images/{name}/content?offset=N&total=SIZE. Bytes go straight into an upload of the blob
// store; with the last one the content is inspected in a confined process, and the image is READY
// or is gone, with the reason as the answer.
//   offset: where this part begins; must be what arrived so far (status.receivedBytes). total: size
//   of the whole; left out: this request brings the rest.
std::variant<http::Response, std::unique_ptr<http::UploadSink>> StartUpload(
    RestContext& context, const http::Request& request, const Principal& principal);

}  // namespace vallum::controller
