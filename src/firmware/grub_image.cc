// SPDX-License-Identifier: Apache-2.0
#include "firmware/grub_image.h"

#include <fmt/format.h>

namespace vallum::firmware {
namespace {

constexpr uint32_t kMagic = 0x676d696d;  // "mimg"
constexpr uint32_t kObjectHeader = 8;
enum ObjectType : uint32_t { kMemdisk = 1, kConfig = 2, kPrefix = 3 };

// Text in an object ends at its first zero; the rest is padding.
Result<void> TakeText(ByteView object, std::string_view what, std::string& into) {
  if (!into.empty()) {
    return Corrupt(fmt::format("GRUB modules: more than one {}", what));
  }
  const std::string_view text = AsText(object);
  into = std::string(text.substr(0, text.find('\0')));
  return Ok();
}

Result<void> TakeObject(uint32_t type, ByteView object, GrubImage& image) {
  switch (type) {
    case kMemdisk:
      if (!image.memdisk.empty()) {
        return Corrupt("GRUB modules: more than one memdisk");
      }
      image.memdisk = object;
      return Ok();
    case kConfig:
      return TakeText(object, "configuration", image.config);
    case kPrefix:
      return TakeText(object, "prefix", image.prefix);
    default:
      return Ok();  // a module, a key
  }
}

}  // namespace

Result<GrubImage> ParseGrubModules(ByteView section) {
  ByteCursor cursor(section);
  ASSIGN_OR_RETURN(const uint32_t magic, cursor.ReadU32Le());
  RETURN_IF_ERROR(cursor.Skip(4));
  ASSIGN_OR_RETURN(const uint64_t begin, cursor.ReadU64Le());
  ASSIGN_OR_RETURN(const uint64_t end, cursor.ReadU64Le());
  if (magic != kMagic) {
    return InvalidInput("GRUB modules: the section does not begin with mimg");
  }
  if (begin < cursor.offset() || begin > end || end > section.size()) {
    return Corrupt(fmt::format("GRUB modules: {} to {} lie outside the section's {} bytes", begin,
                               end, section.size()));
  }
  GrubImage image;
  ByteCursor objects(section.subspan(begin, end - begin));
  for (size_t count = 0; !objects.AtEnd(); ++count) {
    if (count == kGrubMaxModules) {
      return Exhausted(fmt::format("GRUB modules: more than {} objects", kGrubMaxModules));
    }
    const size_t at = begin + objects.offset();
    ASSIGN_OR_RETURN(const uint32_t type, objects.ReadU32Le());
    ASSIGN_OR_RETURN(const uint32_t size, objects.ReadU32Le());
    if (size < kObjectHeader || size - kObjectHeader > objects.remaining()) {
      return Corrupt(fmt::format("GRUB modules: the object at {} claims {} bytes", at, size));
    }
    ASSIGN_OR_RETURN(const ByteView object, objects.ReadBytes(size - kObjectHeader));
    RETURN_IF_ERROR(TakeObject(type, object, image));
  }
  return image;
}

}  // namespace vallum::firmware
