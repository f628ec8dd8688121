// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "firmware/signature_list.h"
#include "firmware/variable_store.h"
#include "firmware/variable_store_editor.h"

namespace {

// The volume header's checksum would stop nearly every mutation: start with a sound image and put
// the input where the records are.
vallum::Bytes ImageWithRecords(vallum::ByteView records) {
  constexpr size_t kFirstRecord = 100;
  vallum::Bytes image = *vallum::firmware::MakeVariableStoreImage({});
  const size_t count = records.size() < 4096 ? records.size() : 4096;
  for (size_t i = 0; i < count; ++i) {
    image[kFirstRecord + i] = records[i];
  }
  return image;
}

void Check(vallum::ByteView image) {
  namespace firmware = vallum::firmware;
  const auto store = firmware::VariableStore::Parse(image);
  if (!store.has_value()) {
    return;
  }
  for (const firmware::Variable* variable : store->Variables()) {
    CHECK(variable->data.size() <= image.size());
    CHECK(variable->NameText().size() < 1000);
  }
  static_cast<void>(firmware::SummarizeKeySet(*store).has_value());
  static_cast<void>(firmware::DeriveSecureBoot(*store));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const vallum::ByteView input(reinterpret_cast<const std::byte*>(data), size);
  Check(input);
  Check(ImageWithRecords(input));
  return 0;
}
