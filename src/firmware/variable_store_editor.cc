// SPDX-License-Identifier: Apache-2.0
#include "firmware/variable_store_editor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "base/check.h"
#include "firmware/fault_tolerant_write.h"
#include "firmware/variable_store_format.h"

namespace vallum::firmware {
namespace {

using namespace variable_store_format;  // NOLINT(google-build-using-namespace): constants

constexpr uint32_t kNonVolatile = 0x01;
constexpr uint32_t kTimeBasedAuthenticated = 0x20;
constexpr uint32_t kAppendWrite = 0x40;

size_t RecordSize(const Variable& variable) {
  return kRecordHeaderSize + (variable.name.size() + 1) * 2 + variable.data.size();
}

void Overwrite(Bytes& image, size_t offset, ByteView bytes) {
  std::ranges::copy(bytes, image.begin() + static_cast<std::ptrdiff_t>(offset));
}

Bytes MakeVolumeHeader(const Geometry& geometry) {
  ByteWriter header;
  header.Zeros(16).Raw(kNvDataVolumeGuid.bytes).U64Le(geometry.volume_size);
  header.U32Le(kVolumeSignature).U32Le(kVolumeAttributes).U16Le(kVolumeHeaderSize);
  header.U16Le(0).U16Le(0).U8(0).U8(2);
  header.U32Le(static_cast<uint32_t>(geometry.volume_size / kBlockSize)).U32Le(kBlockSize);
  header.U32Le(0).U32Le(0);
  uint16_t sum = 0;
  const Bytes& bytes = header.bytes();
  for (size_t i = 0; i < bytes.size(); i += 2) {
    sum = static_cast<uint16_t>(sum + std::to_integer<unsigned>(bytes[i]) +
                                (std::to_integer<unsigned>(bytes[i + 1]) << 8U));
  }
  ByteWriter checksum;
  checksum.U16Le(static_cast<uint16_t>(-sum));
  Bytes out = std::move(header).Take();
  Overwrite(out, kChecksumOffset, checksum.bytes());
  return out;
}

Result<void> CheckVariable(const Variable& variable) {
  if (variable.name.empty() || variable.name.find(u'\0') != std::u16string::npos) {
    return InvalidInput("a variable's name is empty or has a zero inside");
  }
  if ((variable.attributes & kNonVolatile) == 0) {
    return InvalidInput(
        fmt::format("variable {} has attributes {:#x}: only non-volatile ones (1) "
                    "are stored",
                    variable.NameText(), variable.attributes));
  }
  if ((variable.attributes & kAppendWrite) != 0) {
    return InvalidInput(
        fmt::format("variable {} has attributes {:#x}: appending (0x40) is a way to "
                    "write and never stored",
                    variable.NameText(), variable.attributes));
  }
  return Ok();
}

}  // namespace

VariableStoreEditor::VariableStoreEditor(OvmfBuild build, Bytes image)
    : build_(build), image_(std::move(image)) {}

VariableStoreEditor VariableStoreEditor::Create(OvmfBuild build) {
  const Geometry& geometry = GeometryOf(build);
  VariableStoreEditor editor(build, Bytes(geometry.volume_size, kErased));
  Overwrite(editor.image_, 0, MakeVolumeHeader(geometry));
  ByteWriter store;
  store.Raw(kAuthenticatedStoreGuid.bytes).U32Le(geometry.store_size).U8(kStoreFormatted);
  store.U8(kStoreHealthy).U16Le(0).U32Le(0);
  Overwrite(editor.image_, kVolumeHeaderSize, store.bytes());
  Overwrite(editor.image_, geometry.working_offset, MakeWorkingBlock(kBlockSize));
  editor.store_end_ = kVolumeHeaderSize + geometry.store_size;
  editor.free_offset_ = kVolumeHeaderSize + kStoreHeaderSize;
  return editor;
}

Result<VariableStoreEditor> VariableStoreEditor::Open(ByteView image) {
  ASSIGN_OR_RETURN(const VariableStore store, VariableStore::Parse(image));
  VariableStoreEditor editor(store.layout().build, ToBytes(image));
  editor.store_end_ = store.layout().store_offset + store.layout().store_size;
  editor.free_offset_ = std::min(store.layout().free_offset, editor.store_end_);
  const std::vector<const Variable*> in_force = store.Variables();
  auto next = in_force.begin();
  for (const VariableRecord& record : store.records()) {
    if (next != in_force.end() && *next == &record.variable) {
      editor.records_.push_back({.offset = record.offset, .variable = record.variable});
      ++next;
    } else if (record.state == VariableState::kInTransition) {
      editor.superseded_.push_back({.offset = record.offset, .variable = record.variable});
    }
  }
  return editor;
}

size_t VariableStoreEditor::RecordBytes(const Variable& variable) {
  return Aligned(RecordSize(variable));
}

std::vector<VariableStoreEditor::Record>::const_iterator VariableStoreEditor::FindRecord(
    std::u16string_view name, const Guid& vendor) const {
  return std::ranges::find_if(records_, [&](const Record& record) {
    return record.variable.name == name && record.variable.vendor == vendor;
  });
}

const Variable* VariableStoreEditor::Find(std::u16string_view name, const Guid& vendor) const {
  const auto it = FindRecord(name, vendor);
  return it == records_.end() ? nullptr : &it->variable;
}

std::vector<const Variable*> VariableStoreEditor::Variables() const {
  std::vector<const Variable*> variables;
  variables.reserve(records_.size());
  for (const Record& record : records_) variables.push_back(&record.variable);
  return variables;
}

size_t VariableStoreEditor::FreeBytesAfterReclaim() const {
  size_t used = kVolumeHeaderSize + kStoreHeaderSize;
  for (const Record& record : records_) used += RecordBytes(record.variable);
  return store_end_ - std::min(used, store_end_);
}

// The firmware passes variables through buffers of a fixed size: what is larger it could neither
// update nor, through SMM, read.
Result<void> VariableStoreEditor::CheckSize(const Variable& variable) const {
  const Geometry& geometry = GeometryOf(build_);
  const bool is_signed = (variable.attributes & kTimeBasedAuthenticated) != 0;
  const size_t most = is_signed ? geometry.max_signed_record : geometry.max_record;
  if (RecordSize(variable) > most) {
    Error error = Exhausted(fmt::format(
        "variable {} takes {} bytes; the firmware of OVMF's {} build handles at most {}",
        variable.NameText(), RecordSize(variable), OvmfBuildName(build_), most));
    if (build_ == OvmfBuild::k4M) return error;
    return std::move(error).WithFix("use the 4M build of OVMF");
  }
  const Variable* old = Find(variable.name, variable.vendor);
  const size_t available = FreeBytesAfterReclaim() + (old == nullptr ? 0 : RecordBytes(*old));
  if (RecordBytes(variable) > available) {
    return Exhausted(fmt::format("variable {} needs {} bytes; the store has {} left",
                                 variable.NameText(), RecordBytes(variable), available))
        .WithFix("delete variables that are not needed");
  }
  return Ok();
}

void VariableStoreEditor::MarkDeleted(std::u16string_view name, const Guid& vendor) {
  const auto is_it = [&](const Record& record) {
    return record.variable.name == name && record.variable.vendor == vendor;
  };
  for (std::vector<Record>* records : {&records_, &superseded_}) {
    for (const Record& record : *records) {
      if (is_it(record)) image_[record.offset + kRecordStateOffset] &= ~std::byte{kBitDeleted};
    }
    std::erase_if(*records, is_it);
  }
}

void VariableStoreEditor::Append(const Variable& variable) {
  const Bytes record = EncodeRecord(variable, VariableState::kAdded);
  CHECK(free_offset_ + Aligned(record.size()) <= store_end_);
  Overwrite(image_, free_offset_, record);
  records_.push_back({.offset = free_offset_, .variable = variable});
  free_offset_ += Aligned(record.size());
}

Result<void> VariableStoreEditor::Set(const Variable& variable) {
  RETURN_IF_ERROR(CheckVariable(variable));
  const Variable* old = Find(variable.name, variable.vendor);
  if (old != nullptr && *old == variable) return Ok();
  RETURN_IF_ERROR(CheckSize(variable));
  const Variable added = variable;  // may be one of ours, which goes now
  if (const auto it = FindRecord(added.name, added.vendor); it != records_.end()) {
    image_[it->offset + kRecordStateOffset] &= ~std::byte{kBitInTransition};
  }
  MarkDeleted(added.name, added.vendor);
  if (RecordBytes(added) > FreeBytes()) Reclaim();
  Append(added);
  return Ok();
}

Result<void> VariableStoreEditor::Delete(std::u16string_view name, const Guid& vendor) {
  if (Find(name, vendor) == nullptr) {
    Variable wanted;
    wanted.name = name;
    return NotFound(
        fmt::format("there is no variable {} of {}", wanted.NameText(), vendor.ToString()));
  }
  const std::u16string owned(name);  // may belong to the record that goes
  const Guid vendor_copy = vendor;
  MarkDeleted(owned, vendor_copy);
  return Ok();
}

void VariableStoreEditor::Reclaim() {
  const Bytes before = image_;
  free_offset_ = kVolumeHeaderSize + kStoreHeaderSize;
  std::fill(image_.begin() + static_cast<std::ptrdiff_t>(free_offset_),
            image_.begin() + static_cast<std::ptrdiff_t>(store_end_), kErased);
  for (Record& record : records_) {
    const size_t size = RecordSize(record.variable);
    Overwrite(image_, free_offset_, ByteView(before).subspan(record.offset, size));
    image_[free_offset_ + kRecordStateOffset] = std::byte{kStateAdded};
    record.offset = free_offset_;
    free_offset_ += Aligned(size);
  }
  superseded_.clear();
}

Result<Bytes> MakeVariableStoreImage(const std::vector<Variable>& variables, OvmfBuild build) {
  VariableStoreEditor editor = VariableStoreEditor::Create(build);
  for (const Variable& variable : variables) RETURN_IF_ERROR(editor.Set(variable));
  return std::move(editor).Take();
}

}  // namespace vallum::firmware
