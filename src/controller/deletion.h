// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <google/protobuf/message.h>

#include <string>

#include "base/result.h"
#include "controller/resource_kind.h"
#include "controller/resource_store.h"
#include "controller/view.h"

namespace vallum::controller {

// Whether a resource may be deleted, as far as the view has seen. Errors: kConflict, naming what
// still uses it.
Result<void> CheckUnused(const View& view, Kind kind, const google::protobuf::Message& resource);

// Deletes a resource that nothing uses, with its use key: whoever begins to use it meanwhile
// changes that key, and then it is looked at again.
//   if_match: the revision that it must have; 0: any.
// Errors: kNotFound, kConflict (in use, or changed), the store's. The view may not have seen it
// yet.
Result<store::Revision> DeleteUnused(ResourceStore& resources, const View& view, Kind kind,
                                     const std::string& name, store::Revision if_match);

}  // namespace vallum::controller
