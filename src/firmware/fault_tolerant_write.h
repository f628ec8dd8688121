// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "base/bytes.h"
#include "base/result.h"

// The area behind OVMF's variable store in which the firmware notes a rewrite of the whole store
// (reclaim), so that it survives a power cut: docs/formats/variable_store.md.
namespace vallum::firmware {

enum class FaultTolerantWrite {
  kUninitialised,  // erased: the firmware makes the working block at its next start
  kIdle,           // no write under way
  kAbandoned,      // a write was announced and never begun: the firmware drops it
};

// Reads the working block.
//   working: the block; untrusted.
//   spare: where the firmware puts the new contents before it overwrites the store; untrusted. Its
//   contents do not count unless the working block says so.
//   offset: of the block in the image, for messages.
// Errors: kCorrupt (a write is pending: the new contents are in the spare area and the store may
// be half overwritten; the working block itself is being rewritten; neither erased nor a working
// block; a queue that leaves the block).
// Source: EDK II FaultTolerantWriteDxe, FtwMisc.c InitFtwProtocol; SystemNvDataGuid.h. Pure.
Result<FaultTolerantWrite> ReadFaultTolerantWrite(ByteView working, ByteView spare, size_t offset);

// The working block as the firmware makes it, without writes.
//   size: of the block in bytes, header included.
Bytes MakeWorkingBlock(size_t size);

}  // namespace vallum::firmware
