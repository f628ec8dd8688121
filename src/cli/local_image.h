// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/result.h"
#include "images/inspection.h"
#include "images/inspection_request.h"

namespace vallum::cli {

// Reads a file that a command was given. Errors: those of the file system; kInvalidInput (larger
// than limit).
Result<Bytes> ReadInputFile(const std::string& path, size_t limit);

// A disk image on this machine, to be uploaded or inspected without a server.
class LocalImage {
 public:
  // Errors: as ErrnoError; kInvalidInput (no regular file).
  static Result<LocalImage> Open(const std::string& path);
  ~LocalImage();
  LocalImage(LocalImage&& other) noexcept;
  LocalImage& operator=(LocalImage&&) = delete;

  int fd() const { return fd_; }
  uint64_t size() const { return size_; }

  // What was declared, or else what the content is: names and extensions never decide. What has no
  // format that is known is a blob only if somebody says so.
  // Errors: kInvalidInput, in one line.
  Result<std::string> FormatOf(const std::string& declared) const;

  // Inspects it in a confined process.
  //   inspector: path of vallum-inspect. declared: as for FormatOf.
  // Errors: as ConfinedInspector::Inspect, in one line that names the file.
  Result<images::InspectedImage> Inspect(const std::string& inspector, const std::string& declared,
                                         const images::InspectionRequest& request) const;

 private:
  LocalImage(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  Result<Sha256Digest> ComputeDigest() const;
  Error InOneLine(const Error& error) const;

  int fd_;
  std::string path_;
  uint64_t size_ = 0;
};

}  // namespace vallum::cli
