// SPDX-License-Identifier: Apache-2.0
#include "measure/event_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/text.h"
#include "base/units.h"
#include "measure/extend_log.h"

namespace vallum::measure {
namespace {

constexpr size_t kSha1Size = 20;
constexpr size_t kMaxDigestSize = 128;
constexpr size_t kSignatureSize = 16;
constexpr size_t kUsualEvents = 256;
// With their closing zero: sizeof a literal counts it.
constexpr std::string_view kCryptoAgileSignature("Spec ID Event03\0", kSignatureSize);
constexpr std::string_view kEfiSignature("Spec ID Event02\0", kSignatureSize);
constexpr std::string_view kBiosSignature("Spec ID Event00\0", kSignatureSize);
constexpr std::string_view kSpecIdPrefix = "Spec ID Event";
constexpr std::string_view kStartupLocality("StartupLocality\0", kSignatureSize);

// Where the run of equal bytes 0x00 or 0xFF begins in which the log ends.
size_t FindPadding(ByteView log) {
  if (log.empty() || (log.back() != std::byte{0} && log.back() != std::byte{0xff})) {
    return log.size();
  }
  const std::byte fill = log.back();
  const auto last =
      std::find_if(log.rbegin(), log.rend(), [fill](std::byte b) { return b != fill; });
  return static_cast<size_t>(log.rend() - last);
}

bool StartsWith(ByteView data, std::string_view text) { return AsText(data).starts_with(text); }

Result<LogBank> ReadBank(ByteCursor& cursor) {
  LogBank bank;
  ASSIGN_OR_RETURN(bank.algorithm, cursor.ReadU16Le());
  ASSIGN_OR_RETURN(bank.digest_size, cursor.ReadU16Le());
  if (const auto hash = BankOfTpmAlgorithm(bank.algorithm); hash.has_value()) {
    bank.hash = *hash;
  }
  const bool fits = bank.hash.has_value()
                        ? bank.digest_size == DigestSize(*bank.hash)
                        : bank.digest_size > 0 && bank.digest_size <= kMaxDigestSize;
  if (!fits) {
    return Corrupt(fmt::format("bank {} with digests of {} bytes", bank.Name(), bank.digest_size));
  }
  return bank;
}

}  // namespace

// Reads one log from front to back.
class EventLogParser {
 public:
  EventLogParser(ByteView log, EventLogKind kind)
      : log_(log), cursor_(log), padding_(FindPadding(log)) {
    out_.kind_ = kind;
  }

  Result<EventLog> Run() && {
    auto first = ReadSha1Event();
    if (!first.has_value()) {
      return InvalidInput("the first event is none: " + first.error().message())
          .WithFix("give it a TCG event log, such as binary_bios_measurements");
    }
    out_.events_.reserve(kUsualEvents);
    RETURN_IF_ERROR(ReadHeader(*first));
    while (!AtTail()) {
      if (out_.events_.size() == kMaxLoggedEvents) {
        return Exhausted(fmt::format("more than {} events", kMaxLoggedEvents));
      }
      const size_t number = out_.events_.size();
      const size_t offset = cursor_.offset();
      auto event = out_.format_ == EventLogFormat::kSha1 ? ReadSha1Event() : ReadCryptoAgileEvent();
      if (!event.has_value()) {
        return Corrupt(
            fmt::format("event {} at offset {}: {}", number, offset, event.error().message()));
      }
      RETURN_IF_ERROR(Keep(*event));
    }
    out_.size_ = cursor_.offset();
    out_.tail_size_ = cursor_.remaining();
    return std::move(out_);
  }

 private:
  Result<ByteView> ReadData() {
    ASSIGN_OR_RETURN(const uint32_t size, cursor_.ReadU32Le());
    return cursor_.ReadBytes(size);
  }

  Result<LoggedEvent> ReadSha1Event() {
    LoggedEvent event;
    event.offset = cursor_.offset();
    ASSIGN_OR_RETURN(event.index, cursor_.ReadU32Le());
    ASSIGN_OR_RETURN(const uint32_t type, cursor_.ReadU32Le());
    event.type = static_cast<EventType>(type);
    ASSIGN_OR_RETURN(event.digests, cursor_.ReadBytes(kSha1Size));
    ASSIGN_OR_RETURN(event.data, ReadData());
    return event;
  }

  Result<LoggedEvent> ReadCryptoAgileEvent() {
    LoggedEvent event;
    event.offset = cursor_.offset();
    ASSIGN_OR_RETURN(event.index, cursor_.ReadU32Le());
    ASSIGN_OR_RETURN(const uint32_t type, cursor_.ReadU32Le());
    event.type = static_cast<EventType>(type);
    ASSIGN_OR_RETURN(event.digests, ReadDigests());
    ASSIGN_OR_RETURN(event.data, ReadData());
    return event;
  }

