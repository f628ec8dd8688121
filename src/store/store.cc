// SPDX-License-Identifier: Apache-2.0
#include "store/store.h"

#include <cstddef>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/result.h"
#include "base/text.h"

namespace vallum::store {
namespace {

Result<void> CheckKey(const std::string& key) {
  if (!key.empty() && key.size() <= kMaxKeyBytes) return Ok();
  return InvalidInput("key \"" + Printable(key, 80) + "\" has " + std::to_string(key.size()) +
                      " bytes, not 1 to " + std::to_string(kMaxKeyBytes));
}

Result<void> CheckCount(std::string_view what, size_t count) {
  if (count <= kMaxTxnOperations) return Ok();
  return InvalidInput("a transaction has " + std::to_string(count) + " " + std::string(what) +
                      ", more than " + std::to_string(kMaxTxnOperations))
      .WithFix("split it into several transactions");
}

Result<void> CheckWrite(const Write& write) {
  RETURN_IF_ERROR(CheckKey(write.key));
  if (write.value.size() > kMaxValueBytes) {
    return InvalidInput("the value of \"" + Printable(write.key, 80) + "\" has " +
                        std::to_string(write.value.size()) + " bytes, more than " +
                        std::to_string(kMaxValueBytes));
  }
  if (write.lease < 0) return InvalidInput("lease " + std::to_string(write.lease) + " is negative");
  return Ok();
}

}  // namespace

KeyRange KeyRange::Single(std::string key) {
  KeyRange range{key, key};
  range.end.push_back('\0');
  return range;
}

KeyRange KeyRange::Prefix(std::string prefix) {
  KeyRange range{prefix, std::move(prefix)};
  // The end is the first text after all that begin with the prefix: its last byte plus one, where
  // a byte of 0xff has no successor and is dropped.
  while (!range.end.empty() && range.end.back() == '\xff') range.end.pop_back();
  if (!range.end.empty()) {
    range.end.back() = static_cast<char>(static_cast<unsigned char>(range.end.back()) + 1U);
  }
  return range;
}

bool KeyRange::Contains(const std::string& key) const {
  return key >= begin && (end.empty() || key < end);
}

Write Write::Put(std::string key, std::string value, LeaseId lease) {
  return {Kind::kPut, std::move(key), std::move(value), lease};
}

Write Write::Delete(std::string key) { return {Kind::kDelete, std::move(key), {}, 0}; }

Result<void> ValidateTxn(const Txn& txn) {
  RETURN_IF_ERROR(CheckCount("comparisons", txn.compares.size()));
  RETURN_IF_ERROR(CheckCount("writes", txn.writes.size()));
  size_t bytes = 0;
  for (const Compare& compare : txn.compares) {
    RETURN_IF_ERROR(CheckKey(compare.key));
    if (compare.mod_revision < 0) {
      return InvalidInput("the comparison of \"" + Printable(compare.key, 80) +
                          "\" has a negative revision");
    }
    bytes += compare.key.size();
  }
  std::set<std::string_view> written;
  for (const Write& write : txn.writes) {
    RETURN_IF_ERROR(CheckWrite(write));
    if (!written.insert(write.key).second) {
      return InvalidInput("a transaction writes key \"" + Printable(write.key, 80) + "\" twice");
    }
    bytes += write.key.size() + write.value.size();
  }
  if (bytes <= kMaxTxnBytes) return Ok();
  return InvalidInput("a transaction has " + std::to_string(bytes) + " bytes, more than " +
                      std::to_string(kMaxTxnBytes))
      .WithFix("split it into several transactions");
}

}  // namespace vallum::store
