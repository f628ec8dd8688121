// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "images/inspection.h"
#include "vallum/v1/resources.pb.h"

namespace vallum::controller {

// Adds the loaders that inspection found on a disk, in the API's form. Pure.
void AddBootBinaries(const images::Inspection& found,
                     google::protobuf::RepeatedPtrField<v1::BootBinary>& out);

}  // namespace vallum::controller
