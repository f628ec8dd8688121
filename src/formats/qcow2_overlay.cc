// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cstddef>
#include <cstdint>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/units.h"
#include "formats/qcow2.h"

namespace vallum::formats {
namespace {

constexpr uint32_t kClusterBits = 16;
constexpr uint64_t kCluster = uint64_t{1} << kClusterBits;
constexpr uint64_t kCoveredByL1Entry = kCluster * (kCluster / 8);
constexpr uint32_t kHeaderLength = 112;
constexpr uint32_t kRefcountOrder = 4;  // 16 bits

// The layout that `qemu-img create` uses: header, refcount table, refcount block, L1 table.
constexpr uint64_t kRefcountTable = 1 * kCluster;
constexpr uint64_t kRefcountBlock = 2 * kCluster;
constexpr uint64_t kL1Table = 3 * kCluster;

void WriteHeader(ByteWriter& out, uint64_t virtual_size, uint32_t l1_entries) {
  out.U32Be(kQcow2Magic).U32Be(3);
  out.U64Be(0).U32Be(0);  // no backing file: the block graph names the base
  out.U32Be(kClusterBits).U64Be(virtual_size).U32Be(0);
  out.U32Be(l1_entries).U64Be(kL1Table);
  out.U64Be(kRefcountTable).U32Be(1);
  out.U32Be(0).U64Be(0);           // no snapshots
  out.U64Be(0).U64Be(0).U64Be(0);  // no features
  out.U32Be(kRefcountOrder).U32Be(kHeaderLength);
  out.U8(0).Zeros(7);  // deflate
  out.U64Be(0);        // end of the extensions
}

}  // namespace

Result<Bytes> MakeQcow2Overlay(ByteCount virtual_size) {
  const uint64_t size = virtual_size.bytes();
  if (size == 0 || size > kQcow2MaxVirtualSize) {
    return InvalidInput(fmt::format("a disk of {} bytes cannot be made: 1 byte to {} TiB is "
                                    "possible",
                                    size, kQcow2MaxVirtualSize >> 40U))
        .WithFix("choose another disk size");
  }
  const uint64_t sectors = (size + 511) / 512;
  const auto l1_entries =
      static_cast<uint32_t>((sectors * 512 + kCoveredByL1Entry - 1) / kCoveredByL1Entry);
  const uint64_t clusters =
      kL1Table / kCluster + (uint64_t{l1_entries} * 8 + kCluster - 1) / kCluster;

  ByteWriter out;
  WriteHeader(out, sectors * 512, l1_entries);
  out.Zeros(kRefcountTable - out.size());
  out.U64Be(kRefcountBlock);
  out.Zeros(kRefcountBlock - out.size());
  for (uint64_t i = 0; i < clusters; ++i) out.U16Be(1);
  out.Zeros(kL1Table - out.size());
  out.Zeros(size_t{l1_entries} * 8);
  return std::move(out).Take();
}

}  // namespace vallum::formats
