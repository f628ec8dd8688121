// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "store/store.h"

namespace vallum::store {

// One write to one key. A deletion has kv.version 0 and only key and mod_revision set.
struct Version {
  KeyValue kv;
  int64_t row = 0;  // counts all versions; its place in the journal
  bool deleted() const { return kv.version == 0; }
};
using VersionPtr = std::shared_ptr<const Version>;

// Every key with its versions back to the last compaction, and the same versions in the order of
// their revisions. A value without locks; versions are shared and never change.
class MvccIndex {
 public:
  static constexpr Revision kEmptyRevision = 1;

  Revision revision() const { return revision_; }
  // Reads and watches from this revision on are possible; 0 before the first compaction.
  Revision compacted() const { return compacted_; }

  // The newest version of a key; null if there is none or it is a deletion.
  VersionPtr Latest(const std::string& key) const;

  // Makes the next revision from the writes. Writes that change nothing (a deletion of no key) are
  // left out; if none is left there is no new revision.
  // Returns the versions made, in key order.
  std::vector<VersionPtr> Apply(const std::vector<Write>& writes);
  // Undoes every revision after this one.
  void RollBack(Revision revision);

  struct Slice {
    std::vector<VersionPtr> versions;
    bool more = false;
  };
  // The live keys of a range as of a revision from compacted() to revision().
  Slice Read(const KeyRange& range, Revision revision, int64_t limit) const;

  // The versions of one revision, in key order; it is from first_logged() to revision().
  const std::vector<VersionPtr>& Log(Revision revision) const;
  Revision first_logged() const { return first_logged_; }

  // The rows that Compact would forget.
  std::vector<int64_t> RowsForgottenBy(Revision revision) const;
  void Compact(Revision revision);

  // Fills an index with what a journal kept, in the order of rows.
  class Loader;

 private:
  using History = std::vector<VersionPtr>;  // oldest first; never empty

  // How many of the oldest versions of a key a compaction at the revision forgets.
  static size_t CountForgotten(const History& history, Revision revision);

  std::set<std::string_view> KeysWrittenUpTo(Revision revision) const;

  std::map<std::string, History, std::less<>> keys_;
  std::deque<std::vector<VersionPtr>> log_;
  Revision first_logged_ = kEmptyRevision + 1;
  Revision revision_ = kEmptyRevision;
  Revision compacted_ = 0;
  int64_t next_row_ = 1;
};

class MvccIndex::Loader {
 public:
  //   compacted: the last compaction, 0 for none.
  explicit Loader(Revision compacted);
  // Errors: kCorrupt (rows or revisions that cannot follow each other).
  Result<void> Add(Version version);
  // Errors: kCorrupt (nothing at or after the compacted revision).
  Result<MvccIndex> Finish() &&;

 private:
  MvccIndex index_;
};

}  // namespace vallum::store
