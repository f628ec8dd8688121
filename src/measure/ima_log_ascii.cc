// SPDX-License-Identifier: Apache-2.0
#include "measure/ima_log_ascii.h"

#include <fmt/format.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstring>
#include <span>

#include "base/check.h"
#include "base/text.h"

namespace vallum::measure {
namespace {

constexpr size_t kLengthSize = 4;
constexpr uint8_t kNoDigit = 0xff;

constexpr uint8_t HexDigit(char c) {
  const bool letter = (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
  return c >= '0' && c <= '9' ? static_cast<uint8_t>(c - '0')
         : letter             ? static_cast<uint8_t>((c & 0xf) + 9)
                              : kNoDigit;
}

constexpr uint64_t Repeat(uint8_t byte) { return 0x0101010101010101U * byte; }

// Half of a text log is hexadecimal, so that eight digits are read at a time. A byte's top bit
// tells a comparison: c + (0x80 - n) has it set when c >= n, for c below 0x80.
struct EightDigits {
  static constexpr size_t kSize = 8;
  static constexpr uint64_t kTops = Repeat(0x80);
  static constexpr uint64_t AtLeast(uint64_t text, char c) {
    return text + Repeat(static_cast<uint8_t>(0x80 - c));
  }

  explicit EightDigits(const char* text) {
    static_assert(std::endian::native == std::endian::little);
    uint64_t in = 0;
    std::memcpy(&in, text, kSize);
    const uint64_t ascii = in & ~kTops;
    const uint64_t lower = ascii | Repeat(0x20);
    const uint64_t digits = AtLeast(ascii, '0') & ~AtLeast(ascii, '9' + 1) & kTops;
    const uint64_t letters = AtLeast(lower, 'a') & ~AtLeast(lower, 'f' + 1) & kTops;
    valid = ((digits | letters) & ~in) == kTops;
    const uint64_t nibbles = (ascii & Repeat(0xf)) + (letters >> 7U) * 9;
    uint64_t bytes = (nibbles << 4U | nibbles >> 8U) & 0x00ff00ff00ff00ffU;
    bytes = (bytes | bytes >> 8U) & 0x0000ffff0000ffffU;
    value = static_cast<uint32_t>(bytes | bytes >> 16U);
  }

  bool valid;
  uint32_t value;
};

#ifdef __SSE2__
// The same of sixteen, in a register.
struct SixteenDigits {
  static constexpr size_t kSize = 16;
  static __m128i Within(__m128i text, char first, char last) {
    return _mm_and_si128(_mm_cmpgt_epi8(text, _mm_set1_epi8(static_cast<char>(first - 1))),
                         _mm_cmplt_epi8(text, _mm_set1_epi8(static_cast<char>(last + 1))));
  }

  explicit SixteenDigits(const char* text) {
    // Bytes from 0x80 on are below zero here, and so nothing.
    const __m128i in = _mm_loadu_si128(reinterpret_cast<const __m128i*>(text));
    const __m128i letters = Within(_mm_or_si128(in, _mm_set1_epi8(0x20)), 'a', 'f');
    valid = _mm_movemask_epi8(_mm_or_si128(Within(in, '0', '9'), letters)) == 0xffff;
    const __m128i nibbles = _mm_add_epi8(_mm_and_si128(in, _mm_set1_epi8(0xf)),
                                         _mm_and_si128(letters, _mm_set1_epi8(9)));
    // Each two are 16 bits, the first of them the lower eight.
    const __m128i high = _mm_and_si128(_mm_slli_epi16(nibbles, 4), _mm_set1_epi16(0xf0));
    const __m128i bytes = _mm_or_si128(high, _mm_srli_epi16(nibbles, 8));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(&value), _mm_packus_epi16(bytes, bytes));
  }

  bool valid;
  uint64_t value;
};
#endif

// The text before the first space; text becomes what comes after.
std::string_view NextToken(std::string_view& text) {
  const size_t space = std::min(text.find(' '), text.size());
  const std::string_view token = text.substr(0, space);
  text.remove_prefix(std::min(space + 1, text.size()));
  return token;
}

bool IsName(ImaField field) { return field == ImaField::kName || field == ImaField::kNameNg; }

// Divides the fields at spaces. Kernels write '_' for a space in a name; should there be spaces all
// the same, the first name takes what is more than the template has.
//   out: as many as the format has fields; those that are cut off become empty.
Result<void> SplitFields(const ImaFormat& format, std::string_view text, ImaLineEnd end,
                         std::span<std::string_view> out) {
  size_t count = format.fields.size();
  if (end == ImaLineEnd::kMissing) {
    count = std::min(count, static_cast<size_t>(std::ranges::count(text, ' ')) + 1);
  }
  const auto* const fields = format.fields.data();
  const size_t name = std::min<size_t>(
      static_cast<size_t>(std::find_if(fields, fields + count, IsName) - fields), count - 1);
  for (size_t i = 0; i < name; ++i) {
    const size_t space = text.find(' ');
    if (space == std::string_view::npos) {
      return Corrupt(fmt::format("fewer fields than the template {} has", format.name));
    }
    out[i] = text.substr(0, space);
    text.remove_prefix(space + 1);
  }
  for (size_t i = count - 1; i > name; --i) {
    const size_t space = text.rfind(' ');
    if (space == std::string_view::npos) {
      return Corrupt(fmt::format("fewer fields than the template {} has", format.name));
    }
    out[i] = text.substr(space + 1);
    text = text.substr(0, space);
  }
  out[name] = text;
  std::ranges::fill(out.subspan(count), std::string_view());
  return Ok();
}

// Writes to memory that has room, which the caller saw to.
class Writer {
 public:
  explicit Writer(std::byte* out) : out_(out) {}
  std::byte* out() const { return out_; }

