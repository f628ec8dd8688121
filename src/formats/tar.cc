// SPDX-License-Identifier: Apache-2.0
#include "formats/tar.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "formats/fields.h"
#include "formats/ovf.h"
#include "formats/reader.h"

namespace vallum::formats {
namespace {

using std::string_view_literals::operator""sv;

constexpr size_t kNameSize = 100;
constexpr size_t kSizeOffset = 124;
constexpr size_t kNumberSize = 12;
constexpr size_t kChecksumOffset = 148;
constexpr size_t kChecksumSize = 8;
constexpr size_t kTypeOffset = 156;
constexpr size_t kMagicOffset = 257;
constexpr size_t kPrefixOffset = 345;
constexpr size_t kPrefixSize = 155;

Error Refused(uint64_t offset, const std::string& message) {
  return InvalidInput(fmt::format("tar: offset {}: {}", offset, message))
      .WithFix("pack plain files only: tar --format=ustar -cf x.ova x.ovf x.mf disk.vmdk");
}

// "Leading zeroes ... terminated by one or more space or NUL characters."
std::optional<uint64_t> Octal(std::string_view field) {
  while (field.starts_with(' ')) field.remove_prefix(1);
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value, 8);
  const std::string_view rest = field.substr(static_cast<size_t>(end - field.data()));
  if (error != std::errc() || rest.find_first_not_of(" \0"sv) != std::string_view::npos) {
    return std::nullopt;
  }
  return value;
}

// GNU: with the top bit set the rest is a big-endian number; a negative one has the next bit too.
std::optional<uint64_t> Size(ByteView header) {
  const ByteView field = header.subspan(kSizeOffset, kNumberSize);
  if ((U8(field, 0) & 0x80U) == 0) return Octal(AsText(field));
  if (U8(field, 0) != 0x80 || U8(field, 1) != 0 || U8(field, 2) != 0 || U8(field, 3) != 0) {
    return std::nullopt;
  }
  return U64Be(field, 4);
}

bool ChecksumMatches(ByteView header) {
  uint64_t sum = 0;
  for (size_t i = 0; i < kTarBlock; ++i) {
    const bool own = i >= kChecksumOffset && i < kChecksumOffset + kChecksumSize;
    sum += own ? uint64_t{' '} : U8(header, i);
  }
  return Octal(AsText(header.subspan(kChecksumOffset, kChecksumSize))) == sum;
}

bool IsZero(ByteView bytes) {
  return std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; });
}

std::string_view TypeName(char type) {
  switch (type) {
    case '1':
      return "a hard link";
    case '2':
      return "a symbolic link";
    case '3':
    case '4':
      return "a device";
    case '5':
      return "a directory";
    case '6':
      return "a FIFO";
    case 'L':
    case 'K':
      return "a GNU long name";
    case 'S':
      return "a sparse file";
    default:
      return "an entry of unknown type";
  }
}

// What a pax header says of the next member.
struct Pax {
  std::optional<std::string> path;
  std::optional<uint64_t> size;
};

class TarWalker {
 public:
  explicit TarWalker(const RandomAccessReader& tar) : tar_(tar) {}

  Result<std::vector<TarMember>> Walk() {
    while (true) {
      ASSIGN_OR_RETURN_CONTEXT(const Bytes header, ReadBytesAt(tar_, at_, kTarBlock),
                               "the next header of the tar archive");
      if (IsZero(header)) break;
      RETURN_IF_ERROR(WalkMember(header));
    }
    RETURN_IF_ERROR(CheckEnd());
    return std::move(members_);
  }

 private:
  // "two 512-octet logical records filled with binary zeroes", and what fills the last record.
  Result<void> CheckEnd() {
    const uint64_t left = tar_.size() - at_;
    if (left < 2 * kTarBlock) return Refused(at_, "truncated: no second block of zeroes");
    if (left > kTarMaxPadding) {
      return Refused(at_, fmt::format("{} bytes after the end", left));
    }
    ASSIGN_OR_RETURN(const Bytes tail, ReadBytesAt(tar_, at_, static_cast<size_t>(left)));
    if (!IsZero(tail)) return Refused(at_, "bytes other than zero after the end");
    if (pax_.path.has_value() || pax_.size.has_value()) {
      return Refused(at_, "a pax header without its member");
    }
    return Ok();
  }

