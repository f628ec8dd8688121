// SPDX-License-Identifier: Apache-2.0
#include "images/fd_reader.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <optional>
#include <span>

#include "base/error.h"
#include "base/result.h"
#include "formats/reader.h"

namespace vallum::images {

Result<FdReader> FdReader::Open(int descriptor) {
  struct stat info{};
  if (fstat(descriptor, &info) != 0) return ErrnoError(errno, "fstat the image");
  if (!S_ISREG(info.st_mode)) {
    return InvalidInput("the image is not a regular file").WithFix("give the path of a file");
  }
  return FdReader(descriptor, static_cast<uint64_t>(info.st_size));
}

Result<void> FdReader::ReadAt(uint64_t offset, std::span<std::byte> out) const {
  if (!formats::IsInside(offset, out.size(), size_)) {
    return InvalidInput(fmt::format("truncated: {} bytes wanted at offset {} of a file of {} bytes",
                                    out.size(), offset, size_));
  }
  while (!out.empty()) {
    const ssize_t got = pread(descriptor_, out.data(), out.size(), static_cast<off_t>(offset));
    if (got < 0) {
      if (errno == EINTR) continue;
      return ErrnoError(errno, fmt::format("read the image at offset {}", offset));
    }
    if (got == 0) return InvalidInput("the image became shorter while it was inspected");
    offset += static_cast<uint64_t>(got);
    out = out.subspan(static_cast<size_t>(got));
  }
  return Ok();
}

Result<std::optional<uint64_t>> FdReader::NextData(uint64_t offset) const {
  if (offset >= size_) return std::optional<uint64_t>();
  const off_t data = lseek(descriptor_, static_cast<off_t>(offset), SEEK_DATA);
  if (data >= 0) return std::optional<uint64_t>(static_cast<uint64_t>(data));
  if (errno == ENXIO) return std::optional<uint64_t>();
  if (errno == EINVAL) return std::optional<uint64_t>(offset);  // the file system knows no holes
  return ErrnoError(errno, "look for data in the image");
}

}  // namespace vallum::images
