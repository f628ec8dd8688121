// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "measure/ima_fields.h"

namespace vallum::measure {

// The parts of a line of ascii_runtime_measurements: "10 HASH TEMPLATE FIELD FIELD ...".
struct ImaTextLine {
  uint32_t pcr = 0;
  std::string_view template_hash;
  std::string_view format;
  std::string_view fields;  // all of them, without the space before
};

// Errors: kCorrupt (no such line). Source: Linux ima_fs.c, ima_ascii_measurements_show.
Result<ImaTextLine> SplitImaLine(std::string_view line);

enum class ImaLineEnd {
  kNewline,
  kMissing,  // empty last fields may have been cut off with it
};

// Writes what a text log says as the binary log has it, in few large pieces of memory whose
// addresses stay. Not thread-safe.
class ImaTextEncoder {
 public:
  explicit ImaTextEncoder(size_t text_size);

  Result<ByteView> EncodeHash(std::string_view hex);
  Result<ByteView> EncodeData(const ImaFormat& format, std::string_view fields, ImaLineEnd end);

  std::vector<std::unique_ptr<std::byte[]>> Take() && { return std::move(pieces_); }

 private:
  std::byte* Reserve(size_t size);
  ByteView Keep(const std::byte* begin, const std::byte* end);

  std::vector<std::unique_ptr<std::byte[]>> pieces_;
  size_t piece_size_;
  size_t used_ = 0;
};

}  // namespace vallum::measure
