// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace vallum::measure {

inline constexpr size_t kMaxTableNames = size_t{4} << 20U;
inline constexpr size_t kMaxTableBytes = size_t{1} << 30U;
inline constexpr size_t kMaxDigestsOfName = 65535;

enum class ImaListed { kListed, kOtherDigest, kUnknownName };

// Names, each with the digests that are accepted for it: an index of eight bytes a slot, and one
// block each for names and digests, so that 100,000 paths take what their bytes take. Immutable but
// by its builder; thread-safe.
class ImaDigestTable {
 public:
  ImaDigestTable() = default;

  ImaListed Find(std::string_view name, ByteView digest) const;
  // The digests of a name, in the order given; for words. Empty for an unknown one.
  std::vector<ByteView> DigestsOf(std::string_view name) const;

  size_t names() const { return entries_.size(); }
  size_t digests() const { return digest_count_; }
  // What it takes on the heap.
  size_t MemoryBytes() const;

 private:
  friend class ImaDigestTableBuilder;
  struct Entry {
    uint32_t name = 0;    // offset in names_
    uint32_t digest = 0;  // offset in digests_ of the first: its size in a byte, then it
    uint16_t name_size = 0;
    uint16_t digest_count = 0;
  };
  struct Slot {
    uint32_t tag = 0;
    uint32_t entry = 0;  // number + 1; 0 for none
  };

  std::string_view NameOf(const Entry& entry) const;
  const Entry* Lookup(std::string_view name, size_t hash) const;

  std::vector<Slot> slots_;  // a power of two, at most four fifths full
  std::vector<Entry> entries_;
  std::string names_;
  Bytes digests_;
  size_t digest_count_ = 0;
};

// Collects names and digests in any order, then makes the table. Not thread-safe.
class ImaDigestTableBuilder {
 public:
  // The same digest of the same name is kept once.
  // Errors: kInvalidInput (an empty name, one above kMaxImaPath, a digest whose size is no hash's);
  // kExhausted (a limit above, or names made to collide).
  Result<void> Add(std::string_view name, ByteView digest);
  // A name for which no digest is accepted: it is known all the same.
  Result<void> AddName(std::string_view name);

  ImaDigestTable Build() &&;

 private:
  static constexpr uint32_t kEnd = UINT32_MAX;
  struct Chained {
    uint32_t offset = 0;  // in table_.digests_
    uint32_t next = kEnd;
  };

  Result<uint32_t> EntryOf(std::string_view name);
  Result<void> Grow();
  Result<void> Place(size_t hash, uint32_t number);

  ImaDigestTable table_;
  std::vector<Chained> chained_;
  struct Chain {
    uint32_t first = kEnd;
    uint32_t last = kEnd;
  };
  std::vector<Chain> chains_;  // by entry
};

}  // namespace vallum::measure