  // TPML_DIGEST_VALUES. A bank may be missing (then it cannot be replayed), none may be twice.
  Result<ByteView> ReadDigests() {
    ASSIGN_OR_RETURN(const uint32_t count, cursor_.ReadU32Le());
    if (count > out_.banks_.size()) {
      return Corrupt(fmt::format("{} digests; the log has {} banks", count, out_.banks_.size()));
    }
    const size_t begin = cursor_.offset();
    uint32_t seen = 0;
    for (uint32_t i = 0; i < count; ++i) {
      ASSIGN_OR_RETURN(const uint16_t algorithm, cursor_.ReadU16Le());
      const auto bank = std::ranges::find(out_.banks_, algorithm, &LogBank::algorithm);
      if (bank == out_.banks_.end()) {
        return Corrupt(
            fmt::format("a digest of algorithm 0x{:04x}, which the Spec ID event does "
                        "not name",
                        algorithm));
      }
      const uint32_t bit = uint32_t{1} << static_cast<uint32_t>(bank - out_.banks_.begin());
      if ((seen & bit) != 0) {
        return Corrupt(fmt::format("two digests of bank {}", bank->Name()));
      }
      seen |= bit;
      RETURN_IF_ERROR(cursor_.Skip(bank->digest_size));
    }
    return log_.subspan(begin, cursor_.offset() - begin);
  }

  Result<void> ReadHeader(LoggedEvent first) {
    const bool spec_id =
        first.type == EventType::kNoAction && StartsWith(first.data, kSpecIdPrefix);
    if (spec_id && StartsWith(first.data, kCryptoAgileSignature)) {
      out_.format_ = EventLogFormat::kCryptoAgile;
      RETURN_IF_ERROR(ReadSpecId(first.data)).context("reading the Spec ID event");
      RETURN_IF_ERROR(PassVendorInfo()).context("reading the Spec ID event");
      // It is not an event of any bank.
      first.digests = {};
    } else if (spec_id && !StartsWith(first.data, kEfiSignature) &&
               !StartsWith(first.data, kBiosSignature)) {
      return InvalidInput(fmt::format("an unknown format, '{}'",
                                      Printable(AsText(first.data).substr(0, kSignatureSize - 1))));
    } else if (out_.kind_ == EventLogKind::kConfidential) {
      return InvalidInput(
          "a confidential computing log begins with a Spec ID Event03; this does "
          "not");
    } else {
      out_.banks_.push_back(
          {TpmAlgorithmId(HashAlgorithm::kSha1), kSha1Size, HashAlgorithm::kSha1});
    }
    return Keep(first);
  }

  Result<void> ReadSpecId(ByteView data) {
    ByteCursor cursor(data.subspan(kSignatureSize));
    SpecIdEvent spec;
    ASSIGN_OR_RETURN(spec.platform_class, cursor.ReadU32Le());
    ASSIGN_OR_RETURN(spec.version_minor, cursor.ReadU8());
    ASSIGN_OR_RETURN(spec.version_major, cursor.ReadU8());
    ASSIGN_OR_RETURN(spec.errata, cursor.ReadU8());
    ASSIGN_OR_RETURN(spec.uintn_size, cursor.ReadU8());
    if (spec.version_major != 2 || spec.version_minor != 0) {
      return Corrupt(fmt::format("a log of version {}.{}; 2.0 is known", spec.version_major,
                                 spec.version_minor));
    }
    ASSIGN_OR_RETURN(const uint32_t count, cursor.ReadU32Le());
    if (count == 0 || count > kMaxEventLogBanks) {
      return Corrupt(fmt::format("{} banks; 1 to {} are accepted", count, kMaxEventLogBanks));
    }
    for (uint32_t i = 0; i < count; ++i) {
      ASSIGN_OR_RETURN(const LogBank bank, ReadBank(cursor));
      if (std::ranges::find(out_.banks_, bank.algorithm, &LogBank::algorithm) !=
          out_.banks_.end()) {
        return Corrupt(fmt::format("bank {} twice", bank.Name()));
      }
      out_.banks_.push_back(bank);
    }
    ASSIGN_OR_RETURN(const uint8_t vendor_info_size, cursor.ReadU8());
    spec.vendor_info_size = vendor_info_size;
    spec.vendor_info = cursor.Rest().first(std::min(cursor.remaining(), spec.vendor_info_size));
    if (cursor.remaining() > spec.vendor_info_size) {
      return Corrupt(fmt::format("{} bytes after the vendor information",
                                 cursor.remaining() - spec.vendor_info_size));
    }
    out_.spec_id_ = spec;
    return Ok();
  }

  // Firmware is known that leaves the vendor information out of the Spec ID event's size: it comes
  // after the event then, unless an event does.
  Result<void> PassVendorInfo() {
    SpecIdEvent& spec = *out_.spec_id_;
    const size_t missing = spec.vendor_info_size - spec.vendor_info.size();
    if (cursor_.remaining() < missing) {
      return Corrupt(fmt::format("{} of {} bytes of vendor information",
                                 spec.vendor_info.size() + cursor_.remaining(),
                                 spec.vendor_info_size));
    }
    if (missing == 0 || cursor_.remaining() == missing) {
      return Ok();  // nothing, or AtTail
    }
    const ByteCursor before = cursor_;
    const auto event = ReadCryptoAgileEvent();
    cursor_ = before;
    // Zeros read as an event without digests.
    return event.has_value() && !event->digests.empty() ? Ok() : cursor_.Skip(missing);
  }

