// SPDX-License-Identifier: Apache-2.0
#include "formats/kernel_image.h"

#include <fmt/format.h>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "formats/bzimage.h"
#include "formats/detect.h"
#include "formats/pe.h"
#include "formats/reader.h"
#include "formats/uki.h"

namespace vallum::formats {
namespace {

Error Refused(const std::string& message) {
  return InvalidInput("kernel: " + message)
      .WithFix("give a Linux kernel (bzImage, such as /boot/vmlinuz) or a PE program (a UKI)");
}

Result<KernelFacts> CheckPe(ByteView file) {
  ASSIGN_OR_RETURN(const PeImage pe, PeImage::Parse(file));
  KernelFacts facts;
  facts.kind = KernelKind::kPe;
  facts.efi_machine = pe.machine();
  if (!IsUki(pe)) return facts;
  ASSIGN_OR_RETURN(Uki uki, ParseUki(pe));
  facts.kind = KernelKind::kUki;
  facts.bzimage = std::move(uki.kernel);
  facts.command_line = std::move(uki.command_line);
  facts.has_initrd = uki.initrd.has_value();
  return facts;
}

}  // namespace

Result<KernelFacts> CheckKernel(const RandomAccessReader& kernel) {
  if (kernel.size() > kKernelMaxBytes) {
    return Refused(fmt::format("{} bytes; more than {} MiB are not accepted", kernel.size(),
                               kKernelMaxBytes >> 20U));
  }
  ASSIGN_OR_RETURN(const std::vector<Detection> found, DetectFormats(kernel));
  if (found.empty()) return Refused("neither a bzImage nor a PE program, nor any known format");
  if (found.size() > 1 || (found[0].format != Format::kBzImage && found[0].format != Format::kPe)) {
    std::vector<std::string> names;
    for (const Detection& d : found) {
      names.push_back(fmt::format("{} (offset {})", FormatName(d.format), d.offset));
    }
    return Refused(fmt::format("{} where a bzImage or a PE program is wanted{}",
                               Join(names, " and "), found.size() > 1 ? ": ambiguous" : ""));
  }
  ASSIGN_OR_RETURN(const Bytes file, ReadBytesAt(kernel, 0, static_cast<size_t>(kernel.size())));
  if (found[0].format == Format::kPe) return CheckPe(file);
  ASSIGN_OR_RETURN(BzImage bzimage, ParseBzImage(file));
  KernelFacts facts;
  facts.efi_machine = bzimage.efi_machine;
  facts.bzimage = std::move(bzimage);
  return facts;
}

}  // namespace vallum::formats
