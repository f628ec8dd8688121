// SPDX-License-Identifier: Apache-2.0
#include "controller/view.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace vallum::controller {
namespace {

constexpr const char* kRoot = "/vallum/";
constexpr int64_t kReadAtOnce = 1000;
constexpr std::chrono::milliseconds kWatchTimeout{60'000};

}  // namespace

Result<std::unique_ptr<View>> View::Create(store::Store& store) {
  std::unique_ptr<View> view(new View(store));
  RETURN_IF_ERROR(view->Load()).context("reading the store");
  View* raw = view.get();
  view->thread_ = std::thread([raw] { raw->Run(); });
  return view;
}

View::~View() {
  if (watch_ != nullptr) {
    watch_->Cancel();
  }
  if (thread_.joinable()) {
    thread_.join();
  }
}

Result<void> View::Load() {
  store::ReadRequest request;
  request.range = store::KeyRange::Prefix(kRoot);
  request.limit = kReadAtOnce;
  bool more = true;
  while (more) {
    ASSIGN_OR_RETURN(store::ReadResult page, store_.Read(request));
    request.revision = page.revision;
    for (const store::KeyValue& item : page.items) {
      const std::optional<ParsedKey> key = ParseKey(item.key);
      if (key) {
        ASSIGN_OR_RETURN_CONTEXT(auto resource,
                                 DecodeResource(key->kind, item.value, item.mod_revision),
                                 "reading " + item.key);
        table(key->kind)[key->name] = std::move(resource);
      }
    }
    more = page.more && !page.items.empty();
    if (more) {
      request.range.begin = page.items.back().key + std::string(1, '\0');
    }
  }
  // An empty store is at revision 0; a watch from 0 would mean "from now on" and miss commits.
  revision_ = request.revision;
  delivered_ = revision_;
  log_begin_ = revision_ + 1;
  Table& events = table(Kind::kEvent);
  while (events.size() > kEventsInView) {
    events.erase(events.begin());
  }
  ASSIGN_OR_RETURN(watch_, store_.StartWatch(store::KeyRange::Prefix(kRoot), revision_ + 1));
  return Ok();
}

void View::Run() {
  while (true) {
    Result<std::optional<store::WatchBatch>> batch = watch_->Next(kWatchTimeout);
    if (batch.has_value() && !batch->has_value()) {
      continue;
    }
    Result<void> applied = batch.has_value() ? Apply(**batch) : Result<void>(batch.error());
    if (!applied.has_value()) {
      const std::lock_guard lock(mutex_);
      ended_ = true;
      moved_.notify_all();
      return;
    }
  }
}

Result<Change> View::ApplyEvent(const store::WatchEvent& event) {
  Change change;
  change.revision = event.kv.mod_revision;
  const std::optional<ParsedKey> key = ParseKey(event.kv.key);
  if (!key) {
    return change;  // no resource: the caller sees the empty name
  }
  change.kind = key->kind;
  Table& in = table(key->kind);
  if (event.kind == store::WatchEvent::Kind::kPut) {
    ASSIGN_OR_RETURN(change.resource,
                     DecodeResource(key->kind, event.kv.value, event.kv.mod_revision));
    in[key->name] = change.resource;
    if (key->kind == Kind::kEvent && in.size() > kEventsInView) {
      in.erase(in.begin());
    }
  } else {
    change.what = Change::What::kDelete;
    const auto found = in.find(key->name);
    if (found == in.end()) {
      return change;
    }
    std::unique_ptr<google::protobuf::Message> last(found->second->New());
    last->CopyFrom(*found->second);
    MutableMetadataOf(*last).set_revision(event.kv.mod_revision);
    change.resource = std::move(last);
    in.erase(found);
  }
  change.name = key->name;
  return change;
}

Result<void> View::Apply(const store::WatchBatch& batch) {
  std::vector<Change> changes;
  const std::lock_guard delivery(delivery_mutex_);
  {
    const std::lock_guard lock(mutex_);
    for (const store::WatchEvent& event : batch.events) {
      ASSIGN_OR_RETURN(Change change, ApplyEvent(event));
      if (change.name.empty()) continue;
      change.bytes = event.kv.value.size();
      change.ends_revision = true;
      if (!changes.empty() && changes.back().revision == change.revision) {
        changes.back().ends_revision = false;
      }
      changes.push_back(std::move(change));
    }
    for (const Change& change : changes) {
      log_bytes_ += change.bytes;
      log_.push_back(change);
    }
    while (log_.size() > kChangesInLog || log_bytes_ > kChangeBytesInLog) {
      log_bytes_ -= log_.front().bytes;
      log_begin_ = log_.front().revision + 1;  // a revision that is cut into is not complete
      log_.pop_front();
    }
    revision_ = batch.revision;
    moved_.notify_all();
  }
  Deliver(changes);
  const std::lock_guard lock(mutex_);
  delivered_ = batch.revision;
  moved_.notify_all();
  return Ok();
}

void View::Deliver(const std::vector<Change>& changes) {
  for (const Change& change : changes) {
    for (const auto& [id, listener] : listeners_) {
      listener(change);
    }
  }
}

AnyResource View::Find(Kind kind, std::string_view name) const {
  const std::lock_guard lock(mutex_);
  const Table& in = table(kind);
  const auto found = in.find(name);
  return found == in.end() ? nullptr : found->second;
}

View::Listing View::List(Kind kind, std::string_view after, size_t limit) const {
  const std::lock_guard lock(mutex_);
  const Table& in = table(kind);
  Listing listing;
  listing.revision = revision_;
  for (auto it = after.empty() ? in.begin() : in.upper_bound(after); it != in.end(); ++it) {
    if (limit != 0 && listing.items.size() == limit) {
      break;
    }
    listing.items.push_back(it->second);
  }
  return listing;
}

View::Placement View::ForPlacement() const {
  const std::lock_guard lock(mutex_);
  Placement out;
  out.revision = revision_;
  for (const auto& [name, item] : table(Kind::kHost)) {
    out.hosts.push_back(std::static_pointer_cast<const v1::Host>(item));
  }
  for (const auto& [name, item] : table(Kind::kInstance)) {
    out.instances.push_back(std::static_pointer_cast<const v1::Instance>(item));
  }
  for (const auto& [name, item] : table(Kind::kPool)) {
    out.pools.push_back(std::static_pointer_cast<const v1::Pool>(item));
  }
  return out;
}

std::vector<std::shared_ptr<const v1::Operation>> View::RunningOperations(
    std::string_view target) const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<const v1::Operation>> out;
  for (const auto& [name, item] : table(Kind::kOperation)) {
    const auto operation = std::static_pointer_cast<const v1::Operation>(item);
    if (operation->state() == v1::OPERATION_RUNNING && operation->target() == target) {
      out.push_back(operation);
    }
  }
  return out;
}

