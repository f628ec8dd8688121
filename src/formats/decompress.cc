// SPDX-License-Identifier: Apache-2.0
#include "formats/decompress.h"

#include <bzlib.h>
#include <lz4.h>
#include <lz4frame.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/fields.h"

namespace vallum::formats {
namespace {

using std::string_view_literals::operator""sv;

constexpr int kGzipWindowBits = 15 + 16;  // 16: a gzip header and trailer, not zlib's
constexpr uint32_t kLz4LegacyMagic = 0x184c2102;

using Step = StreamingDecompressor::Step;

Error Damaged(std::string what) {
  return InvalidInput("the compressed stream is damaged: " + std::move(what))
      .WithFix("make it again; a copy may have been cut or changed");
}

// The interfaces of zlib and libbz2 are not const-correct; they do not write to the input.
template <typename T>
T* Mutable(ByteView in) {
  return const_cast<T*>(reinterpret_cast<const T*>(in.data()));
}

unsigned int Count(size_t size) {
  return static_cast<unsigned int>(std::min<size_t>(size, UINT_MAX));
}

class Gzip final : public StreamingDecompressor {
 public:
  Gzip() = default;
  Gzip(const Gzip&) = delete;
  Gzip& operator=(const Gzip&) = delete;
  ~Gzip() override { inflateEnd(&stream_); }
  bool Init() { return inflateInit2(&stream_, kGzipWindowBits) == Z_OK; }

  Result<Step> Decompress(ByteView in, std::span<std::byte> out) override {
    stream_.next_in = Mutable<Bytef>(in);
    stream_.avail_in = Count(in.size());
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    stream_.avail_out = Count(out.size());
    const int result = inflate(&stream_, Z_NO_FLUSH);
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR) {
      return Damaged(stream_.msg != nullptr ? stream_.msg : "gzip");
    }
    return Step{in.size() - stream_.avail_in, out.size() - stream_.avail_out,
                result == Z_STREAM_END};
  }

 private:
  z_stream stream_{};
};

class Bzip2 final : public StreamingDecompressor {
 public:
  Bzip2() = default;
  Bzip2(const Bzip2&) = delete;
  Bzip2& operator=(const Bzip2&) = delete;
  ~Bzip2() override { BZ2_bzDecompressEnd(&stream_); }
  bool Init() { return BZ2_bzDecompressInit(&stream_, 0, 0) == BZ_OK; }

  Result<Step> Decompress(ByteView in, std::span<std::byte> out) override {
    stream_.next_in = Mutable<char>(in);
    stream_.avail_in = Count(in.size());
    stream_.next_out = reinterpret_cast<char*>(out.data());
    stream_.avail_out = Count(out.size());
    const int result = BZ2_bzDecompress(&stream_);
    if (result != BZ_OK && result != BZ_STREAM_END) {
      return Damaged("bzip2 error " + std::to_string(result));
    }
    return Step{in.size() - stream_.avail_in, out.size() - stream_.avail_out,
                result == BZ_STREAM_END};
  }

 private:
  bz_stream stream_{};
};

// Both xz and LZMA alone.
class Lzma final : public StreamingDecompressor {
 public:
  Lzma() = default;
  Lzma(const Lzma&) = delete;
  Lzma& operator=(const Lzma&) = delete;
  ~Lzma() override { lzma_end(&stream_); }
  bool Init(Compression compression) {
    const lzma_ret result = compression == Compression::kXz
                                ? lzma_stream_decoder(&stream_, kMaxXzMemory, 0)
                                : lzma_alone_decoder(&stream_, kMaxXzMemory);
    return result == LZMA_OK;
  }

