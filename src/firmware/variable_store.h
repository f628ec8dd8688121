// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "firmware/fault_tolerant_write.h"
#include "firmware/guid.h"

namespace vallum::firmware {

// The states a record passes through; see docs/formats/variable_store.md.
enum class VariableState {
  kAdded,         // in force
  kInTransition,  // being replaced: in force unless a kAdded record has the same name and vendor
  kDeleted,
  kUnfinished,  // the firmware stopped in the middle of writing it
};

// An EFI_TIME, as authenticated variables carry it.
struct VariableTime {
  uint16_t year = 0;
  uint8_t month = 0;
  uint8_t day = 0;
  uint8_t hour = 0;
  uint8_t minute = 0;
  uint8_t second = 0;

  // "2010-03-06T19:17:21Z"; "" for the zero time of variables without one.
  std::string ToString() const;
  auto operator<=>(const VariableTime&) const = default;
};

// One UEFI variable.
struct Variable {
  std::u16string name;  // without the closing zero
  Guid vendor;
  uint32_t attributes =
      0;  // EFI_VARIABLE_*: 1 non-volatile, 2 boot, 4 runtime, 0x20 time-based auth
  Bytes data;
  VariableTime time;
  uint64_t monotonic_count = 0;
  uint32_t public_key_index = 0;

  // The name for people: UTF-8, safe to print.
  std::string NameText() const;
  bool operator==(const Variable&) const = default;
};

// One record of the store, whatever its state; offset counts from the start of the image.
struct VariableRecord {
  VariableState state = VariableState::kAdded;
  size_t offset = 0;
  size_t size = 0;  // header, name and data, without the padding to four bytes
  Variable variable;
};

// The builds of OVMF differ in the size of their variable store; a store of one is useless to the
// other.
enum class OvmfBuild {
  k2M,  // a file of 128 KiB; builds of 1 MiB have the same
  k4M,  // 528 KiB
};
std::string_view OvmfBuildName(OvmfBuild build);  // "2M", "4M"

// Where the parts of the image lie.
struct VariableStoreLayout {
  OvmfBuild build = OvmfBuild::k4M;
  size_t image_size = 0;
  size_t volume_header_size = 0;
  size_t store_offset = 0;  // of VARIABLE_STORE_HEADER
  size_t store_size = 0;   // header included; what follows belongs to the fault tolerant write area
  size_t free_offset = 0;  // first byte after the last record
};

// The contents of an OVMF variable store (OVMF_VARS*.fd, an instance's vars.fd). A value.
class VariableStore {
 public:
  // Parses a whole image: firmware volume header, variable store header, all records.
  //   image: at most kMaxImageSize; untrusted.
  // Accepts the layouts of OvmfBuild, authenticated records only (as OVMF writes them). A rewrite
  // of the store that was interrupted is damage, even when the records can be read. Errors:
  // kInvalidInput (not a variable store), kCorrupt (a store that contradicts itself, or a pending
  // write: what and at which offset), kExhausted (larger than a limit).
  static Result<VariableStore> Parse(ByteView image);

  static constexpr size_t kMaxImageSize = size_t{16} << 20U;
  static constexpr size_t kMaxRecords = 8192;

  // The variables in force, in the order of the store.
  std::vector<const Variable*> Variables() const;
  // The variable in force with this name and vendor, or nullptr.
  //   name: compared with the whole name; ASCII.
  const Variable* Find(std::string_view name, const Guid& vendor) const;
  // All records, deleted ones too.
  const std::vector<VariableRecord>& records() const { return records_; }
  const VariableStoreLayout& layout() const { return layout_; }
  // What a stop in the middle of an update left behind without doing harm, in words.
  std::vector<std::string> Notes() const;

 private:
  VariableStore() = default;
  std::vector<VariableRecord> records_;
  std::vector<size_t> in_force_;  // indices into records_
  VariableStoreLayout layout_;
  FaultTolerantWrite write_ = FaultTolerantWrite::kIdle;
};

// The bytes of one record as OVMF writes it, without padding: the inverse of what Parse reads.
Bytes EncodeRecord(const Variable& variable, VariableState state);

// What firmware derives at boot; SecureBoot itself is never stored.
enum class SecureBootSetting {
  kOff,        // keys are enrolled, but SecureBootEnable is 0
  kOn,         // keys are enrolled and SecureBootEnable is 1 or not there yet
  kSetupMode,  // no platform key, so Secure Boot is off
};
std::string_view SecureBootSettingName(SecureBootSetting setting);
// As EDK II's AuthVariableLib decides it from PK and SecureBootEnable.
SecureBootSetting DeriveSecureBoot(const VariableStore& store);

}  // namespace vallum::firmware
