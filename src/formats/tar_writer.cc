// SPDX-License-Identifier: Apache-2.0
#include "formats/tar_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/text.h"
#include "formats/ovf.h"
#include "formats/tar.h"

namespace vallum::formats {
namespace {

constexpr uint64_t kOctalLimit = uint64_t{1} << 33U;  // 11 octal digits

void Put(Bytes& block, size_t offset, std::string_view text) {
  std::ranges::copy(AsBytes(text), block.begin() + static_cast<ptrdiff_t>(offset));
}

}  // namespace

uint64_t TarPadding(uint64_t size) { return (kTarBlock - size % kTarBlock) % kTarBlock; }

Result<Bytes> MakeTarHeader(std::string_view name, uint64_t size) {
  if (!IsPackageName(name) || name.size() > 100) {
    return InvalidInput("\"" + Printable(name, 120) + "\" cannot be a file of an archive");
  }
  if (size > uint64_t{1} << 62U) return InvalidInput("a file of an archive is too large");
  Bytes block(kTarBlock);
  Put(block, 0, name);
  Put(block, 100, fmt::format("{:07o}", 0644));
  Put(block, 108, fmt::format("{:07o}", 0));
  Put(block, 116, fmt::format("{:07o}", 0));
  if (size < kOctalLimit) {
    Put(block, 124, fmt::format("{:011o}", size));
  } else {
    block[124] = std::byte{0x80};
    for (size_t i = 0; i < 8; ++i) block[135 - i] = static_cast<std::byte>(size >> (8 * i));
  }
  Put(block, 136, fmt::format("{:011o}", 0));
  Put(block, 148, "        ");
  block[156] = std::byte{'0'};
  Put(block, 257, std::string_view("ustar\00000", 8));
  unsigned sum = 0;
  for (const std::byte b : block) sum += static_cast<unsigned>(b);
  Put(block, 148, fmt::format("{:06o}", sum));
  block[154] = std::byte{0};
  return block;
}

}  // namespace vallum::formats
