// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/qcow2.h"
#include "formats/qcow2_disk.h"
#include "formats/reader.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace vallum::formats;  // NOLINT(google-build-using-namespace): one function
  const vallum::ByteView bytes = std::as_bytes(std::span(data, size));
  [[maybe_unused]] const MemoryReader reader(bytes);
  const vallum::Result<Qcow2Header> header = ParseQcow2Header(reader);
  if (!header.has_value() || !ValidateQcow2(*header, reader.size()).has_value()) return 0;
  // The disk of an instance is read without that check: offsets are checked as they are used.
  if (const auto over = Qcow2Disk::Over(reader, reader, *header); over.has_value()) {
    static_cast<void>(ReadUpTo(*over, 0, 1U << 20U));
  }
  if (!CheckQcow2Tables(reader, *header).has_value()) return 0;
  const Qcow2Disk disk(reader, *header);
  static_cast<void>(ReadUpTo(disk, 0, 1U << 20U));
  static_cast<void>(disk.NextData(0));
  return 0;
}
