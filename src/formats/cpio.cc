// SPDX-License-Identifier: Apache-2.0
#include "formats/cpio.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "formats/decompress.h"
#include "formats/fields.h"
#include "formats/initrd_stream.h"
#include "formats/reader.h"

namespace vallum::formats {
namespace {

constexpr size_t kMagicSize = 6;
constexpr size_t kChunkBytes = 64 * 1024;
constexpr std::string_view kTrailer = "TRAILER!!!";
constexpr std::string_view kMicrocode = "kernel/x86/microcode/";

constexpr uint32_t kTypeMask = 0170000;
constexpr uint32_t kRegular = 0100000;
constexpr uint32_t kSymlink = 0120000;
// FIFO, character device, directory, block device, regular, symlink, socket.
constexpr auto kTypes =
    std::to_array<uint32_t>({0010000, 0020000, 0040000, 0060000, kRegular, kSymlink, 0140000});

Error NotInitrd(uint64_t offset, std::string_view what) {
  return InvalidInput(fmt::format("initrd: {} at offset {}", what, offset))
      .WithFix(
          "an initrd is one or several cpio archives (newc), each plain or compressed with "
          "gzip, bzip2, lzma, xz, lz4 or zstd");
}

std::optional<CpioKind> KindOf(ByteView head) {
  if (HasText(head, 0, "070701")) return CpioKind::kNewc;
  if (HasText(head, 0, "070702")) return CpioKind::kCrc;
  if (HasText(head, 0, "070707")) return CpioKind::kOdc;
  return std::nullopt;
}

struct Header {
  uint32_t mode = 0;
  uint64_t name_size = 0;  // with the NUL
  uint64_t file_size = 0;
  uint32_t checksum = 0;
};

// A field of `count` digits of the base, nothing else; nothing when there is another character.
std::optional<uint64_t> Digits(ByteView raw, size_t offset, size_t count, unsigned base) {
  uint64_t value = 0;
  for (const std::byte b : raw.subspan(offset, count)) {
    const char c = static_cast<char>(b);
    unsigned digit = base;
    if (c >= '0' && c <= '9') digit = static_cast<unsigned>(c - '0');
    if (c >= 'a' && c <= 'f') digit = static_cast<unsigned>(c - 'a') + 10;
    if (c >= 'A' && c <= 'F') digit = static_cast<unsigned>(c - 'A') + 10;
    if (digit >= base) return std::nullopt;
    value = value * base + digit;
  }
  return value;
}

// ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check.
std::optional<Header> ParseNewc(ByteView raw) {
  constexpr size_t kFields = 13;
  std::array<uint64_t, kFields> field{};
  for (size_t i = 0; i < kFields; ++i) {
    const std::optional<uint64_t> value = Digits(raw, kMagicSize + i * 8, 8, 16);
    if (!value.has_value()) return std::nullopt;
    field.at(i) = *value;
  }
  return Header{.mode = static_cast<uint32_t>(field[1]),
                .name_size = field[11],
                .file_size = field[6],
                .checksum = static_cast<uint32_t>(field[12])};
}

// dev ino mode uid gid nlink rdev (6 each) mtime (11) namesize (6) filesize (11).
std::optional<Header> ParseOdc(ByteView raw) {
  constexpr size_t kModeOffset = 18;
  constexpr size_t kNameOffset = 59;
  constexpr size_t kFileOffset = 65;
  const auto all = Digits(raw, kMagicSize, kCpioOdcHeader - kMagicSize, 8);
  const auto mode = Digits(raw, kModeOffset, 6, 8);
  const auto name = Digits(raw, kNameOffset, 6, 8);
  const auto file = Digits(raw, kFileOffset, 11, 8);
  if (!all || !mode || !name || !file) return std::nullopt;
  return Header{
      .mode = static_cast<uint32_t>(*mode), .name_size = *name, .file_size = *file, .checksum = 0};
}

// "./init", "/init" and "init" are the same file in the root.
std::string_view Relative(std::string_view name) {
  while (name.starts_with("/") || name.starts_with("./")) name.remove_prefix(1);
  return name;
}

class InitrdWalker {
 public:
  explicit InitrdWalker(const RandomAccessReader& file) : file_(file) {}

  Result<InitrdFacts> Walk() {
    if (file_.size() > kInitrdMaxBytes) {
      return InvalidInput(fmt::format("initrd: {} bytes; more than {} MiB are not accepted",
                                      file_.size(), kInitrdMaxBytes >> 20U))
          .WithFix("leave out what the guest does not need to start");
    }
    uint64_t offset = 0;
    while (true) {
      ASSIGN_OR_RETURN(offset, SkipZeroes(offset));
      if (offset == file_.size()) break;
      if (facts_.members.size() == kInitrdMaxMembers) {
        return NotInitrd(offset, fmt::format("more than {} members", kInitrdMaxMembers));
      }
      ASSIGN_OR_RETURN(const InitrdMember member, WalkMember(offset));
      offset += member.size;
      facts_.members.push_back(member);
    }
    if (facts_.members.empty()) return NotInitrd(0, "nothing but zeroes");
    return std::move(facts_);
  }

