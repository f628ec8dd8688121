// SPDX-License-Identifier: Apache-2.0
#include "cli/local_image.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/text.h"
#include "images/confined_inspector.h"
#include "images/fd_reader.h"
#include "tls/file.h"

namespace vallum::cli {

Result<Bytes> ReadInputFile(const std::string& path, size_t limit) {
  Result<Bytes> content = tls::ReadSmallFile(path, limit);
  if (content.has_value() || content.error().code() != ErrorCode::kExhausted) return content;
  return InvalidInput(Printable(path) + " is too large: at most " + std::to_string(limit) +
                      " bytes are read");
}

Result<LocalImage> LocalImage::Open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoError(errno, "open " + path);
  LocalImage file(fd, path);
  struct stat info = {};
  if (::fstat(fd, &info) != 0) return ErrnoError(errno, "stat " + path);
  if (!S_ISREG(info.st_mode)) return InvalidInput(Printable(path) + " is no regular file");
  file.size_ = static_cast<uint64_t>(info.st_size);
  return file;
}

LocalImage::~LocalImage() {
  if (fd_ >= 0) ::close(fd_);
}

LocalImage::LocalImage(LocalImage&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)), size_(other.size_) {}

Error LocalImage::InOneLine(const Error& error) const {
  const std::string fix = error.fix().empty() ? std::string() : "; " + error.fix();
  return Error(error.code(), Printable(path_) + ": " + error.Describe() + fix);
}

Result<std::string> LocalImage::FormatOf(const std::string& declared) const {
  if (!declared.empty()) return declared;
  ASSIGN_OR_RETURN(const images::FdReader reader, images::FdReader::Open(fd_));
  const Result<images::DeclaredFormat> detected = images::DetectFormat(reader);
  if (!detected.has_value()) return InOneLine(detected.error());
  return std::string(images::DeclaredFormatName(*detected));
}

Result<Sha256Digest> LocalImage::ComputeDigest() const {
  constexpr size_t kChunk = size_t{1} << 20U;
  ASSIGN_OR_RETURN(const images::FdReader reader, images::FdReader::Open(fd_));
  Hasher hasher(HashAlgorithm::kSha256);
  Bytes chunk;
  for (uint64_t at = 0; at < size_; at += chunk.size()) {
    chunk.resize(static_cast<size_t>(std::min<uint64_t>(kChunk, size_ - at)));
    RETURN_IF_ERROR(reader.ReadAt(at, chunk));
    hasher.Update(chunk);
  }
  return images::ParseSha256(ToHex(hasher.Finish()));
}

Result<images::InspectedImage> LocalImage::Inspect(const std::string& inspector,
                                                   const std::string& declared,
                                                   const images::InspectionRequest& request) const {
  ASSIGN_OR_RETURN(const std::string name, FormatOf(declared));
  ASSIGN_OR_RETURN(const images::DeclaredFormat format, images::ParseDeclaredFormat(name));
  ASSIGN_OR_RETURN(const Sha256Digest digest, ComputeDigest());
  const images::ConfinedInspector confined({.program = inspector});
  Result<images::InspectedImage> inspected = confined.Inspect(fd_, format, digest, request);
  if (!inspected.has_value()) return InOneLine(inspected.error());
  return inspected;
}

}  // namespace vallum::cli
