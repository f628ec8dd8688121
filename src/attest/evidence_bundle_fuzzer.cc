// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "attest/evidence_bundle.h"
#include "attest/policy.h"
#include "base/bytes.h"

using namespace vallum;  // NOLINT: a fuzzer

namespace {

attest::SharedPolicy MakePolicy() {
  auto policy = attest::ParsePolicy(R"(name = "fuzz"
version = 1
[tpm]
emulated = "allowed"
[pcr.4]
rule = "events"
commands = "any"
[pcr.7]
rule = "secure-boot"
signers = ["0000000000000000000000000000000000000000000000000000000000000000"]
)");
  if (!policy.has_value()) std::abort();
  return attest::PreparePolicy(*std::move(policy), nullptr);
}

}  // namespace

// A bundle that is read is written back to the same bundle; nothing that it holds is trusted.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const attest::SharedPolicy kPolicy = MakePolicy();
  const auto bundle = attest::ParseBundle(std::as_bytes(std::span(data, size)));
  if (!bundle.has_value()) return 0;
  const auto file = attest::FormatBundle(*bundle);
  if (!file.has_value()) std::abort();
  const auto again = attest::ParseBundle(*file);
  if (!again.has_value() || !(*again == *bundle)) std::abort();
  const auto verdict = attest::VerifyBundle(*bundle, *kPolicy);
  if (verdict.has_value() && verdict->kind == attest::HostVerdictKind::kTrusted) std::abort();
  return 0;
}
