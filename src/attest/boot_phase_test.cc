// SPDX-License-Identifier: Apache-2.0
#include "attest/boot_phase.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "attest/rules.h"
#include "measure/bank_hasher.h"
#include "measure/event_log_builder.h"
#include "measure/event_log_replay.h"

namespace vallum::attest {
namespace {

using measure::EventType;

using Words = std::vector<std::string>;

const Words kWhole = {"enter-initrd", "leave-initrd", "sysinit", "ready", "shutdown", "final"};

constexpr std::string_view kEvents = R"(rule = "events"
accept = [ { sha256 = ")";

std::string HexOf(HashAlgorithm bank, std::string_view text) {
  return ToHex(Digest(bank, AsBytes(text)));
}

// PCR 4 and 11 are judged by the events that MakeLog() has.
std::string MakeValidPolicy(const std::string& banks = "\"sha256\"") {
  const std::string what = HexOf(HashAlgorithm::kSha256, "uki") + "\" } ]\n";
  return "name = \"p\"\nversion = 1\n[tpm]\nbanks = [" + banks + "]\n[pcr.11]\n" +
         std::string(kEvents) + what + "[pcr.12]\n" + std::string(kEvents) + what;
}

Bytes MakeLog(const std::vector<HashAlgorithm>& banks) {
  measure::EventLogBuilder builder(banks);
  builder.AddText(11, EventType::kIpl, "uki").AddText(12, EventType::kIpl, "uki");
  return builder.bytes();
}

// What a TPM quotes that was extended by words after the log's events.
PcrBanks Quoted(const measure::EventLog& log, const AttestationPolicy& policy,
                const std::map<HashAlgorithm, Words>& words, uint32_t pcr = kBootPhasePcr) {
  PcrBanks out;
  for (const auto& [bank, list] : words) {
    const auto replay = measure::ReplayEventLog(log, bank);
    for (const auto& [index, rule] : policy.pcrs) {
      Bytes value = replay->values[index];
      measure::BankHasher hasher(bank);
      for (const std::string& word : list) {
        if (index == pcr) hasher.Extend(value, Digest(bank, AsBytes(word)));
      }
      out[bank].emplace(*PcrIndex::Create(index), std::move(value));
    }
  }
  return out;
}

struct Outcome {
  std::vector<ReasonId> ids;
  std::string phases;  // of the note
};

Outcome JudgeBanks(const std::map<HashAlgorithm, Words>& words, const std::string& text,
                   uint32_t pcr = kBootPhasePcr) {
  std::vector<HashAlgorithm> banks;
  for (const auto& [bank, list] : words) banks.push_back(bank);
  const auto policy = ParsePolicy(text);
  EXPECT_TRUE(policy.has_value()) << policy.error().Describe();
  const Bytes bytes = MakeLog(banks);
  const measure::EventLog log =
      measure::EventLog::Parse(bytes, measure::EventLogKind::kTpm).value();
  const PcrBanks quoted = Quoted(log, *policy, words, pcr);
  Reasons reasons;
  const uint32_t proven = ProveEventLog(*policy, quoted, log, reasons);
  JudgePcrs(*policy, {.quoted = quoted, .log = &log, .proven = proven}, {}, reasons);
  Outcome out;
  Reasons again = reasons;
  for (const Reason& each : std::move(again).TakeReasons()) out.ids.push_back(each.id);
  for (const Reason& each : std::move(reasons).TakeNotes()) {
    if (each.id == ReasonId::kBootPhase) out.phases = each.actual;
  }
  return out;
}

Outcome Judge(const Words& words, uint32_t pcr = kBootPhasePcr) {
  return JudgeBanks({{HashAlgorithm::kSha256, words}}, MakeValidPolicy(), pcr);
}

using Ids = std::vector<ReasonId>;
const Ids kNotExplained = {ReasonId::kEventLogReplay};

std::string Joined(const Words& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : ", ") + word;
  return out;
}

TEST(BootPhase, EachPhaseOfABootIsAcceptedAndNamed) {
  for (const size_t begin : {size_t{0}, size_t{2}}) {
    for (size_t end = begin; end <= kWhole.size(); ++end) {
      const Words words(kWhole.begin() + static_cast<long>(begin),
                        kWhole.begin() + static_cast<long>(end));
      const Outcome out = Judge(words);
      EXPECT_EQ(out.ids, Ids{}) << Joined(words);
      EXPECT_EQ(out.phases, Joined(words));
    }
  }
}

TEST(BootPhase, WhatIsNoOrderOfPhasesIsNotExplained) {
  const Words wrong[] = {{"anything"},
                         {"enter-initrd", "anything"},
                         {"leave-initrd"},
                         {"ready"},
                         {"sysinit", "enter-initrd"},
                         {"enter-initrd", "sysinit"},
                         {"enter-initrd", "enter-initrd"},
                         {"sysinit", "ready", "ready"},
                         {"enter-initrd", "leave-initrd", "sysinit", "ready", "sysinit"},
                         {std::string("enter-initrd\0", 13)}};
  for (const Words& words : wrong) {
    const Outcome out = Judge(words);
    EXPECT_EQ(out.ids, kNotExplained) << Joined(words);
    EXPECT_EQ(out.phases, "");
  }
}

TEST(BootPhase, PhaseInAnotherPcrIsNotExplained) {
  EXPECT_EQ(Judge({"enter-initrd"}, 12).ids, kNotExplained);
}

TEST(BootPhase, BanksMustTellOfTheSamePhases) {
  const std::string policy = MakeValidPolicy("\"sha256\", \"sha384\"");
  const auto judge = [&](const Words& first, const Words& second) {
    return JudgeBanks({{HashAlgorithm::kSha256, first}, {HashAlgorithm::kSha384, second}}, policy);
  };
  EXPECT_EQ(judge(kWhole, kWhole).ids, Ids{});
  EXPECT_EQ(judge({"sysinit"}, {"sysinit", "ready"}).ids, kNotExplained);
  EXPECT_EQ(judge({"sysinit"}, {}).ids, kNotExplained);
}

TEST(BootPhase, ComponentsOfPhasesAreNoMeasurementsOfTheLog) {
  const auto record = [](const std::string& text) {
    return "records = [ { pcr = 11, sha256 = \"" + HexOf(HashAlgorithm::kSha256, text) + "\" } ]\n";
  };
  const auto component = [&](const std::string& name, const std::string& text) {
    return "[[component]]\nname = \"" + name + "\"\n[[component.variant]]\n" + record(text);
  };
  const std::string policy = "name = \"p\"\nversion = 1\n[pcr.11]\nrule = \"reference\"\n";
  const std::string phases =
      component("750-enter-initrd", "enter-initrd") + component("950-shutdown", "shutdown");
  const auto judge = [&](const std::string& components, const Words& words) {
    return JudgeBanks({{HashAlgorithm::kSha256, words}}, policy + components).ids;
  };
  for (const Words& words : {Words{}, Words{"enter-initrd"}, kWhole}) {
    EXPECT_EQ(judge(component("650-uki", "uki") + phases, words), Ids{});
    EXPECT_EQ(judge(component("650-uki", "other") + phases, words),
              Ids{ReasonId::kReferenceNotMatched});
  }
  EXPECT_EQ(judge(component("650-uki", "uki") + phases, {"other"}), kNotExplained);
}

}  // namespace
}  // namespace vallum::attest
