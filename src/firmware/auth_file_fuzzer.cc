// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <span>

#include "firmware/auth_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace firmware = vallum::firmware;
  const auto file = firmware::ParseAuthFile(std::as_bytes(std::span(data, size)));
  if (!file.has_value()) {
    return 0;
  }
  firmware::KeySet keys;
  for (const vallum::Bytes& der : file->signature.certificates()) {
    keys.kek.push_back(firmware::MakeSignature(firmware::SignatureType::kX509,
                                               firmware::kGlobalVariableGuid, der));
  }
  static_cast<void>(
      firmware::VerifyAuthFile(*file, {"dbx", firmware::kSecurityDatabaseGuid}, keys));
  return 0;
}
