// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <mutex>

#include "store/lease_table.h"
#include "store/mvcc_index.h"
#include "store/store.h"

namespace vallum::store {

// What a LocalStore, its writer and its watches share; everything is guarded by the mutex.
struct StoreState {
  std::mutex mutex;
  std::condition_variable published;  // visible or closing changed, or a watch was cancelled
  // Has the revisions that are being written as well; only those up to `visible` are shown. Changed
  // by the writer thread alone, which may therefore read it without the mutex.
  MvccIndex index;
  LeaseTable leases;
  Revision visible = MvccIndex::kEmptyRevision;
  bool closing = false;
};

}  // namespace vallum::store
