// SPDX-License-Identifier: Apache-2.0
#include "agent/boot_monitor.h"

#include <condition_variable>
#include <utility>
#include <variant>

#include "agent/messages.h"
#include "agent/state_files.h"

namespace vallum::agent {
namespace {

constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;
constexpr uint32_t kLastFirmwarePcr = 7;
constexpr size_t kRecordLimit = 16384;
constexpr std::chrono::milliseconds kCallTimeout{5000};
// Bounds how long the destructor waits.
constexpr std::chrono::milliseconds kWait{500};
constexpr std::chrono::milliseconds kReconnectPause{200};
constexpr std::chrono::seconds kPcrInterval{5};

vtpm::PcrSelection AllPcrs() {
  vtpm::PcrSelection all;
  for (uint32_t i = 0; i < PcrIndex::kCount; ++i) {
    all.push_back(*PcrIndex::Create(i));
  }
  return all;
}

bool IsFinal(v1::BootVerdict verdict) {
  return verdict == v1::BOOT_VERIFIED || verdict == v1::BOOT_DIVERGED ||
         verdict == v1::BOOT_REFUSED;
}

// The same boot as an earlier verdict was made on.
bool IsSameBoot(const v1::BootMeasured& a, const v1::BootMeasured& b) {
  return a.tpm_resets() == b.tpm_resets() && a.pcr7_measured() == b.pcr7_measured();
}

}  // namespace

BootMonitor::BootMonitor(BootMonitorOptions options, const Clock& clock, Callback callback)
    : options_(std::move(options)), clock_(clock), callback_(std::move(callback)) {
  evidence_.mode = options_.mode;
  evidence_.binaries = options_.binaries;
  evidence_.store_problem = "the instance's variable store was not read";
  thread_ = std::jthread([this](const std::stop_token& stop) { Run(stop); });
}

BootMonitor::~BootMonitor() {
  thread_.request_stop();
  thread_.join();
}

void BootMonitor::OnSerial(ByteView output) {
  const std::lock_guard lock(mutex_);
  if (auto refusal = scanner_.Feed(output); refusal && !evidence_.refusal) {
    evidence_.refusal = std::move(refusal);
    Publish();
  }
}

void BootMonitor::Run(const std::stop_token& stop) {
  std::mutex pause_mutex;
  std::condition_variable_any pause;
  while (!stop.stop_requested()) {
    if (auto client = vtpm::ControlClient::Connect(options_.control_socket, kCallTimeout); client) {
      // A broken connection is followed by the next; the end of the TPM itself is the runner's
      // business.
      static_cast<void>(Follow(*client, stop));
    }
    std::unique_lock lock(pause_mutex);
    pause.wait_for(lock, stop, kReconnectPause, [] { return false; });
  }
}

Result<void> BootMonitor::Follow(vtpm::ControlClient& client, const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    ASSIGN_OR_RETURN(const vtpm::RecordBatch batch, client.WaitForRecords(last_sequence_, kWait));
    if (TakeRecords(batch)) {
      pcrs_stale_ = true;
    }
    const bool all_taken = last_sequence_ >= batch.last_sequence;
    const auto now = clock_.Monotonic();
    bool wanted = false;
    {
      const std::lock_guard lock(mutex_);
      const bool waits_for_values =
          evidence_.progress.left_firmware && evidence_.tpm_values.empty();
      wanted = waits_for_values || (pcrs_stale_ && evidence_.progress.configuration_done &&
                                    now - pcrs_read_at_ >= kPcrInterval);
    }
    if (all_taken && wanted) {
      pcrs_read_at_ = now;
      RETURN_IF_ERROR(ReadPcrs(client));
    }
  }
  return Ok();
}

bool BootMonitor::TakeRecords(const vtpm::RecordBatch& batch) {
  if (batch.records.empty()) {
    return false;
  }
  const std::lock_guard lock(mutex_);
  bool matters = false;
  if (last_sequence_ != 0 && batch.first_sequence > last_sequence_ + 1) {
    log_.Append(clock_.Now(), measure::OpaqueChange{"records were dropped before they were read"});
    matters = true;
  }
  for (const measure::ExtendRecord& record : batch.records) {
    matters |= TakeRecord(record);
    last_sequence_ = record.sequence;
  }
  pcrs_stale_ = true;
  if (matters) {
    const bool had_left = evidence_.progress.left_firmware;
    evidence_.progress = ReadProgress(log_);
    evidence_.replay = log_.Replay(kBank);
    evidence_.tpm_values.clear();
    if (evidence_.progress.left_firmware && !had_left) {
      scanner_.Disarm();
    }
    if (!store_ && !evidence_.progress.pcr7.empty()) {
      SnapshotVariables();
    }
    Publish();
  }
  return matters;
}