store::Revision View::revision() const {
  const std::lock_guard lock(mutex_);
  return revision_;
}

bool View::healthy() const {
  const std::lock_guard lock(mutex_);
  return !ended_;
}

Result<void> View::WaitFor(store::Revision revision, std::chrono::milliseconds timeout) const {
  return WaitUntil(revision_, revision, timeout);
}

Result<void> View::WaitUntilHeard(store::Revision revision,
                                  std::chrono::milliseconds timeout) const {
  return WaitUntil(delivered_, revision, timeout);
}

Result<void> View::WaitUntil(const store::Revision& reached, store::Revision revision,
                             std::chrono::milliseconds timeout) const {
  std::unique_lock lock(mutex_);
  moved_.wait_for(lock, timeout, [&] { return reached >= revision || ended_; });
  if (reached >= revision) {
    return Ok();
  }
  return Unavailable(ended_ ? "the controller no longer follows its store"
                            : "the controller is behind its store")
      .WithFix("try again later");
}

Result<View::SubscriptionId> View::Subscribe(store::Revision from, Listener listener) {
  const std::lock_guard delivery(delivery_mutex_);
  std::vector<Change> backlog;
  if (from != 0) {
    const std::lock_guard lock(mutex_);
    if (from < log_begin_) {
      return NotFound("changes before revision " + std::to_string(log_begin_) +
                      " are no longer kept")
          .WithFix("list again and watch from the revision of that list");
    }
    for (const Change& change : log_) {
      if (change.revision >= from) {
        backlog.push_back(change);
      }
    }
  }
  for (const Change& change : backlog) {
    listener(change);
  }
  const SubscriptionId id = next_id_++;
  listeners_.emplace(id, std::move(listener));
  return id;
}

void View::Unsubscribe(SubscriptionId id) {
  const std::lock_guard delivery(delivery_mutex_);
  listeners_.erase(id);
}

}  // namespace vallum::controller
