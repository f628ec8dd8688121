// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/reader.h"

namespace vallum::formats {

inline constexpr uint64_t kCaptureTailBytes = 1536;
inline constexpr size_t kCaptureMaxPieces = 65536;
inline constexpr uint64_t kCaptureMaxBytes = uint64_t{64} << 20U;

// Keeps parts of a stream that passes by, so that an image can be inspected while it is written
// elsewhere: the regions it was told, and always the last kCaptureTailBytes. A chunk outside all
// regions costs the same whatever its size. Not thread-safe.
class StreamCapture {
 public:
  // A stream of any length: its last bytes are copied from each chunk, in case it ends there.
  StreamCapture() = default;
  // A stream of that many bytes: its tail is a region like others, and no chunk is copied for it.
  explicit StreamCapture(uint64_t announced_size);

  // Wants [offset, offset + length), or what of it the stream has; may overlap other regions.
  // Memory for a region is taken when its first byte arrives.
  // Errors: kInvalidInput (a part lies before the position), kExhausted (more than
  // kCaptureMaxPieces or kCaptureMaxBytes in all); nothing is changed then.
  Result<void> Keep(uint64_t offset, uint64_t length);

  // The next bytes of the stream, in chunks of any size; not used after the call.
  // Errors: kInvalidInput (longer than announced, or than 2^64 bytes); nothing is changed then.
  Result<void> Feed(ByteView chunk);

  uint64_t position() const { return position_; }  // how much was fed
  // The announced size, or as much as was fed.
  uint64_t size() const { return announced_.value_or(position_); }

  // Fills `out` with kept bytes.
  // Errors: kInvalidInput (past the end: "truncated"); kUnavailable (not kept, or not yet there).
  Result<void> Read(uint64_t offset, std::span<std::byte> out) const;

 private:
  static constexpr uint64_t kNone = ~uint64_t{0};
  struct Piece {
    uint64_t length = 0;  // wanted
    Bytes bytes;          // arrived
  };

  void CopyToPieces(ByteView chunk);
  void CopyToTail(ByteView chunk);
  // The kept bytes from the offset on, as far as they stand together; empty: none.
  ByteView KeptAt(uint64_t offset) const;

  std::optional<uint64_t> announced_;
  uint64_t position_ = 0;
  std::map<uint64_t, Piece> pieces_;  // by offset, apart from each other
  uint64_t next_ = kNone;             // offset of the first piece that is not complete
  uint64_t wanted_bytes_ = 0;         // of all pieces
  // The byte of offset n stands at n % kCaptureTailBytes. Unused when the size was announced.
  std::array<std::byte, kCaptureTailBytes> tail_{};
};

// What a capture kept, as an image. The capture must outlive it.
class CapturedReader final : public RandomAccessReader {
 public:
  explicit CapturedReader(const StreamCapture& capture) : capture_(&capture) {}
  uint64_t size() const override { return capture_->size(); }
  Result<void> ReadAt(uint64_t offset, std::span<std::byte> out) const override {
    return capture_->Read(offset, out);
  }

 private:
  const StreamCapture* capture_;
};

}  // namespace vallum::formats
