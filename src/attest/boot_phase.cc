// SPDX-License-Identifier: Apache-2.0
#include "attest/boot_phase.h"

#include <algorithm>
#include <array>
#include <span>
#include <string_view>

#include "measure/bank_hasher.h"

namespace vallum::attest {
namespace {

using measure::BankHasher;

constexpr std::array<std::string_view, 6> kPhases = {"enter-initrd", "leave-initrd", "sysinit",
                                                     "ready",        "shutdown",     "final"};
constexpr size_t kWithoutInitrd = 2;  // where a boot without one begins

std::optional<std::string> Follow(std::span<const std::string_view> phases, HashAlgorithm bank,
                                  Bytes at, const Bytes& value) {
  BankHasher hasher(bank);
  std::string reached;
  for (const std::string_view phase : phases) {
    hasher.Extend(at, Digest(bank, AsBytes(phase)));
    reached.append(reached.empty() ? "" : ", ").append(phase);
    if (at == value) return reached;
  }
  return std::nullopt;
}

bool IsPhase(const ReferenceRecord& record, HashAlgorithm bank) {
  return std::ranges::any_of(kPhases, [&](std::string_view phase) {
    const Bytes digest = Digest(bank, AsBytes(phase));
    return std::ranges::find(record.digests, BankDigest{.bank = bank, .digest = digest}) !=
           record.digests.end();
  });
}

bool IsOfPhases(const ReferenceComponent& component, HashAlgorithm bank) {
  bool measures = false;
  for (const ReferenceVariant& variant : component.variants) {
    for (const ReferenceRecord& record : variant.records) {
      if (record.pcr != kBootPhasePcr) continue;
      if (!IsPhase(record, bank)) return false;
      measures = true;
    }
  }
  return measures;
}

}  // namespace

std::optional<std::string> ReachedPhases(HashAlgorithm bank, const Bytes& replayed,
                                         const Bytes& value) {
  if (replayed == value) return std::string();
  if (replayed.size() != DigestSize(bank)) return std::nullopt;
  auto reached = Follow(kPhases, bank, replayed, value);
  if (reached.has_value()) return reached;
  return Follow(std::span(kPhases).subspan(kWithoutInitrd), bank, replayed, value);
}

std::vector<ReferenceComponent> WithoutPhases(const std::vector<ReferenceComponent>& components,
                                              HashAlgorithm bank) {
  std::vector<ReferenceComponent> out;
  for (const ReferenceComponent& component : components) {
    if (!IsOfPhases(component, bank)) out.push_back(component);
  }
  return out;
}

}  // namespace vallum::attest
