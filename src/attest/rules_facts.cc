// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include "attest/policy_facts.h"
#include "attest/rules.h"
#include "attest/rules_command_line.h"
#include "base/text.h"

namespace vallum::attest {
namespace {

bool IsAccepted(const std::string& said, const std::vector<std::string>& accepted) {
  return std::ranges::any_of(accepted, [&](std::string_view word) {
    if (!word.ends_with('*')) return said == word;
    word.remove_suffix(1);
    return std::string_view(said).starts_with(word);
  });
}

void JudgeWords(const FactRow& row, const FactsRule& rule, const HostFacts& facts,
                Reasons& reasons) {
  const std::vector<std::string>& accepted = rule.*row.accepted;
  const std::string& said = facts.*row.fact;
  if (accepted.empty() || (!said.empty() && IsAccepted(said, accepted))) return;
  reasons.Add({.id = said.empty() ? ReasonId::kFactAbsent : ReasonId::kFactNotAccepted,
               .content = row.key,
               .expected = Join(accepted, " or "),
               .actual = said,
               .fix = said.empty() ? "" : "add to facts." + std::string(row.key)});
}

void JudgeProcessor(const FactsRule& rule, const HostFacts& facts, Reasons& reasons) {
  if (rule.least_microcode != 0) {
    const auto revision = MicrocodeRevision(facts);
    if (!revision.has_value() || *revision < rule.least_microcode) {
      reasons.Add({.id = revision.has_value() ? ReasonId::kFactNotAccepted : ReasonId::kFactAbsent,
                   .content = "microcode",
                   .expected = "at least " + std::to_string(rule.least_microcode),
                   .actual = facts.microcode,
                   .fix = "update the host's microcode"});
    }
  }
  for (const std::string& feature : rule.cpu_features) {
    if (std::ranges::find(facts.cpu_features, feature) != facts.cpu_features.end()) continue;
    reasons.Add(
        {.id = facts.cpu_features.empty() ? ReasonId::kFactAbsent : ReasonId::kFactNotAccepted,
         .content = "cpu-features",
         .expected = feature});
  }
}

}  // namespace

void JudgeFacts(const AttestationPolicy& policy, const HostFacts& facts,
                const std::vector<std::string>& command_lines, Reasons& reasons) {
  for (const FactRow& row : kFactRows) JudgeWords(row, policy.facts, facts, reasons);
  JudgeProcessor(policy.facts, facts, reasons);
  if (facts.command_line.empty() || command_lines.empty()) return;
  const std::vector<std::string> said = KernelArguments(facts.command_line);
  if (std::ranges::any_of(command_lines,
                          [&](const std::string& line) { return KernelArguments(line) == said; })) {
    return;
  }
  reasons.Add({.id = ReasonId::kFactContradicted,
               .content = "command line",
               .expected = command_lines.back(),
               .actual = facts.command_line,
               .fix = "the agent lies, or the host was started by kexec: reboot it"});
}

}  // namespace vallum::attest
