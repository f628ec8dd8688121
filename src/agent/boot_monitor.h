// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "agent/boot_judge.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "vtpm/control_client.h"

namespace vallum::agent {

struct BootMonitorOptions {
  std::string control_socket;  // of the instance's vallum-vtpm
  std::string variables_path;  // vars.fd
  v1::BootMode mode = v1::BOOT_MODE_LEGACY;
  std::vector<measure::BootBinary> binaries;
  // What was reported before this agent started, or empty: a verdict is kept as long as the same
  // boot goes on, because its evidence (the variable store) may have changed since.
  v1::BootMeasured previous;
};

// Watches one guest's vTPM and serial line and reports what they say about its boot, for as long as
// it lives. Owns a thread.
class BootMonitor {
 public:
  // Called on the monitor's or the serial line's thread, one call at a time, when a verdict, a
  // reason or a PCR value changed. Must not call the monitor.
  using Callback = std::function<void(const v1::BootMeasured&)>;

  BootMonitor(BootMonitorOptions options, const Clock& clock, Callback callback);
  ~BootMonitor();
  BootMonitor(const BootMonitor&) = delete;
  BootMonitor& operator=(const BootMonitor&) = delete;

  // Takes the next piece of serial output.
  void OnSerial(ByteView output);

 private:
  void Run(const std::stop_token& stop);
  // Follows one connection until it breaks.
  Result<void> Follow(vtpm::ControlClient& client, const std::stop_token& stop);
  // Returns whether anything came that a verdict depends on.
  bool TakeRecords(const vtpm::RecordBatch& batch);
  bool TakeRecord(const measure::ExtendRecord& record);
  void StartNewBoot();
  // Reads all PCRs, unless one that a verdict depends on is extended meanwhile.
  Result<void> ReadPcrs(vtpm::ControlClient& client);
  void SnapshotVariables();
  void Publish();  // mutex_ is held

  const BootMonitorOptions options_;
  const Clock& clock_;
  const Callback callback_;
  std::mutex mutex_;
  // Structural records and the extends of PCR 0 to 7 only: what runs in the guest can make any
  // number of the others (IMA), and no verdict depends on them.
  measure::ExtendLog log_;
  RefusalScanner scanner_;
  std::optional<firmware::VariableStore> store_;
  BootEvidence evidence_;
  v1::BootMeasured published_;
  int resets_ = 0;
  int extends_ = 0;
  // The monitor's thread only.
  uint64_t last_sequence_ = 0;
  bool pcrs_stale_ = true;
  std::chrono::steady_clock::time_point pcrs_read_at_;
  std::jthread thread_;
};

}  // namespace vallum::agent
