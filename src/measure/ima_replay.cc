// SPDX-License-Identifier: Apache-2.0
#include "measure/ima_replay.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "measure/bank_hasher.h"
#include "measure/ima_template_hash.h"

namespace vallum::measure {
namespace {

// The values of PCR 10 in all banks, and what they shall become.
class BankFollower {
 public:
  BankFollower(const ImaLog& log, std::span<const ImaPcrValue> from,
               std::span<const ImaPcrValue> quoted) {
    for (const ImaPcrValue& value : from) {
      const auto wanted = std::ranges::find(quoted, value.bank, &ImaPcrValue::bank);
      banks_.push_back(std::make_unique<Bank>(log, value, wanted->value));
    }
  }

  bool Reached() const {
    return std::ranges::all_of(banks_, [](const auto& b) { return b->value == b->wanted; });
  }

  //   number: of the entry in the log.
  void Extend(const ImaEntry& entry, size_t number) {
    for (const auto& bank : banks_) {
      if (entry.violation) {
        const Bytes ones(bank->value.size(), std::byte{0xff});
        bank->pcr.Extend(bank->value, ones);
      } else {
        bank->pcr.Extend(bank->value, bank->templates.HashOf(number));
      }
    }
  }

  std::vector<ImaPcrValue> Values() const {
    std::vector<ImaPcrValue> out;
    for (const auto& bank : banks_) {
      out.push_back({bank->pcr.bank(), bank->value});
    }
    return out;
  }

  // "PCR 10 of sha256 holds A, but ... replay to B", for the first bank that differs.
  std::string Describe(size_t entries) const {
    const auto found =
        std::ranges::find_if(banks_, [](const auto& b) { return b->value != b->wanted; });
    if (found == banks_.end()) {
      return "";
    }
    const Bank& bank = **found;
    return fmt::format(
        "PCR {} of {} holds {}, which the log's {} entries never reach; they end at {}", kImaPcr,
        HashAlgorithmName(bank.pcr.bank()), ToHex(bank.wanted), entries, ToHex(bank.value));
  }

 private:
  struct Bank {
    Bank(const ImaLog& log, const ImaPcrValue& from, const Bytes& quoted)
        : templates(log, from.bank), pcr(from.bank), value(from.value), wanted(quoted) {}
    ImaTemplateHasher templates;
    BankHasher pcr;
    Bytes value;
    Bytes wanted;
  };
  std::vector<std::unique_ptr<Bank>> banks_;
};

// How many entries it takes to get there; nothing when they do not.
std::optional<size_t> Follow(const ImaLog& log, BankFollower& follower) {
  if (follower.Reached()) {
    return 0;
  }
  for (size_t i = 0; i < log.entries().size(); ++i) {
    const ImaEntry& entry = log.entries()[i];
    if (entry.pcr != kImaPcr) {
      continue;
    }
    follower.Extend(entry, i);
    if (follower.Reached()) {
      return i + 1;
    }
  }
  return std::nullopt;
}

std::vector<HashAlgorithm> BanksOf(std::span<const ImaPcrValue> values) {
  std::vector<HashAlgorithm> out;
  for (const ImaPcrValue& value : values) {
    out.push_back(value.bank);
  }
  return out;
}

Result<void> CheckBanks(std::span<const ImaPcrValue> from, std::span<const ImaPcrValue> quoted) {
  auto have = BanksOf(from);
  auto want = BanksOf(quoted);
  std::ranges::sort(have);
  std::ranges::sort(want);
  if (want.empty()) {
    return InvalidInput("PCR 10 is quoted in no bank, so that nothing proves the log")
        .WithFix("quote PCR 10");
  }
  if (have != want || std::ranges::adjacent_find(want) != want.end()) {
    return InvalidInput("PCR 10 is quoted in other banks than the log was followed in before")
        .WithFix("ask for the whole log again and start from its first entry");
  }
  for (const auto& values : {from, quoted}) {
    for (const ImaPcrValue& value : values) {
      if (value.value.size() != DigestSize(value.bank)) {
        return InvalidInput(fmt::format("PCR 10 of {} with {} bytes", HashAlgorithmName(value.bank),
                                        value.value.size()));
      }
    }
  }
  return Ok();
}

// What simple thing would explain that the quoted value is not reached; "" when nothing does.
std::string FindCause(const ImaLog& log, const ImaReplayState& from,
                      std::span<const ImaPcrValue> quoted) {
  const bool untouched = std::ranges::all_of(quoted, [](const ImaPcrValue& value) {
    return std::ranges::all_of(value.value, [](std::byte b) { return b == std::byte{0}; });
  });
  if (untouched) {
    return "; the host's kernel has extended nothing since it started";
  }
  if (from.entries == 0) {
    return log.entries().empty() ? "; the log is empty" : "; entries are missing or were changed";
  }
  BankFollower anew(log, StartOfImaReplay(BanksOf(from.pcrs)).pcrs, quoted);
  if (Follow(log, anew).has_value()) {
    return fmt::format(
        "; it is reached from a PCR of zeros: the host started anew since entry {} was proven",
        from.entries);
  }
  return fmt::format(
      "; entries after number {} are missing or were changed, or the host started "
      "anew",
      from.entries);
}

}  // namespace

ImaReplayState StartOfImaReplay(std::span<const HashAlgorithm> banks) {
  ImaReplayState out;
  for (const HashAlgorithm bank : banks) {
    out.pcrs.push_back({bank, Bytes(DigestSize(bank))});
  }
  return out;
}

Result<ImaReplay> ReplayImaLog(const ImaLog& log, const ImaReplayState& from,
                               std::span<const ImaPcrValue> quoted) {
  RETURN_IF_ERROR(CheckBanks(from.pcrs, quoted));
  BankFollower follower(log, from.pcrs, quoted);
  const auto proven = Follow(log, follower);
  ImaReplay out{.proven = proven.value_or(0), .unproven = 0, .state = from, .refusal = {}};
  out.unproven = log.entries().size() - out.proven;
  if (proven.has_value()) {
    out.state = {.entries = from.entries + *proven, .pcrs = follower.Values()};
  } else {
    out.refusal = follower.Describe(log.entries().size()) + FindCause(log, from, quoted);
  }
  return out;
}

}  // namespace vallum::measure
