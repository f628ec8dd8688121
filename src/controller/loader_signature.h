// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "vallum/v1/resources.pb.h"

namespace vallum::controller {

// The property of images and requests: whose loader an instance may start beside what its key set
// allows. In an instance's spec it is what was resolved, its key under this spelling.
inline constexpr const char* kLoaderSignature = "os_secure_boot_signature";

struct LoaderSignature {
  Bytes list;           // one EFI_SIGNATURE_LIST for db
  std::string key_set;  // instead of `list`: all that is in the db of this key set
  int32_t version = 0;  // of it; 0: the newest
};

// Reads a value: the SHA-256 of one boot image (its Authenticode digest, 64 hexadecimal digits), a
// key set's name or NAME@VERSION, or a certificate in DER as base64.
// Errors: kInvalidInput (none of these). Pure; thread-safe.
Result<LoaderSignature> ParseLoaderSignature(std::string_view value);

// What the spec of an instance says; nothing when it says nothing.
LoaderSignature SignatureOf(const v1::Instance& instance);

}  // namespace vallum::controller
