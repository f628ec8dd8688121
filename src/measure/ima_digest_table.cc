// SPDX-License-Identifier: Apache-2.0
#include "measure/ima_digest_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "base/text.h"
#include "measure/ima_fields.h"

namespace vallum::measure {
namespace {

constexpr size_t kMinSlots = 16;
// A good hash needs a few dozen at four fifths full; what needs more was made to.
constexpr size_t kMaxProbes = 1024;
constexpr size_t kMinDigest = 16;

size_t HashOf(std::string_view name) { return std::hash<std::string_view>{}(name); }

uint32_t TagOf(size_t hash) { return static_cast<uint32_t>(hash >> 32U); }

bool IsFull(size_t entries, size_t slots) { return entries * 5 >= slots * 4; }

}  // namespace

std::string_view ImaDigestTable::NameOf(const Entry& entry) const {
  return std::string_view(names_).substr(entry.name, entry.name_size);
}

const ImaDigestTable::Entry* ImaDigestTable::Lookup(std::string_view name, size_t hash) const {
  if (slots_.empty()) {
    return nullptr;
  }
  const size_t mask = slots_.size() - 1;
  for (size_t at = hash & mask;; at = (at + 1) & mask) {
    const Slot& slot = slots_[at];
    if (slot.entry == 0) {
      return nullptr;
    }
    const Entry& entry = entries_[slot.entry - 1];
    if (slot.tag == TagOf(hash) && NameOf(entry) == name) {
      return &entry;
    }
  }
}

ImaListed ImaDigestTable::Find(std::string_view name, ByteView digest) const {
  const Entry* const entry = Lookup(name, HashOf(name));
  if (entry == nullptr) {
    return ImaListed::kUnknownName;
  }
  size_t at = entry->digest;
  for (uint16_t i = 0; i < entry->digest_count; ++i) {
    const auto size = std::to_integer<size_t>(digests_[at]);
    if (AsText(ByteView(digests_).subspan(at + 1, size)) == AsText(digest)) {
      return ImaListed::kListed;
    }
    at += 1 + size;
  }
  return ImaListed::kOtherDigest;
}

std::vector<ByteView> ImaDigestTable::DigestsOf(std::string_view name) const {
  std::vector<ByteView> out;
  const Entry* const entry = Lookup(name, HashOf(name));
  if (entry == nullptr) {
    return out;
  }
  size_t at = entry->digest;
  for (uint16_t i = 0; i < entry->digest_count; ++i) {
    const auto size = std::to_integer<size_t>(digests_[at]);
    out.push_back(ByteView(digests_).subspan(at + 1, size));
    at += 1 + size;
  }
  return out;
}

size_t ImaDigestTable::MemoryBytes() const {
  return slots_.capacity() * sizeof(Slot) + entries_.capacity() * sizeof(Entry) +
         names_.capacity() + digests_.capacity();
}

Result<void> ImaDigestTableBuilder::Place(size_t hash, uint32_t number) {
  const size_t mask = table_.slots_.size() - 1;
  for (size_t i = 0; i < kMaxProbes; ++i) {
    ImaDigestTable::Slot& slot = table_.slots_[(hash + i) & mask];
    if (slot.entry == 0) {
      slot = {.tag = TagOf(hash), .entry = number + 1};
      return Ok();
    }
  }
  return Exhausted("too many names whose hashes collide");
}

Result<void> ImaDigestTableBuilder::Grow() {
  table_.slots_.assign(std::max(kMinSlots, table_.slots_.size() * 2), {});
  for (uint32_t i = 0; i < table_.entries_.size(); ++i) {
    RETURN_IF_ERROR(Place(HashOf(table_.NameOf(table_.entries_[i])), i));
  }
  return Ok();
}

Result<uint32_t> ImaDigestTableBuilder::EntryOf(std::string_view name) {
  if (name.empty() || name.size() > kMaxImaPath) {
    return InvalidInput(
        fmt::format("a name of {} bytes; 1 to {} are accepted", name.size(), kMaxImaPath));
  }
  const size_t hash = HashOf(name);
  if (const auto* const known = table_.Lookup(name, hash); known != nullptr) {
    return static_cast<uint32_t>(known - table_.entries_.data());
  }
  if (table_.entries_.size() == kMaxTableNames ||
      table_.names_.size() + name.size() > kMaxTableBytes) {
    return Exhausted(
        fmt::format("more than {} names, or {} bytes of them", kMaxTableNames, kMaxTableBytes));
  }
  if (IsFull(table_.entries_.size() + 1, table_.slots_.size())) {
    RETURN_IF_ERROR(Grow());
  }
  const auto number = static_cast<uint32_t>(table_.entries_.size());
  RETURN_IF_ERROR(Place(hash, number));
  table_.entries_.push_back({.name = static_cast<uint32_t>(table_.names_.size()),
                             .digest = 0,
                             .name_size = static_cast<uint16_t>(name.size()),
                             .digest_count = 0});
  table_.names_ += name;
  chains_.emplace_back();
  return number;
}

Result<void> ImaDigestTableBuilder::AddName(std::string_view name) {
  RETURN_IF_ERROR(EntryOf(name));
  return Ok();
}

Result<void> ImaDigestTableBuilder::Add(std::string_view name, ByteView digest) {
  if (digest.size() < kMinDigest || digest.size() > kMaxImaDigest) {
    return InvalidInput(fmt::format("a digest of {} bytes for {}", digest.size(), Printable(name)));
  }
  if (table_.digests_.size() + digest.size() >= kMaxTableBytes) {
    return Exhausted(fmt::format("more than {} bytes of digests", kMaxTableBytes));
  }
  ASSIGN_OR_RETURN(const uint32_t number, EntryOf(name));
  auto& entry = table_.entries_[number];
  Chain& chain = chains_[number];
  for (uint32_t i = chain.first; i != kEnd; i = chained_[i].next) {
    const size_t at = chained_[i].offset;
    if (std::to_integer<size_t>(table_.digests_[at]) == digest.size() &&
        std::equal(digest.begin(), digest.end(), table_.digests_.data() + at + 1)) {
      return Ok();
    }
  }
  if (entry.digest_count == kMaxDigestsOfName) {
    return Exhausted(fmt::format("more than {} digests of {}", kMaxDigestsOfName, Printable(name)));
  }
  const auto added = static_cast<uint32_t>(chained_.size());
  chained_.push_back({.offset = static_cast<uint32_t>(table_.digests_.size()), .next = kEnd});
  table_.digests_.push_back(static_cast<std::byte>(digest.size()));
  table_.digests_.insert(table_.digests_.end(), digest.begin(), digest.end());
  (chain.last == kEnd ? chain.first : chained_[chain.last].next) = added;
  chain.last = added;
  ++entry.digest_count;
  return Ok();
}

ImaDigestTable ImaDigestTableBuilder::Build() && {
  Bytes digests;
  digests.reserve(table_.digests_.size());
  for (size_t i = 0; i < table_.entries_.size(); ++i) {
    table_.entries_[i].digest = static_cast<uint32_t>(digests.size());
    for (uint32_t each = chains_[i].first; each != kEnd; each = chained_[each].next) {
      const auto begin =
          table_.digests_.begin() + static_cast<std::ptrdiff_t>(chained_[each].offset);
      digests.insert(digests.end(), begin, begin + 1 + std::to_integer<std::ptrdiff_t>(*begin));
    }
  }
  table_.digests_ = std::move(digests);
  table_.digest_count_ = chained_.size();
  table_.names_.shrink_to_fit();
  table_.entries_.shrink_to_fit();
  return std::move(table_);
}

}  // namespace vallum::measure
