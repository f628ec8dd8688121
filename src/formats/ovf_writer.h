// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "formats/ovf.h"

namespace vallum::formats {

// What a descriptor is made of: a machine with one disk.
struct OvfExport {
  std::string name;
  OvfFirmware firmware = OvfFirmware::kBios;
  bool secure_boot = false;
  bool vtpm = false;
  bool trusted_service = false;
  uint64_t cpus = 1;
  uint64_t memory = 0;  // bytes; written in MiB, rounded up
  OvfFile disk;         // id is not used
  uint64_t disk_capacity = 0;
  OvfVallum vallum;
  std::vector<OvfFile> files;  // that `vallum` names, with their sizes
};

// The URI by which OVF readers know a qcow2.
inline constexpr const char* kOvfQcow2Format =
    "http://www.gnome.org/~markmc/qcow-image-format.html";

// Writes an OVF 1.1 envelope: firmware, Secure Boot and vTPM as VMware writes them, BiosType and
// TrustedService as oVirt does, and a section of our own that other readers may skip.
// Errors: kInvalidInput (an href that is no package name). Pure.
// Source: DSP0243 1.1; VMware's vmw:Config; oVirt's OvfProperties.
Result<std::string> WriteOvf(const OvfExport& machine);

}  // namespace vallum::formats
