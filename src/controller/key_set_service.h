// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "controller/resource_store.h"
#include "controller/view.h"
#include "firmware/key_set.h"

namespace vallum::controller {

// The key set of firmware that verifies nothing.
inline constexpr std::string_view kNoKeys = "none";
// The key set of instances that ask for Secure Boot and no key set.
inline constexpr std::string_view kMicrosoftKeys = "microsoft";

// Old versions that nothing uses: so many are kept.
inline constexpr int kKeptVersions = 32;
// Of the contents of all old versions of one key set; with the newest, a resource stays below
// store::kMaxValueBytes.
inline constexpr size_t kMaxOldContentBytes = size_t{640} << 10U;

// Key sets and their versions. spec.content is the newest version; status.versions lists all, the
// newest without its content. Does not authorize. Thread-safe; calls block on the store.
class KeySetService {
 public:
  KeySetService(ResourceStore& resources, const View& view) : resources_(resources), view_(view) {}

  // `key_set` is replaced by what was stored; when it returns, the view has seen it.
  //   user: who asks.
  // Errors: those of ParseContent, kInvalidInput (a name of a built-in set), kConflict (exists),
  // and the store's.
  Result<void> Create(v1::KeySet& key_set, const std::string& user);
  // Replaces labels, description and content; another content is a new version.
  //   if_match: as in ResourceStore::Update.
  // Errors: those of ParseContent, kNotFound, kConflict (built-in; changed meanwhile), kExhausted
  // (the versions that are in use take too much room), and the store's.
  Result<void> Update(v1::KeySet& key_set, store::Revision if_match, const std::string& user);
  // Makes "none" and what this machine has, and a new version of each set whose content is another
  // than at the last start. Errors: the store's.
  Result<void> MakeBuiltIn(const std::vector<firmware::KeySet>& installed);

 private:
  Result<void> MakeOneBuiltIn(const firmware::KeySet& keys);
  Result<void> CreateChecked(v1::KeySet& key_set, const firmware::KeySet& keys,
                             const std::string& user);
  Result<void> Commit(const v1::KeySet& current, store::Revision use, v1::KeySet& key_set,
                      const firmware::KeySet& keys, const std::string& user);

  ResourceStore& resources_;
  const View& view_;
};

// The key set that an instance names or gets by its boot mode; empty: none, with BIOS.
std::string KeySetOf(const v1::Instance& instance);
// Versions that instances, snapshots or roll-outs under way need.
std::set<int32_t> VersionsInUse(const View& view, std::string_view key_set);
// Who needs the key set: "instance web1"; empty: nobody.
std::string UserOfKeySet(const View& view, std::string_view key_set);
// How many instances have the key set.
int32_t CountInstances(const View& view, std::string_view key_set);
// Neither ended nor stopped.
bool IsUnderWay(const v1::Rollout& rollout);

}  // namespace vallum::controller
