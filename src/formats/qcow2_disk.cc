// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow2_disk.h"

#include <fmt/format.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/fields.h"
#include "formats/qcow2.h"
#include "formats/qcow2_entries.h"
#include "formats/reader.h"

namespace vallum::formats {
namespace {

constexpr uint64_t kL1Piece = 512;       // entries that are read at once
constexpr int kDeflateWindowBits = -12;  // raw stream, 4 KiB window: what qemu writes
constexpr int kZstdMaxWindowLog = 23;    // 8 MiB; a cluster has 2 MiB at most

// Fills all of `out`, or false.
bool Inflate(ByteView in, std::span<std::byte> out) {
  z_stream stream{};
  if (inflateInit2(&stream, kDeflateWindowBits) != Z_OK) return false;
  // zlib's interface is not const-correct; it does not write to next_in.
  stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(in.data()));
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int result = inflate(&stream, Z_FINISH);
  const bool full = stream.avail_out == 0;
  inflateEnd(&stream);
  // As qemu: Z_BUF_ERROR with a full buffer is good, the input ends in padding.
  return full && (result == Z_STREAM_END || result == Z_BUF_ERROR);
}

bool Unzstd(ByteView in, std::span<std::byte> out) {
  const std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> context(ZSTD_createDCtx(),
                                                                     &ZSTD_freeDCtx);
  if (context == nullptr || ZSTD_isError(ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax,
                                                                kZstdMaxWindowLog)) != 0) {
    return false;
  }
  ZSTD_inBuffer input{in.data(), in.size(), 0};
  ZSTD_outBuffer output{out.data(), out.size(), 0};
  while (output.pos < output.size) {
    const size_t before_in = input.pos;
    const size_t before_out = output.pos;
    const size_t result = ZSTD_decompressStream(context.get(), &output, &input);
    if (ZSTD_isError(result) != 0) return false;
    if (input.pos == before_in && output.pos == before_out) return false;
  }
  return true;
}

}  // namespace

Result<Qcow2Disk> Qcow2Disk::Open(const RandomAccessReader& image) {
  ASSIGN_OR_RETURN(const Qcow2Header header, ParseQcow2Header(image));
  RETURN_IF_ERROR(ValidateQcow2(header, image.size()));
  return Qcow2Disk(image, header);
}

Result<Qcow2Disk> Qcow2Disk::Over(const RandomAccessReader& base, const RandomAccessReader& image,
                                  const Qcow2Header& header) {
  if (header.l2_entry_size() == 16) {
    return InvalidInput("qcow2: an overlay with extended L2 entries is not one of ours");
  }
  Qcow2Disk disk(image, header);
  disk.base_ = &base;
  return disk;
}

Result<void> Qcow2Disk::ReadAt(uint64_t offset, std::span<std::byte> out) const {
  if (!IsInside(offset, out.size(), size())) {
    return InvalidInput(fmt::format("truncated: {} bytes wanted at offset {} of a disk of {} bytes",
                                    out.size(), offset, size()));
  }
  while (!out.empty()) {
    const uint64_t in_cluster = offset & (header_.cluster_size() - 1);
    const auto count =
        static_cast<size_t>(std::min<uint64_t>(out.size(), header_.cluster_size() - in_cluster));
    RETURN_IF_ERROR(ReadCluster(offset, out.first(count)));
    offset += count;
    out = out.subspan(count);
  }
  return Ok();
}

Result<std::optional<uint64_t>> Qcow2Disk::NextData(uint64_t offset) const {
  const uint64_t cluster_size = header_.cluster_size();
  const uint64_t covered = cluster_size * header_.l2_entries();  // by one L2 table
  for (uint64_t at = offset; at < size();) {
    ASSIGN_OR_RETURN(const uint64_t table, L2Table(at / covered));
    const uint64_t piece = table == 0 ? covered : cluster_size;
    const uint64_t end = (at / piece + 1) * piece;
    Entry entry;
    if (table != 0) {
      ASSIGN_OR_RETURN(entry, Lookup(at));
    }
    if (HoldsData(entry)) return std::optional(at);
    if (ShowsBase(entry)) {
      ASSIGN_OR_RETURN(const std::optional<uint64_t> below, NextInBase(at, std::min(end, size())));
      if (below.has_value()) return below;
    }
    at = end;
  }
  return std::optional<uint64_t>();
}

bool Qcow2Disk::HoldsData(const Entry& entry) const {
  if ((entry.descriptor & kL2Compressed) != 0) return true;
  if ((entry.descriptor & kQcow2OffsetMask) == 0) return false;
  if (header_.l2_entry_size() == 16) return (entry.subclusters & 0xffffffffU) != 0;
  return header_.version != 3 || (entry.descriptor & kL2Zero) == 0;
}

bool Qcow2Disk::ShowsBase(const Entry& entry) const {
  return base_ != nullptr && !HoldsData(entry) &&
         (header_.version != 3 || (entry.descriptor & kL2Zero) == 0);
}

Result<void> Qcow2Disk::ReadBase(uint64_t offset, std::span<std::byte> out) const {
  const uint64_t there = offset < base_->size() ? base_->size() - offset : 0;
  const auto count = static_cast<size_t>(std::min<uint64_t>(there, out.size()));
  std::ranges::fill(out.subspan(count), std::byte{0});
  return count == 0 ? Ok() : base_->ReadAt(offset, out.first(count));
}

