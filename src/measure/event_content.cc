// SPDX-License-Identifier: Apache-2.0
#include "measure/event_content.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/check.h"
#include "measure/event_data.h"
#include "measure/event_digest.h"

namespace vallum::measure {
namespace {

bool Same(ByteView a, ByteView b) { return std::ranges::equal(a, b); }

// What most writers hash of an event's data: GRUB its text, the others all of it.
ByteView UsuallyHashed(const LoggedEvent& event) {
  const auto text =
      event.type == EventType::kIpl ? GrubTextOf(event.data) : std::optional<ByteView>();
  return text.value_or(event.data);
}

// GRUB's builds for RTMRs hash the closing zero too, and log a byte beyond it.
ContentCheck CheckIpl(ByteView data, ByteView digest, BankHasher& hasher) {
  constexpr std::byte kZero{0};
  const auto text = GrubTextOf(data);
  if (!text.has_value()) {
    return ContentCheck::kNotCovered;
  }
  const auto begin = static_cast<size_t>(text->data() - data.data());
  const bool matches = Same(hasher.Hash(*text, ByteView(&kZero, 1)), digest) ||
                       Same(hasher.Hash(data.subspan(begin)), digest) ||
                       Same(hasher.Hash(data), digest);
  return matches ? ContentCheck::kMatches : ContentCheck::kDiffers;
}

bool IsBootVariable(EventType type) {
  return type == EventType::kVariableBoot || type == EventType::kVariableBoot2;
}

// Judges an event that has a digest, which is not that of what is usually hashed.
ContentCheck CheckUnusual(const LoggedEvent& event, ByteView digest, BankHasher& hasher) {
  if (event.type == EventType::kIpl) {
    return CheckIpl(event.data, digest, hasher);
  }
  if (!DigestCoversData(event.type)) {
    return ContentCheck::kNotCovered;
  }
  if (IsBootVariable(event.type)) {
    const auto variable = ParseVariableEvent(event.data);
    if (variable.has_value() && Same(hasher.Hash(variable->data), digest)) {
      return ContentCheck::kMatches;
    }
  }
  // Section 10.4.1: firmware that could not measure hashes the value 1 and may log why.
  if (event.type == EventType::kSeparator && Same(digest, ErrorSeparatorDigest(hasher.bank()))) {
    return ContentCheck::kNotCovered;
  }
  return ContentCheck::kDiffers;
}

//   usual: the hash of what is usually hashed.
ContentCheck Judge(const LoggedEvent& event, ByteView digest, ByteView usual, BankHasher& hasher) {
  if (digest.empty() || event.type == EventType::kNoAction) {
    return ContentCheck::kNotCovered;
  }
  return Same(usual, digest) ? ContentCheck::kMatches : CheckUnusual(event, digest, hasher);
}

}  // namespace

bool DigestCoversData(EventType type) {
  constexpr EventType kCovered[] = {
      EventType::kSeparator,        EventType::kAction,
      EventType::kEfiAction,        EventType::kCrtmVersion,
      EventType::kVariableBoot,     EventType::kVariableBoot2,
      EventType::kGptEvent,         EventType::kVariableDriverConfig,
      EventType::kGptEvent2,        EventType::kVariableAuthority,
      EventType::kSpdmDevicePolicy, EventType::kSpdmDeviceAuthority,
  };
  return std::ranges::find(kCovered, type) != std::end(kCovered);
}

ContentCheck CheckContent(const EventLog& log, const LoggedEvent& event, BankHasher& hasher) {
  const ByteView digest = log.DigestOf(event, hasher.bank());
  return Judge(event, digest, hasher.Hash(UsuallyHashed(event)), hasher);
}

std::vector<ContentCheck> CheckContent(const EventLog& log, std::span<const size_t> events,
                                       BankHasher& hasher) {
  std::vector<ByteView> contents;
  contents.reserve(events.size());
  for (const size_t number : events) {
    CHECK(number < log.events().size());
    contents.push_back(UsuallyHashed(log.events()[number]));
  }
  const size_t size = DigestSize(hasher.bank());
  Bytes hashes(events.size() * size);
  hasher.HashEach(contents, hashes);
  std::vector<ContentCheck> out;
  out.reserve(events.size());
  for (size_t i = 0; i < events.size(); ++i) {
    const LoggedEvent& event = log.events()[events[i]];
    const ByteView digest = log.DigestOf(event, hasher.bank());
    out.push_back(Judge(event, digest, ByteView(hashes).subspan(i * size, size), hasher));
  }
  return out;
}

ContentReport CheckContents(const EventLog& log) {
  ContentReport report;
  for (const LogBank& bank : log.banks()) {
    if (!bank.hash.has_value()) {
      continue;
    }
    std::vector<size_t> events;
    for (size_t i = 0; i < log.events().size(); ++i) {
      const LoggedEvent& event = log.events()[i];
      const bool covered = DigestCoversData(event.type);
      if ((covered || event.type == EventType::kIpl) && !log.DigestOf(event, *bank.hash).empty()) {
        report.checked += covered ? 1 : 0;
        events.push_back(i);
      }
    }
    BankHasher hasher(*bank.hash);
    const std::vector<ContentCheck> checks = CheckContent(log, events, hasher);
    for (size_t i = 0; i < events.size(); ++i) {
      if (checks[i] == ContentCheck::kDiffers) {
        report.mismatches.push_back({.event = events[i], .bank = *bank.hash});
      }
    }
  }
  std::ranges::sort(report.mismatches, [](const ContentMismatch& a, const ContentMismatch& b) {
    return a.event != b.event ? a.event < b.event : a.bank < b.bank;
  });
  return report;
}

std::string DescribeMismatch(const EventLog& log, const ContentMismatch& mismatch) {
  const LoggedEvent& event = log.events()[mismatch.event];
  BankHasher hasher(mismatch.bank);
  const ByteView digest = log.DigestOf(event, mismatch.bank);
  std::string out = fmt::format("event {} ({}, {}): its {} digest is not that of what it says",
                                mismatch.event, EventTypeName(event.type),
                                log.RegisterName(event.index), HashAlgorithmName(mismatch.bank));
  if (event.type == EventType::kVariableAuthority && !event.data.empty() &&
      Same(hasher.Hash(event.data.first(event.data.size() - 1)), digest)) {
    out += ", but that of all but the last byte: old versions of shim log one byte too many";
  }
  return out;
}

}  // namespace vallum::measure