  // Adds an event and notes what it says of the start of PCR 0.
  Result<void> Keep(const LoggedEvent& event) {
    const size_t number = out_.events_.size();
    out_.events_.push_back(event);
    if (out_.kind_ != EventLogKind::kTpm || event.index != 0) {
      return Ok();
    }
    out_.has_hcrtm_event_ |= event.type == EventType::kHcrtmEvent;
    if (event.type != EventType::kNoAction || !StartsWith(event.data, kStartupLocality)) {
      return Ok();
    }
    if (event.data.size() != kSignatureSize + 1) {
      return Corrupt(fmt::format("event {}: StartupLocality with {} bytes; it has {}", number,
                                 event.data.size(), kSignatureSize + 1));
    }
    const auto locality = std::to_integer<uint8_t>(event.data.back());
    if (locality != 0 && locality != 3 && locality != 4) {
      return Corrupt(
          fmt::format("event {} names no locality that a TPM starts from (0, 3 or 4)", number));
    }
    if (out_.startup_locality_.value_or(locality) != locality) {
      return Corrupt(fmt::format("event {} gives startup locality {}, an earlier one {}", number,
                                 locality, *out_.startup_locality_));
    }
    out_.startup_locality_ = locality;
    return Ok();
  }

  bool AtTail() {
    if (cursor_.AtEnd()) {
      return true;
    }
    if (cursor_.offset() >= padding_) {
      out_.tail_ = log_.back() == std::byte{0} ? LogTail::kZeros : LogTail::kOnes;
      return true;
    }
    const auto& spec = out_.spec_id_;
    if (out_.events_.size() == 1 && spec.has_value() &&
        cursor_.remaining() == spec->vendor_info_size - spec->vendor_info.size()) {
      out_.tail_ = LogTail::kVendorInfo;
      return true;
    }
    return false;
  }

  ByteView log_;
  ByteCursor cursor_;
  size_t padding_;
  EventLog out_;
};

std::string LogBank::Name() const {
  constexpr uint16_t kSm3 = 0x0012;
  if (hash.has_value()) {
    return std::string(HashAlgorithmName(*hash));
  }
  return algorithm == kSm3 ? "sm3_256" : fmt::format("algorithm 0x{:04x}", algorithm);
}

Result<EventLog> EventLog::Parse(ByteView log, EventLogKind kind) {
  if (log.empty()) {
    return InvalidInput("the log is empty: no log is not the same as nothing measured")
        .WithFix(
            "read the log on the machine whose boot it describes, with a TPM that its "
            "firmware uses");
  }
  if (log.size() > kMaxEventLogSize) {
    return Exhausted(
        fmt::format("a log of {} bytes; at most {} are read", log.size(), kMaxEventLogSize));
  }
  return EventLogParser(log, kind).Run();
}

ByteView EventLog::DigestOf(const LoggedEvent& event, HashAlgorithm bank) const {
  if (format_ == EventLogFormat::kSha1) {
    return bank == HashAlgorithm::kSha1 ? event.digests : ByteView{};
  }
  const uint16_t wanted = TpmAlgorithmId(bank);
  // The parser has checked that the entries fit and that each algorithm is a bank's.
  for (ByteView rest = event.digests; rest.size() > 2;) {
    const auto algorithm = static_cast<uint16_t>(std::to_integer<unsigned>(rest[0]) |
                                                 std::to_integer<unsigned>(rest[1]) << 8U);
    const size_t size = std::ranges::find(banks_, algorithm, &LogBank::algorithm)->digest_size;
    if (algorithm == wanted) {
      return rest.subspan(2, size);
    }
    rest = rest.subspan(2 + size);
  }
  return {};
}

bool EventLog::Extends(const LoggedEvent& event) const {
  if (event.type == EventType::kNoAction) {
    return false;
  }
  return kind_ == EventLogKind::kTpm ? event.index < PcrIndex::kCount
                                     : event.index > 0 && event.index < kConfidentialRegisters;
}

bool EventLog::HasBank(HashAlgorithm bank) const {
  return std::ranges::find(banks_, std::optional(bank), &LogBank::hash) != banks_.end();
}

std::string EventLog::RegisterName(uint32_t index) const {
  if (kind_ == EventLogKind::kTpm) {
    return index < PcrIndex::kCount ? fmt::format("PCR {}", index)
                                    : fmt::format("no PCR (0x{:08x})", index);
  }
  if (index == 0) {
    return "MRTD";
  }
  return index < kConfidentialRegisters ? fmt::format("RTMR{}", index - 1)
                                        : fmt::format("no register (0x{:08x})", index);
}

}  // namespace vallum::measure
