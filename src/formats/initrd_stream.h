// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/decompress.h"
#include "formats/reader.h"

namespace vallum::formats {

// What decompression may give, over all members of an initrd.
struct OutputBudget {
  uint64_t left;
};

// The bytes of one member of an initrd as the kernel's unpacker sees them: those of the file from
// an offset on, or what a compressed stream there holds. Keeps two buffers of 64 KiB and the
// decompressor's state. The file and the budget must outlive it.
class InitrdStream {
 public:
  // A member that is not compressed: it has no end of its own but that of the file.
  static InitrdStream Plain(const RandomAccessReader& file, uint64_t offset);
  // Errors: those of CreateDecompressor.
  static Result<InitrdStream> Compressed(const RandomAccessReader& file, uint64_t offset,
                                         Compression compression, OutputBudget& budget);

  // Uncompressed bytes since the start of the member. What alignment counts from.
  uint64_t position() const { return position_; }
  // Offset in the file of the first byte not used. For a compressed member: after AtEnd() is true.
  uint64_t file_offset() const;

  // Errors of all that read: kInvalidInput (truncated; damaged; more output than the budget or than
  // kInitrdMaxRatio allows), those of the file.
  Result<bool> AtEnd();
  // Skips zeroes; whether the end follows them.
  Result<bool> SkipZeroes();
  Result<void> Read(std::span<std::byte> out);
  Result<void> Skip(uint64_t count);
  // Skips, giving the sum of the bytes modulo 2^32.
  Result<uint32_t> Sum(uint64_t count);

  // "initrd: offset 12 of the gzip member at offset 512: ...": an error about the bytes at `at`.
  Error Wrong(uint64_t at, const std::string& what) const;

 private:
  InitrdStream(const RandomAccessReader& file, uint64_t offset) : file_(&file), start_(offset) {
    next_input_ = offset;
  }
  std::string Describe(uint64_t at) const;
  ByteView Buffered() const { return ByteView(output_).subspan(begin_, end_ - begin_); }
  void Consume(size_t count);
  Result<void> Refill();
  Result<void> RefillPlain();
  Result<void> RefillCompressed();
  Result<bool> ReadInput();
  Result<void> CountOutput(size_t count);
  // Calls visit(piece) for `count` bytes.
  template <typename Visit>
  Result<void> ForEachPiece(uint64_t count, Visit visit);

  const RandomAccessReader* file_;
  uint64_t start_;
  Compression compression_ = Compression::kNone;
  std::unique_ptr<StreamingDecompressor> decompressor_;
  OutputBudget* budget_ = nullptr;
  bool finished_ = false;    // no more output will come
  uint64_t next_input_ = 0;  // offset in the file of what is read next
  Bytes input_;              // compressed bytes that are not used yet
  Bytes output_;
  size_t begin_ = 0;  // of what is left of output_
  size_t end_ = 0;
  uint64_t position_ = 0;
};

}  // namespace vallum::formats
