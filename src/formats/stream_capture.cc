// SPDX-License-Identifier: Apache-2.0
#include "formats/stream_capture.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <span>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/reader.h"

namespace vallum::formats {

StreamCapture::StreamCapture(uint64_t announced_size) : announced_(announced_size) {
  const uint64_t length = std::min(announced_size, kCaptureTailBytes);
  if (length == 0) return;
  next_ = announced_size - length;
  pieces_[next_].length = length;
  wanted_bytes_ = length;
}

Result<void> StreamCapture::Keep(uint64_t offset, uint64_t length) {
  if (offset < position_) {
    return InvalidInput(fmt::format(
        "cannot keep offset {} of a stream that is at {}: it has passed", offset, position_));
  }
  const uint64_t end =
      std::min(length > kNone - offset ? kNone : offset + length, announced_.value_or(kNone));
  // What no piece has yet.
  std::vector<std::pair<uint64_t, uint64_t>> gaps;
  uint64_t added = 0;
  auto it = pieces_.upper_bound(offset);
  if (it != pieces_.begin()) {
    const auto& [before, piece] = *std::prev(it);
    offset = std::max(offset, before + piece.length);
  }
  while (offset < end) {
    const uint64_t stop = it == pieces_.end() ? end : std::min(end, it->first);
    if (offset < stop) {
      gaps.emplace_back(offset, stop - offset);
      added += stop - offset;
    }
    if (stop == end) break;
    offset = it->first + it->second.length;
    ++it;
  }
  if (added > kCaptureMaxBytes - wanted_bytes_ ||
      gaps.size() > kCaptureMaxPieces - pieces_.size()) {
    return Exhausted(fmt::format("cannot keep more than {} bytes in {} pieces of a stream",
                                 kCaptureMaxBytes, kCaptureMaxPieces));
  }
  for (const auto& [begin, bytes] : gaps) {
    pieces_[begin].length = bytes;
    // A piece of which a part has arrived stays the next one.
    next_ = std::min(next_, begin);
  }
  wanted_bytes_ += added;
  return Ok();
}

Result<void> StreamCapture::Feed(ByteView chunk) {
  if (chunk.size() > announced_.value_or(kNone) - position_) {
    return InvalidInput(fmt::format("the stream is longer than the {} bytes announced",
                                    announced_.value_or(kNone)));
  }
  if (position_ + chunk.size() > next_) CopyToPieces(chunk);
  if (!announced_.has_value()) CopyToTail(chunk);
  position_ += chunk.size();
  return Ok();
}

void StreamCapture::CopyToPieces(ByteView chunk) {
  const uint64_t end = position_ + chunk.size();
  auto it = pieces_.find(next_);
  for (; it != pieces_.end() && it->first < end; ++it) {
    auto& [offset, piece] = *it;
    if (piece.bytes.empty()) piece.bytes.reserve(static_cast<size_t>(piece.length));
    const auto part = chunk.subspan(static_cast<size_t>(std::max(offset, position_) - position_));
    const auto count =
        static_cast<size_t>(std::min<uint64_t>(part.size(), piece.length - piece.bytes.size()));
    piece.bytes.insert(piece.bytes.end(), part.begin(),
                       part.begin() + static_cast<std::ptrdiff_t>(count));
    if (piece.bytes.size() < piece.length) break;
  }
  next_ = it == pieces_.end() ? kNone : it->first;
}

void StreamCapture::CopyToTail(ByteView chunk) {
  const ByteView last = chunk.last(std::min(chunk.size(), tail_.size()));
  if (last.empty()) return;
  const auto at = static_cast<size_t>((position_ + chunk.size() - last.size()) % tail_.size());
  const size_t first = std::min(last.size(), tail_.size() - at);
  std::memcpy(tail_.data() + at, last.data(), first);
  std::memcpy(tail_.data(), last.data() + first, last.size() - first);
}

ByteView StreamCapture::KeptAt(uint64_t offset) const {
  const auto after = pieces_.upper_bound(offset);
  if (after != pieces_.begin()) {
    const auto& [begin, piece] = *std::prev(after);
    if (offset - begin < piece.bytes.size()) {
      return ByteView(piece.bytes).subspan(static_cast<size_t>(offset - begin));
    }
  }
  if (announced_.has_value() || offset >= position_ || position_ - offset > tail_.size()) return {};
  const ByteView from = ByteView(tail_).subspan(static_cast<size_t>(offset % tail_.size()));
  return from.first(static_cast<size_t>(std::min<uint64_t>(from.size(), position_ - offset)));
}

Result<void> StreamCapture::Read(uint64_t offset, std::span<std::byte> out) const {
  if (!IsInside(offset, out.size(), size())) return PastTheEnd(offset, out.size(), size());
  while (!out.empty()) {
    const ByteView kept = KeptAt(offset);
    if (kept.empty()) {
      return Unavailable(
          fmt::format("not kept: the byte at offset {} of a stream {}", offset,
                      offset < position_ ? "that has passed it" : "that has not come to it yet"));
    }
    const size_t count = std::min(kept.size(), out.size());
    std::memcpy(out.data(), kept.data(), count);
    offset += count;
    out = out.subspan(count);
  }
  return Ok();
}

}  // namespace vallum::formats
