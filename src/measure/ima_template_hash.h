// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "measure/bank_hasher.h"
#include "measure/ima_log.h"

namespace vallum::measure {

// The bytes whose hash is an entry's template hash in each bank. The log must outlive it.
class ImaHashedData {
 public:
  ImaHashedData(const ImaLog& log, const ImaEntry& entry);
  ImaHashedData(const ImaHashedData&) = delete;
  ImaHashedData& operator=(const ImaHashedData&) = delete;

  ByteView view() const { return padded_size_ > 0 ? ByteView(padded_).first(padded_size_) : data_; }

 private:
  static constexpr size_t kImaSize = 20 + kImaLegacyNameSize;
  ByteView data_;
  std::array<std::byte, kImaSize> padded_;
  size_t padded_size_ = 0;  // 0: the data of the log are hashed as they are
};

// Makes the template hashes of a log in one bank from its data, some ahead of those that are asked
// for. The log must outlive it. Not thread-safe.
class ImaTemplateHasher {
 public:
  ImaTemplateHasher(const ImaLog& log, HashAlgorithm bank) : log_(log), hasher_(bank) {}

  // The hash of an entry's data; valid until the next call.
  //   entry: its number in the log (checked). Quickest in the log's order.
  ByteView HashOf(size_t entry);

 private:
  void HashFrom(size_t entry);

  const ImaLog& log_;
  BankHasher hasher_;
  size_t begin_ = 0;
  size_t end_ = 0;
  Bytes hashes_;  // of the entries [begin_, end_)
};

struct ImaTemplateHashReport {
  size_t agreeing = 0;
  size_t violations = 0;
  std::vector<size_t> mismatches;  // numbers of entries
};

// Whether the logged template hashes are those of the logged data. A remark only: no replay looks
// at them but for telling a violation. Pure; thread-safe.
ImaTemplateHashReport CheckTemplateHashes(const ImaLog& log);

}  // namespace vallum::measure
