// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "cli/output.h"

namespace vallum::cli {

// A kind of resource as the commands see it.
struct Kind {
  std::string name;    // "instance"
  std::string plural;  // "instances": the path of the API
  std::string about;
  bool labels = true;  // can be changed with `set`
  bool deletable = true;
  std::vector<Column> columns;
  // What `list --fields` may be given.
  std::string fields_example = "metadata.name=NAME";
};

const std::vector<Kind>& Kinds();
const Kind& KindOf(const std::string& name);

}  // namespace vallum::cli
