// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/clock.h"
#include "store/local_store.h"

namespace vallum::store {

// A Store that ends with the process: for tests and for state that may be lost.
class MemoryStore final : public LocalStore {
 public:
  //   clock: decides when leases expire; outlives the store.
  explicit MemoryStore(const Clock& clock, const LocalStoreOptions& options = {});
};

}  // namespace vallum::store