bool BootMonitor::TakeRecord(const measure::ExtendRecord& record) {
  if (const auto* extend = std::get_if<measure::PcrExtend>(&record.body)) {
    if (extend->bank != kBank) {
      return false;
    }
    ++extends_;
    if (extend->pcr.value() > kLastFirmwarePcr || log_.records().size() > kRecordLimit) {
      return false;
    }
    if (log_.records().size() == kRecordLimit) {
      log_.Append(record.time, measure::OpaqueChange{"more than 16384 extends of PCR 0 to 7"});
      return true;
    }
  } else if (std::holds_alternative<measure::TpmReset>(record.body)) {
    StartNewBoot();
  } else if (std::holds_alternative<measure::LogNote>(record.body)) {
    return false;
  }
  log_.Append(record.time, record.body);
  return true;
}

void BootMonitor::StartNewBoot() {
  ++resets_;
  extends_ = 0;
  log_.DropOldBoots();
  store_.reset();
  evidence_.store = nullptr;
  // A refusal that was said before the first record was read belongs to this boot.
  if (resets_ > 1) {
    evidence_.refusal.reset();
    scanner_.Reset();
  }
}

void BootMonitor::SnapshotVariables() {
  auto content = ReadWholeFile(options_.variables_path,
                               ByteCount::Bytes(firmware::VariableStore::kMaxImageSize));
  if (!content) {
    evidence_.store_problem = content.error().Describe();
    return;
  }
  auto parsed = firmware::VariableStore::Parse(*content);
  if (!parsed) {
    evidence_.store_problem = parsed.error().Describe();
    return;
  }
  store_ = *std::move(parsed);
  evidence_.store = &*store_;
}

Result<void> BootMonitor::ReadPcrs(vtpm::ControlClient& client) {
  auto values = client.ReadPcrs(kBank, AllPcrs());
  if (!values) {
    // Not started, or without that bank: nothing to compare with.
    return values.error().code() == ErrorCode::kInvalidInput ? Result<void>()
                                                             : std::move(values).error();
  }
  ASSIGN_OR_RETURN(const vtpm::RecordBatch meanwhile, client.RecordsSince(last_sequence_));
  if (TakeRecords(meanwhile) || last_sequence_ < meanwhile.last_sequence) {
    return Ok();  // the values belong to no one point of the record; they are read again
  }
  pcrs_stale_ = false;
  const std::lock_guard lock(mutex_);
  evidence_.tpm_values = *std::move(values);
  Publish();
  return Ok();
}

void BootMonitor::Publish() {
  evidence_.progress.tpm_resets = resets_;
  evidence_.progress.extends = extends_;
  v1::BootMeasured judged = JudgeBoot(evidence_);
  if (IsFinal(options_.previous.verdict()) && IsSameBoot(options_.previous, judged)) {
    const auto pcrs = judged.pcrs();
    judged = options_.previous;
    if (!pcrs.empty()) {
      *judged.mutable_pcrs() = pcrs;
    }
  }
  // After adoption the record is read again from its start: what was known stays until it is
  // reached again.
  if (IsFinal(options_.previous.verdict()) && judged.verdict() == v1::BOOT_PENDING &&
      judged.tpm_resets() <= options_.previous.tpm_resets() && !evidence_.progress.left_firmware) {
    return;
  }
  // A later extend makes the TPM's values to be read again, within moments: a verdict that was
  // given does not go back to pending meanwhile.
  if (IsFinal(published_.verdict()) && judged.verdict() == v1::BOOT_PENDING &&
      judged.tpm_resets() == published_.tpm_resets()) {
    return;
  }
  // The count alone grows for as long as the guest runs; it travels with what matters.
  v1::BootMeasured before = published_;
  v1::BootMeasured after = judged;
  for (v1::BootMeasured* message : {&before, &after}) {
    message->clear_measured_at();
    message->clear_extends();
  }
  if (SameMessage(before, after)) {
    return;
  }
  *judged.mutable_measured_at() = ToTimestamp(clock_.Now());
  published_ = judged;
  callback_(judged);
}

}  // namespace vallum::agent
