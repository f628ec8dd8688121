// SPDX-License-Identifier: Apache-2.0
#include "firmware/fault_tolerant_write.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "firmware/guid.h"
#include "firmware/variable_store_format.h"

namespace vallum::firmware {
namespace {

using variable_store_format::Erased;
using variable_store_format::kErased;

constexpr Guid kWorkingBlockGuid =
    MakeGuid(0x9e58292b, 0x7c68, 0x497d, {0xa0, 0xce, 0x65, 0x00, 0xfd, 0x9f, 0x1b, 0x95});
constexpr size_t kBlockHeaderSize = 32;
constexpr size_t kWriteHeaderSize = 40;
constexpr size_t kRecordSize = 40;
constexpr uint32_t kErasedWord = 0xffffffff;
constexpr uint32_t kBlockValid = 0xfffffffe;

// Bits of the first byte of a write and of its records: clear when it is so.
constexpr uint8_t kAllocated = 0x01;
constexpr uint8_t kRecordsWritten = 0x02;
constexpr uint8_t kComplete = 0x04;
constexpr uint8_t kSpareComplete = 0x02;
constexpr uint8_t kDestinationComplete = 0x04;

bool Is(uint8_t flags, uint8_t bit) { return (flags & bit) == 0; }

Bytes BlockHeader(size_t size, uint32_t crc, uint32_t state) {
  ByteWriter header;
  header.Raw(kWorkingBlockGuid.bytes).U32Le(crc).U32Le(state).U64Le(size - kBlockHeaderSize);
  return std::move(header).Take();
}

// The checksum covers the header as it is before checksum and state are written.
Bytes ValidBlockHeader(size_t size) {
  const Bytes blank = BlockHeader(size, kErasedWord, kErasedWord);
  const auto crc = static_cast<uint32_t>(
      crc32(0, reinterpret_cast<const Bytef*>(blank.data()), static_cast<uInt>(blank.size())));
  return BlockHeader(size, crc, kBlockValid);
}

Error Pending(size_t offset, std::string_view what) {
  return Corrupt(fmt::format("offset {}: {}", offset, what))
      .WithFix("start the machine once: its firmware finishes what was interrupted");
}

// One entry of the queue.
struct Write {
  uint8_t flags = 0;
  uint64_t records = 0;
  uint64_t private_size = 0;  // after each record
};

Result<Write> ReadWrite(ByteCursor& cursor) {
  Write write;
  ASSIGN_OR_RETURN(write.flags, cursor.ReadU8());
  RETURN_IF_ERROR(cursor.Skip(23));  // caller
  ASSIGN_OR_RETURN(write.records, cursor.ReadU64Le());
  ASSIGN_OR_RETURN(write.private_size, cursor.ReadU64Le());
  return write;
}

// Reads the records of the last write, which is not marked complete.
//   base: the image's offset of the cursor's first byte.
Result<FaultTolerantWrite> ReadOpenWrite(const Write& write, ByteCursor& cursor, size_t base) {
  if (!Is(write.flags, kAllocated) || !Is(write.flags, kRecordsWritten)) {
    return FaultTolerantWrite::kAbandoned;
  }
  for (uint64_t i = 0; i < write.records; ++i) {
    const size_t offset = base + cursor.offset();
    ASSIGN_OR_RETURN(const uint8_t flags, cursor.ReadU8());
    RETURN_IF_ERROR(cursor.Skip(kRecordSize - 1 + write.private_size));
    if (Is(flags, kDestinationComplete)) continue;
    if (i == 0 && !Is(flags, kSpareComplete)) return FaultTolerantWrite::kAbandoned;
    return Pending(offset,
                   "a write of the store was interrupted: its new contents are in the spare area, "
                   "and the store itself may be half overwritten");
  }
  return FaultTolerantWrite::kIdle;  // only the mark is missing
}

}  // namespace

Result<FaultTolerantWrite> ReadFaultTolerantWrite(ByteView working, ByteView spare, size_t offset) {
  const Bytes header = ValidBlockHeader(working.size());
  const auto begins_valid = [&](ByteView block) {
    return block.size() >= header.size() && std::ranges::equal(block.first(header.size()), header);
  };
  if (!begins_valid(working)) {
    if (begins_valid(spare)) {
      return Pending(offset, "a rewrite of the fault tolerant working block was interrupted");
    }
    if (Erased(working)) return FaultTolerantWrite::kUninitialised;
    return Corrupt(
        fmt::format("offset {}: neither a fault tolerant working block nor erased", offset));
  }
  ByteCursor cursor(working);
  RETURN_IF_ERROR(cursor.Skip(kBlockHeaderSize));
  while (cursor.remaining() >= kWriteHeaderSize && cursor.Rest().front() != kErased) {
    const size_t at = offset + cursor.offset();
    ASSIGN_OR_RETURN(const Write write, ReadWrite(cursor));
    const bool allocated = Is(write.flags, kAllocated);
    if (allocated && write.records != 0 &&
        (write.private_size > cursor.remaining() ||
         write.records > cursor.remaining() / (kRecordSize + write.private_size))) {
      return Corrupt(
          fmt::format("offset {}: {} records of a fault tolerant write with {} bytes "
                      "each leave the working block",
                      at, write.records, kRecordSize + write.private_size));
    }
    if (!allocated || !Is(write.flags, kComplete)) return ReadOpenWrite(write, cursor, offset);
    RETURN_IF_ERROR(cursor.Skip(write.records * (kRecordSize + write.private_size)));
  }
  return FaultTolerantWrite::kIdle;
}

Bytes MakeWorkingBlock(size_t size) {
  Bytes block = ValidBlockHeader(size);
  block.resize(size, kErased);
  return block;
}

}  // namespace vallum::firmware