  Result<Step> Decompress(ByteView in, std::span<std::byte> out) override {
    stream_.next_in = reinterpret_cast<const uint8_t*>(in.data());
    stream_.avail_in = in.size();
    stream_.next_out = reinterpret_cast<uint8_t*>(out.data());
    stream_.avail_out = out.size();
    const lzma_ret result = lzma_code(&stream_, LZMA_RUN);
    if (result == LZMA_MEMLIMIT_ERROR) {
      return InvalidInput("its dictionary needs more than " + std::to_string(kMaxXzMemory >> 20U) +
                          " MiB")
          .WithFix("compress it with a dictionary of at most 32 MiB, such as xz -6");
    }
    if (result != LZMA_OK && result != LZMA_STREAM_END && result != LZMA_BUF_ERROR) {
      return Damaged("lzma error " + std::to_string(result));
    }
    return Step{in.size() - stream_.avail_in, out.size() - stream_.avail_out,
                result == LZMA_STREAM_END};
  }

 private:
  lzma_stream stream_ = LZMA_STREAM_INIT;
};

class Zstd final : public StreamingDecompressor {
 public:
  bool Init() {
    return context_ != nullptr && ZSTD_isError(ZSTD_DCtx_setParameter(
                                      context_.get(), ZSTD_d_windowLogMax, kMaxZstdWindowLog)) == 0;
  }

  Result<Step> Decompress(ByteView in, std::span<std::byte> out) override {
    ZSTD_inBuffer input{in.data(), in.size(), 0};
    ZSTD_outBuffer output{out.data(), out.size(), 0};
    const size_t result = ZSTD_decompressStream(context_.get(), &output, &input);
    if (ZSTD_isError(result) != 0) return Damaged(ZSTD_getErrorName(result));
    return Step{input.pos, output.pos, result == 0};
  }

 private:
  std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> context_{ZSTD_createDCtx(), &ZSTD_freeDCtx};
};

class Lz4Frame final : public StreamingDecompressor {
 public:
  Lz4Frame() = default;
  Lz4Frame(const Lz4Frame&) = delete;
  Lz4Frame& operator=(const Lz4Frame&) = delete;
  ~Lz4Frame() override { LZ4F_freeDecompressionContext(context_); }
  bool Init() {
    return LZ4F_isError(LZ4F_createDecompressionContext(&context_, LZ4F_VERSION)) == 0;
  }

  Result<Step> Decompress(ByteView in, std::span<std::byte> out) override {
    size_t consumed = in.size();
    size_t produced = out.size();
    const size_t result =
        LZ4F_decompress(context_, out.data(), &produced, in.data(), &consumed, nullptr);
    if (LZ4F_isError(result) != 0) return Damaged(LZ4F_getErrorName(result));
    // It also returns 0 for a call that had nothing to do.
    started_ = started_ || consumed > 0;
    return Step{consumed, produced, result == 0 && started_};
  }

 private:
  LZ4F_dctx* context_ = nullptr;
  bool started_ = false;
};

// Magic, then blocks of a 32-bit length and that many bytes, each of at most kLz4LegacyBlock when
// decompressed. There is no end mark: the end of the input ends it, and so does a length that no
// block can have, which is padding or the next member.
class Lz4Legacy final : public StreamingDecompressor {
 public:
  Result<Step> Decompress(ByteView in, std::span<std::byte> out) override {
    Step step;
    if (output_at_ == output_size_) {
      RETURN_IF_ERROR(TakeInput(in, step));
    }
    step.produced = std::min(out.size(), output_size_ - output_at_);
    std::ranges::copy(std::span(output_).subspan(output_at_, step.produced), out.begin());
    output_at_ += step.produced;
    return step;
  }

  Result<void> EndOfInput() override {
    if (have_magic_ && pending_.empty() && length_ == 0) return Ok();
    return StreamingDecompressor::EndOfInput();
  }

 private:
  // Moves input to pending_ until it has `wanted` bytes.
  bool Gather(ByteView in, size_t wanted, Step& step) {
    const size_t count = std::min(wanted - pending_.size(), in.size() - step.consumed);
    const ByteView piece = in.subspan(step.consumed, count);
    pending_.insert(pending_.end(), piece.begin(), piece.end());
    step.consumed += count;
    return pending_.size() == wanted;
  }

