// SPDX-License-Identifier: Apache-2.0
#include "store/mvcc_index.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "base/result.h"

namespace vallum::store {
namespace {

bool NewerThan(Revision revision, const VersionPtr& version) {
  return revision < version->kv.mod_revision;
}

}  // namespace

VersionPtr MvccIndex::Latest(const std::string& key) const {
  const auto it = keys_.find(key);
  if (it == keys_.end() || it->second.back()->deleted()) return nullptr;
  return it->second.back();
}

std::vector<VersionPtr> MvccIndex::Apply(const std::vector<Write>& writes) {
  std::vector<const Write*> effective;
  for (const Write& write : writes) {
    if (write.kind == Write::Kind::kPut || Latest(write.key) != nullptr) {
      effective.push_back(&write);
    }
  }
  if (effective.empty()) return {};
  std::sort(effective.begin(), effective.end(),
            [](const Write* a, const Write* b) { return a->key < b->key; });
  ++revision_;
  std::vector<VersionPtr> made;
  made.reserve(effective.size());
  for (const Write* write : effective) {
    auto version = std::make_shared<Version>();
    version->row = next_row_++;
    version->kv.key = write->key;
    version->kv.mod_revision = revision_;
    if (write->kind == Write::Kind::kPut) {
      const VersionPtr before = Latest(write->key);
      version->kv.value = write->value;
      version->kv.lease = write->lease;
      version->kv.create_revision = before ? before->kv.create_revision : revision_;
      version->kv.version = before ? before->kv.version + 1 : 1;
    }
    keys_[write->key].push_back(version);
    made.push_back(std::move(version));
  }
  log_.push_back(made);
  return made;
}

void MvccIndex::RollBack(Revision revision) {
  for (; revision_ > revision; --revision_) {
    for (const VersionPtr& version : log_.back()) {
      const auto it = keys_.find(version->kv.key);
      it->second.pop_back();
      if (it->second.empty()) keys_.erase(it);
      --next_row_;
    }
    log_.pop_back();
  }
}

MvccIndex::Slice MvccIndex::Read(const KeyRange& range, Revision revision, int64_t limit) const {
  Slice slice;
  for (auto it = keys_.lower_bound(range.begin); it != keys_.end(); ++it) {
    if (!range.end.empty() && it->first >= range.end) break;
    const History& history = it->second;
    const auto after = std::upper_bound(history.begin(), history.end(), revision, NewerThan);
    if (after == history.begin() || (*std::prev(after))->deleted()) continue;
    if (limit > 0 && slice.versions.size() == static_cast<size_t>(limit)) {
      slice.more = true;
      break;
    }
    slice.versions.push_back(*std::prev(after));
  }
  return slice;
}

const std::vector<VersionPtr>& MvccIndex::Log(Revision revision) const {
  CHECK(revision >= first_logged_ && revision <= revision_);
  return log_[static_cast<size_t>(revision - first_logged_)];
}

// The newest version at or before the revision stays, unless it is an older deletion: that of the
// revision itself is still wanted by watches from there.
size_t MvccIndex::CountForgotten(const History& history, Revision revision) {
  const auto after = std::upper_bound(history.begin(), history.end(), revision, NewerThan);
  if (after == history.begin()) return 0;
  const auto newest = std::prev(after);
  const bool old_deletion = (*newest)->deleted() && (*newest)->kv.mod_revision < revision;
  return static_cast<size_t>(newest - history.begin()) + (old_deletion ? 1U : 0U);
}

// Only keys written since the last compaction can have something to forget.
std::set<std::string_view> MvccIndex::KeysWrittenUpTo(Revision revision) const {
  std::set<std::string_view> keys;
  for (Revision r = first_logged_; r <= revision; ++r) {
    for (const VersionPtr& version : Log(r)) keys.insert(version->kv.key);
  }
  return keys;
}

std::vector<int64_t> MvccIndex::RowsForgottenBy(Revision revision) const {
  std::vector<int64_t> rows;
  for (const std::string_view key : KeysWrittenUpTo(revision)) {
    const History& history = keys_.find(key)->second;
    const size_t count = CountForgotten(history, revision);
    for (size_t i = 0; i < count; ++i) rows.push_back(history[i]->row);
  }
  return rows;
}

void MvccIndex::Compact(Revision revision) {
  CHECK(revision > compacted_ && revision <= revision_);
  for (const std::string_view key : KeysWrittenUpTo(revision)) {
    const auto it = keys_.find(key);
    History& history = it->second;
    const auto count = static_cast<std::ptrdiff_t>(CountForgotten(history, revision));
    history.erase(history.begin(), history.begin() + count);
    if (history.empty()) keys_.erase(it);
  }
  for (; first_logged_ < revision; ++first_logged_) log_.pop_front();
  compacted_ = revision;
}

MvccIndex::Loader::Loader(Revision compacted) {
  index_.compacted_ = compacted;
  index_.first_logged_ = std::max(compacted, kEmptyRevision + 1);
}

Result<void> MvccIndex::Loader::Add(Version version) {
  const Revision revision = version.kv.mod_revision;
  if (version.row < index_.next_row_ || revision < index_.revision_ || revision <= kEmptyRevision) {
    return Corrupt("row " + std::to_string(version.row) + " of revision " +
                   std::to_string(revision) + " follows row " +
                   std::to_string(index_.next_row_ - 1) + " of revision " +
                   std::to_string(index_.revision_));
  }
  const auto shared = std::make_shared<const Version>(std::move(version));
  if (revision >= index_.first_logged_) {
    const auto place = static_cast<size_t>(revision - index_.first_logged_);
    if (place > index_.log_.size()) {
      return Corrupt("revision " + std::to_string(revision - 1) + " is missing");
    }
    if (place == index_.log_.size()) index_.log_.emplace_back();
    index_.log_[place].push_back(shared);
  }
  History& history = index_.keys_[shared->kv.key];
  if (!history.empty() && history.back()->kv.mod_revision == revision) {
    return Corrupt("revision " + std::to_string(revision) + " writes one key twice");
  }
  history.push_back(shared);
  index_.next_row_ = shared->row + 1;
  index_.revision_ = revision;
  return Ok();
}

Result<MvccIndex> MvccIndex::Loader::Finish() && {
  if (index_.revision_ < index_.compacted_) {
    return Corrupt("compacted revision " + std::to_string(index_.compacted_) + " is missing");
  }
  return std::move(index_);
}

}  // namespace vallum::store
