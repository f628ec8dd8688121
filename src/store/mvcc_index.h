// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
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
  // The live keys of a range as of a revision that was checked with CheckReadable.
  Slice Read(const KeyRange& range, Revision revision, int64_t limit) const;

  // The versions of one revision, in key order; it is from first_logged() to revision().
  const std::vector<VersionPtr>& Log(Revision revision) const;
  Revision first_logged() const { return first_logged_; }

  // The rows that Compact would forget.
  std::vector<int64_t> RowsForgottenBy(Revision revision) const;
  void Compact(Revision revision);

  // Adds what a journal kept. Rows come in order.
  // Errors: kCorrupt (rows or revisions that cannot follow each other).
  Result<void> Load(Version version, Revision compacted);
  // Ends loading. Errors: kCorrupt (no row of the compacted revision).
  Result<void> FinishLoad(Revision compacted);

 private:
  using History = std::vector<VersionPtr>;  // oldest first; never empty

  // How many of the oldest versions of a key a compaction at the revision forgets.
  static size_t CountForgotten(const History& history, Revision revision);

  std::map<std::string, History, std::less<>> keys_;
  std::deque<std::vector<VersionPtr>> log_;
  Revision first_logged_ = kEmptyRevision + 1;
  Revision revision_ = kEmptyRevision;
  Revision compacted_ = 0;
  int64_t next_row_ = 1;
};

}  // namespace vallum::store