  Result<void> TakeInput(ByteView in, Step& step) {
    if (!have_magic_) {
      if (!Gather(in, 4, step)) return Ok();
      if (U32Le(pending_, 0) != kLz4LegacyMagic) return Damaged("no LZ4 legacy magic");
      have_magic_ = true;
      pending_.clear();
    }
    if (length_ == 0) {
      // A length is looked at before it is consumed: it may belong to what follows.
      if (in.size() - step.consumed < 4) return Ok();
      const uint32_t length = U32Le(in, step.consumed);
      step.finished = length == 0 || length > LZ4_COMPRESSBOUND(kLz4LegacyBlock);
      if (step.finished) return Ok();
      length_ = length;
      step.consumed += 4;
    }
    if (!Gather(in, length_, step)) return Ok();
    return DecompressBlock();
  }

  Result<void> DecompressBlock() {
    output_.resize(kLz4LegacyBlock);  // once: clearing it for each block would be the costly part
    const int size = LZ4_decompress_safe(
        reinterpret_cast<const char*>(pending_.data()), reinterpret_cast<char*>(output_.data()),
        static_cast<int>(pending_.size()), static_cast<int>(output_.size()));
    if (size < 0) return Damaged("a block of LZ4");
    output_size_ = static_cast<size_t>(size);
    output_at_ = 0;
    pending_.clear();
    length_ = 0;
    return Ok();
  }

  bool have_magic_ = false;
  uint32_t length_ = 0;  // of the block that is being gathered; 0: none
  Bytes pending_;
  Bytes output_;
  size_t output_size_ = 0;  // what the last block gave
  size_t output_at_ = 0;
};

template <typename T, typename... Args>
Result<std::unique_ptr<StreamingDecompressor>> Make(Args... args) {
  auto made = std::make_unique<T>();
  if (!made->Init(args...)) return Internal("a decompressor cannot be set up");
  return std::unique_ptr<StreamingDecompressor>(std::move(made));
}

struct Magic {
  Compression compression;
  std::string_view bytes;
};
constexpr auto kMagics = std::to_array<Magic>({
    {Compression::kGzip, "\x1f\x8b"sv},
    {Compression::kBzip2, "BZh"sv},
    {Compression::kLzma, "\x5d\x00\x00"sv},
    {Compression::kXz,
     "\xfd"
     "7zXZ\0"sv},
    {Compression::kLz4, "\x04\x22\x4d\x18"sv},
    {Compression::kLz4Legacy, "\x02\x21\x4c\x18"sv},
    {Compression::kZstd, "\x28\xb5\x2f\xfd"sv},
});

}  // namespace

Result<void> StreamingDecompressor::EndOfInput() {
  return InvalidInput("truncated: the compressed stream ends before its end mark")
      .WithFix("copy it again, whole");
}

std::string_view CompressionName(Compression compression) {
  switch (compression) {
    case Compression::kNone:
      return "none";
    case Compression::kGzip:
      return "gzip";
    case Compression::kBzip2:
      return "bzip2";
    case Compression::kLzma:
      return "lzma";
    case Compression::kXz:
      return "xz";
    case Compression::kLz4:
      return "lz4";
    case Compression::kLz4Legacy:
      return "lz4 (legacy)";
    case Compression::kZstd:
      return "zstd";
  }
  return "unknown";
}

std::optional<Compression> DetectCompression(ByteView head) {
  for (const Magic& magic : kMagics) {
    if (HasText(head, 0, magic.bytes)) return magic.compression;
  }
  return std::nullopt;
}

Result<std::unique_ptr<StreamingDecompressor>> CreateDecompressor(Compression compression) {
  switch (compression) {
    case Compression::kNone:
      break;
    case Compression::kGzip:
      return Make<Gzip>();
    case Compression::kBzip2:
      return Make<Bzip2>();
    case Compression::kLzma:
    case Compression::kXz:
      return Make<Lzma>(compression);
    case Compression::kLz4:
      return Make<Lz4Frame>();
    case Compression::kLz4Legacy:
      return std::unique_ptr<StreamingDecompressor>(std::make_unique<Lz4Legacy>());
    case Compression::kZstd:
      return Make<Zstd>();
  }
  CHECK(false);
}

}  // namespace vallum::formats
