// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "firmware/variable_store.h"
#include "images/confined_inspector.h"
#include "images/preflight.h"
#include "measure/platform.h"
#include "measure/prediction.h"
#include "measure/secure_boot_pcr.h"
#include "vallum/v1/agent.pb.h"

namespace vallum::agent {

using BootBinaries = google::protobuf::RepeatedPtrField<v1::BootBinary>;

// What is known of one boot before it is measured: read from the instance's disk and variable store
// as they are when it begins.
struct BootForecast {
  BootBinaries binaries;                          // programs on the disk
  std::optional<images::KeySetReport> preflight;  // under the keys in the variable store
  std::optional<measure::Prediction> prediction;  // SHA-256 bank
  std::string problem;                            // why there is no prediction
};

// What a forecast is made from. All files exist.
struct ForecastSource {
  std::filesystem::path overlay;    // the disk that the instance writes
  std::filesystem::path base;       // the image under it
  std::string base_format;          // "qcow2", "gpt", "mbr" or "raw"
  std::filesystem::path variables;  // vars.fd
  std::filesystem::path firmware;   // the code file that QEMU runs
  // Nothing: what the firmware measures of itself and of the machine is not predicted.
  std::optional<measure::MachineInput> machine;
};

// Reads disk and variable store of an instance in the confined child, while no guest writes them.
// Whatever is wrong with them is told in `problem`: it is no reason not to start. A disk that is
// written meanwhile gives no forecast, because it need not be the one that the firmware reads.
// Blocks for the inspector's time limit at most; thread-safe.
BootForecast MakeForecast(const images::ConfinedInspector& inspector, const ForecastSource& source);

// A prediction follows what the firmware finds by itself; an option that the guest made may come
// first. Returns which one there is, in words; empty: none. Pure.
std::string FindOwnBootOption(const firmware::VariableStore& store);

// As evidence carries it, and back. Of a forecast that comes back the pre-flight is not known.
void AddToEvidence(const BootForecast& forecast, v1::BootEvidence& evidence);
BootForecast FromEvidence(const v1::BootEvidence& evidence);

// In the form that PCR 7 is recomputed from. Digests that do not parse are left empty.
std::vector<measure::BootBinary> ToMeasureBinaries(const BootBinaries& binaries);

}  // namespace vallum::agent
