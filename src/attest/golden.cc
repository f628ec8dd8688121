// SPDX-License-Identifier: Apache-2.0
#include "attest/golden.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>
#include <vector>

#include "base/text.h"
#include "base/units.h"

namespace vallum::attest {
namespace {

constexpr std::array kBanks = {HashAlgorithm::kSha1, HashAlgorithm::kSha256, HashAlgorithm::kSha384,
                               HashAlgorithm::kSha512};

Result<uint32_t> ParsePcrName(const std::string& name) {
  const std::string lower = ToLower(Trim(name));
  std::string_view digits = lower;
  if (digits.starts_with("pcr")) digits.remove_prefix(3);
  if (!digits.empty() && (digits[0] == ' ' || digits[0] == '_' || digits[0] == '-')) {
    digits.remove_prefix(1);
  }
  const bool number = !digits.empty() && digits.size() <= 2 &&
                      digits.find_first_not_of("0123456789") == std::string_view::npos;
  const uint32_t pcr =
      number ? static_cast<uint32_t>(std::stoul(std::string(digits))) : PcrIndex::kCount;
  if (pcr >= PcrIndex::kCount) return InvalidInput("\"" + Printable(name, 40) + "\" is no PCR");
  return pcr;
}

}  // namespace

Result<std::map<uint32_t, GoldenRule>> GoldenFromWhitelist(
    std::span<const WhitelistEntry> entries) {
  std::map<uint32_t, std::vector<AcceptedDigest>> lists;
  for (const WhitelistEntry& entry : entries) {
    ASSIGN_OR_RETURN(const uint32_t pcr, ParsePcrName(entry.pcr_name));
    const std::string place = "the digest of PCR " + std::to_string(pcr);
    ASSIGN_OR_RETURN_CONTEXT(Bytes digest, FromHex(Trim(entry.digest)), "reading " + place);
    const auto* const bank = std::ranges::find(kBanks, digest.size(), DigestSize);
    if (bank == kBanks.end()) return InvalidInput(place + " is not of a bank's size");
    lists[pcr].push_back({.what = Printable(entry.mle, 120),
                          .digests = {{.bank = *bank, .digest = std::move(digest)}}});
  }
  std::map<uint32_t, GoldenRule> out;
  for (auto& [pcr, list] : lists) {
    out.emplace(pcr, GoldenRule{.values = AcceptedDigests(std::move(list))});
  }
  return out;
}

Result<AttestationPolicy> WithGoldenRules(AttestationPolicy policy,
                                          const std::map<uint32_t, GoldenRule>& rules) {
  for (const auto& [pcr, rule] : rules) {
    for (const HashAlgorithm bank : policy.banks) {
      if (rule.values.HasBank(bank)) continue;
      return InvalidInput("PCR " + std::to_string(pcr) + " has no value of the bank " +
                          std::string(HashAlgorithmName(bank)))
          .WithFix("add one, or take the bank out of tpm.banks");
    }
    policy.pcrs.insert_or_assign(pcr, rule);
  }
  return policy;
}

}  // namespace vallum::attest
