// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

// docs/formats/cpio.md mirrors these constants.
namespace vallum::formats {

// What a decompressor may allocate: dictionaries of 32 MiB fit.
inline constexpr uint64_t kMaxXzMemory = uint64_t{48} << 20U;
inline constexpr int kMaxZstdWindowLog = 25;
// "The max uncompressed size of a block is 8 MB": lz4_Block_format's legacy frame.
inline constexpr uint32_t kLz4LegacyBlock = 8U << 20U;

enum class Compression {
  kNone,
  kGzip,
  kBzip2,
  kLzma,  // "LZMA alone", before xz
  kXz,
  kLz4,        // frame format
  kLz4Legacy,  // the one that the kernel reads
  kZstd,
};

// "none", "gzip", "lz4 (legacy)", ...
std::string_view CompressionName(Compression compression);

// The compression whose magic stands at the front; nothing when none does.
//   head: at least 6 bytes, or all that there is.
std::optional<Compression> DetectCompression(ByteView head);

// Decompresses one stream piece by piece with bounded memory. Not thread-safe.
class StreamingDecompressor {
 public:
  struct Step {
    size_t consumed = 0;  // bytes of `in`
    size_t produced = 0;  // bytes of `out`
    bool finished = false;
  };

  virtual ~StreamingDecompressor() = default;

  // Makes what progress it can; none means that more input or more room is needed. Bytes that
  // follow the stream are not consumed. Not to be called again once finished.
  // Errors: kInvalidInput (damaged; checksum; needs more memory than is allowed).
  virtual Result<Step> Decompress(ByteView in, std::span<std::byte> out) = 0;

  // Says that no input is left although the stream has not finished.
  // Errors: kInvalidInput (truncated), unless the format has no end mark and may end here.
  virtual Result<void> EndOfInput();
};

// Sources: RFC 1952, bzip2, .xz format 1.1, LZMA-alone, RFC 8878, LZ4 frame format and its legacy
// frame; checksums are verified where the stream has them.
// Errors: kInternal (no memory). compression must not be kNone.
Result<std::unique_ptr<StreamingDecompressor>> CreateDecompressor(Compression compression);

}  // namespace vallum::formats