  void PutText(std::string_view text) {
    // memcpy's pointers must not be null.
    if (!text.empty()) {
      std::memcpy(out_, text.data(), text.size());
    }
    out_ += text.size();
  }
  void PutZero() { *out_++ = std::byte{0}; }
  void PutU32(uint32_t value) {
    std::memcpy(out_, &value, sizeof value);
    out_ += sizeof value;
  }

  Result<void> PutHex(std::string_view hex) {
    bool valid = hex.size() % 2 == 0;
    const char* at = hex.data();
    const char* const end = at + hex.size();
#ifdef __SSE2__
    valid &= PutDigits<SixteenDigits>(at, end);
#endif
    valid &= PutDigits<EightDigits>(at, end);
    for (; valid && at < end; at += 2) {
      const uint8_t high = HexDigit(at[0]);
      const uint8_t low = HexDigit(at[1]);
      valid &= high != kNoDigit && low != kNoDigit;
      *out_++ = static_cast<std::byte>((uint32_t{high} << 4U) | (uint32_t{low} & 0xfU));
    }
    return valid
               ? Ok()
               : Result<void>(Corrupt(fmt::format("'{}' is not hexadecimal", Printable(hex, 32))));
  }

  Result<void> PutNumber(std::string_view decimal, size_t size) {
    uint32_t value = 0;
    const auto [end, error] =
        std::from_chars(decimal.data(), decimal.data() + decimal.size(), value);
    if (error != std::errc() || end != decimal.data() + decimal.size() ||
        (size < sizeof value && (value >> (8 * size)) != 0)) {
      return Corrupt(fmt::format("'{}' is no number of {} bytes", Printable(decimal, 32), size));
    }
    std::memcpy(out_, &value, size);
    out_ += size;
    return Ok();
  }

 private:
  // As many times as there are so many digits; false: some are none.
  template <typename Digits>
  bool PutDigits(const char*& at, const char* end) {
    bool valid = true;
    for (; static_cast<size_t>(end - at) >= Digits::kSize; at += Digits::kSize) {
      const Digits digits(at);
      valid &= digits.valid;
      std::memcpy(out_, &digits.value, sizeof digits.value);
      out_ += sizeof digits.value;
    }
    return valid;
  }

