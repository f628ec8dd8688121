// SPDX-License-Identifier: Apache-2.0
#include "formats/initrd_stream.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/cpio.h"
#include "formats/decompress.h"
#include "formats/reader.h"

namespace vallum::formats {
namespace {

constexpr size_t kChunkBytes = 64 * 1024;

}  // namespace

InitrdStream InitrdStream::Plain(const RandomAccessReader& file, uint64_t offset) {
  return InitrdStream(file, offset);
}

Result<InitrdStream> InitrdStream::Compressed(const RandomAccessReader& file, uint64_t offset,
                                              Compression compression, OutputBudget& budget) {
  InitrdStream stream(file, offset);
  stream.compression_ = compression;
  stream.budget_ = &budget;
  ASSIGN_OR_RETURN(stream.decompressor_, CreateDecompressor(compression));
  return stream;
}

uint64_t InitrdStream::file_offset() const {
  return decompressor_ == nullptr ? start_ + position_ : next_input_ - input_.size();
}

std::string InitrdStream::Describe(uint64_t at) const {
  if (decompressor_ == nullptr) return fmt::format("initrd: offset {}", start_ + at);
  return fmt::format("initrd: offset {} of the {} member at offset {}", at,
                     CompressionName(compression_), start_);
}

Error InitrdStream::Wrong(uint64_t at, const std::string& what) const {
  return InvalidInput(Describe(at) + ": " + what)
      .WithFix("an initrd is one or several cpio archives (newc), each plain or compressed");
}

Result<bool> InitrdStream::AtEnd() {
  RETURN_IF_ERROR(Refill());
  return begin_ == end_;
}

Result<bool> InitrdStream::SkipZeroes() {
  while (true) {
    ASSIGN_OR_RETURN(const bool at_end, AtEnd());
    if (at_end) return true;
    const ByteView have = Buffered();
    const auto it = std::ranges::find_if(have, [](std::byte b) { return b != std::byte{0}; });
    Consume(static_cast<size_t>(it - have.begin()));
    if (it != have.end()) return false;
  }
}

void InitrdStream::Consume(size_t count) {
  begin_ += count;
  position_ += count;
}

template <typename Visit>
Result<void> InitrdStream::ForEachPiece(uint64_t count, Visit visit) {
  while (count > 0) {
    ASSIGN_OR_RETURN(const bool at_end, AtEnd());
    if (at_end) {
      return Wrong(position_, fmt::format("truncated: {} more bytes are wanted", count));
    }
    const ByteView have = Buffered();
    const auto size = static_cast<size_t>(std::min<uint64_t>(count, have.size()));
    visit(have.first(size));
    Consume(size);
    count -= size;
  }
  return Ok();
}

Result<void> InitrdStream::Read(std::span<std::byte> out) {
  return ForEachPiece(out.size(), [&](ByteView piece) {
    std::ranges::copy(piece, out.begin());
    out = out.subspan(piece.size());
  });
}

Result<void> InitrdStream::Skip(uint64_t count) {
  if (decompressor_ != nullptr) return ForEachPiece(count, [](ByteView) {});
  // Content that is not compressed is not read at all.
  const uint64_t at = start_ + position_;
  if (!IsInside(at, count, file_->size())) {
    return Wrong(position_, fmt::format("truncated: {} bytes are wanted, {} are left", count,
                                        file_->size() - at));
  }
  const auto buffered = static_cast<size_t>(std::min<uint64_t>(count, end_ - begin_));
  Consume(buffered);
  position_ += count - buffered;
  return Ok();
}

Result<uint32_t> InitrdStream::Sum(uint64_t count) {
  uint32_t sum = 0;
  RETURN_IF_ERROR(ForEachPiece(count, [&](ByteView piece) {
    for (const std::byte b : piece) sum += std::to_integer<uint32_t>(b);
  }));
  return sum;
}

Result<void> InitrdStream::Refill() {
  if (begin_ < end_) return Ok();
  output_.resize(kChunkBytes);
  begin_ = 0;
  end_ = 0;
  return decompressor_ == nullptr ? RefillPlain() : RefillCompressed();
}

Result<void> InitrdStream::RefillPlain() {
  const uint64_t at = start_ + position_;
  const auto count = static_cast<size_t>(std::min<uint64_t>(kChunkBytes, file_->size() - at));
  RETURN_IF_ERROR(file_->ReadAt(at, std::span(output_).first(count)));
  end_ = count;
  return Ok();
}

// Appends what the file has next; false at its end.
Result<bool> InitrdStream::ReadInput() {
  const auto count =
      static_cast<size_t>(std::min<uint64_t>(kChunkBytes, file_->size() - next_input_));
  const size_t kept = input_.size();
  input_.resize(kept + count);
  RETURN_IF_ERROR(file_->ReadAt(next_input_, std::span(input_).subspan(kept)));
  next_input_ += count;
  return count > 0;
}

Result<void> InitrdStream::CountOutput(size_t count) {
  const uint64_t made = position_ + count;
  const uint64_t used = file_offset() - start_;
  if (made > kInitrdRatioFree && (made - kInitrdRatioFree) / kInitrdMaxRatio > used) {
    return Wrong(position_, fmt::format("{} bytes come out of {}; more than {} times as many are "
                                        "not accepted",
                                        made, used, kInitrdMaxRatio));
  }
  if (count > budget_->left) {
    return Wrong(position_, fmt::format("more than {} MiB when decompressed are not accepted",
                                        kInitrdMaxOutput >> 20U));
  }
  budget_->left -= count;
  return Ok();
}

Result<void> InitrdStream::RefillCompressed() {
  size_t used = 0;  // of input_
  bool starved = false;
  while (!finished_ && end_ == 0) {
    if (starved && input_.size() - used >= kChunkBytes) {
      return Wrong(position_, "the compressed stream is damaged: it does not go on");
    }
    if (starved || used == input_.size()) {
      input_.erase(input_.begin(), input_.begin() + static_cast<std::ptrdiff_t>(used));
      used = 0;
      ASSIGN_OR_RETURN(const bool more, ReadInput());
      if (starved && !more) {
        RETURN_IF_ERROR(decompressor_->EndOfInput()).context(Describe(position_));
        finished_ = true;
        break;
      }
    }
    ASSIGN_OR_RETURN_CONTEXT(const StreamingDecompressor::Step step,
                             decompressor_->Decompress(ByteView(input_).subspan(used), output_),
                             Describe(position_));
    used += step.consumed;
    end_ = step.produced;
    finished_ = step.finished;
    starved = step.consumed == 0 && step.produced == 0;
  }
  input_.erase(input_.begin(), input_.begin() + static_cast<std::ptrdiff_t>(used));
  return CountOutput(end_);
}

}  // namespace vallum::formats
