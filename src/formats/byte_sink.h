// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

#include "base/bytes.h"
#include "base/result.h"

namespace vallum::formats {

// Where a writer's output goes, from front to back: a pipe, a hash, a file.
class ByteSink {
 public:
  virtual ~ByteSink() = default;
  // Takes all of the bytes. Errors: its own; the writer stops and passes them on.
  virtual Result<void> Write(ByteView bytes) = 0;
};

// Keeps what was written.
class BytesSink final : public ByteSink {
 public:
  Result<void> Write(ByteView bytes) override {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return Ok();
  }
  Bytes Take() && { return std::move(bytes_); }

 private:
  Bytes bytes_;
};

}  // namespace vallum::formats