  std::byte* out_;
};

// One field without its length.
Result<void> PutField(Writer& writer, ImaField field, std::string_view token) {
  constexpr size_t kIdSize = 4;
  constexpr size_t kModeSize = 2;
  switch (field) {
    case ImaField::kDigest:
    case ImaField::kSignature:
    case ImaField::kBuffer:
    case ImaField::kModsig:
    case ImaField::kEvmSignature:
    case ImaField::kXattrLengths:
    case ImaField::kXattrValues:
      return writer.PutHex(token);
    case ImaField::kDigestNg:
    case ImaField::kDigestNgv2:
    case ImaField::kModsigDigest: {
      if (token.empty()) {
        return Ok();
      }
      size_t colon = token.find(':');
      if (field == ImaField::kDigestNgv2) {
        colon = token.find(':', colon + 1);
      }
      if (colon == std::string_view::npos) {
        return Corrupt("a digest without the name of its algorithm");
      }
      writer.PutText(token.substr(0, colon + 1));
      writer.PutZero();
      return writer.PutHex(token.substr(colon + 1));
    }
    case ImaField::kXattrNames:
      if (token.empty()) {
        return Ok();
      }
      [[fallthrough]];
    case ImaField::kName:
    case ImaField::kNameNg:
      writer.PutText(token);
      writer.PutZero();
      return Ok();
    case ImaField::kUid:
    case ImaField::kGid:
      return writer.PutNumber(token, kIdSize);
    case ImaField::kMode:
      return writer.PutNumber(token, kModeSize);
  }
  return Internal("a field that is none");
}

}  // namespace

Result<ImaTextLine> SplitImaLine(std::string_view line) {
  ImaTextLine out;
  std::string_view rest = line;
  if (rest.starts_with(' ')) {
    rest.remove_prefix(1);  // "%2d"
  }
  const std::string_view pcr = NextToken(rest);
  const auto [end, error] = std::from_chars(pcr.data(), pcr.data() + pcr.size(), out.pcr);
  if (error != std::errc() || end != pcr.data() + pcr.size()) {
    return Corrupt(fmt::format("'{}' is no PCR's number", Printable(pcr, 32)));
  }
  out.template_hash = NextToken(rest);
  const size_t space = rest.find(' ');
  if (space == std::string_view::npos || space == 0 || space > kMaxImaFormatName) {
    return Corrupt("no template's name and fields");
  }
  out.format = rest.substr(0, space);
  out.fields = rest.substr(space + 1);
  return out;
}

ImaTextEncoder::ImaTextEncoder(size_t text_size)
    // Hexadecimal takes twice what it says, which leaves room for the lengths of short fields.
    : piece_size_(text_size + kLengthSize) {}

std::byte* ImaTextEncoder::Reserve(size_t size) {
  if (pieces_.empty() || piece_size_ - used_ < size) {
    piece_size_ = std::max(piece_size_, size);
    pieces_.push_back(std::make_unique_for_overwrite<std::byte[]>(piece_size_));
    used_ = 0;
  }
  return pieces_.back().get() + used_;
}

ByteView ImaTextEncoder::Keep(const std::byte* begin, const std::byte* end) {
  const auto size = static_cast<size_t>(end - begin);
  CHECK(size <= piece_size_ - used_);
  used_ += size;
  return {begin, size};
}

Result<ByteView> ImaTextEncoder::EncodeHash(std::string_view hex) {
  std::byte* const begin = Reserve(hex.size());
  Writer writer(begin);
  RETURN_IF_ERROR(writer.PutHex(hex));
  return Keep(begin, writer.out());
}

Result<ByteView> ImaTextEncoder::EncodeData(const ImaFormat& format, std::string_view fields,
                                            ImaLineEnd end) {
  std::array<std::string_view, kMaxImaFields> room;
  const auto tokens = std::span(room).first(format.fields.size());
  RETURN_IF_ERROR(SplitFields(format, fields, end, tokens));
  // Each field grows by its length and a zero; a number takes at most four bytes.
  constexpr size_t kGrowth = kLengthSize + 1 + sizeof(uint32_t);
  std::byte* const begin = Reserve(fields.size() + kGrowth * format.fields.size());
  Writer writer(begin);
  if (format.is_ima) {
    // No length before the digest, no zero after the name.
    RETURN_IF_ERROR(writer.PutHex(tokens[0]));
    writer.PutU32(static_cast<uint32_t>(tokens[1].size()));
    writer.PutText(tokens[1]);
    return Keep(begin, writer.out());
  }
  for (size_t i = 0; i < format.fields.size(); ++i) {
    std::byte* const length = writer.out();
    writer.PutU32(0);
    std::byte* const content = writer.out();
    RETURN_IF_ERROR(PutField(writer, format.fields[i], tokens[i]));
    Writer(length).PutU32(static_cast<uint32_t>(writer.out() - content));
  }
  return Keep(begin, writer.out());
}

}  // namespace vallum::measure
