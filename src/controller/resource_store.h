// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "controller/resource_kind.h"
#include "store/store.h"

namespace vallum::controller {

// Typed resources on a Store. Owns the rules of metadata: create sets name, uid, create_time and
// generation 1; update keeps uid, create_time, delete_time and tenant, and raises generation when
// spec changed; metadata.revision is always the store's mod_revision. Thread-safe; calls may block.
class ResourceStore {
 public:
  ResourceStore(store::Store& store, const Clock& clock) : store_(store), clock_(clock) {}

  // Errors: kInvalidInput (name, size), kConflict (exists), and the store's.
  template <typename T>
  Result<T> Create(T resource) {
    RETURN_IF_ERROR(CreateAny(KindOf<T>::kValue, resource));
    return resource;
  }
  // Replaces labels, spec and status.
  //   if_match: the revision that the change was made from; 0: whatever is there.
  // Errors: kNotFound, kConflict (changed meanwhile), and the store's.
  template <typename T>
  Result<T> Update(T resource, store::Revision if_match) {
    RETURN_IF_ERROR(UpdateAny(KindOf<T>::kValue, resource, if_match));
    return resource;
  }
  // Reads past the View, from the store itself. Errors: kNotFound, kCorrupt, and the store's.
  template <typename T>
  Result<T> Get(std::string_view name) {
    ASSIGN_OR_RETURN(auto resource, GetAny(KindOf<T>::kValue, name));
    return std::move(static_cast<T&>(*resource));
  }

  enum class Change { kWrite, kKeep };
  // Reads, lets `change` alter the resource, and writes it if nobody else did meanwhile; tries
  // again if someone did. `change` may run several times. Errors: those of `change`, kNotFound,
  // kConflict (too many attempts), and the store's.
  template <typename T>
  Result<T> Modify(std::string_view name, const std::function<Result<Change>(T&)>& change) {
    T last;
    RETURN_IF_ERROR(ModifyAny(
        KindOf<T>::kValue, name,
        [&](google::protobuf::Message& m) { return change(static_cast<T&>(m)); }, last));
    return last;
  }

  // Deletes now. Errors: kNotFound, kConflict (if_match), and the store's. Returns the revision.
  Result<store::Revision> Delete(Kind kind, std::string_view name, store::Revision if_match);

  // The same without the type, for callers that get the kind from a path. `resource` is replaced by
  // what was stored.
  Result<void> CreateAny(Kind kind, google::protobuf::Message& resource);
  Result<void> UpdateAny(Kind kind, google::protobuf::Message& resource, store::Revision if_match);
  Result<std::unique_ptr<google::protobuf::Message>> GetAny(Kind kind, std::string_view name);

  // For Txns of several resources: fills in the metadata of a resource that is to be created, or of
  // one that replaces `current`, without writing it.
  void PrepareCreate(google::protobuf::Message& resource) const;
  static void PrepareUpdate(const google::protobuf::Message& current,
                            google::protobuf::Message& resource);

  store::Store& raw() { return store_; }
  const Clock& clock() const { return clock_; }

 private:
  Result<void> ModifyAny(Kind kind, std::string_view name,
                         const std::function<Result<Change>(google::protobuf::Message&)>& change,
                         google::protobuf::Message& last);

  store::Store& store_;
  const Clock& clock_;
};

// Converts for metadata and status.
google::protobuf::Timestamp ToTimestamp(WallTime time);
WallTime FromTimestamp(const google::protobuf::Timestamp& time);

}  // namespace vallum::controller
