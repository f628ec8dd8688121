// SPDX-License-Identifier: Apache-2.0
#include "attest/pcrlock_policy.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <utility>

#include "base/text.h"
#include "base/units.h"

namespace vallum::attest {
namespace {

// SHA-1 is left out: a policy that asks for it should be somebody's own decision.
constexpr std::array kBanks = {HashAlgorithm::kSha256, HashAlgorithm::kSha384,
                               HashAlgorithm::kSha512};

const BankDigest* FindBank(const ReferenceRecord& record, HashAlgorithm bank) {
  const auto found = std::ranges::find(record.digests, bank, &BankDigest::bank);
  return found == record.digests.end() ? nullptr : &*found;
}

std::string PathOf(const ReferenceComponent& component, const ReferenceVariant& variant) {
  return Printable(component.name +
                   (variant.name.empty() ? ".pcrlock" : ".pcrlock.d/" + variant.name + ".pcrlock"));
}

// Calls `look` with each variant of each component.
template <typename Components, typename Look>
void ForEachVariant(Components& components, Look look) {
  for (auto& component : components) {
    for (auto& variant : component.variants) look(component, variant);
  }
}

// Which components measure each PCR, in order.
std::map<uint32_t, std::vector<std::string>> MeasuredBy(
    const std::vector<ReferenceComponent>& components) {
  std::map<uint32_t, std::vector<std::string>> out;
  ForEachVariant(components, [&](const ReferenceComponent& component, const ReferenceVariant& its) {
    for (const ReferenceRecord& record : its.records) {
      std::vector<std::string>& names = out[record.pcr];
      if (names.empty() || names.back() != component.name) names.push_back(component.name);
    }
  });
  return out;
}

// Leaves out records of other PCRs, and components without a record.
void Keep(const std::set<uint32_t>& pcrs, std::vector<ReferenceComponent>& components) {
  ForEachVariant(components, [&](const ReferenceComponent&, ReferenceVariant& variant) {
    std::erase_if(variant.records,
                  [&](const ReferenceRecord& record) { return !pcrs.contains(record.pcr); });
  });
  std::erase_if(components, [](const ReferenceComponent& component) {
    return std::ranges::all_of(component.variants,
                               [](const ReferenceVariant& each) { return each.records.empty(); });
  });
}

// A variant with a record that does not know the bank; empty: all know it.
std::string WithoutBank(const std::vector<ReferenceComponent>& components, HashAlgorithm bank) {
  std::string out;
  ForEachVariant(components, [&](const ReferenceComponent& component, const ReferenceVariant& its) {
    const bool all = std::ranges::all_of(its.records, [&](const ReferenceRecord& record) {
      return FindBank(record, bank) != nullptr;
    });
    if (!all && out.empty()) out = PathOf(component, its);
  });
  return out;
}

Result<HashAlgorithm> ChooseBank(const std::vector<ReferenceComponent>& components) {
  for (const HashAlgorithm bank : kBanks) {
    if (WithoutBank(components, bank).empty()) return bank;
  }
  return InvalidInput(WithoutBank(components, HashAlgorithm::kSha256) +
                      " has a record without a SHA-256 digest, and no stronger bank is in all "
                      "records either: hosts are judged in one bank")
      .WithFix("make the components anew with SHA-256 (systemd-pcrlock does)");
}

}  // namespace

Result<PcrlockPolicy> PolicyFromPcrlock(const std::string& name,
                                        std::vector<ReferenceComponent> components,
                                        const std::set<uint32_t>& pcrs) {
  if (name.empty() || name.size() > kMaxPolicyName || Printable(name) != name) {
    return InvalidInput("the policy's name is empty, longer than " +
                        std::to_string(kMaxPolicyName) + " bytes or not printable");
  }
  const auto measured = MeasuredBy(components);
  if (measured.empty()) {
    return InvalidInput("the components measure nothing")
        .WithFix("name the folder that holds NAME.pcrlock and NAME.pcrlock.d");
  }
  std::set<uint32_t> chosen = pcrs;
  if (chosen.empty()) {
    for (const auto& [pcr, names] : measured) chosen.insert(pcr);
  }
  PcrlockPolicy out;
  std::map<std::string, std::string> remarks;
  for (const uint32_t pcr : chosen) {
    const auto its = measured.find(pcr);
    if (its == measured.end()) {
      return InvalidInput("no component measures PCR " + std::to_string(pcr) +
                          ": a rule for it could never be met by a boot that measures there")
          .WithFix("leave this PCR out, or add its components");
    }
    out.policy.pcrs.emplace(pcr, ReferenceRule{});
    remarks["pcr." + std::to_string(pcr)] = "one variant of each of " + Join(its->second, ", ");
  }
  Keep(chosen, components);
  ASSIGN_OR_RETURN(const HashAlgorithm bank, ChooseBank(components));
  // What no host is judged by would only make the document longer.
  ForEachVariant(components, [&](const ReferenceComponent&, ReferenceVariant& variant) {
    for (ReferenceRecord& record : variant.records) record.digests = {*FindBank(record, bank)};
  });
  out.policy.name = name;
  out.policy.version = 1;
  out.policy.description = "made from components of systemd-pcrlock";
  out.policy.banks = {bank};
  out.policy.components = std::move(components);
  remarks[""] =
      "A draft from systemd-pcrlock's components: a PCR that has no rule here is not judged.";
  out.document = FormatPolicy(out.policy, remarks);
  // Names are those of files: any bytes.
  RETURN_IF_ERROR(ParsePolicy(out.document)).context("the policy of these components");
  return out;
}

}  // namespace vallum::attest
