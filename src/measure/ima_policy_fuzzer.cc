// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "measure/ima_allow_list.h"

using namespace vallum;  // NOLINT: a fuzzer

namespace {

void Use(const measure::ImaAllowList& list) {
  static_cast<void>(list.IsExcluded("/usr/lib/modules/6.1.0/kernel/fs/ext4/ext4.ko"));
  static_cast<void>(list.IgnoresKeyring(".ima"));
  static_cast<void>(list.keys().KeyIds());
  const Bytes digest(32);
  if (list.files().Find("/bin/sh", digest) == measure::ImaListed::kListed &&
      list.files().DigestsOf("/bin/sh").empty()) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto text = AsText(std::as_bytes(std::span(data, size)));
  for (const auto& list : {measure::ImportKeylimePolicy(text), measure::ImportDigestList(text)}) {
    if (list.has_value()) {
      Use(**list);
    }
  }
  return 0;
}