Result<std::optional<uint64_t>> Qcow2Disk::NextInBase(uint64_t offset, uint64_t end) const {
  if (offset >= base_->size()) return std::optional<uint64_t>();
  ASSIGN_OR_RETURN(const std::optional<uint64_t> next, base_->NextData(offset));
  return next.has_value() && *next < end ? next : std::nullopt;
}

Result<uint64_t> Qcow2Disk::L2Table(uint64_t l1_index) const {
  if (l1_index >= header_.l1_size) {
    return InvalidInput(fmt::format("qcow2: inconsistent: no L1 entry {}", l1_index));
  }
  const uint64_t first = l1_index / kL1Piece * kL1Piece;
  if (l1_loaded_ != first) {
    l1_loaded_ = kNothing;
    const uint64_t count = std::min<uint64_t>(kL1Piece, header_.l1_size - first);
    ASSIGN_OR_RETURN(l1_, ReadBytesAt(*image_, header_.l1_table_offset + first * 8,
                                      static_cast<size_t>(count * 8)));
    l1_loaded_ = first;
  }
  const uint64_t table = U64Be(l1_, static_cast<size_t>(l1_index - first) * 8) & kQcow2OffsetMask;
  if (table % header_.cluster_size() != 0) {
    return InvalidInput(fmt::format("qcow2: inconsistent: L2 table at offset {}", table));
  }
  return table;
}

Result<void> Qcow2Disk::LoadL2(uint64_t l1_index) const {
  if (l2_loaded_ == l1_index) return Ok();
  l2_loaded_ = kNothing;
  l2_.clear();
  ASSIGN_OR_RETURN(const uint64_t table, L2Table(l1_index));
  if (table != 0) {
    ASSIGN_OR_RETURN(l2_, ReadBytesAt(*image_, table, static_cast<size_t>(header_.cluster_size())));
  }
  l2_loaded_ = l1_index;
  return Ok();
}

Result<Qcow2Disk::Entry> Qcow2Disk::Lookup(uint64_t offset) const {
  const uint64_t cluster = offset >> header_.cluster_bits;
  RETURN_IF_ERROR(LoadL2(cluster / header_.l2_entries()));
  if (l2_.empty()) return Entry{};
  const auto at = static_cast<size_t>(cluster % header_.l2_entries() * header_.l2_entry_size());
  return Entry{.descriptor = U64Be(l2_, at),
               .subclusters = header_.l2_entry_size() == 16 ? U64Be(l2_, at + 8) : 0};
}

Result<void> Qcow2Disk::ReadCluster(uint64_t offset, std::span<std::byte> out) const {
  ASSIGN_OR_RETURN(const Entry entry, Lookup(offset));
  const uint64_t in_cluster = offset & (header_.cluster_size() - 1);
  if ((entry.descriptor & kL2Compressed) != 0) {
    return ReadCompressed(entry.descriptor, in_cluster, out);
  }
  if (header_.l2_entry_size() == 16) return ReadSubclusters(entry, in_cluster, out);
  if (ShowsBase(entry)) return ReadBase(offset, out);
  if (!HoldsData(entry)) {
    std::ranges::fill(out, std::byte{0});
    return Ok();
  }
  return image_->ReadAt((entry.descriptor & kQcow2OffsetMask) + in_cluster, out);
}

// "Extended L2 Entries": 32 subclusters; bit n of the lower half says that n is allocated; without
// a backing file everything else is zeroes.
Result<void> Qcow2Disk::ReadSubclusters(const Entry& entry, uint64_t in_cluster,
                                        std::span<std::byte> out) const {
  const uint64_t host = entry.descriptor & kQcow2OffsetMask;
  const uint64_t subcluster = header_.cluster_size() / 32;
  while (!out.empty()) {
    const auto count =
        static_cast<size_t>(std::min<uint64_t>(out.size(), subcluster - in_cluster % subcluster));
    if (host != 0 && (entry.subclusters >> (in_cluster / subcluster) & 1U) != 0) {
      RETURN_IF_ERROR(image_->ReadAt(host + in_cluster, out.first(count)));
    } else {
      std::ranges::fill(out.first(count), std::byte{0});
    }
    in_cluster += count;
    out = out.subspan(count);
  }
  return Ok();
}

Result<void> Qcow2Disk::ReadCompressed(uint64_t descriptor, uint64_t in_cluster,
                                       std::span<std::byte> out) const {
  if (decompressed_ != descriptor) {
    decompressed_ = kNothing;
    const Qcow2CompressedRange range = CompressedRange(descriptor, header_.cluster_bits);
    // The last sector may be cut by the end of the file; more than that is no valid stream.
    ASSIGN_OR_RETURN(const Bytes raw,
                     ReadUpTo(*image_, range.offset, static_cast<size_t>(range.bytes)));
    cluster_.resize(static_cast<size_t>(header_.cluster_size()));
    const bool good = header_.compression == Qcow2Compression::kZstd ? Unzstd(raw, cluster_)
                                                                     : Inflate(raw, cluster_);
    if (!good) {
      return InvalidInput(fmt::format("qcow2: the compressed cluster at offset {} cannot be read",
                                      range.offset))
          .WithFix("check it where it came from: qemu-img check <image>");
    }
    decompressed_ = descriptor;
  }
  std::ranges::copy(std::span(cluster_).subspan(static_cast<size_t>(in_cluster), out.size()),
                    out.begin());
  return Ok();
}

}  // namespace vallum::formats