  Result<void> WalkMember(ByteView header) {
    const bool posix = HasText(header, kMagicOffset,
                               "ustar\0"
                               "00"sv);
    if (!posix && !HasText(header, kMagicOffset, "ustar  \0"sv)) {
      return Refused(at_, "no ustar header");
    }
    if (!ChecksumMatches(header)) return Refused(at_, "the header's checksum differs");
    std::optional<uint64_t> size = Size(header);
    if (!size.has_value()) return Refused(at_, "a size that is no number");
    const char type = static_cast<char>(U8(header, kTypeOffset));
    const uint64_t content = at_ + kTarBlock;
    if (type == 'x' || type == 'g') {
      RETURN_IF_ERROR(ReadPax(content, *size, type));
      return Advance(content, *size);
    }
    if (type != '0' && type != '\0') {
      return Refused(at_, fmt::format("{} ('{}'); plain files are accepted", TypeName(type),
                                      Printable(std::string(1, type))));
    }
    const Pax pax = std::exchange(pax_, Pax());
    if (pax.size.has_value()) size = pax.size;
    TarMember member{
        .name = pax.path.value_or(Name(header, posix)), .offset = content, .size = *size};
    RETURN_IF_ERROR(CheckMember(member));
    members_.push_back(std::move(member));
    return Advance(content, *size);
  }

  static std::string Name(ByteView header, bool posix) {
    const auto text = [&](size_t offset, size_t size) {
      const std::string_view field = AsText(header.subspan(offset, size));
      return std::string(field.substr(0, field.find('\0')));
    };
    const std::string name = text(0, kNameSize);
    // Where POSIX has the prefix, GNU's own format has times.
    const std::string prefix = posix ? text(kPrefixOffset, kPrefixSize) : std::string();
    return prefix.empty() ? name : prefix + "/" + name;
  }

  Result<void> CheckMember(const TarMember& member) {
    if (!IsPackageName(member.name)) {
      return Refused(at_, fmt::format("the name \"{}\" is not that of a file in the package",
                                      Printable(member.name)));
    }
    if (members_.size() == kTarMaxMembers) {
      return Refused(at_, fmt::format("more than {} members", kTarMaxMembers));
    }
    if (!names_.insert(member.name).second) {
      return Corrupt(fmt::format("tar: offset {}: two members are named \"{}\"", at_, member.name))
          .WithFix("pack it again");
    }
    return Ok();
  }

  Result<void> Advance(uint64_t content, uint64_t size) {
    if (!IsInside(content, size, tar_.size())) {
      return Refused(at_, fmt::format("truncated: {} bytes of content, {} are left", size,
                                      tar_.size() - content));
    }
    at_ = content + (size + kTarBlock - 1) / kTarBlock * kTarBlock;
    return Ok();
  }

  // "%d %s=%s\n", with the length of the whole record in front.
  Result<void> ReadPax(uint64_t content, uint64_t size, char type) {
    if (++pax_headers_ > 2 * kTarMaxMembers || size > kTarMaxPaxBytes) {
      return Refused(at_, fmt::format("a pax header of {} bytes, or too many", size));
    }
    ASSIGN_OR_RETURN(const Bytes raw, ReadBytesAt(tar_, content, static_cast<size_t>(size)));
    std::string_view text = AsText(raw);
    while (!text.empty()) {
      size_t length = 0;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), length);
      const auto digits = static_cast<size_t>(end - text.data());
      if (error != std::errc() || length > text.size() || length < digits + 3 ||
          text[digits] != ' ' || text[length - 1] != '\n') {
        return Refused(at_, "a pax record of the wrong length");
      }
      const std::string_view record = text.substr(digits + 1, length - digits - 2);
      text.remove_prefix(length);
      const size_t equals = record.find('=');
      if (equals == std::string_view::npos) return Refused(at_, "a pax record without =");
      RETURN_IF_ERROR(ApplyPax(record.substr(0, equals), record.substr(equals + 1), type));
    }
    return Ok();
  }

  Result<void> ApplyPax(std::string_view key, std::string_view value, char type) {
    const bool about_next = key == "path" || key == "size";
    if (key == "linkpath" || key == "hdrcharset" || key.starts_with("GNU.sparse") ||
        (about_next && type == 'g')) {
      return Refused(at_, fmt::format("the pax record {} is not accepted here", Printable(key)));
    }
    if (key == "path") pax_.path = std::string(value);
    if (key == "size") {
      uint64_t size = 0;
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), size);
      if (error != std::errc() || end != value.data() + value.size()) {
        return Refused(at_, "a pax size that is no number");
      }
      pax_.size = size;
    }
    return Ok();
  }

  const RandomAccessReader& tar_;
  uint64_t at_ = 0;  // of the header
  Pax pax_;
  size_t pax_headers_ = 0;
  std::vector<TarMember> members_;
  std::set<std::string, std::less<>> names_;
};

}  // namespace

Result<std::vector<TarMember>> ListTar(const RandomAccessReader& tar) {
  return TarWalker(tar).Walk();
}

}  // namespace vallum::formats
