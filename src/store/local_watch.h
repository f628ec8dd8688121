// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>
#include <optional>

#include "base/result.h"
#include "store/store.h"
#include "store/store_state.h"

namespace vallum::store {

// A place in the log of a LocalStore; outlives the store (and then says kUnavailable).
class LocalWatch final : public Watch {
 public:
  //   next: the first revision to deliver; not compacted.
  LocalWatch(std::shared_ptr<StoreState> state, KeyRange range, Revision next);
  Result<std::optional<WatchBatch>> Next(std::chrono::milliseconds timeout) override;
  void Cancel() override;

 private:
  Result<void> CheckUsable() const;
  std::optional<WatchBatch> Scan();

  const std::shared_ptr<StoreState> state_;
  const KeyRange range_;
  Revision next_;  // these two: guarded by state_->mutex
  bool cancelled_ = false;
};

}  // namespace vallum::store
