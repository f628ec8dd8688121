// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/bytes.h"
#include "base/check.h"
#include "base/result.h"
#include "firmware/key_set.h"
#include "firmware/signature_list.h"
#include "formats/reader.h"
#include "images/inspection.h"
#include "images/inspection_json.h"
#include "images/inspection_request.h"

namespace {

// As small as a key set is that no rule is skipped for.
vallum::images::InspectionRequest OneKeySet() {
  namespace firmware = vallum::firmware;
  const firmware::Signature entry = firmware::MakeSignature(
      firmware::SignatureType::kSha256, firmware::kGlobalVariableGuid, vallum::Bytes(32));
  firmware::KeySet keys;
  keys.name = "small";
  keys.pk = {entry};
  keys.db = {entry};
  keys.sbat_level = "sbat,1,2025021800\ngrub,5\n";
  return {.key_sets = {keys}, .prediction = {}};
}

}  // namespace

// The first byte says what the rest is declared as.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace images = vallum::images;
  static const images::InspectionRequest request = OneKeySet();
  constexpr size_t kFormats = static_cast<size_t>(images::DeclaredFormat::kOva) + 1;
  if (size == 0) return 0;
  const vallum::ByteView image = std::as_bytes(std::span(data, size)).subspan(1);
  const auto declared = static_cast<images::DeclaredFormat>(data[0] % kFormats);
  const auto outcome = images::Inspect(vallum::formats::MemoryReader(image), declared, request);
  // What one process writes, the other one takes.
  const auto reported = images::ReportFromJson(images::ReportToJson(outcome));
  CHECK(reported.has_value() == outcome.has_value());
  if (!outcome.has_value()) CHECK(reported.error().code() == outcome.error().code());
  return 0;
}
