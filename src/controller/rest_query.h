// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <google/protobuf/message.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "http/message.h"

namespace vallum::controller {

// Which resources a list or watch is about.
struct Selector {
  std::vector<std::pair<std::string, std::string>> labels;  // every one must be equal
  std::vector<std::pair<std::string, std::string>> fields;  // path ("status.phase") and text
};

struct ListQuery {
  static constexpr size_t kDefaultLimit = 500;
  static constexpr size_t kMaxLimit = 5000;
  size_t limit = kDefaultLimit;
  std::string after;  // name of the last item of the page before
  Selector selector;
  std::optional<int64_t> watch;  // changes after this revision are wanted
};

// Reads ?limit=&page=&labels=a=b,c=d&fields=status.phase=INSTANCE_RUNNING&watch=<revision>.
//   type: of the resource, to check field paths.
// Errors: kInvalidInput (unknown parameter, bad number, unknown field).
Result<ListQuery> ParseListQuery(const http::Values& query,
                                 const google::protobuf::Descriptor& type);

// Reads ?NAME=<number from 0>; `fallback` when it is not there. Errors: kInvalidInput.
Result<uint64_t> ParseUnsigned(const http::Request& request, std::string_view name,
                               uint64_t fallback);

// The page token that goes on after a name.
std::string PageToken(std::string_view last_name);

// Whether a resource has all labels and field values. Enumerations compare by name, with or without
// case; a path through a message that is not set compares as its default.
bool Matches(const Selector& selector, const google::protobuf::Message& resource);

// Reads an If-Match header: "\"12\"" is 12; "*" or absent is 0.
// Errors: kInvalidInput (anything else).
Result<int64_t> ParseIfMatch(const http::Headers& headers);

}  // namespace vallum::controller
