// SPDX-License-Identifier: Apache-2.0
#include "agent/ima_list.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <utility>

#include "store/file.h"

namespace vallum::agent {
namespace {

constexpr size_t kReadSize = size_t{256} << 10U;
constexpr size_t kPcrAndDigest = 4 + 20;
constexpr size_t kMaxName = 255;
constexpr size_t kMaxData = size_t{1} << 20U;
constexpr size_t kSha1Size = 20;

Result<size_t> Bounded(uint32_t size, size_t limit, const char* what) {
  if (size > limit) {
    return Exhausted("an entry of the IMA list has " + std::string(what) + " of " +
                     std::to_string(size) + " bytes");
  }
  return size_t{size};
}

// Size of the entry at the front; empty while not enough of it is there to tell.
Result<std::optional<size_t>> EntrySize(ByteView bytes) {
  ByteCursor cursor(bytes);
  if (!cursor.Skip(kPcrAndDigest)) {
    return std::optional<size_t>();
  }
  const auto name_size = cursor.ReadU32Le();
  if (!name_size) {
    return std::optional<size_t>();
  }
  ASSIGN_OR_RETURN(const size_t name_bytes, Bounded(*name_size, kMaxName, "a template name"));
  const auto name = cursor.ReadBytes(name_bytes);
  // The first template has no length of its data: a SHA-1 digest, then a name with its length.
  if (!name || (AsText(*name) == "ima" && !cursor.Skip(kSha1Size))) {
    return std::optional<size_t>();
  }
  const auto size = cursor.ReadU32Le();
  if (!size) {
    return std::optional<size_t>();
  }
  ASSIGN_OR_RETURN(const size_t data, Bounded(*size, kMaxData, "data"));
  return std::optional(cursor.offset() + data);
}

// Collects entries into pieces of the size that a sink takes.
class PieceWriter {
 public:
  explicit PieceWriter(const ImaSink& sink) : sink_(sink) {}
  Result<void> Add(ByteView bytes) {
    while (!bytes.empty()) {
      const size_t count = std::min(bytes.size(), kImaPiece - piece_.size());
      piece_.insert(piece_.end(), bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(count));
      bytes = bytes.subspan(count);
      if (piece_.size() == kImaPiece) {
        RETURN_IF_ERROR(Flush());
      }
    }
    return Ok();
  }
  Result<void> Flush() {
    const Bytes piece = std::exchange(piece_, Bytes());
    return piece.empty() ? Ok() : sink_(piece);
  }

 private:
  const ImaSink& sink_;
  Bytes piece_;
};

}  // namespace

Result<ImaExtent> WalkImaList(const std::filesystem::path& path, const ImaRange& range,
                              const ImaSink& sink) {
  ASSIGN_OR_RETURN(const store::UniqueFd fd, store::OpenFile(path, O_RDONLY));
  PieceWriter pieces(sink);
  ImaExtent extent;
  Bytes pending;
  while (extent.entries < range.until) {
    const size_t kept = pending.size();
    pending.resize(kept + kReadSize);
    const ssize_t count = read(fd.get(), pending.data() + kept, kReadSize);
    pending.resize(kept + static_cast<size_t>(std::max<ssize_t>(0, count)));
    if (count < 0 && errno != EINTR) {
      return ErrnoError(errno, "read " + path.string());
    }
    if (count == 0) {
      if (!pending.empty()) {
        return Corrupt(path.string() + " ends in the middle of entry " +
                       std::to_string(extent.entries));
      }
      break;
    }
    ByteView rest(pending);
    while (extent.entries < range.until) {
      ASSIGN_OR_RETURN(const std::optional<size_t> size, EntrySize(rest));
      if (!size || *size > rest.size()) {
        break;
      }
      if (extent.entries >= range.from) {
        extent.wanted_bytes += *size;
        RETURN_IF_ERROR(pieces.Add(rest.first(*size)));
      }
      ++extent.entries;
      rest = rest.subspan(*size);
    }
    pending.erase(pending.begin(),
                  pending.begin() + static_cast<ptrdiff_t>(pending.size() - rest.size()));
  }
  RETURN_IF_ERROR(pieces.Flush());
  return extent;
}

}  // namespace vallum::agent
