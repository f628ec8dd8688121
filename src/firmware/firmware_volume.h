// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "firmware/guid.h"

// docs/formats/firmware_volume.md mirrors these constants.
namespace vallum::firmware {

inline constexpr size_t kMaxFirmwareImage = size_t{16} << 20U;
inline constexpr size_t kMaxFirmwareUnpacked = size_t{32} << 20U;  // of all sections together
inline constexpr size_t kMaxFirmwareFiles = 4096;
inline constexpr size_t kMaxFirmwareSections = 16384;
inline constexpr size_t kMaxFirmwareNesting = 6;

inline constexpr uint8_t kFirmwareFileApplication = 0x09;

// A firmware volume, whole: what firmware measures of itself into PCR 0 is one of them.
struct FirmwareVolume {
  bool nested = false;       // inside another, usually compressed
  std::optional<Guid> name;  // of its extended header
  ByteView content;
};

// A program (PE32 section) of a file in a volume.
struct FirmwareProgram {
  Guid file;
  uint8_t file_type = 0;  // EFI_FV_FILETYPE: kFirmwareFileApplication, drivers, ...
  std::string name;       // of its user interface section, "Shell"; ASCII, "" for none
  ByteView image;
};

// What a firmware code file (OVMF_CODE*.fd) holds. A value that can be moved, not copied.
class FirmwareImage {
 public:
  // Reads the volumes one after the other, and what is packed in them with LZMA.
  //   image: untrusted; it must outlive the result.
  // Sections packed otherwise and TE programs are passed over.
  // Errors: kInvalidInput (no firmware volume, truncated); kCorrupt (sizes that contradict each
  // other, damaged LZMA), with the offset; kExhausted (above a limit).
  // Source: UEFI Platform Initialization Specification 1.7, volume 3, chapters 2 and 3.
  static Result<FirmwareImage> Parse(ByteView image);

  FirmwareImage(FirmwareImage&&) noexcept = default;
  FirmwareImage& operator=(FirmwareImage&&) noexcept = default;
  FirmwareImage(const FirmwareImage&) = delete;
  FirmwareImage& operator=(const FirmwareImage&) = delete;

  const std::vector<FirmwareVolume>& volumes() const { return volumes_; }
  const std::vector<FirmwareProgram>& programs() const { return programs_; }

 private:
  FirmwareImage() = default;
  Result<size_t> ReadVolume(ByteView data, size_t depth);
  Result<void> ReadFiles(ByteView volume, size_t begin, size_t depth);
  Result<void> ReadSections(ByteView data, FirmwareProgram& program, size_t depth);
  Result<void> ReadSection(uint8_t type, ByteView section, size_t header, FirmwareProgram& program,
                           size_t depth);
  Result<void> ReadPacked(ByteView section, size_t header, FirmwareProgram& program, size_t depth);

  std::deque<Bytes> unpacked_;  // volumes_ and programs_ point into them
  std::vector<FirmwareVolume> volumes_;
  std::vector<FirmwareProgram> programs_;
  size_t unpacked_bytes_ = 0;
  size_t files_ = 0;
  size_t sections_ = 0;
};

}  // namespace vallum::firmware
