// SPDX-License-Identifier: Apache-2.0
#include "measure/ima_template_hash.h"

#include <openssl/evp.h>

#include <algorithm>
#include <optional>
#include <span>

#include "base/check.h"

namespace vallum::measure {
namespace {

// Enough for the hasher to have two inputs under way nearly always.
constexpr size_t kAhead = 32;
// After which no further entry is hashed ahead: whoever asked may not ask for it.
constexpr size_t kAheadBytes = size_t{64} << 10U;

// The kernel's other hash of 32 bytes.
bool IsSm3Of(ByteView data, ByteView hash) {
  if (hash.size() != ImaHashSize(ImaHash::kSm3)) return false;
  std::array<unsigned char, EVP_MAX_MD_SIZE> out{};
  unsigned size = 0;
  // An OpenSSL for FIPS has none.
  return EVP_Digest(data.data(), data.size(), out.data(), &size, EVP_sm3(), nullptr) == 1 &&
         std::ranges::equal(std::as_bytes(std::span(out).first(size)), hash);
}

}  // namespace

ImaHashedData::ImaHashedData(const ImaLog& log, const ImaEntry& entry)
    : data_(entry.template_data) {
  if (!log.FormatOf(entry).is_ima) {
    return;
  }
  padded_.fill(std::byte{0});
  const auto name = std::ranges::copy(entry.digest.bytes, padded_.begin()).out;
  std::ranges::copy(AsBytes(entry.path), name);
  padded_size_ = entry.digest.bytes.size() + kImaLegacyNameSize;
}

ByteView ImaTemplateHasher::HashOf(size_t entry) {
  CHECK(entry < log_.entries().size());
  if (entry < begin_ || entry >= end_) {
    HashFrom(entry);
  }
  const size_t size = DigestSize(hasher_.bank());
  return ByteView(hashes_).subspan((entry - begin_) * size, size);
}

void ImaTemplateHasher::HashFrom(size_t entry) {
  begin_ = entry;
  end_ = entry;
  std::array<std::optional<ImaHashedData>, kAhead> data;
  std::array<ByteView, kAhead> views;
  size_t count = 0;
  for (size_t bytes = 0; count < kAhead && end_ < log_.entries().size() && bytes < kAheadBytes;
       ++count, ++end_) {
    views[count] = data[count].emplace(log_, log_.entries()[end_]).view();
    bytes += views[count].size();
  }
  hashes_.resize(count * DigestSize(hasher_.bank()));
  hasher_.HashEach(std::span(views).first(count), hashes_);
}

ImaTemplateHashReport CheckTemplateHashes(const ImaLog& log) {
  constexpr std::array<HashAlgorithm, 4> kBanks = {HashAlgorithm::kSha1, HashAlgorithm::kSha256,
                                                   HashAlgorithm::kSha384, HashAlgorithm::kSha512};
  ImaTemplateHashReport out;
  if (log.entries().empty()) {
    return out;
  }
  const auto* const bank = std::ranges::find(kBanks, log.template_hash_size(), DigestSize);
  ImaTemplateHasher hasher(log, *bank);
  for (size_t i = 0; i < log.entries().size(); ++i) {
    const ImaEntry& entry = log.entries()[i];
    if (entry.violation) {
      ++out.violations;
    } else if (std::ranges::equal(hasher.HashOf(i), entry.template_hash) ||
               IsSm3Of(ImaHashedData(log, entry).view(), entry.template_hash)) {
      ++out.agreeing;
    } else {
      out.mismatches.push_back(i);
    }
  }
  return out;
}

}  // namespace vallum::measure
