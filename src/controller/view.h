// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/result.h"
#include "controller/resource_kind.h"
#include "store/store.h"

namespace vallum::controller {

// One resource that was written or deleted.
struct Change {
  enum class What { kPut, kDelete };
  store::Revision revision = 0;
  What what = What::kPut;
  Kind kind = Kind::kPool;
  std::string name;
  AnyResource resource;        // kDelete: as it was before, with metadata.revision of the deletion
  size_t bytes = 0;            // of the stored value
  bool ends_revision = false;  // no later change has this revision
};

// Everything that the store holds, in memory, kept current by one watch. All reads of the API and
// of the reconcilers come from here; a read sees whole revisions only. Thread-safe; owns one
// thread.
class View {
 public:
  // Called for each change, in order of revision, one call at a time. Must not block and must not
  // call Subscribe or Unsubscribe.
  using Listener = std::function<void(const Change&)>;
  using SubscriptionId = uint64_t;

  // Reads the store and starts to watch. Errors: the store's; kCorrupt.
  static Result<std::unique_ptr<View>> Create(store::Store& store);
  ~View();
  View(const View&) = delete;
  View& operator=(const View&) = delete;

  // The resource, or nullptr.
  AnyResource Find(Kind kind, std::string_view name) const;
  template <typename T>
  std::shared_ptr<const T> Get(std::string_view name) const {
    return std::static_pointer_cast<const T>(Find(KindOf<T>::kValue, name));
  }
  // As one revision saw them, in order of name; `revision` is that revision.
  struct Listing {
    std::vector<AnyResource> items;
    store::Revision revision = 0;
  };
  // Names after `after` only (empty: from the start); at most `limit` (0: all).
  Listing List(Kind kind, std::string_view after = {}, size_t limit = 0) const;
  template <typename T>
  std::vector<std::shared_ptr<const T>> All() const {
    std::vector<std::shared_ptr<const T>> out;
    for (AnyResource& item : List(KindOf<T>::kValue).items) {
      out.push_back(std::static_pointer_cast<const T>(std::move(item)));
    }
    return out;
  }
  // Hosts, instances and pools of one and the same revision: what the scheduler decides on.
  struct Placement {
    std::vector<std::shared_ptr<const v1::Host>> hosts;
    std::vector<std::shared_ptr<const v1::Instance>> instances;
    std::vector<std::shared_ptr<const v1::Pool>> pools;
    store::Revision revision = 0;
  };
  Placement ForPlacement() const;
  // Running operations of one target ("instances/web1").
  std::vector<std::shared_ptr<const v1::Operation>> RunningOperations(
      std::string_view target) const;

  store::Revision revision() const;
  // Read-your-writes: waits until the view has seen the revision.
  // Errors: kUnavailable (the time passed, or the watch has ended).
  Result<void> WaitFor(store::Revision revision,
                       std::chrono::milliseconds timeout = std::chrono::seconds(10)) const;

  // The same, until all listeners have heard of the revision as well. Whoever calls it holds no
  // lock that a listener takes.
  Result<void> WaitUntilHeard(store::Revision revision,
                              std::chrono::milliseconds timeout = std::chrono::seconds(10)) const;

  // Delivers every change with revision >= from (0: from now on). What is in the log is delivered
  // before this returns. Errors: kNotFound (older than the log: list again and watch from there).
  Result<SubscriptionId> Subscribe(store::Revision from, Listener listener);
  // No call of the listener is running or follows once this has returned.
  void Unsubscribe(SubscriptionId id);

  // False once the watch has ended for good: the process should exit.
  bool healthy() const;

 private:
  explicit View(store::Store& store) : store_(store) {}
  Result<void> Load();
  void Run();
  Result<void> Apply(const store::WatchBatch& batch);
  Result<Change> ApplyEvent(const store::WatchEvent& event);
  void Deliver(const std::vector<Change>& changes);
  // `reached` is guarded by mutex_.
  Result<void> WaitUntil(const store::Revision& reached, store::Revision revision,
                         std::chrono::milliseconds timeout) const;

  using Table = std::map<std::string, AnyResource, std::less<>>;
  Table& table(Kind kind) { return tables_[static_cast<size_t>(kind)]; }
  const Table& table(Kind kind) const { return tables_[static_cast<size_t>(kind)]; }

  store::Store& store_;
  std::unique_ptr<store::Watch> watch_;
  std::thread thread_;

  mutable std::mutex mutex_;  // guards the members below
  mutable std::condition_variable moved_;
  Table tables_[std::size(kAllKinds)];
  std::deque<Change> log_;
  size_t log_bytes_ = 0;           // of the stored values behind log_
  store::Revision log_begin_ = 1;  // changes of this and later revisions are in log_
  store::Revision revision_ = 0;
  store::Revision delivered_ = 0;  // the listeners have heard of it and of those before
  bool ended_ = false;

  std::mutex delivery_mutex_;  // taken before mutex_; guards the subscribers
  std::map<SubscriptionId, Listener> listeners_;
  SubscriptionId next_id_ = 1;
};

// The View keeps this many of the latest events; older ones are read with EventLog::Read.
inline constexpr size_t kEventsInView = 5000;
// Changes that a late subscriber can still get.
inline constexpr size_t kChangesInLog = 4096;
inline constexpr size_t kChangeBytesInLog = size_t{8} << 20U;

}  // namespace vallum::controller
