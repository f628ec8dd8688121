// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "firmware/guid.h"
#include "firmware/variable_store.h"

// What reader and editor know of the bytes: docs/formats/variable_store.md.
namespace vallum::firmware::variable_store_format {

inline constexpr Guid kNvDataVolumeGuid =
    MakeGuid(0xfff12b8d, 0x7696, 0x4c8b, {0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50});
inline constexpr Guid kAuthenticatedStoreGuid =
    MakeGuid(0xaaf32c78, 0x947b, 0x439a, {0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92});
inline constexpr uint32_t kVolumeSignature = 0x4856465f;  // "_FVH"
inline constexpr uint32_t kVolumeAttributes = 0x0004feff;
inline constexpr uint16_t kVolumeHeaderSize = 72;
inline constexpr size_t kChecksumOffset = 50;
inline constexpr uint32_t kBlockSize = 4096;

inline constexpr uint8_t kStoreFormatted = 0x5a;
inline constexpr uint8_t kStoreHealthy = 0xfe;
inline constexpr size_t kStoreHeaderSize = 28;

inline constexpr uint16_t kRecordStart = 0x55aa;
inline constexpr size_t kRecordHeaderSize = 60;
inline constexpr size_t kRecordStateOffset = 2;
inline constexpr size_t kRecordAlignment = 4;
inline constexpr std::byte kErased{0xff};

// Record states: a bit is cleared at each step, as flash allows.
inline constexpr uint8_t kStateErased = 0xff;
inline constexpr uint8_t kStateHeaderValid = 0x7f;
inline constexpr uint8_t kStateAdded = 0x3f;
inline constexpr uint8_t kBitDeleted = 0x02;       // clear: deleted
inline constexpr uint8_t kBitInTransition = 0x01;  // clear: being replaced

// Sizes of a build (OvmfPkg/VarStore.fdf.inc, OvmfPkg/OvmfPkgX64.dsc).
struct Geometry {
  OvmfBuild build;
  size_t volume_size;
  uint32_t store_size;    // header included
  size_t working_offset;  // of the fault tolerant working block, one block long
  size_t spare_offset;    // up to the volume's end
  // The largest record, header and name included, that the firmware itself reads and writes.
  size_t max_record;
  size_t max_signed_record;  // with EFI_VARIABLE_TIME_BASED_AUTHENTICATED_WRITE_ACCESS
};
inline constexpr std::array kGeometries = {
    Geometry{.build = OvmfBuild::k2M,
             .volume_size = 0x20000,
             .store_size = 0xdfb8,
             .working_offset = 0xf000,
             .spare_offset = 0x10000,
             .max_record = 0x2000,
             .max_signed_record = 0x2800},
    Geometry{.build = OvmfBuild::k4M,
             .volume_size = 0x84000,
             .store_size = 0x3ffb8,
             .working_offset = 0x41000,
             .spare_offset = 0x42000,
             .max_record = 0x8400,
             .max_signed_record = 0x8400},
};

const Geometry& GeometryOf(OvmfBuild build);

// Whether all bytes are 0xff.
bool Erased(ByteView bytes);

constexpr size_t Aligned(size_t record_size) {
  return (record_size + kRecordAlignment - 1) / kRecordAlignment * kRecordAlignment;
}

}  // namespace vallum::firmware::variable_store_format
