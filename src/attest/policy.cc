// SPDX-License-Identifier: Apache-2.0
#include "attest/policy.h"

#include <algorithm>
#include <type_traits>
#include <utility>

namespace vallum::attest {

AcceptedDigests::AcceptedDigests(std::vector<AcceptedDigest> list) : list_(std::move(list)) {
  for (const AcceptedDigest& each : list_) {
    for (const BankDigest& digest : each.digests) {
      sorted_[static_cast<size_t>(digest.bank)].push_back(digest.digest);
    }
  }
  for (std::vector<Bytes>& bank : sorted_) std::ranges::sort(bank);
}

bool AcceptedDigests::Has(HashAlgorithm bank, ByteView digest) const {
  const std::vector<Bytes>& sorted = sorted_[static_cast<size_t>(bank)];
  const auto found =
      std::lower_bound(sorted.begin(), sorted.end(), digest, [](const Bytes& a, ByteView b) {
        return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end());
      });
  return found != sorted.end() && std::ranges::equal(*found, digest);
}

bool AcceptedDigests::HasBank(HashAlgorithm bank) const {
  return !sorted_[static_cast<size_t>(bank)].empty();
}

std::string_view PcrRuleName(const PcrRule& rule) {
  return std::visit(
      [](const auto& each) -> std::string_view {
        using Rule = std::decay_t<decltype(each)>;
        if constexpr (std::is_same_v<Rule, GoldenRule>) return "golden";
        if constexpr (std::is_same_v<Rule, EventsRule>) return "events";
        if constexpr (std::is_same_v<Rule, SecureBootRule>) return "secure-boot";
        if constexpr (std::is_same_v<Rule, ReferenceRule>) return "reference";
        if constexpr (std::is_same_v<Rule, ImaPcrRule>) return "ima";
        if constexpr (std::is_same_v<Rule, IgnoredRule>) return "ignored";
      },
      rule);
}

uint32_t AttestationPolicy::PcrMask() const {
  uint32_t mask = 0;
  for (const auto& [pcr, rule] : pcrs) mask |= 1U << pcr;
  return mask;
}

bool AttestationPolicy::NeedsEventLog() const {
  return std::ranges::any_of(pcrs, [](const auto& each) {
    return std::holds_alternative<EventsRule>(each.second) ||
           std::holds_alternative<SecureBootRule>(each.second) ||
           std::holds_alternative<ReferenceRule>(each.second);
  });
}

bool AttestationPolicy::IsLateAndIgnored(uint32_t pcr) const {
  const auto rule = pcrs.find(pcr);
  return pcr >= kFirmwarePcrs && rule != pcrs.end() &&
         std::holds_alternative<IgnoredRule>(rule->second);
}

const uint32_t* AttestationPolicy::ImaPcr() const {
  const auto found = std::ranges::find_if(
      pcrs, [](const auto& each) { return std::holds_alternative<ImaPcrRule>(each.second); });
  return found == pcrs.end() ? nullptr : &found->first;
}

Sha256Digest PolicyDigest(const AttestationPolicy& policy) {
  return Sha256(AsBytes(FormatPolicy(policy)));
}

}  // namespace vallum::attest
