// SPDX-License-Identifier: Apache-2.0
#include "measure/event_log_replay.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "measure/bank_hasher.h"
#include "measure/event_digest.h"

namespace vallum::measure {
namespace {

constexpr uint32_t kFirstDynamicPcr = 17;
constexpr uint32_t kLastDynamicPcr = 22;
constexpr uint32_t kPartitionPcr = 5;
constexpr uint8_t kHcrtmStart = 4;

uint32_t RegisterCount(const EventLog& log) {
  return log.kind() == EventLogKind::kTpm ? PcrIndex::kCount : kConfidentialRegisters;
}

// The last byte that PCR 0 starts from.
uint8_t StartOfPcr0(const EventLog& log) {
  return log.has_hcrtm_event() ? kHcrtmStart : log.startup_locality().value_or(0);
}

Bytes StartingWith(HashAlgorithm bank, uint8_t last) {
  Bytes value(DigestSize(bank));
  value.back() = std::byte{last};
  return value;
}

// Follows one register from a start; calls `after` with the number of its events and the value.
template <typename After>
void FollowRegister(const EventLog& log, BankHasher& hasher, uint32_t index, Bytes value,
                    After after) {
  size_t count = 0;
  for (const LoggedEvent& event : log.events()) {
    if (event.index != index || !log.Extends(event)) {
      continue;
    }
    if (const ByteView digest = log.DigestOf(event, hasher.bank()); !digest.empty()) {
      hasher.Extend(value, digest);
      after(++count, value);
    }
  }
}

// What simple thing would make the log and the known value agree; "" when nothing does.
std::string FindCause(const EventLog& log, const EventLogReplay& replay,
                      const KnownRegister& known) {
  const uint32_t index = known.index;
  BankHasher hasher(replay.bank);
  size_t prefix = 0;
  FollowRegister(log, hasher, index, StartingWith(replay.bank, index == 0 ? StartOfPcr0(log) : 0),
                 [&](size_t count, const Bytes& value) {
                   if (value == known.value) prefix = count;
                 });
  if (prefix != 0) {
    return fmt::format(
        "; the known value is that of its first {} events, so that the log goes on "
        "after it was taken or has events added",
        prefix);
  }
  if (log.kind() == EventLogKind::kTpm && index == 0) {
    for (const uint8_t start : {uint8_t{0}, uint8_t{3}, kHcrtmStart}) {
      Bytes last;
      FollowRegister(log, hasher, 0, StartingWith(replay.bank, start),
                     [&](size_t, const Bytes& value) { last = value; });
      if (last == known.value) {
        return fmt::format(
            "; it would agree had the TPM started from locality {}, which the log "
            "does not say",
            start);
      }
    }
  }
  if (log.kind() == EventLogKind::kTpm && index == kPartitionPcr) {
    Bytes value = replay.values[index];
    for (const std::string_view action : {kActionExitInvoked, kActionExitSucceeded}) {
      hasher.Extend(value, ActionDigest(replay.bank, action));
    }
    if (value == known.value) {
      return "; it would agree with the two events of ExitBootServices, which the log lacks";
    }
  }
  return "";
}

Result<void> CheckKnown(const EventLog& log, HashAlgorithm bank,
                        std::span<const KnownRegister> known) {
  if (known.empty()) {
    return InvalidInput("no register's value is known, so that nothing proves the log")
        .WithFix("quote at least the PCRs that a rule looks at");
  }
  uint32_t seen = 0;
  for (const KnownRegister& each : known) {
    if (each.index >= RegisterCount(log)) {
      return InvalidInput(fmt::format("register {}: such a log has registers 0 to {}", each.index,
                                      RegisterCount(log) - 1));
    }
    if (each.value.size() != DigestSize(bank)) {
      return InvalidInput(fmt::format("{}: a value of {} bytes; the bank {} has {}",
                                      log.RegisterName(each.index), each.value.size(),
                                      HashAlgorithmName(bank), DigestSize(bank)));
    }
    const uint32_t bit = uint32_t{1} << each.index;
    if ((seen & bit) != 0) {
      return InvalidInput(fmt::format("{} is named twice", log.RegisterName(each.index)));
    }
    seen |= bit;
  }
  return Ok();
}

}  // namespace

Result<EventLogReplay> ReplayEventLog(const EventLog& log, HashAlgorithm bank) {
  if (!log.HasBank(bank)) {
    std::string names;
    for (const LogBank& each : log.banks()) {
      names += (names.empty() ? "" : ", ") + each.Name();
    }
    return InvalidInput(fmt::format("the log has no bank {}", HashAlgorithmName(bank)))
        .WithFix("choose one of its banks: " + names);
  }
  BankHasher hasher(bank);
  EventLogReplay replay{.bank = bank, .values = {}, .extends = {}, .skipped = {}};
  for (uint32_t i = 0; i < RegisterCount(log); ++i) {
    replay.values[i].resize(DigestSize(bank));
  }
  if (log.kind() == EventLogKind::kTpm) {
    replay.values[0].back() = std::byte{StartOfPcr0(log)};
  }
  for (const LoggedEvent& event : log.events()) {
    if (!log.Extends(event)) {
      continue;
    }
    const ByteView digest = log.DigestOf(event, bank);
    if (digest.empty()) {
      replay.skipped.push_back(static_cast<size_t>(&event - log.events().data()));
      continue;
    }
    hasher.Extend(replay.values[event.index], digest);
    ++replay.extends[event.index];
  }
  for (uint32_t i = kFirstDynamicPcr; i <= kLastDynamicPcr; ++i) {
    if (replay.extends[i] == 0) {
      std::ranges::fill(replay.values[i], std::byte{0xff});
    }
  }
  return replay;
}

Result<ReplayComparison> CompareEventLog(const EventLog& log, HashAlgorithm bank,
                                         std::span<const KnownRegister> known) {
  RETURN_IF_ERROR(CheckKnown(log, bank, known));
  ASSIGN_OR_RETURN(const EventLogReplay replay, ReplayEventLog(log, bank));
  ReplayComparison out;
  for (const KnownRegister& each : known) {
    const Bytes& replayed = replay.values[each.index];
    if (replayed == each.value) {
      continue;
    }
    out.first_difference = {
        .index = each.index,
        .replayed = replayed,
        .known = each.value,
        .reason =
            fmt::format("{} holds {}, but the log's {} events of it replay to {}{}",
                        log.RegisterName(each.index), ToHex(each.value), replay.extends[each.index],
                        ToHex(replayed), FindCause(log, replay, each))};
    break;
  }
  for (uint32_t i = 0; i < PcrIndex::kCount; ++i) {
    if (replay.extends[i] > 0 &&
        std::ranges::find(known, i, &KnownRegister::index) == known.end()) {
      out.unproven.push_back(i);
    }
  }
  return out;
}

}  // namespace vallum::measure
