// SPDX-License-Identifier: Apache-2.0
#include "agent/boot_monitor.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <condition_variable>
#include <system_error>
#include <utility>

#include "agent/messages.h"
#include "agent/state_files.h"
#include "vm/process_files.h"

namespace vallum::agent {
namespace {

constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;
constexpr std::string_view kEvidenceKind = "boot-evidence";
// No operating system runs so soon after a reset, so that the disk is still as the firmware finds
// it.
constexpr std::chrono::seconds kForecastDelay{1};
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

bool IsSameRun(const v1::BootMeasured& a, const v1::BootMeasured& b) {
  return SameMessage(a.run_started_at(), b.run_started_at());
}

// The same boot as an earlier verdict was made on.
bool IsSameBoot(const v1::BootMeasured& a, const v1::BootMeasured& b) {
  return IsSameRun(a, b) && a.boot_sequence() == b.boot_sequence() &&
         a.pcr7_measured() == b.pcr7_measured();
}

}  // namespace

std::optional<StoredEvidence> LoadEvidence(const std::filesystem::path& path) {
  const auto payload = ReadStateFile(path, kEvidenceKind);
  if (!payload) {
    return std::nullopt;
  }
  StoredEvidence stored;
  const auto [end, failure] =
      std::from_chars(payload->data(), payload->data() + payload->size(), stored.sequence);
  const auto used = static_cast<size_t>(end - payload->data());
  if (failure != std::errc() || used == payload->size() || (*payload)[used] != '\n' ||
      !stored.evidence.ParseFromString(payload->substr(used + 1))) {
    return std::nullopt;
  }
  return stored;
}

BootMonitor::BootMonitor(BootMonitorOptions options, const Clock& clock, Callbacks callbacks,
                         std::future<BootForecast> first)
    : options_(std::move(options)),
      clock_(clock),
      callbacks_(std::move(callbacks)),
      coming_(std::move(first)) {
  facts_.mode = options_.mode;
  facts_.binaries = options_.binaries;
  facts_.assigned = options_.assigned ? &*options_.assigned : nullptr;
  facts_.store_problem = "the instance's variable store was not read";
  thread_ = std::jthread([this](const std::stop_token& stop) { Run(stop); });
}

BootMonitor::~BootMonitor() {
  thread_.request_stop();
  thread_.join();
}

void BootMonitor::OnSerial(ByteView output) {
  const std::lock_guard lock(mutex_);
  TakeOutput(serial_scanner_, output);
}

void BootMonitor::TakeOutput(RefusalScanner& scanner, ByteView output) {
  if (auto refusal = scanner.Feed(output); refusal && !facts_.refusal) {
    facts_.refusal = std::move(refusal);
    Publish();
  }
}

// Empty with firmware that was built without debugging. What comes before the hand-over is the
// firmware's; later it is the guest's, which may write any amount: one piece each time is enough.
void BootMonitor::TakeFirmwareLog() {
  if (options_.firmware_log.empty() || !log_scanner_.armed()) {
    return;
  }
  auto file = vm::OpenFile(options_.firmware_log, O_RDONLY);
  if (!file) {
    return;
  }
  std::array<std::byte, size_t{64} << 10U> piece;
  const ssize_t got =
      pread(file->get(), piece.data(), piece.size(), static_cast<off_t>(log_offset_));
  if (got > 0) {
    log_offset_ += static_cast<uint64_t>(got);
    const std::lock_guard lock(mutex_);
    TakeOutput(log_scanner_, ByteView(piece).first(static_cast<size_t>(got)));
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
    TakeForecast();
    TakeFirmwareLog();
    const bool all_taken = last_sequence_ >= batch.last_sequence;
    const auto now = clock_.Monotonic();
    bool wanted = false;
    {
      const std::lock_guard lock(mutex_);
      // A guest that extends without end is not asked without end.
      const bool waits_for_values = facts_.progress.left_firmware && facts_.tpm_values.empty() &&
                                    !IsFinal(published_.verdict());
      wanted = waits_for_values || (pcrs_stale_ && facts_.progress.configuration_done &&
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
  using Change = BootTrace::Change;
  Change change = Change::kNothing;
  if (last_sequence_ != 0 && batch.first_sequence > last_sequence_ + 1) {
    trace_.NoteLoss();
    change = Change::kVerdict;
  }
  for (const measure::ExtendRecord& record : batch.records) {
    last_sequence_ = record.sequence;
    if (record.time < options_.started_at) {
      continue;  // of an earlier run
    }
    const Change one = trace_.Take(record);
    if (one == Change::kNewBoot) {
      StartNewBoot(record);
    }
    change = std::max(change, one);
  }
  pcrs_stale_ = true;
  if (change == Change::kNothing) {
    return false;
  }
  const bool had_left = facts_.progress.left_firmware;
  trace_.Describe(facts_);
  if (change >= Change::kValues) {
    facts_.tpm_values.clear();
  }
  // The TPM's own values are read before anything is said of it.
  if (change == Change::kValues) {
    return true;
  }
  if (facts_.progress.left_firmware && !had_left) {
    serial_scanner_.Disarm();
    log_scanner_.Disarm();
  }
  const bool read_variables =
      change >= Change::kVerdict && !store_ && !facts_.progress.pcr7.empty();
  if (read_variables) {
    SnapshotVariables();
  }
  Publish();
  if (read_variables) {
    Store(evidence_);
  }
  return change >= Change::kValues;
}

void BootMonitor::StartNewBoot(const measure::ExtendRecord& reset) {
  ++resets_;
  boot_sequence_ = reset.sequence;
  boot_began_ = reset.time;
  store_.reset();
  facts_.store = nullptr;
  stored_keys_.reset();
  // A refusal that was said before the first record was read belongs to this boot.
  if (resets_ > 1) {
    facts_.refusal.reset();
    serial_scanner_.Reset();
    log_scanner_.Reset();
  }
  forecast_.reset();
  facts_.forecast = nullptr;
  if (options_.stored && options_.stored->sequence == reset.sequence) {
    resets_ = options_.stored->evidence.tpm_resets();
    if (options_.stored->evidence.has_keys()) {
      stored_keys_ = options_.stored->evidence.keys();
    }
    UseForecast(FromEvidence(options_.stored->evidence));
  } else if (coming_.valid()) {
    if (coming_for_ == 0) {
      coming_for_ = reset.sequence;  // begun before the guest ran
    }
  } else {
    BeginForecast();
  }
}

void BootMonitor::BeginForecast() {
  if (clock_.Now() - boot_began_ > kForecastDelay) {
    BootForecast missed;
    missed.problem = "nobody could read the disk when this boot began";
    return UseForecast(std::move(missed));
  }
  coming_for_ = boot_sequence_;
  coming_ = std::async(std::launch::async, options_.forecast);
}

void BootMonitor::UseForecast(BootForecast forecast) {
  forecast_ = std::move(forecast);
  facts_.forecast = &*forecast_;
  // What the disk holds now, if it could be read.
  disk_binaries_ = ToMeasureBinaries(forecast_->binaries);
  facts_.binaries = disk_binaries_.empty() ? options_.binaries : disk_binaries_;
}

void BootMonitor::TakeForecast() {
  if (!coming_.valid() || coming_.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    return;
  }
  const std::lock_guard lock(mutex_);
  if (coming_for_ == 0) {
    return;  // the guest's first record has not come yet
  }
  BootForecast forecast = coming_.get();
  if (coming_for_ == boot_sequence_) {
    UseForecast(std::move(forecast));
  } else {
    BeginForecast();  // the guest was reset meanwhile
  }
  if (!forecast_) {
    return;
  }
  Publish();
  Store(evidence_);
}

void BootMonitor::SnapshotVariables() {
  auto content = ReadWholeFile(options_.variables_path,
                               ByteCount::Bytes(firmware::VariableStore::kMaxImageSize));
  if (!content) {
    facts_.store_problem = content.error().Describe();
    return;
  }
  auto parsed = firmware::VariableStore::Parse(*content);
  if (!parsed) {
    facts_.store_problem = parsed.error().Describe();
    return;
  }
  store_ = *std::move(parsed);
  facts_.store = &*store_;
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
  facts_.tpm_values = *std::move(values);
  Publish();
  return Ok();
}

void BootMonitor::Publish() {
  facts_.progress.tpm_resets = resets_;
  PublishEvidence();
  v1::BootMeasured judged = JudgeBoot(facts_);
  *judged.mutable_run_started_at() = ToTimestamp(options_.started_at);
  judged.set_boot_sequence(static_cast<int64_t>(boot_sequence_));
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
      IsSameRun(options_.previous, judged) &&
      judged.boot_sequence() <= options_.previous.boot_sequence() &&
      !facts_.progress.left_firmware) {
    return;
  }
  // A later extend makes the TPM's values to be read again, within moments: a verdict that was
  // given does not go back to pending meanwhile.
  if (IsFinal(published_.verdict()) && judged.verdict() == v1::BOOT_PENDING &&
      judged.boot_sequence() == published_.boot_sequence()) {
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
  callbacks_.measured(judged);
  if (IsFinal(judged.verdict())) {
    Store(evidence_);
  }
}

void BootMonitor::PublishEvidence() {
  v1::BootEvidence evidence = MakeEvidence(facts_);
  *evidence.mutable_run_started_at() = ToTimestamp(options_.started_at);
  evidence.set_boot_sequence(static_cast<int64_t>(boot_sequence_));
  if (stored_keys_) {
    *evidence.mutable_keys() = *stored_keys_;
  }
  if (SameMessage(evidence, evidence_)) {
    return;
  }
  evidence_ = std::move(evidence);
  if (!evidence_.events().empty()) {
    callbacks_.evidence(evidence_);
  }
}

// Without it the next agent goes on without a prediction and says so.
void BootMonitor::Store(const v1::BootEvidence& evidence) const {
  static_cast<void>(
      WriteStateFile(options_.evidence_path, kEvidenceKind,
                     std::to_string(boot_sequence_) + "\n" + evidence.SerializeAsString()));
}

}  // namespace vallum::agent
