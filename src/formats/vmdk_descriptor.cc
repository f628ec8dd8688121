// SPDX-License-Identifier: Apache-2.0
#include "formats/vmdk_descriptor.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"

namespace vallum::formats {
namespace {

constexpr uint32_t kNoParent = 0xffffffff;
constexpr uint32_t kMaxVersion = 3;
constexpr size_t kMaxExtents = 1024;
constexpr std::string_view kSelfContained =
    "make it self-contained where it came from: qemu-img convert -O qcow2 <this image> <new image>";

// Whatever else they say, bytes below 0x80 are ASCII in all of these.
constexpr auto kEncodings = std::to_array<std::string_view>(
    {"utf-8", "us-ascii", "iso-8859-1", "gbk", "gb18030", "big5", "shift_jis", "euc-jp", "euc-kr"});

bool IsKnownEncoding(std::string_view encoding) {
  const std::string lower = ToLower(encoding);
  return lower.starts_with("windows-") || std::ranges::find(kEncodings, lower) != kEncodings.end();
}

template <typename T>
std::optional<T> ParseNumber(std::string_view text, int base) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Takes the text up to the next blank off the front.
std::string_view TakeWord(std::string_view& line) {
  const size_t end = std::min(line.find_first_of(" \t"), line.size());
  const std::string_view word = line.substr(0, end);
  line = Trim(line.substr(end));
  return word;
}

bool IsAccess(std::string_view word) {
  return word == "RW" || word == "RDONLY" || word == "NOACCESS";
}

class Parser {
 public:
  Parser(std::string_view text, uint64_t offset) : text_(text), offset_(offset) {}

  Result<VmdkDescriptor> Parse() {
    RETURN_IF_ERROR(CheckParentText());
    for (size_t at = 0; at < text_.size();) {
      const size_t end = std::min(text_.find('\n', at), text_.size());
      RETURN_IF_ERROR(ReadLine(Trim(text_.substr(at, end - at)), offset_ + at));
      at = end + 1;
    }
    RETURN_IF_ERROR(CheckEncoding());
    for (const std::string_view key : {"version", "CID", "parentCID", "createType"}) {
      if (std::ranges::find(keys_, key) == keys_.end()) {
        return VmdkRefused(
            fmt::format("the descriptor at offset {} does not say {}", offset_, key));
      }
    }
    return std::move(out_);
  }

 private:
  Error Bad(std::string_view why, std::string_view line, uint64_t at) const {
    return VmdkRefused(
        fmt::format("{}, in the descriptor at offset {}: {}", why, at, Printable(line)));
  }
  static Error Outside(std::string_view what, std::string_view line, uint64_t at) {
    return VmdkRefused(fmt::format("{}: the descriptor names one at offset {}: {}; an image must "
                                   "not read other files",
                                   what, at, Printable(line)),
                       std::string(kSelfContained));
  }

  // QEMU takes the first "parentFileNameHint" anywhere in the text, in a comment as well.
  Result<void> CheckParentText() const {
    const size_t at = ToLower(text_).find("parentfilenamehint");
    if (at == std::string_view::npos) return Ok();
    const std::string_view line = text_.substr(at, text_.find('\n', at) - at);
    return Outside("parent", line, offset_ + at);
  }

  Result<void> ReadLine(std::string_view line, uint64_t at) {
    for (const char c : line) {
      const auto byte = static_cast<unsigned char>(c);
      if ((byte < 0x20 && c != '\t') || byte == 0x7f) {
        return Bad(fmt::format("control character {:#04x}", byte), line, at);
      }
    }
    if (line.empty() || line.front() == '#') return Ok();
    std::string_view rest = line;
    if (IsAccess(TakeWord(rest))) return ReadExtent(line, at);
    return ReadSetting(line, at);
  }

