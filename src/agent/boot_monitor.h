// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <future>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "agent/boot_forecast.h"
#include "agent/boot_judge.h"
#include "agent/boot_trace.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "vtpm/control_client.h"

namespace vallum::agent {

// The evidence of the current boot as it is kept for the next agent.
struct StoredEvidence {
  uint64_t sequence = 0;  // of the record that began the boot
  v1::BootEvidence evidence;
};
// Nothing when there is none or it is damaged: then the boot goes on without its prediction.
std::optional<StoredEvidence> LoadEvidence(const std::filesystem::path& path);

struct BootMonitorOptions {
  std::string control_socket;  // of the instance's vallum-vtpm
  std::string variables_path;  // vars.fd
  std::string firmware_log;    // what the firmware writes to its debug port; empty: nothing
  std::filesystem::path evidence_path;  // kept here for the next agent
  v1::BootMode mode = v1::BOOT_MODE_LEGACY;
  std::optional<AssignedKeys> assigned;  // what the guest was started with
  // The image's loaders, for boots whose disk could not be read.
  std::vector<measure::BootBinary> binaries;
  // When this run of the guest began: the record also holds earlier ones.
  WallTime started_at;
  // Makes the forecast of a boot that has just begun. Called on threads of the monitor's, one call
  // at a time.
  std::function<BootForecast()> forecast;
  // What was reported before this agent started, or empty: a verdict is kept as long as the same
  // boot goes on, because its evidence (the variable store, the disk) may have changed since.
  v1::BootMeasured previous;
  std::optional<StoredEvidence> stored;
};

// Watches one guest's vTPM and serial line and reports what they say about its boots, for as long
// as it lives. Owns its threads.
class BootMonitor {
 public:
  // Called on the monitor's or the serial line's thread, one call at a time. Must not call the
  // monitor.
  struct Callbacks {
    // A verdict, a reason or a PCR value changed.
    std::function<void(const v1::BootMeasured&)> measured;
    // The evidence of the current boot grew.
    std::function<void(const v1::BootEvidence&)> evidence;
  };

  //   first: the forecast of the first boot, begun before the guest ran; invalid after adoption.
  BootMonitor(BootMonitorOptions options, const Clock& clock, Callbacks callbacks,
              std::future<BootForecast> first);
  // Waits for a forecast that is being made, too.
  ~BootMonitor();
  BootMonitor(const BootMonitor&) = delete;
  BootMonitor& operator=(const BootMonitor&) = delete;

  // Takes the next piece of serial output.
  void OnSerial(ByteView output);

 private:
  void Run(const std::stop_token& stop);
  // Follows one connection until it breaks.
  Result<void> Follow(vtpm::ControlClient& client, const std::stop_token& stop);
  // Returns whether anything came that changes what the TPM's PCRs are compared with.
  bool TakeRecords(const vtpm::RecordBatch& batch);
  void StartNewBoot(const measure::ExtendRecord& reset);
  // Of the current boot, unless it has gone on for too long. mutex_ is held, as for the next.
  void BeginForecast();
  void UseForecast(BootForecast forecast);
  void TakeForecast();
  void TakeFirmwareLog();
  void TakeOutput(RefusalScanner& scanner, ByteView output);  // mutex_ is held
  // Reads all PCRs, unless one that a verdict depends on is extended meanwhile.
  Result<void> ReadPcrs(vtpm::ControlClient& client);
  void SnapshotVariables();
  void Publish();          // mutex_ is held
  void PublishEvidence();  // mutex_ is held
  void Store(const v1::BootEvidence& evidence) const;

  const BootMonitorOptions options_;
  const Clock& clock_;
  const Callbacks callbacks_;
  std::mutex mutex_;
  BootTrace trace_;
  RefusalScanner serial_scanner_;
  RefusalScanner log_scanner_;
  std::optional<firmware::VariableStore> store_;
  std::optional<BootForecast> forecast_;
  std::vector<measure::BootBinary> disk_binaries_;  // of the forecast
  std::optional<v1::KeySetContent> stored_keys_;    // as the boot began, seen by an earlier agent
  BootFacts facts_;
  v1::BootMeasured published_;
  v1::BootEvidence evidence_;
  int resets_ = 0;
  uint64_t boot_sequence_ = 0;  // of the record that began the current boot
  WallTime boot_began_;
  // The monitor's thread only.
  uint64_t last_sequence_ = 0;
  bool pcrs_stale_ = true;
  std::chrono::steady_clock::time_point pcrs_read_at_;
  uint64_t log_offset_ = 0;
  std::future<BootForecast> coming_;
  uint64_t coming_for_ = 0;  // the boot that it is of; 0: the first one that is seen
  std::jthread thread_;
};

}  // namespace vallum::agent
