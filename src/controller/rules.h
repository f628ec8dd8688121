// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <google/protobuf/message.h>

#include <string_view>

#include "base/result.h"
#include "controller/resource_kind.h"
#include "controller/view.h"

namespace vallum::controller {

// What a client may write, apart from who it is. Instances and tokens have services of their own.

// Checks a pool, image or flavor that is to be created. Errors: kInvalidInput.
Result<void> CheckCreate(Kind kind, const google::protobuf::Message& resource);
// Checks a pool, host, image or flavor that replaces another. Errors: kInvalidInput (naming the
// field that may not change).
Result<void> CheckUpdate(Kind kind, const google::protobuf::Message& current,
                         const google::protobuf::Message& wanted, const View& view);
// Checks that nothing needs a pool, host, image or flavor that is to be deleted.
// Errors: kConflict, naming what does.
Result<void> CheckDelete(Kind kind, std::string_view name, const View& view);

}  // namespace vallum::controller