  Result<void> ReadExtent(std::string_view line, uint64_t at) {
    if (out_.extents.size() == kMaxExtents) {
      return Bad(fmt::format("more than {} extents", kMaxExtents), line, at);
    }
    std::string_view rest = line;
    VmdkExtent extent;
    extent.line_offset = at;
    extent.access = TakeWord(rest);
    const auto sectors = ParseNumber<uint64_t>(TakeWord(rest), 10);
    extent.type = TakeWord(rest);
    if (!sectors || extent.type.empty()) return Bad("unreadable extent", line, at);
    extent.sectors = *sectors;
    if (rest.starts_with('"')) {
      const size_t end = rest.find('"', 1);
      if (end == std::string_view::npos) return Bad("unreadable extent", line, at);
      extent.name = rest.substr(1, end - 1);
      rest = Trim(rest.substr(end + 1));
    }
    extent.rest = rest;
    out_.extents.push_back(std::move(extent));
    return Ok();
  }

  Result<void> ReadSetting(std::string_view line, uint64_t at) {
    const size_t equals = line.find('=');
    const std::string_view key = Trim(line.substr(0, equals));
    if (equals == std::string_view::npos || key.empty()) return Bad("unreadable line", line, at);
    std::string_view value = Trim(line.substr(equals + 1));
    if (value.starts_with('"')) {
      if (value.size() < 2 || value.find('"', 1) != value.size() - 1) {
        return Bad("unreadable value", line, at);
      }
      value = value.substr(1, value.size() - 2);
    }
    if (key.starts_with("ddb.")) return ReadDiskDatabase(key, value, line, at);
    if (std::ranges::find(keys_, key) != keys_.end()) return Bad("a key twice", line, at);
    keys_.emplace_back(key);
    return ReadKey(key, value, line, at);
  }

  // About the virtual hardware; VirtualBox keeps the UUID of a parent here, all zeroes when none.
  Result<void> ReadDiskDatabase(std::string_view key, std::string_view value, std::string_view line,
                                uint64_t at) {
    if (key == "ddb.adapterType") out_.adapter_type = value;
    if (ToLower(key).find("parent") != std::string::npos &&
        value.find_first_not_of("0-") != std::string_view::npos) {
      return Outside("parent", line, at);
    }
    return Ok();
  }

  Result<void> ReadKey(std::string_view key, std::string_view value, std::string_view line,
                       uint64_t at) {
    if (key == "version") {
      const auto version = ParseNumber<uint32_t>(value, 10);
      if (!version || *version < 1 || *version > kMaxVersion) {
        return Bad("unknown version", line, at);
      }
      out_.version = *version;
    } else if (key == "CID" || key == "parentCID") {
      const auto cid = ParseNumber<uint32_t>(value, 16);
      if (!cid) return Bad("unreadable content identifier", line, at);
      if (key == "CID") {
        out_.cid = *cid;
      } else if (*cid != kNoParent) {
        return Outside("parent", line, at);
      }
    } else if (key == "createType") {
      out_.create_type = value;
    } else if (key == "encoding") {
      out_.encoding = value;
      if (!IsKnownEncoding(value)) return Bad("unknown encoding", line, at);
    } else if (key == "changeTrackPath") {
      return Outside("change tracking file", line, at);
    } else if (key != "isNativeSnapshot") {
      return Bad("unknown key", line, at);
    }
    return Ok();
  }

  Result<void> CheckEncoding() const {
    if (!out_.encoding.empty() && ToLower(out_.encoding) != "utf-8") return Ok();
    std::string flat(text_);
    std::ranges::replace_if(flat, [](char c) { return c == '\t' || c == '\r' || c == '\n'; }, ' ');
    const std::string printable = Printable(flat, flat.size() + 1);
    if (printable == flat) return Ok();
    const auto at = std::ranges::mismatch(flat, printable).in1 - flat.begin();
    return VmdkRefused(fmt::format("the descriptor is not UTF-8 at offset {}",
                                   offset_ + static_cast<uint64_t>(at)));
  }

  const std::string_view text_;
  const uint64_t offset_;
  VmdkDescriptor out_;
  std::vector<std::string> keys_;  // seen
};

}  // namespace

Error VmdkRefused(std::string message, std::string fix) {
  return InvalidInput("VMDK: " + std::move(message)).WithFix(std::move(fix));
}

Result<VmdkDescriptor> ParseVmdkDescriptor(ByteView text, uint64_t offset) {
  return Parser(AsText(text), offset).Parse();
}

}  // namespace vallum::formats
