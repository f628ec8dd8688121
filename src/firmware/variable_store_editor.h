// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "firmware/guid.h"
#include "firmware/variable_store.h"

namespace vallum::firmware {

// Changes the variables of a store that no machine uses at the moment, as OVMF itself would: a new
// value is appended and the old one marked as deleted, and only when the space at the end runs out
// the store is compacted (reclaim). What is not changed keeps its bytes: volume header, fault
// tolerant write area, records of other variables. A value. Source: EDK II VariableRuntimeDxe,
// UpdateVariable and Reclaim.
class VariableStoreEditor {
 public:
  // An empty store: byte for byte what the build's blank template is.
  static VariableStoreEditor Create(OvmfBuild build);
  //   image: a whole store; untrusted.
  // Errors: those of VariableStore::Parse.
  static Result<VariableStoreEditor> Open(ByteView image);

  // Adds the variable, or replaces the one with its name and vendor. Nothing changes when it is
  // there already with the same attributes, data and time.
  //   variable: name without zeros; attributes with non-volatile (1) and without append (0x40);
  //   time as it shall be stored.
  // Errors: kInvalidInput (a name or attributes that no store holds); kExhausted (it does not fit:
  // how many bytes are needed and how many there are, by the store or by the build's largest
  // variable). After an error the store is as before.
  Result<void> Set(const Variable& variable);
  // Errors: kNotFound (there is no such variable).
  Result<void> Delete(std::u16string_view name, const Guid& vendor);
  // Drops deleted and unfinished records, so that all their space is free.
  void Reclaim();

  // The variables in force, in the order of the store; valid until the next change.
  std::vector<const Variable*> Variables() const;
  // The one with this name and vendor, or nullptr; valid until the next change.
  const Variable* Find(std::u16string_view name, const Guid& vendor) const;
  OvmfBuild build() const { return build_; }
  // Bytes that further records can take, before and after Reclaim(); each record is padded to four.
  size_t FreeBytes() const { return store_end_ - free_offset_; }
  size_t FreeBytesAfterReclaim() const;
  // Bytes that the record of this variable takes, with its padding.
  static size_t RecordBytes(const Variable& variable);

  const Bytes& image() const { return image_; }
  Bytes Take() && { return std::move(image_); }

 private:
  struct Record {
    size_t offset = 0;
    Variable variable;
  };

  VariableStoreEditor(OvmfBuild build, Bytes image);
  Result<void> CheckSize(const Variable& variable) const;
  std::vector<Record>::const_iterator FindRecord(std::u16string_view name,
                                                 const Guid& vendor) const;
  void Append(const Variable& variable);
  void MarkDeleted(std::u16string_view name, const Guid& vendor);

  OvmfBuild build_;
  Bytes image_;
  size_t store_end_ = 0;
  size_t free_offset_ = 0;
  std::vector<Record> records_;  // in force
  // Older records whose replacement is complete, but which are not marked as deleted yet.
  std::vector<Record> superseded_;
};

// An empty store of the build with these variables.
// Errors: those of VariableStoreEditor::Set.
Result<Bytes> MakeVariableStoreImage(const std::vector<Variable>& variables,
                                     OvmfBuild build = OvmfBuild::k4M);

}  // namespace vallum::firmware
