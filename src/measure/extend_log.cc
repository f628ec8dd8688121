// SPDX-License-Identifier: Apache-2.0
#include "measure/extend_log.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "base/text.h"

namespace vallum::measure {
namespace {

constexpr size_t kMaxText = 200;
constexpr size_t kCheckSumDigits = 8;
constexpr uint32_t kFirstDynamicPcr = 17;
constexpr uint32_t kLastDynamicPcr = 22;
constexpr uint32_t kSavedPcrs = 16;  // PCR 0-15 survive a startup(STATE)

template <typename... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};

std::string CheckSum(std::string_view text) {
  return ToHex(ByteView(Sha256(AsBytes(text))).first(kCheckSumDigits / 2));
}

// PC Client platform profile, section 4.6.2: 17-22 start from ones, the others from zeros.
PcrValues DefaultValues(HashAlgorithm bank) {
  PcrValues values;
  for (uint32_t i = 0; i < PcrIndex::kCount; ++i) {
    const bool dynamic = i >= kFirstDynamicPcr && i <= kLastDynamicPcr;
    values[i].assign(DigestSize(bank), dynamic ? std::byte{0xff} : std::byte{0});
  }
  return values;
}

std::string FormatBody(const RecordBody& body) {
  return std::visit(
      Overloaded{
          [](const PcrExtend& e) {
            return "extend " + std::string(HashAlgorithmName(e.bank)) + " " +
                   std::to_string(e.pcr.value()) + " " + ToHex(e.digest);
          },
          [](const TpmReset&) { return std::string("reset"); },
          [](const TpmStartup& s) {
            return std::string("startup ") + (s.type == StartupType::kClear ? "clear " : "state ") +
                   std::to_string(s.locality);
          },
          [](const PcrReset& r) { return "pcr-reset " + std::to_string(r.pcr.value()); },
          [](const OpaqueChange& o) { return "opaque " + o.what; },
          [](const LogNote& n) { return "note " + n.text; },
      },
      body);
}

template <typename T>
Result<T> ParseNumber(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) {
    return Corrupt("'" + Printable(text) + "' is no number of the expected size");
  }
  return value;
}

// Cuts the part before the next space off the front.
std::string_view TakeWord(std::string_view& text) {
  const size_t space = text.find(' ');
  const std::string_view word = text.substr(0, space);
  text = space == std::string_view::npos ? std::string_view{} : text.substr(space + 1);
  return word;
}

Result<PcrIndex> ParsePcr(std::string_view text) {
  ASSIGN_OR_RETURN(const uint32_t number, ParseNumber<uint32_t>(text));
  return PcrIndex::Create(number);
}

Result<RecordBody> ParseExtend(std::string_view fields) {
  ASSIGN_OR_RETURN(const HashAlgorithm bank, ParseBankName(TakeWord(fields)));
  ASSIGN_OR_RETURN(const PcrIndex pcr, ParsePcr(TakeWord(fields)));
  ASSIGN_OR_RETURN(Bytes digest, FromHex(fields));
  if (digest.size() != DigestSize(bank)) {
    return Corrupt("the digest has " + std::to_string(digest.size()) + " bytes");
  }
  return RecordBody(PcrExtend{pcr, bank, std::move(digest)});
}

Result<RecordBody> ParseStartup(std::string_view fields) {
  const std::string_view type = TakeWord(fields);
  ASSIGN_OR_RETURN(const uint8_t locality, ParseNumber<uint8_t>(fields));
  if (type != "clear" && type != "state") {
    return Corrupt("unknown startup type '" + Printable(type) + "'");
  }
  return RecordBody(
      TpmStartup{type == "clear" ? StartupType::kClear : StartupType::kState, locality});
}

Result<RecordBody> ParseBody(std::string_view text) {
  const std::string_view kind = TakeWord(text);
  if (kind == "extend") {
    return ParseExtend(text);
  }
  if (kind == "reset" && text.empty()) {
    return RecordBody(TpmReset{});
  }
  if (kind == "startup") {
    return ParseStartup(text);
  }
  if (kind == "pcr-reset") {
    ASSIGN_OR_RETURN(const PcrIndex pcr, ParsePcr(text));
    return RecordBody(PcrReset{pcr});
  }
  if (kind == "opaque") {
    return RecordBody(OpaqueChange{std::string(text)});
  }
  if (kind == "note") {
    return RecordBody(LogNote{std::string(text)});
  }
  return Corrupt("unknown kind '" + Printable(kind) + "'");
}