 private:
  Result<uint64_t> SkipZeroes(uint64_t offset) {
    while (offset < file_.size()) {
      ASSIGN_OR_RETURN(const Bytes chunk, ReadUpTo(file_, offset, kChunkBytes));
      const auto it = std::ranges::find_if(chunk, [](std::byte b) { return b != std::byte{0}; });
      offset += static_cast<uint64_t>(it - chunk.begin());
      if (it != chunk.end()) break;
    }
    return offset;
  }

  Result<InitrdMember> WalkMember(uint64_t offset) {
    ASSIGN_OR_RETURN(const Bytes head, ReadUpTo(file_, offset, 8));
    if (KindOf(head).has_value()) return WalkPlain(offset);
    const std::optional<Compression> compression = DetectCompression(head);
    if (!compression.has_value()) return Unknown(offset, head);
    ASSIGN_OR_RETURN(InitrdStream stream,
                     InitrdStream::Compressed(file_, offset, *compression, budget_));
    InitrdMember member{.offset = offset, .compression = *compression};
    RETURN_IF_ERROR(WalkCompressed(stream, member));
    member.size = stream.file_offset() - offset;
    member.uncompressed_bytes = stream.position();
    return member;
  }

  Error Unknown(uint64_t offset, ByteView head) const {
    if (HasText(head, 0, "\xc7\x71") || HasText(head, 0, "\x71\xc7")) {
      return NotInitrd(offset, "a cpio archive in the old binary format");
    }
    if (HasText(head, 0, "\x89LZO")) return NotInitrd(offset, "lzo compression (not accepted)");
    if (facts_.members.empty()) return NotInitrd(offset, "neither cpio nor a known compression");
    return NotInitrd(offset, "bytes that are neither padding nor a further member");
  }

  // The kernel takes a plain archive only at a multiple of 4.
  Result<InitrdMember> WalkPlain(uint64_t offset) {
    if (offset % 4 != 0) {
      return NotInitrd(offset, "a plain cpio archive that does not start at a multiple of 4");
    }
    InitrdStream stream = InitrdStream::Plain(file_, offset);
    InitrdMember member{.offset = offset};
    RETURN_IF_ERROR(WalkArchive(stream, member));
    member.size = stream.file_offset() - offset;
    member.uncompressed_bytes = stream.position();
    return member;
  }

  // "a compressed stream holds archives, each to its trailer, and zeroes"; one at least.
  Result<void> WalkCompressed(InitrdStream& stream, InitrdMember& member) {
    bool found = false;
    while (true) {
      ASSIGN_OR_RETURN(const bool at_end, stream.SkipZeroes());
      if (at_end) break;
      if (stream.position() % 4 != 0) {
        return stream.Wrong(stream.position(), "an archive that does not start at a multiple of 4");
      }
      RETURN_IF_ERROR(WalkArchive(stream, member));
      found = true;
    }
    if (!found) return stream.Wrong(0, "it is empty");
    return Ok();
  }

  // From the first header to the trailer, with the padding after that.
  Result<void> WalkArchive(InitrdStream& stream, InitrdMember& member) {
    std::optional<CpioKind> kind;
    while (true) {
      const uint64_t at = stream.position();
      std::array<std::byte, kMagicSize> magic{};
      RETURN_IF_ERROR(stream.Read(magic));
      const std::optional<CpioKind> found = KindOf(magic);
      if (!found.has_value() || (kind.has_value() && *kind != *found)) {
        return stream.Wrong(at, kind.has_value()
                                    ? "no header of the archive's kind, and no trailer before"
                                    : "no cpio archive");
      }
      kind = found;
      ASSIGN_OR_RETURN(const bool more, WalkEntry(stream, *kind, member));
      if (!more) break;
    }
    // Of several archives in one stream, the last one's.
    member.kind = *kind;
    return Ok();
  }

  static Result<Header> ReadHeader(InitrdStream& stream, CpioKind kind) {
    const uint64_t at = stream.position() - kMagicSize;
    Bytes raw(kind == CpioKind::kOdc ? kCpioOdcHeader : kCpioNewcHeader);
    RETURN_IF_ERROR(stream.Read(std::span(raw).subspan(kMagicSize)));
    const std::optional<Header> header = kind == CpioKind::kOdc ? ParseOdc(raw) : ParseNewc(raw);
    if (!header.has_value()) {
      return stream.Wrong(
          at, fmt::format("a {} header with a character that is no {} digit", CpioKindName(kind),
                          kind == CpioKind::kOdc ? "octal" : "hexadecimal"));
    }
    if (header->name_size < 2 || header->name_size > kCpioMaxName) {
      return stream.Wrong(at, fmt::format("a name of {} bytes; 2 to {} are accepted",
                                          header->name_size, kCpioMaxName));
    }
    return *header;
  }

