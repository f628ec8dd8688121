// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace vallum::formats {

// The header block (512 bytes) of a plain file in a ustar archive: mode 0644, owner and time 0, so
// that the same content gives the same archive. The content follows, then TarPadding() zeroes.
//   name: a package name (see IsPackageName) of at most 100 bytes. size: bytes; above 8 GiB in the
//   base-256 form of GNU tar, which readers of pax know as well.
// Errors: kInvalidInput (name, size). Pure.
// Source: POSIX.1-2017 pax, "ustar Interchange Format".
Result<Bytes> MakeTarHeader(std::string_view name, uint64_t size);

// Zeroes after a content of that size.
uint64_t TarPadding(uint64_t size);

// Zeroes that end an archive, bytes.
inline constexpr uint64_t kTarEnd = 1024;

}  // namespace vallum::formats