Result<ExtendRecord> ParseChecked(std::string_view text) {
  ASSIGN_OR_RETURN(const uint64_t sequence, ParseNumber<uint64_t>(TakeWord(text)));
  ASSIGN_OR_RETURN(const int64_t micros, ParseNumber<int64_t>(TakeWord(text)));
  // The clock counts nanoseconds in 64 bits.
  constexpr int64_t kLimit = INT64_MAX / 1000;
  if (micros < 0 || micros > kLimit) {
    return Corrupt("the time is out of range");
  }
  ASSIGN_OR_RETURN(RecordBody body, ParseBody(text));
  return ExtendRecord{sequence, WallTime(std::chrono::microseconds(micros)), std::move(body)};
}

}  // namespace

PcrReplayer::PcrReplayer(HashAlgorithm bank) : bank_(bank), values_(DefaultValues(bank)) {}

void PcrReplayer::Take(const RecordBody& body) {
  std::visit(Overloaded{
                 [&](const PcrExtend& extend) { Extend(extend); },
                 [&](const TpmReset&) { Reset(); },
                 [&](const TpmStartup& startup) { Start(startup); },
                 [&](const PcrReset& reset) {
                   std::ranges::fill(values_[reset.pcr.value()], std::byte{0});
                 },
                 [&](const OpaqueChange& change) { AddGap(change.what); },
                 [](const LogNote&) {},
             },
             body);
}

void PcrReplayer::Reset() {
  // A TPM that was not started had nothing to save: two resets in a row keep the older state.
  if (started_) {
    saved_ = values_;
    saved_gaps_ = gaps_;
  }
  values_ = DefaultValues(bank_);
  gaps_.clear();
  started_ = false;
  measured_before_startup_ = false;
}

void PcrReplayer::Start(const TpmStartup& startup) {
  started_ = true;
  if (startup.type == StartupType::kState) {
    Restore();
  } else if (!measured_before_startup_ && startup.locality == 3) {
    values_[0].back() = std::byte{3};
  }
}

void PcrReplayer::Extend(const PcrExtend& extend) {
  if (extend.bank != bank_) {
    return;
  }
  Bytes& value = values_[extend.pcr.value()];
  if (!started_) {
    // Part 1, section 34: an H-CRTM sequence before startup sets the PCR to 0...04 first.
    measured_before_startup_ = true;
    std::ranges::fill(value, std::byte{0});
    value.back() = std::byte{4};
  }
  Hasher hasher(bank_);
  hasher.Update(value);
  hasher.Update(extend.digest);
  value = hasher.Finish();
}

void PcrReplayer::Restore() {
  if (saved_[0].empty()) {
    return AddGap("startup restored a state from before the first record");
  }
  for (uint32_t i = 0; i < kSavedPcrs; ++i) {
    values_[i] = saved_[i];
  }
  for (const std::string& gap : saved_gaps_) {
    AddGap(gap);
  }
}

// What changes PCRs in a way that cannot be read may come from a guest, any number of times.
void PcrReplayer::AddGap(std::string what) {
  if (gaps_.size() < kMaxGaps) {
    gaps_.push_back(std::move(what));
  }
}

const ExtendRecord& ExtendLog::Append(WallTime time, RecordBody body) {
  if (auto* extend = std::get_if<PcrExtend>(&body)) {
    CHECK(extend->digest.size() == DigestSize(extend->bank));
  } else if (auto* opaque = std::get_if<OpaqueChange>(&body)) {
    opaque->what = Printable(opaque->what, kMaxText);
  } else if (auto* note = std::get_if<LogNote>(&body)) {
    note->text = Printable(note->text, kMaxText);
  }
  // What the file cannot hold is not kept in memory either.
  const auto micros = std::chrono::floor<std::chrono::microseconds>(time.time_since_epoch());
  records_.push_back(
      {next_sequence_++, WallTime(std::max(micros, micros.zero())), std::move(body)});
  return records_.back();
}

std::span<const ExtendRecord> ExtendLog::Since(uint64_t sequence) const {
  const std::span<const ExtendRecord> all(records_);
  if (sequence >= last_sequence()) {
    return {};
  }
  if (sequence < first_sequence()) {
    return all;
  }
  return all.subspan(sequence - first_sequence() + 1);
}

PcrReplay ExtendLog::Replay(HashAlgorithm bank) const {
  PcrReplayer replayer(bank);
  for (const ExtendRecord& record : records_) {
    replayer.Take(record.body);
  }
  return replayer.Get();
}

