// SPDX-License-Identifier: Apache-2.0
#include "controller/resource_kind.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/check.h"

namespace vallum::controller {
namespace {

constexpr std::string_view kRoot = "/vallum/";

const google::protobuf::FieldDescriptor& Field(const google::protobuf::Message& resource,
                                               const char* name) {
  const auto* field = resource.GetDescriptor()->FindFieldByName(name);
  CHECK(field != nullptr);
  return *field;
}

}  // namespace

std::string_view KindName(Kind kind) {
  if (kind == Kind::kAttestationPolicy) return "attestationpolicy";
  if (kind == Kind::kTpmAuthority) return "tpmauthority";
  const std::string_view plural = KindPlural(kind);
  return plural.substr(0, plural.size() - 1);
}

std::string_view KindPlural(Kind kind) {
  switch (kind) {
    case Kind::kPool:
      return "pools";
    case Kind::kHost:
      return "hosts";
    case Kind::kImage:
      return "images";
    case Kind::kFlavor:
      return "flavors";
    case Kind::kInstance:
      return "instances";
    case Kind::kOperation:
      return "operations";
    case Kind::kEvent:
      return "events";
    case Kind::kToken:
      return "tokens";
    case Kind::kKeySet:
      return "keysets";
    case Kind::kSnapshot:
      return "snapshots";
    case Kind::kRollout:
      return "rollouts";
    case Kind::kAttestationPolicy:
      return "attestationpolicies";
    case Kind::kTpmAuthority:
      return "tpmauthorities";
    case Kind::kAllowList:
      return "allowlists";
  }
  return "?";
}

std::optional<Kind> KindFromPlural(std::string_view plural) {
  for (const Kind kind : kAllKinds) {
    if (KindPlural(kind) == plural) {
      return kind;
    }
  }
  return std::nullopt;
}

std::string KeyPrefix(Kind kind) {
  return std::string(kRoot) + std::string(KindPlural(kind)) + "/";
}

std::string KeyOf(Kind kind, std::string_view name) { return KeyPrefix(kind) + std::string(name); }

std::string UseKey(Kind kind, std::string_view name) {
  return std::string(kRoot) + "uses/" + std::string(KindPlural(kind)) + "/" + std::string(name);
}

std::optional<ParsedKey> ParseKey(std::string_view key) {
  if (!key.starts_with(kRoot)) {
    return std::nullopt;
  }
  key.remove_prefix(kRoot.size());
  const size_t slash = key.find('/');
  if (slash == std::string_view::npos || slash + 1 == key.size()) {
    return std::nullopt;
  }
  const std::optional<Kind> kind = KindFromPlural(key.substr(0, slash));
  if (!kind) {
    return std::nullopt;
  }
  return ParsedKey{.kind = *kind, .name = std::string(key.substr(slash + 1))};
}

std::unique_ptr<google::protobuf::Message> NewResource(Kind kind) {
  switch (kind) {
    case Kind::kPool:
      return std::make_unique<v1::Pool>();
    case Kind::kHost:
      return std::make_unique<v1::Host>();
    case Kind::kImage:
      return std::make_unique<v1::Image>();
    case Kind::kFlavor:
      return std::make_unique<v1::Flavor>();
    case Kind::kInstance:
      return std::make_unique<v1::Instance>();
    case Kind::kOperation:
      return std::make_unique<v1::Operation>();
    case Kind::kEvent:
      return std::make_unique<v1::Event>();
    case Kind::kToken:
      return std::make_unique<v1::Token>();
    case Kind::kKeySet:
      return std::make_unique<v1::KeySet>();
    case Kind::kSnapshot:
      return std::make_unique<v1::Snapshot>();
    case Kind::kRollout:
      return std::make_unique<v1::Rollout>();
    case Kind::kAttestationPolicy:
      return std::make_unique<v1::AttestationPolicy>();
    case Kind::kTpmAuthority:
      return std::make_unique<v1::TpmAuthority>();
    case Kind::kAllowList:
      return std::make_unique<v1::AllowList>();
  }
  return nullptr;
}

const v1::Metadata& MetadataOf(const google::protobuf::Message& resource) {
  return static_cast<const v1::Metadata&>(
      resource.GetReflection()->GetMessage(resource, &Field(resource, "metadata")));
}

v1::Metadata& MutableMetadataOf(google::protobuf::Message& resource) {
  return static_cast<v1::Metadata&>(
      *resource.GetReflection()->MutableMessage(&resource, &Field(resource, "metadata")));
}

const google::protobuf::Message* SpecOf(const google::protobuf::Message& resource) {
  const auto* field = resource.GetDescriptor()->FindFieldByName("spec");
  return field == nullptr ? nullptr : &resource.GetReflection()->GetMessage(resource, field);
}

std::string EncodeResource(const google::protobuf::Message& resource) {
  const std::unique_ptr<google::protobuf::Message> copy(resource.New());
  copy->CopyFrom(resource);
  MutableMetadataOf(*copy).clear_revision();
  std::string out;
  {
    google::protobuf::io::StringOutputStream stream(&out);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    CHECK(copy->SerializeToCodedStream(&coded));
  }
  return out;
}

Result<std::unique_ptr<google::protobuf::Message>> DecodeResource(Kind kind, std::string_view bytes,
                                                                  int64_t mod_revision) {
  std::unique_ptr<google::protobuf::Message> resource = NewResource(kind);
  if (!resource->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return Corrupt("the store holds bytes that are no " + std::string(KindName(kind)));
  }
  MutableMetadataOf(*resource).set_revision(mod_revision);
  return resource;
}

}  // namespace vallum::controller
