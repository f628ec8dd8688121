// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"
#include "measure/event_type.h"

namespace vallum::measure {

// What firmware and loaders say that they measured. A log proves nothing by itself: whoever holds
// it can write it anew. Believe an event only when the log replays to a PCR that a TPM vouches for
// (event_log_replay.h), and its data only when the digest covers it (event_content.h).

inline constexpr size_t kMaxEventLogSize = size_t{16} << 20U;
inline constexpr size_t kMaxLoggedEvents = 65536;
inline constexpr size_t kMaxEventLogBanks = 8;

// Whose registers the log is about; the bytes of a log do not say it.
enum class EventLogKind {
  kTpm,           // PCRs 0 to 23
  kConfidential,  // CCEL: measurement registers; 0 is MRTD, 1 to 4 are RTMR0 to RTMR3 in TDX
};

enum class EventLogFormat {
  kSha1,         // TCG_PCClientPCREvent throughout
  kCryptoAgile,  // a Spec ID Event03, then TCG_PCR_EVENT2
};

// A bank that the Spec ID event announces.
struct LogBank {
  uint16_t algorithm = 0;  // TPM_ALG_ID
  uint16_t digest_size = 0;
  std::optional<HashAlgorithm> hash;  // nothing for a bank that Vallum cannot compute

  // "sha256", "sm3_256", "algorithm 0x0027".
  std::string Name() const;
};

// TCG_EfiSpecIdEvent, the first event of a crypto-agile log.
struct SpecIdEvent {
  uint32_t platform_class = 0;
  uint8_t version_major = 0;
  uint8_t version_minor = 0;
  uint8_t errata = 0;
  uint8_t uintn_size = 0;
  size_t vendor_info_size = 0;
  ByteView vendor_info;  // shorter than vendor_info_size when the event ends before
};

// What follows the last event.
enum class LogTail { kNothing, kZeros, kOnes, kVendorInfo };

struct LoggedEvent {
  uint32_t index = 0;  // of the PCR or measurement register, as logged: any value
  EventType type = EventType::kNoAction;
  size_t offset = 0;  // in the log
  ByteView digests;   // as logged; see EventLog::DigestOf
  ByteView data;
};

// A parsed log. Its views point into the bytes that were parsed, which must outlive it. A value.
class EventLog {
 public:
  // Parses a whole log: layout alone, nothing is believed.
  //   log: /sys/kernel/security/tpm0/binary_bios_measurements, or the ACPI table CCEL's data with
  //   its padding (zeros or 0xFF up to the end); untrusted.
  // Errors: kInvalidInput (empty, or the first event is none); kCorrupt (what contradicts itself:
  // event and offset); kExhausted (a limit above).
  // Source: PC Client Platform Firmware Profile 1.06, section 10; UEFI 2.10, section 38.
  static Result<EventLog> Parse(ByteView log, EventLogKind kind);

  EventLogKind kind() const { return kind_; }
  EventLogFormat format() const { return format_; }
  std::span<const LogBank> banks() const { return banks_; }
  // In order; the Spec ID event is number 0.
  std::span<const LoggedEvent> events() const { return events_; }
  const std::optional<SpecIdEvent>& spec_id() const { return spec_id_; }
  // Bytes up to the end of the last event, and what comes after.
  size_t size() const { return size_; }
  size_t tail_size() const { return tail_size_; }
  LogTail tail() const { return tail_; }

  // The locality of TPM2_Startup by the StartupLocality event: 0, 3 or 4.
  std::optional<uint8_t> startup_locality() const { return startup_locality_; }
  // EV_EFI_HCRTM_EVENT in PCR 0: the hardware measured before TPM2_Startup.
  bool has_hcrtm_event() const { return has_hcrtm_event_; }

  // The event's digest in a bank; empty when the event has none.
  ByteView DigestOf(const LoggedEvent& event, HashAlgorithm bank) const;
  // Whether the event extended a register (in the banks for which it has digests). One that did
  // not is no evidence of anything, whatever it says: EV_NO_ACTION, or a register that does not
  // exist.
  bool Extends(const LoggedEvent& event) const;
  bool HasBank(HashAlgorithm bank) const;
  // "PCR 7", "RTMR0", "register 9".
  std::string RegisterName(uint32_t index) const;

 private:
  friend class EventLogParser;
  EventLog() = default;

  EventLogKind kind_ = EventLogKind::kTpm;
  EventLogFormat format_ = EventLogFormat::kSha1;
  std::vector<LogBank> banks_;
  std::vector<LoggedEvent> events_;
  std::optional<SpecIdEvent> spec_id_;
  std::optional<uint8_t> startup_locality_;
  bool has_hcrtm_event_ = false;
  size_t size_ = 0;
  size_t tail_size_ = 0;
  LogTail tail_ = LogTail::kNothing;
};

// Registers that can be extended: 24 PCRs; MRTD, which only the module itself writes, is not one.
inline constexpr uint32_t kConfidentialRegisters = 5;

}  // namespace vallum::measure
