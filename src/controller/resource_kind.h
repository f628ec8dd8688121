// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <google/protobuf/message.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "vallum/v1/resources.pb.h"

namespace vallum::controller {

enum class Kind {
  kPool,
  kHost,
  kImage,
  kFlavor,
  kInstance,
  kOperation,
  kEvent,
  kToken,
  kKeySet,
  kSnapshot,
  kRollout,
  kAttestationPolicy,
  kTpmAuthority,
  kAllowList
};
inline constexpr Kind kAllKinds[] = {Kind::kPool,         Kind::kHost,     Kind::kImage,
                                     Kind::kFlavor,       Kind::kInstance, Kind::kOperation,
                                     Kind::kEvent,        Kind::kToken,    Kind::kKeySet,
                                     Kind::kSnapshot,     Kind::kRollout,  Kind::kAttestationPolicy,
                                     Kind::kTpmAuthority, Kind::kAllowList};

// A resource of any kind; shared and never changed once made.
using AnyResource = std::shared_ptr<const google::protobuf::Message>;

// "instance"; "instances", as in paths and keys.
std::string_view KindName(Kind kind);
std::string_view KindPlural(Kind kind);
std::optional<Kind> KindFromPlural(std::string_view plural);

// "/vallum/instances/"; "/vallum/instances/web1".
std::string KeyPrefix(Kind kind);
std::string KeyOf(Kind kind, std::string_view name);
// Written by whoever makes something that uses this resource, compared by whoever deletes it: so a
// use and a deletion at the same moment cannot both happen. The value means nothing.
std::string UseKey(Kind kind, std::string_view name);
// Takes a key apart. Empty when it is not a resource's key.
struct ParsedKey {
  Kind kind;
  std::string name;
};
std::optional<ParsedKey> ParseKey(std::string_view key);

// An empty resource of the kind.
std::unique_ptr<google::protobuf::Message> NewResource(Kind kind);
// The `metadata` that every resource has.
const v1::Metadata& MetadataOf(const google::protobuf::Message& resource);
v1::Metadata& MutableMetadataOf(google::protobuf::Message& resource);
// The `spec` of a resource; nullptr for kinds that have none (Operation, Event).
const google::protobuf::Message* SpecOf(const google::protobuf::Message& resource);

// The stored form: deterministic, without metadata.revision, which is the store's mod_revision.
std::string EncodeResource(const google::protobuf::Message& resource);
// Errors: kCorrupt (not a resource of the kind).
Result<std::unique_ptr<google::protobuf::Message>> DecodeResource(Kind kind, std::string_view bytes,
                                                                  int64_t mod_revision);

template <typename T>
struct KindOf;
template <>
struct KindOf<v1::Pool> {
  static constexpr Kind kValue = Kind::kPool;
};
template <>
struct KindOf<v1::Host> {
  static constexpr Kind kValue = Kind::kHost;
};
template <>
struct KindOf<v1::Image> {
  static constexpr Kind kValue = Kind::kImage;
};
template <>
struct KindOf<v1::Flavor> {
  static constexpr Kind kValue = Kind::kFlavor;
};
template <>
struct KindOf<v1::Instance> {
  static constexpr Kind kValue = Kind::kInstance;
};
template <>
struct KindOf<v1::Operation> {
  static constexpr Kind kValue = Kind::kOperation;
};
template <>
struct KindOf<v1::Event> {
  static constexpr Kind kValue = Kind::kEvent;
};
template <>
struct KindOf<v1::Token> {
  static constexpr Kind kValue = Kind::kToken;
};
template <>
struct KindOf<v1::KeySet> {
  static constexpr Kind kValue = Kind::kKeySet;
};
template <>
struct KindOf<v1::Snapshot> {
  static constexpr Kind kValue = Kind::kSnapshot;
};
template <>
struct KindOf<v1::Rollout> {
  static constexpr Kind kValue = Kind::kRollout;
};
template <>
struct KindOf<v1::AttestationPolicy> {
  static constexpr Kind kValue = Kind::kAttestationPolicy;
};
template <>
struct KindOf<v1::TpmAuthority> {
  static constexpr Kind kValue = Kind::kTpmAuthority;
};
template <>
struct KindOf<v1::AllowList> {
  static constexpr Kind kValue = Kind::kAllowList;
};

}  // namespace vallum::controller
