// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/result.h"
#include "base/units.h"

namespace vallum::measure {

// One PCR of one bank was extended. A command that extends two banks makes two records.
// Before the TpmStartup of a boot it is the H-CRTM's measurement: PCR 0 then starts from 0...04.
struct PcrExtend {
  PcrIndex pcr;
  HashAlgorithm bank;
  Bytes digest;  // DigestSize(bank) bytes
  bool operator==(const PcrExtend&) const = default;
};

// The TPM was initialised anew (_TPM_Init): the machine was powered on or reset.
struct TpmReset {
  bool operator==(const TpmReset&) const = default;
};

enum class StartupType { kClear, kState };

// TPM2_Startup succeeded. kState restores PCR 0-15 as they were before the reset.
struct TpmStartup {
  StartupType type;
  uint8_t locality;  // 3 makes PCR 0 start from 0...03
  bool operator==(const TpmStartup&) const = default;
};

// A PCR went back to zeros in all banks (TPM2_PCR_Reset, or a dynamic launch for 17-22).
struct PcrReset {
  PcrIndex pcr;
  bool operator==(const PcrReset&) const = default;
};

// Something may have changed PCRs in a way that the recorder could not read; values replayed after
// it are not proof of anything until the next TpmReset with a clear startup.
struct OpaqueChange {
  std::string what;
  bool operator==(const OpaqueChange&) const = default;
};

// A remark for people, such as why the TPM ended. Changes no PCR.
struct LogNote {
  std::string text;
  bool operator==(const LogNote&) const = default;
};

using RecordBody = std::variant<PcrExtend, TpmReset, TpmStartup, PcrReset, OpaqueChange, LogNote>;

struct ExtendRecord {
  uint64_t sequence = 0;  // from 1, without gaps, over all boots of the instance
  WallTime time;          // to the microsecond
  RecordBody body;
  bool operator==(const ExtendRecord&) const = default;
};

using PcrValues = std::array<Bytes, PcrIndex::kCount>;

// What the records say the PCRs of one bank hold.
struct PcrReplay {
  PcrValues values;
  bool started =
      false;  // TPM2_Startup was seen since the last reset; before it values mean nothing
  std::vector<std::string> gaps;  // not empty: the values are a guess, because of these
};

// Follows one bank as TPM 2.0 part 1 section 17 says, record by record, over all boots, in memory
// that does not grow with their number. A value; not thread-safe.
class PcrReplayer {
 public:
  static constexpr size_t kMaxGaps = 16;  // later ones are left out

  explicit PcrReplayer(HashAlgorithm bank);
  void Take(const RecordBody& body);
  PcrReplay Get() const { return {values_, started_, gaps_}; }

 private:
  void Reset();
  void Start(const TpmStartup& startup);
  void Extend(const PcrExtend& extend);
  void Restore();
  void AddGap(std::string what);

  HashAlgorithm bank_;
  PcrValues values_;
  PcrValues saved_;  // of before the last reset
  std::vector<std::string> gaps_;
  std::vector<std::string> saved_gaps_;
  bool started_ = false;
  bool measured_before_startup_ = false;
};

// What a TPM did to its PCRs, in order. A value; not thread-safe.
class ExtendLog {
 public:
  // Adds a record with the next sequence number. Returns it; valid until the next change.
  //   body: digests must have the bank's size (checked); texts are made one printable line.
  const ExtendRecord& Append(WallTime time, RecordBody body);

  std::span<const ExtendRecord> records() const { return records_; }
  // All records with a greater sequence number; empty when there are none.
  std::span<const ExtendRecord> Since(uint64_t sequence) const;
  // Sequence number of the newest record, 0 when there never was one.
  uint64_t last_sequence() const { return next_sequence_ - 1; }
  // Sequence number of the oldest record that is still held.
  uint64_t first_sequence() const { return next_sequence_ - records_.size(); }

  // Computes the PCRs of a bank, over all boots that are held (see PcrReplayer).
  PcrReplay Replay(HashAlgorithm bank) const;

  // Forgets what came before the newest reset that a clear startup followed: replay is unaffected.
  // Returns how many records were dropped.
  size_t DropOldBoots();
  // Forgets all records; the numbers go on.
  void DropAll() { records_.clear(); }

 private:
  friend Result<ExtendLog> ParseExtendLog(ByteView text);

  std::vector<ExtendRecord> records_;
  uint64_t next_sequence_ = 1;
};

// The events of one bank since the last reset, in order: what a boot measured.
std::vector<PcrExtend> ExtendsOfLastBoot(const ExtendLog& log, HashAlgorithm bank);

// One record as a line with a check sum and '\n'; at most kMaxRecordLine bytes.
std::string FormatRecord(const ExtendRecord& record);
inline constexpr size_t kMaxRecordLine = 512;

// Parses one line of FormatRecord, with or without its '\n'.
// Errors: kCorrupt (check sum, unknown kind, field out of range).
Result<ExtendRecord> ParseRecord(std::string_view line);

// Parses a whole record file. A last line without '\n' is what a crash in the middle of a write
// leaves: it is dropped.
// Errors: kCorrupt (a damaged line, a gap in the sequence numbers), naming the line.
Result<ExtendLog> ParseExtendLog(ByteView text);
// Bytes of the file up to and with the last '\n': where a writer goes on after a crash.
size_t CompleteSize(ByteView text);

// TPM_ALG_ID of a bank, and back. Errors: kInvalidInput (no bank that Vallum knows).
uint16_t TpmAlgorithmId(HashAlgorithm bank);
Result<HashAlgorithm> BankOfTpmAlgorithm(uint16_t id);
// "sha1", "sha256", ... Errors: kInvalidInput.
Result<HashAlgorithm> ParseBankName(std::string_view name);

}  // namespace vallum::measure
