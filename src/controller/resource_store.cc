// SPDX-License-Identifier: Apache-2.0
#include "controller/resource_store.h"

#include <google/protobuf/util/message_differencer.h>

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "base/ids.h"
#include "base/text.h"

namespace vallum::controller {
namespace {

constexpr int kAttempts = 50;

Error Missing(Kind kind, std::string_view name) {
  return NotFound(std::string(KindName(kind)) + " \"" + Printable(name) + "\" does not exist");
}

Error Changed(Kind kind, std::string_view name) {
  return Conflict(std::string(KindName(kind)) + " \"" + std::string(name) +
                  "\" was changed by someone else meanwhile")
      .WithFix("read it again and repeat the change on what you read");
}

bool SameSpec(const google::protobuf::Message& a, const google::protobuf::Message& b) {
  const google::protobuf::Message* spec_a = SpecOf(a);
  const google::protobuf::Message* spec_b = SpecOf(b);
  return spec_a == nullptr || spec_b == nullptr ||
         google::protobuf::util::MessageDifferencer::Equals(*spec_a, *spec_b);
}

}  // namespace

google::protobuf::Timestamp ToTimestamp(WallTime time) {
  const auto nanos =
      std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
  google::protobuf::Timestamp out;
  out.set_seconds(nanos / 1'000'000'000);
  out.set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
  return out;
}

WallTime FromTimestamp(const google::protobuf::Timestamp& time) {
  return WallTime(std::chrono::duration_cast<WallTime::duration>(
      std::chrono::seconds(time.seconds()) + std::chrono::nanoseconds(time.nanos())));
}

void ResourceStore::PrepareCreate(google::protobuf::Message& resource) const {
  v1::Metadata& metadata = MutableMetadataOf(resource);
  metadata.set_uid(NewUid());
  metadata.set_generation(1);
  *metadata.mutable_create_time() = ToTimestamp(clock_.Now());
  metadata.clear_delete_time();
  metadata.clear_revision();
}

void ResourceStore::PrepareUpdate(const google::protobuf::Message& current,
                                  google::protobuf::Message& resource) {
  const v1::Metadata& old = MetadataOf(current);
  v1::Metadata& metadata = MutableMetadataOf(resource);
  metadata.set_name(old.name());
  metadata.set_uid(old.uid());
  metadata.set_tenant(old.tenant());
  *metadata.mutable_create_time() = old.create_time();
  if (old.has_delete_time()) {
    *metadata.mutable_delete_time() = old.delete_time();
  }
  metadata.set_generation(old.generation() + (SameSpec(current, resource) ? 0 : 1));
}

Result<void> ResourceStore::CreateAny(Kind kind, google::protobuf::Message& resource) {
  const std::string name = MetadataOf(resource).name();
  RETURN_IF_ERROR(ValidateName(KindName(kind), name));
  PrepareCreate(resource);
  store::Txn txn;
  txn.compares.push_back({.key = KeyOf(kind, name), .mod_revision = 0});
  txn.writes.push_back(store::Write::Put(KeyOf(kind, name), EncodeResource(resource)));
  ASSIGN_OR_RETURN(const store::TxnResult done, store_.Commit(txn));
  if (!done.succeeded) {
    return Conflict(std::string(KindName(kind)) + " \"" + name + "\" exists already")
        .WithFix("choose another name, or change the one that exists");
  }
  MutableMetadataOf(resource).set_revision(done.revision);
  return Ok();
}

Result<void> ResourceStore::UpdateAny(Kind kind, google::protobuf::Message& resource,
                                      store::Revision if_match) {
  const std::string name = MetadataOf(resource).name();
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    ASSIGN_OR_RETURN(const auto current, GetAny(kind, name));
    const store::Revision revision = MetadataOf(*current).revision();
    if (if_match != 0 && if_match != revision) {
      return Changed(kind, name);
    }
    PrepareUpdate(*current, resource);
    store::Txn txn;
    txn.compares.push_back({.key = KeyOf(kind, name), .mod_revision = revision});
    txn.writes.push_back(store::Write::Put(KeyOf(kind, name), EncodeResource(resource)));
    ASSIGN_OR_RETURN(const store::TxnResult done, store_.Commit(txn));
    if (done.succeeded) {
      MutableMetadataOf(resource).set_revision(done.revision);
      return Ok();
    }
  }
  return Changed(kind, name);
}

Result<void> ResourceStore::ModifyAny(
    Kind kind, std::string_view name,
    const std::function<Result<Change>(google::protobuf::Message&)>& change,
    google::protobuf::Message& last) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    ASSIGN_OR_RETURN(const auto current, GetAny(kind, name));
    last.CopyFrom(*current);
    ASSIGN_OR_RETURN(const Change what, change(last));
    if (what == Change::kKeep) {
      return Ok();
    }
    Result<void> updated = UpdateAny(kind, last, MetadataOf(*current).revision());
    if (updated.has_value() || updated.error().code() != ErrorCode::kConflict) {
      return updated;
    }
  }
  return Changed(kind, name);
}

Result<std::unique_ptr<google::protobuf::Message>> ResourceStore::GetAny(Kind kind,
                                                                         std::string_view name) {
  store::ReadRequest request;
  request.range = store::KeyRange::Single(KeyOf(kind, name));
  ASSIGN_OR_RETURN(const store::ReadResult found, store_.Read(request));
  if (found.items.empty()) {
    return Missing(kind, name);
  }
  return DecodeResource(kind, found.items.front().value, found.items.front().mod_revision);
}

Result<store::Revision> ResourceStore::Delete(Kind kind, std::string_view name,
                                              store::Revision if_match) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    ASSIGN_OR_RETURN(const auto current, GetAny(kind, name));
    const store::Revision revision = MetadataOf(*current).revision();
    if (if_match != 0 && if_match != revision) {
      return Changed(kind, name);
    }
    store::Txn txn;
    txn.compares.push_back({.key = KeyOf(kind, name), .mod_revision = revision});
    txn.writes.push_back(store::Write::Delete(KeyOf(kind, name)));
    ASSIGN_OR_RETURN(const store::TxnResult done, store_.Commit(txn));
    if (done.succeeded) {
      return done.revision;
    }
  }
  return Changed(kind, name);
}

}  // namespace vallum::controller
