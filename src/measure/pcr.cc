// SPDX-License-Identifier: Apache-2.0
#include "measure/pcr.h"

#include <fmt/format.h>

namespace vallum::measure {

Result<Bytes> ReplayPcr(HashAlgorithm bank, std::span<const Bytes> digests) {
  Bytes value(DigestSize(bank));
  for (size_t i = 0; i < digests.size(); ++i) {
    if (digests[i].size() != value.size()) {
      return InvalidInput(fmt::format("extend {} has {} bytes, a digest of bank {} has {}", i,
                                      digests[i].size(), HashAlgorithmName(bank), value.size()));
    }
    value.insert(value.end(), digests[i].begin(), digests[i].end());
    value = Digest(bank, value);
  }
  return value;
}

}  // namespace vallum::measure
