// SPDX-License-Identifier: Apache-2.0
// The first byte says which collection the rest is for, and what to do with it.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "attest/oat_trust.h"
#include "attest/oat_whitelist.h"
#include "base/bytes.h"

using namespace vallum;  // NOLINT: a fuzzer

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text = AsText(std::as_bytes(std::span(data + 1, size - 1)));
  static_cast<void>(attest::ParsePollHosts(text));
  static_cast<void>(attest::ParseOatDocument(text, "oat"));
  attest::OatWhitelist list;
  list.oems["ACME"] = "";
  list.systems[{.name = "Debian", .version = "12"}] = "";
  list.mles[{.name = "bios", .version = "1", .oem = "ACME", .os = {}}] = {};
  const auto collection = static_cast<attest::OatCollection>(data[0] % 4);
  static_cast<void>(attest::ListOat(list, collection, text));
  const auto edit = (data[0] & 4U) != 0 ? attest::OatEdit::kReplace : attest::OatEdit::kAdd;
  const auto changed = attest::ChangeOat(list, collection, edit, text);
  if (!changed.has_value()) return 0;
  const auto document = attest::FormatOatDocument(*changed, "oat");
  if (!document.has_value()) return 0;
  const auto again = attest::ParseOatDocument(*document, "oat");
  if (!again.has_value() || *again != *changed) std::abort();
  return 0;
}