size_t ExtendLog::DropOldBoots() {
  bool clear_startup = false;
  for (size_t i = records_.size(); i-- > 0;) {
    const RecordBody& body = records_[i].body;
    if (const auto* startup = std::get_if<TpmStartup>(&body)) {
      clear_startup = startup->type == StartupType::kClear;
    } else if (std::holds_alternative<TpmReset>(body) && clear_startup) {
      records_.erase(records_.begin(), records_.begin() + static_cast<std::ptrdiff_t>(i));
      return i;
    }
  }
  return 0;
}

std::vector<PcrExtend> ExtendsOfLastBoot(const ExtendLog& log, HashAlgorithm bank) {
  std::vector<PcrExtend> extends;
  for (const ExtendRecord& record : log.records()) {
    if (std::holds_alternative<TpmReset>(record.body)) {
      extends.clear();
    } else if (const auto* extend = std::get_if<PcrExtend>(&record.body);
               extend != nullptr && extend->bank == bank) {
      extends.push_back(*extend);
    }
  }
  return extends;
}

std::string FormatRecord(const ExtendRecord& record) {
  const auto micros =
      std::chrono::floor<std::chrono::microseconds>(record.time.time_since_epoch()).count();
  const std::string text = std::to_string(record.sequence) + " " + std::to_string(micros) + " " +
                           FormatBody(record.body);
  return CheckSum(text) + " " + text + "\n";
}

Result<ExtendRecord> ParseRecord(std::string_view line) {
  if (line.ends_with('\n')) {
    line.remove_suffix(1);
  }
  if (line.size() > kMaxRecordLine) {
    return Corrupt("a record of " + std::to_string(line.size()) + " bytes");
  }
  const std::string_view check_sum = TakeWord(line);
  if (check_sum != CheckSum(line)) {
    return Corrupt("the check sum does not match");
  }
  auto record = ParseChecked(line);
  if (!record.has_value()) {
    // Whatever a field's own parser calls it: a stored record that contradicts its check sum.
    return Corrupt(record.error().message());
  }
  return record;
}

size_t CompleteSize(ByteView text) {
  const size_t last = AsText(text).rfind('\n');
  return last == std::string_view::npos ? 0 : last + 1;
}

Result<ExtendLog> ParseExtendLog(ByteView bytes) {
  std::string_view rest = AsText(bytes.first(CompleteSize(bytes)));
  ExtendLog log;
  for (size_t line_number = 1; !rest.empty(); ++line_number) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(line.size() + 1);
    const std::string where = "record file, line " + std::to_string(line_number);
    ASSIGN_OR_RETURN_CONTEXT(ExtendRecord record, ParseRecord(line), where);
    const bool first = log.records_.empty();
    const bool follows = first ? record.sequence > 0 : record.sequence == log.next_sequence_;
    if (!follows || record.sequence == UINT64_MAX) {
      return Corrupt(where + ": sequence number " + std::to_string(record.sequence) +
                     " does not follow the one before");
    }
    log.next_sequence_ = record.sequence + 1;
    log.records_.push_back(std::move(record));
  }
  return log;
}

uint16_t TpmAlgorithmId(HashAlgorithm bank) {
  switch (bank) {
    case HashAlgorithm::kSha1:
      return 0x0004;
    case HashAlgorithm::kSha256:
      return 0x000B;
    case HashAlgorithm::kSha384:
      return 0x000C;
    case HashAlgorithm::kSha512:
      return 0x000D;
  }
  CHECK(false);
}

Result<HashAlgorithm> BankOfTpmAlgorithm(uint16_t id) {
  for (const HashAlgorithm bank : {HashAlgorithm::kSha1, HashAlgorithm::kSha256,
                                   HashAlgorithm::kSha384, HashAlgorithm::kSha512}) {
    if (TpmAlgorithmId(bank) == id) {
      return bank;
    }
  }
  return InvalidInput("TPM algorithm " + std::to_string(id) + " is no PCR bank that is supported");
}

Result<HashAlgorithm> ParseBankName(std::string_view name) {
  for (const HashAlgorithm bank : {HashAlgorithm::kSha1, HashAlgorithm::kSha256,
                                   HashAlgorithm::kSha384, HashAlgorithm::kSha512}) {
    if (HashAlgorithmName(bank) == name) {
      return bank;
    }
  }
  return InvalidInput("'" + Printable(name) + "' is no PCR bank")
      .WithFix("use sha1, sha256, sha384 or sha512");
}

}  // namespace vallum::measure
