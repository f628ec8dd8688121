// SPDX-License-Identifier: Apache-2.0
#include "firmware/variable_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <tuple>
#include <utility>

#include "base/text.h"
#include "firmware/variable_store_format.h"

namespace vallum::firmware {
namespace {

using namespace variable_store_format;  // NOLINT(google-build-using-namespace): constants

constexpr Guid kPlainStoreGuid =
    MakeGuid(0xddcf3616, 0x3275, 0x4164, {0x98, 0xb6, 0xfe, 0x85, 0x70, 0x7f, 0xfe, 0x7d});
constexpr size_t kVolumeHeaderMinimum = 56;
constexpr size_t kVolumeHeaderMaximum = 4096;

struct VolumeHeader {
  size_t header_size = 0;
  uint64_t volume_size = 0;
};

Result<VolumeHeader> ReadVolumeHeader(ByteView image) {
  ByteCursor cursor(image);
  RETURN_IF_ERROR(cursor.Skip(16)).context("firmware volume header");
  ASSIGN_OR_RETURN(const Guid file_system, Guid::Read(cursor));
  VolumeHeader header;
  ASSIGN_OR_RETURN(header.volume_size, cursor.ReadU64Le());
  ASSIGN_OR_RETURN(const uint32_t signature, cursor.ReadU32Le());
  if (signature != kVolumeSignature) {
    return InvalidInput("no firmware volume: bytes 40 to 43 are not _FVH")
        .WithFix("give the variables file (OVMF_VARS*.fd), not the code file or another image");
  }
  if (file_system != kNvDataVolumeGuid) {
    return InvalidInput(
               fmt::format("firmware volume {} holds no variables", file_system.ToString()))
        .WithFix("give the variables file (OVMF_VARS*.fd), not the code file");
  }
  RETURN_IF_ERROR(cursor.Skip(4));
  ASSIGN_OR_RETURN(const uint16_t header_size, cursor.ReadU16Le());
  header.header_size = header_size;
  if (header_size < kVolumeHeaderMinimum || header_size > kVolumeHeaderMaximum ||
      header_size % 2 != 0 || header_size > image.size()) {
    return Corrupt(fmt::format("volume header says that it has {} bytes", header_size));
  }
  return header;
}

// "The sum of all 16-bit words of the header is zero" (PI specification, volume 3, section 3.2.1).
Result<void> CheckVolumeHeader(ByteView image, const VolumeHeader& header) {
  ByteCursor words(image.first(header.header_size));
  uint16_t sum = 0;
  while (!words.AtEnd()) {
    ASSIGN_OR_RETURN(const uint16_t word, words.ReadU16Le());
    sum = static_cast<uint16_t>(sum + word);
  }
  if (sum != 0) {
    return Corrupt(
        fmt::format("the checksum of the volume header (bytes 0 to {}) is off by {:#06x}",
                    header.header_size - 1, sum));
  }
  if (header.volume_size > image.size()) {
    return Corrupt(fmt::format("the volume has {} bytes, but the image only {}", header.volume_size,
                               image.size()));
  }
  if (header.volume_size < header.header_size + kStoreHeaderSize) {
    return Corrupt(
        fmt::format("a volume of {} bytes has no room for a variable store", header.volume_size));
  }
  return Ok();
}

// The build with these sizes.
Result<const Geometry*> FindGeometry(const VolumeHeader& volume, size_t store_size) {
  for (const Geometry& geometry : kGeometries) {
    if (geometry.volume_size == volume.volume_size && geometry.store_size == store_size &&
        volume.header_size == kVolumeHeaderSize) {
      return &geometry;
    }
  }
  return InvalidInput(
             fmt::format("a store of {} bytes in a volume of {} is of no build of OVMF known here",
                         store_size, volume.volume_size))
      .WithFix("use a template of OVMF's 2M or 4M build (OVMF_VARS.fd, OVMF_VARS_4M.fd)");
}

Result<VariableStoreLayout> ReadLayout(ByteView image) {
  ASSIGN_OR_RETURN(const VolumeHeader volume, ReadVolumeHeader(image));
  RETURN_IF_ERROR(CheckVolumeHeader(image, volume));
  VariableStoreLayout layout;
  layout.image_size = image.size();
  layout.volume_header_size = volume.header_size;
  layout.store_offset = volume.header_size;
  ByteCursor cursor(image.subspan(layout.store_offset));
  ASSIGN_OR_RETURN(const Guid guid, Guid::Read(cursor));
  if (guid == kPlainStoreGuid) {
    return InvalidInput("the variable store is not authenticated: Secure Boot cannot use it")
        .WithFix("use a template of an OVMF build with Secure Boot support");
  }
  if (guid != kAuthenticatedStoreGuid) {
    return Corrupt(
        fmt::format("offset {}: unknown variable store {}", layout.store_offset, guid.ToString()));
  }
  ASSIGN_OR_RETURN(const uint32_t size, cursor.ReadU32Le());
  ASSIGN_OR_RETURN(const uint8_t format, cursor.ReadU8());
  ASSIGN_OR_RETURN(const uint8_t state, cursor.ReadU8());
  if (format != kStoreFormatted || state != kStoreHealthy) {
    return Corrupt(fmt::format("offset {}: the store is not formatted (format {:#x}, state {:#x})",
                               layout.store_offset, format, state));
  }
  if (size < kStoreHeaderSize || size > volume.volume_size - layout.store_offset) {
    return Corrupt(fmt::format("offset {}: a store of {} bytes does not fit its volume of {}",
                               layout.store_offset, size, volume.volume_size));
  }
  layout.store_size = size;
  ASSIGN_OR_RETURN(const Geometry* geometry, FindGeometry(volume, size));
  layout.build = geometry->build;
  return layout;
}

Result<VariableState> StateOf(uint8_t raw, size_t offset) {
  if (raw == kStateErased || raw == kStateHeaderValid) {
    return VariableState::kUnfinished;
  }
  if ((raw & kBitDeleted) == 0) {
    return VariableState::kDeleted;
  }
  if (raw == kStateAdded) {
    return VariableState::kAdded;
  }
  if (raw == (kStateAdded & static_cast<uint8_t>(~kBitInTransition))) {
    return VariableState::kInTransition;
  }
  return Corrupt(fmt::format("offset {}: a variable has the unknown state {:#04x}", offset, raw));
}

Result<VariableTime> ReadTime(ByteCursor& cursor) {
  VariableTime time;
  ASSIGN_OR_RETURN(time.year, cursor.ReadU16Le());
  ASSIGN_OR_RETURN(time.month, cursor.ReadU8());
  ASSIGN_OR_RETURN(time.day, cursor.ReadU8());
  ASSIGN_OR_RETURN(time.hour, cursor.ReadU8());
  ASSIGN_OR_RETURN(time.minute, cursor.ReadU8());
  ASSIGN_OR_RETURN(time.second, cursor.ReadU8());
  RETURN_IF_ERROR(cursor.Skip(9));  // padding, nanosecond, time zone, daylight, padding
  return time;
}

// The name with its closing zero, as UTF-16.
Result<std::u16string> ReadName(ByteView bytes, size_t offset) {
  if (bytes.size() < 4 || bytes.size() % 2 != 0) {
    return Corrupt(fmt::format("offset {}: a name of {} bytes", offset, bytes.size()));
  }
  std::u16string name;
  ByteCursor cursor(bytes);
  while (!cursor.AtEnd()) {
    ASSIGN_OR_RETURN(const uint16_t unit, cursor.ReadU16Le());
    name.push_back(static_cast<char16_t>(unit));
  }
  if (name.find(u'\0') != name.size() - 1) {
    return Corrupt(fmt::format("offset {}: a name does not end with its only zero", offset));
  }
  name.pop_back();
  return name;
}

// Reads the record at the cursor, which must hold the start mark.
//   base: the image's offset of the cursor's first byte.
Result<VariableRecord> ReadRecord(ByteCursor& cursor, size_t base) {
  VariableRecord record;
  record.offset = base + cursor.offset();
  RETURN_IF_ERROR(cursor.Skip(2));
  ASSIGN_OR_RETURN(const uint8_t state, cursor.ReadU8());
  RETURN_IF_ERROR(cursor.Skip(1));
  Variable& variable = record.variable;
  ASSIGN_OR_RETURN(variable.attributes, cursor.ReadU32Le());
  ASSIGN_OR_RETURN(variable.monotonic_count, cursor.ReadU64Le());
  ASSIGN_OR_RETURN(variable.time, ReadTime(cursor));
  ASSIGN_OR_RETURN(variable.public_key_index, cursor.ReadU32Le());
  ASSIGN_OR_RETURN(uint32_t name_size, cursor.ReadU32Le());
  ASSIGN_OR_RETURN(uint32_t data_size, cursor.ReadU32Le());
  ASSIGN_OR_RETURN(variable.vendor, Guid::Read(cursor));
  ASSIGN_OR_RETURN(record.state, StateOf(state, record.offset));
  if (state == kStateErased) {
    // The firmware ended while it wrote the header, whose state comes last: what is there of it may
    // be any part. The firmware goes on right behind it (EDK II, NameSizeOfVariable).
    name_size = 0;
    data_size = 0;
  }
  if (name_size > cursor.remaining() || data_size > cursor.remaining() - name_size) {
    return Corrupt(fmt::format("offset {}: a variable (name {} bytes, data {}) does not fit",
                               record.offset, name_size, data_size));
  }
  ASSIGN_OR_RETURN(const ByteView name, cursor.ReadBytes(name_size));
  ASSIGN_OR_RETURN(const ByteView data, cursor.ReadBytes(data_size));
  record.size = kRecordHeaderSize + name_size + data_size;
  if (record.state != VariableState::kUnfinished) {  // else name and data were never written
    ASSIGN_OR_RETURN(variable.name, ReadName(name, record.offset));
    variable.data = ToBytes(data);
  }
  return record;
}

bool SameVariable(const Variable& a, const Variable& b) {
  return a.name == b.name && a.vendor == b.vendor;
}

// A record being replaced counts only as long as its replacement is not there.
Result<std::vector<size_t>> RecordsInForce(const std::vector<VariableRecord>& records) {
  const auto key = [&](size_t i) {
    return std::pair(std::u16string_view(records[i].variable.name), records[i].variable.vendor);
  };
  const auto rank = [&](size_t i) { return records[i].state == VariableState::kAdded ? 0 : 1; };
  std::vector<size_t> live;
  for (size_t i = 0; i < records.size(); ++i) {
    if (records[i].state == VariableState::kAdded ||
        records[i].state == VariableState::kInTransition) {
      live.push_back(i);
    }
  }
  std::sort(live.begin(), live.end(), [&](size_t a, size_t b) {
    return std::tuple(key(a), rank(a), a) < std::tuple(key(b), rank(b), b);
  });
  std::vector<size_t> kept;
  for (const size_t i : live) {
    if (!kept.empty() && SameVariable(records[kept.back()].variable, records[i].variable)) {
      if (records[i].state == records[kept.back()].state) {
        return Corrupt(fmt::format("offsets {} and {}: variable {} is there twice",
                                   records[kept.back()].offset, records[i].offset,
                                   records[i].variable.NameText()));
      }
      continue;
    }
    kept.push_back(i);
  }
  std::sort(kept.begin(), kept.end());
  return kept;
}

uint8_t RawState(VariableState state) {
  switch (state) {
    case VariableState::kAdded:
      return kStateAdded;
    case VariableState::kInTransition:
      return kStateAdded & static_cast<uint8_t>(~kBitInTransition);
    case VariableState::kDeleted:
      return kStateAdded & static_cast<uint8_t>(~kBitDeleted);
    case VariableState::kUnfinished:
      return kStateHeaderValid;
  }
  return kStateHeaderValid;
}

Result<FaultTolerantWrite> ReadWorkingBlock(ByteView image, const VariableStoreLayout& layout) {
  const Geometry& geometry = GeometryOf(layout.build);
  return ReadFaultTolerantWrite(
      image.subspan(geometry.working_offset, kBlockSize),
      image.subspan(geometry.spare_offset, geometry.volume_size - geometry.spare_offset),
      geometry.working_offset);
}

}  // namespace

const Geometry& variable_store_format::GeometryOf(OvmfBuild build) {
  return *std::ranges::find(kGeometries, build, &Geometry::build);
}

bool variable_store_format::Erased(ByteView bytes) {
  return bytes.empty() || (bytes.front() == kErased &&
                           std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

std::string_view OvmfBuildName(OvmfBuild build) {
  switch (build) {
    case OvmfBuild::k2M:
      return "2M";
    case OvmfBuild::k4M:
      return "4M";
  }
  return "";
}

std::string VariableTime::ToString() const {
  if (*this == VariableTime{}) {
    return "";
  }
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", year, month, day, hour, minute,
                     second);
}

std::string Variable::NameText() const {
  std::string text;
  for (const char16_t unit : name) {
    if (unit >= 0x20 && unit < 0x7f) {
      text += static_cast<char>(unit);
    } else {
      text += fmt::format("\\u{:04x}", static_cast<unsigned>(unit));
    }
  }
  return Printable(text);
}

Result<VariableStore> VariableStore::Parse(ByteView image) {
  if (image.size() > kMaxImageSize) {
    return Exhausted(fmt::format("a variable store of {} bytes; at most {} are read", image.size(),
                                 kMaxImageSize));
  }
  VariableStore store;
  ASSIGN_OR_RETURN(store.layout_, ReadLayout(image));
  VariableStoreLayout& layout = store.layout_;
  ASSIGN_OR_RETURN(store.write_, ReadWorkingBlock(image, layout));
  ByteCursor cursor(image.subspan(layout.store_offset, layout.store_size));
  RETURN_IF_ERROR(cursor.Skip(kStoreHeaderSize));
  while (cursor.remaining() >= kRecordHeaderSize) {
    ByteCursor mark = cursor;
    ASSIGN_OR_RETURN(const uint16_t start, mark.ReadU16Le());
    if (start != kRecordStart) {
      break;
    }
    if (store.records_.size() == kMaxRecords) {
      return Exhausted(fmt::format("more than {} records in a variable store", kMaxRecords));
    }
    ASSIGN_OR_RETURN(VariableRecord record, ReadRecord(cursor, layout.store_offset));
    store.records_.push_back(std::move(record));
    // Records start at multiples of four, counted from the store's own start.
    const size_t padding = (4 - cursor.offset() % 4) % 4;
    RETURN_IF_ERROR(cursor.Skip(std::min(padding, cursor.remaining())));
  }
  layout.free_offset = layout.store_offset + cursor.offset();
  // One byte of the mark may be there, too, where the next record was begun: it is written again.
  const ByteView rest = cursor.Rest();
  const bool begun = !rest.empty() && rest[0] == std::byte{kRecordStart & 0xffU};
  if (!Erased(begun ? rest.subspan(1) : rest)) {
    return Corrupt(fmt::format("offset {}: neither a variable nor erased", layout.free_offset));
  }
  ASSIGN_OR_RETURN(store.in_force_, RecordsInForce(store.records_));
  return store;
}

std::vector<const Variable*> VariableStore::Variables() const {
  std::vector<const Variable*> variables;
  for (const size_t i : in_force_) {
    variables.push_back(&records_[i].variable);
  }
  return variables;
}

const Variable* VariableStore::Find(std::string_view name, const Guid& vendor) const {
  const std::u16string wide(name.begin(), name.end());
  for (const size_t i : in_force_) {
    const Variable& variable = records_[i].variable;
    if (variable.name == wide && variable.vendor == vendor) {
      return &variable;
    }
  }
  return nullptr;
}

std::vector<std::string> VariableStore::Notes() const {
  std::vector<std::string> notes;
  if (write_ == FaultTolerantWrite::kAbandoned) {
    notes.emplace_back(
        "a rewrite of the store was announced and never begun; the firmware drops it at its next "
        "start");
  }
  for (size_t i = 0; i < records_.size(); ++i) {
    const VariableRecord& record = records_[i];
    if (record.state == VariableState::kUnfinished) {
      notes.push_back(
          fmt::format("offset {}: a variable that was never written to the end; it does not count",
                      record.offset));
    } else if (record.state == VariableState::kInTransition) {
      notes.push_back(fmt::format("offset {}: an update of {} was interrupted; its {} value counts",
                                  record.offset, record.variable.NameText(),
                                  std::ranges::binary_search(in_force_, i) ? "old" : "new"));
    }
  }
  return notes;
}

Bytes EncodeRecord(const Variable& variable, VariableState state) {
  ByteWriter out;
  out.U16Le(kRecordStart).U8(RawState(state)).U8(0);
  out.U32Le(variable.attributes).U64Le(variable.monotonic_count);
  const VariableTime& time = variable.time;
  out.U16Le(time.year).U8(time.month).U8(time.day).U8(time.hour).U8(time.minute).U8(time.second);
  out.Zeros(9).U32Le(variable.public_key_index);
  out.U32Le(static_cast<uint32_t>((variable.name.size() + 1) * 2));
  out.U32Le(static_cast<uint32_t>(variable.data.size())).Raw(variable.vendor.bytes);
  for (const char16_t unit : variable.name) {
    out.U16Le(unit);
  }
  return std::move(out.U16Le(0).Raw(variable.data)).Take();
}

std::string_view SecureBootSettingName(SecureBootSetting setting) {
  switch (setting) {
    case SecureBootSetting::kOff:
      return "off";
    case SecureBootSetting::kOn:
      return "on";
    case SecureBootSetting::kSetupMode:
      return "setup mode";
  }
  return "";
}

SecureBootSetting DeriveSecureBoot(const VariableStore& store) {
  if (store.Find("PK", kGlobalVariableGuid) == nullptr) {
    return SecureBootSetting::kSetupMode;
  }
  const Variable* enable = store.Find("SecureBootEnable", kSecureBootEnableGuid);
  if (enable == nullptr) {
    return SecureBootSetting::kOn;  // the firmware creates it as 1 at the first start
  }
  return enable->data == Bytes{std::byte{1}} ? SecureBootSetting::kOn : SecureBootSetting::kOff;
}

}  // namespace vallum::firmware
