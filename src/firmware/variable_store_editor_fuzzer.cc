// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <utility>

#include "base/check.h"
#include "firmware/variable_store_editor.h"
#include "firmware/variable_store_format.h"

namespace {

namespace firmware = vallum::firmware;
using vallum::ByteCursor;
using vallum::Bytes;
using vallum::ByteView;

using Model = std::map<std::pair<std::u16string, firmware::Guid>, firmware::Variable>;

Model ModelOf(const std::vector<const firmware::Variable*>& variables) {
  Model model;
  for (const firmware::Variable* variable : variables) {
    CHECK(model.emplace(std::pair(variable->name, variable->vendor), *variable).second);
  }
  return model;
}

// The first bytes are an editing script, the rest lies where the records and the working block are.
Bytes MakeImage(ByteView input, firmware::OvmfBuild build) {
  Bytes image = firmware::VariableStoreEditor::Create(build).image();
  const auto& geometry = firmware::variable_store_format::GeometryOf(build);
  const size_t queue = std::min<size_t>(input.size() / 4, 400);
  std::ranges::copy(input.first(queue),
                    image.begin() + static_cast<std::ptrdiff_t>(geometry.working_offset + 32));
  const ByteView records = input.subspan(queue, std::min<size_t>(input.size() - queue, 8192));
  std::ranges::copy(records, image.begin() + 100);
  return image;
}

void Edit(firmware::VariableStoreEditor& editor, Model& model, ByteCursor& script) {
  const auto operation = script.ReadU8();
  const auto size = script.ReadU16Le();
  if (!operation.has_value() || !size.has_value()) return;
  firmware::Variable variable;
  variable.name = std::u16string(1, static_cast<char16_t>(u'a' + *operation % 8));
  if (*operation % 5 == 0 && !model.empty()) {
    variable = std::next(model.begin(), *operation % std::ssize(model))->second;
  }
  const auto key = std::pair(variable.name, variable.vendor);
  if (*operation >= 192) {
    CHECK(editor.Delete(variable.name, variable.vendor).has_value() == (model.erase(key) == 1));
  } else if (*operation == 191) {
    editor.Reclaim();
  } else {
    variable.attributes = 7;
    variable.data.assign(*size, std::byte{*operation});
    if (editor.Set(variable).has_value()) model[key] = variable;
  }
}

void Check(ByteView image, ByteCursor script) {
  auto editor = firmware::VariableStoreEditor::Open(image);
  if (!editor.has_value()) return;
  CHECK(std::ranges::equal(editor->image(), image));
  Model model = ModelOf(editor->Variables());
  while (!script.AtEnd() && script.remaining() >= 3) Edit(*editor, model, script);
  CHECK(ModelOf(editor->Variables()) == model);
  const auto store = firmware::VariableStore::Parse(editor->image());
  CHECK(store.has_value() && ModelOf(store->Variables()) == model);
  editor->Reclaim();
  const auto again = firmware::VariableStoreEditor::Open(editor->image());
  CHECK(again.has_value() && ModelOf(again->Variables()) == model);
  CHECK(again->FreeBytes() == editor->FreeBytesAfterReclaim());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteView input = std::as_bytes(std::span(data, size));
  const size_t script = std::min<size_t>(input.size() / 4, 90);
  for (const auto build : {firmware::OvmfBuild::k2M, firmware::OvmfBuild::k4M}) {
    Check(MakeImage(input.subspan(script), build), ByteCursor(input.first(script)));
  }
  Check(input, ByteCursor(input.first(script)));
  return 0;
}
