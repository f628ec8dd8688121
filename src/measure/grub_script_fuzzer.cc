// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <string>

#include "measure/grub_script.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  vallum::measure::GrubInput input;
  input.device = "hd0,gpt1";
  input.directory = "/EFI/BOOT";
  input.prefix = "/EFI/debian";
  input.embedded_script = "source $prefix/grub.cfg";
  vallum::measure::GrubVolume& volume = input.volumes.emplace_back();
  volume.device = input.device;
  volume.uuid = "5A11-0001";
  volume.files = {{"/EFI/debian/grub.cfg", {}, std::string(data, data + size)},
                  {"/vmlinuz", {}, {}},
                  {"/initrd.img", {}, {}}};
  static_cast<void>(vallum::measure::RunGrub(input));
  return 0;
}
