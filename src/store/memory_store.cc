// SPDX-License-Identifier: Apache-2.0
#include "store/memory_store.h"

#include <memory>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "store/journal.h"

namespace vallum::store {
namespace {

class NoJournal final : public Journal {
 public:
  Result<void> Write(const JournalGroup&) override { return Ok(); }
  Result<void> Compact(Revision, const std::vector<int64_t>&) override { return Ok(); }
};

}  // namespace

MemoryStore::MemoryStore(const Clock& clock, const LocalStoreOptions& options)
    : LocalStore(std::make_unique<NoJournal>(), {}, {}, clock, options) {}

}  // namespace vallum::store