  static Result<std::string> ReadName(InitrdStream& stream, const Header& header) {
    const uint64_t at = stream.position();
    Bytes raw(static_cast<size_t>(header.name_size));
    RETURN_IF_ERROR(stream.Read(raw));
    const std::string_view name = AsText(raw);
    if (name.find('\0') != name.size() - 1) {
      return stream.Wrong(at, fmt::format("a name of {} bytes that does not end in its only NUL",
                                          header.name_size));
    }
    return std::string(name.substr(0, name.size() - 1));
  }

  // newc and crc align names and content to 4, counted from the start of the member.
  static Result<void> SkipPadding(InitrdStream& stream, CpioKind kind) {
    if (kind == CpioKind::kOdc) return Ok();
    while (stream.position() % 4 != 0) {
      const uint64_t at = stream.position();
      std::array<std::byte, 1> pad{};
      RETURN_IF_ERROR(stream.Read(pad));
      if (pad[0] != std::byte{0}) return stream.Wrong(at, "padding that is not zero");
    }
    return Ok();
  }

  // An entry after its magic; false after the trailer.
  Result<bool> WalkEntry(InitrdStream& stream, CpioKind kind, InitrdMember& member) {
    const uint64_t at = stream.position() - kMagicSize;
    ASSIGN_OR_RETURN(const Header header, ReadHeader(stream, kind));
    ASSIGN_OR_RETURN(const std::string name, ReadName(stream, header));
    RETURN_IF_ERROR(SkipPadding(stream, kind));
    if (name == kTrailer) {
      if (header.file_size != 0) return stream.Wrong(at, "a trailer with content");
      return false;
    }
    if (++entries_ > kInitrdMaxEntries) {
      return stream.Wrong(at, fmt::format("more than {} entries", kInitrdMaxEntries));
    }
    ++member.entries;
    const uint32_t type = header.mode & kTypeMask;
    RETURN_IF_ERROR(CheckType(stream, at, header, name));
    RETURN_IF_ERROR(WalkContent(stream, kind, header, name));
    RETURN_IF_ERROR(SkipPadding(stream, kind));
    const std::string_view path = Relative(name);
    if (path == "init" && (type == kRegular || type == kSymlink)) facts_.has_init = true;
    if (member.offset == 0 && member.compression == Compression::kNone && type == kRegular &&
        path.starts_with(kMicrocode) && header.file_size > 0) {
      facts_.has_early_microcode = true;
    }
    return true;
  }

  static Result<void> CheckType(const InitrdStream& stream, uint64_t at, const Header& header,
                                const std::string& name) {
    const uint32_t type = header.mode & kTypeMask;
    if (std::ranges::find(kTypes, type) == kTypes.end()) {
      return stream.Wrong(
          at, fmt::format("the entry {} has the unknown mode {:o}", Printable(name), header.mode));
    }
    const uint64_t limit = type == kRegular ? UINT64_MAX : type == kSymlink ? kCpioMaxName : 0;
    if (header.file_size > limit) {
      return stream.Wrong(at, fmt::format("the entry {} of mode {:o} has {} bytes of content",
                                          Printable(name), header.mode, header.file_size));
    }
    return Ok();
  }

  // "The checksum of all bytes of the file's data" modulo 2^32.
  static Result<void> WalkContent(InitrdStream& stream, CpioKind kind, const Header& header,
                                  const std::string& name) {
    if (kind != CpioKind::kCrc || (header.mode & kTypeMask) != kRegular) {
      return stream.Skip(header.file_size);
    }
    const uint64_t at = stream.position();
    ASSIGN_OR_RETURN(const uint32_t sum, stream.Sum(header.file_size));
    // Of hard links only the last has the content; GNU cpio writes the checksum into all.
    if (header.file_size != 0 && sum != header.checksum) {
      return stream.Wrong(at, fmt::format("the content of {} has the checksum {:#x}, its header "
                                          "says {:#x}",
                                          Printable(name), sum, header.checksum));
    }
    return Ok();
  }

  const RandomAccessReader& file_;
  InitrdFacts facts_;
  OutputBudget budget_{kInitrdMaxOutput};
  uint64_t entries_ = 0;
};

}  // namespace

std::string_view CpioKindName(CpioKind kind) {
  switch (kind) {
    case CpioKind::kNewc:
      return "newc";
    case CpioKind::kCrc:
      return "crc";
    case CpioKind::kOdc:
      return "odc";
  }
  return "unknown";
}

Result<InitrdFacts> CheckInitrd(const RandomAccessReader& initrd) {
  return InitrdWalker(initrd).Walk();
}

}  // namespace vallum::formats
