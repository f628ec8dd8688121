// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <google/protobuf/message.h>

#include <string>
#include <string_view>

#include "base/result.h"

namespace vallum::controller {

// The protobuf JSON mapping, lowerCamelCase, fields at their default left out.
// Errors: kInternal (a message that has no JSON form: a bug).
Result<std::string> ToJson(const google::protobuf::Message& message);

// Reads a body into a message that is empty; both spellings of field names are accepted.
// Errors: kInvalidInput, naming the unknown field or the place; nothing of the message is to be
// used then.
Result<void> FromJson(std::string_view json, google::protobuf::Message& message);

// Applies an RFC 7396 merge patch: a member replaces a field, null clears it, objects merge.
// Errors: kInvalidInput, as FromJson; the message is not changed then.
Result<void> ApplyMergePatch(std::string_view patch, google::protobuf::Message& message);

}  // namespace vallum::controller
