// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace vallum::formats {

// CRC-32C (Castagnoli, reflected, as iSCSI and VHDX have it) of the bytes; with `crc`, the result
// for what came before them, of both together. Uses the processor's instruction where there is one.
// Source: RFC 3720, section 12.1 and appendix B.4. Pure; thread-safe.
uint32_t Crc32c(ByteView data, uint32_t crc = 0);

// The same without the instruction: what Crc32c does on other processors.
uint32_t Crc32cByTable(ByteView data, uint32_t crc = 0);

}  // namespace vallum::formats
