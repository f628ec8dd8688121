// SPDX-License-Identifier: Apache-2.0
#include "agent/boot_forecast.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "agent/state_files.h"
#include "base/text.h"
#include "firmware/firmware_volume.h"
#include "firmware/key_set.h"
#include "firmware/variable_store.h"
#include "formats/text16.h"
#include "measure/event_data.h"
#include "vm/process_files.h"

namespace vallum::agent {
namespace {

constexpr size_t kTextLimit = 500;
constexpr ByteCount kFirmwareLimit = ByteCount::Bytes(firmware::kMaxFirmwareImage);
// UEFI 2.10, section 10.3.5: media device path, file path.
constexpr uint8_t kMediaPath = 4;
constexpr uint8_t kFilePath = 4;
constexpr uint8_t kEndOfPath = 0x7f;

// What changes when a file is written.
struct WriteMark {
  timespec written{};
  off_t size = 0;
  bool operator==(const WriteMark& other) const {
    return written.tv_sec == other.written.tv_sec && written.tv_nsec == other.written.tv_nsec &&
           size == other.size;
  }
};

Result<WriteMark> Mark(const vm::UniqueFd& file) {
  struct stat info{};
  if (fstat(file.get(), &info) != 0) {
    return ErrnoError(errno, "fstat the instance's disk");
  }
  return WriteMark{info.st_mtim, info.st_size};
}

// The file that a boot option names, "" for one that leaves it to the firmware.
std::string FileOf(ByteView option) {
  const auto parsed = measure::ParseLoadOption(option);
  if (!parsed) {
    return "what cannot be read";
  }
  ByteCursor cursor(parsed->device_path);
  while (true) {
    const auto type = cursor.ReadU8();
    const auto subtype = cursor.ReadU8();
    const auto length = cursor.ReadU16Le();
    if (!type || !subtype || !length || *length < 4 || *type == kEndOfPath) {
      return "";
    }
    const auto content = cursor.ReadBytes(*length - size_t{4});
    if (!content) {
      return "";
    }
    if (*type == kMediaPath && *subtype == kFilePath) {
      return formats::Utf16LeToUtf8(*content);
    }
  }
}

v1::BootBinary ToProto(const images::BootBinary& binary) {
  v1::BootBinary out;
  out.set_path(Printable(binary.path));
  out.set_authenticode_sha256(binary.authenticode_sha256);
  out.set_signer(Printable(binary.signer));
  out.set_vendor_cert(std::string(AsText(binary.vendor_cert_section)));
  for (const Bytes& certificate : binary.certificates) {
    out.add_signer_certificates(std::string(AsText(certificate)));
  }
  out.set_sbat_level(std::string(AsText(binary.sbat_level_section)));
  return out;
}

v1::BootBinary ToProto(const measure::FirmwareApplication& application) {
  v1::BootBinary out;
  out.set_path(Printable(application.name));
  out.set_authenticode_sha256(ToHex(application.authenticode_sha256));
  out.set_of_firmware(true);
  return out;
}

Result<BootForecast> Forecast(const images::ConfinedInspector& inspector,
                              const ForecastSource& source) {
  ASSIGN_OR_RETURN(const images::DeclaredFormat format,
                   images::ParseDeclaredFormat(source.base_format));
  ASSIGN_OR_RETURN(
      Bytes variables,
      ReadWholeFile(source.variables, ByteCount::Bytes(firmware::VariableStore::kMaxImageSize)));
  ASSIGN_OR_RETURN(const firmware::VariableStore store, firmware::VariableStore::Parse(variables));
  ASSIGN_OR_RETURN(firmware::KeySet keys, firmware::KeySetFromStore(store));
  keys.secure_boot = DeriveSecureBoot(store) == firmware::SecureBootSetting::kOn;
  ASSIGN_OR_RETURN(const vm::UniqueFd overlay, vm::OpenFile(source.overlay.string(), O_RDONLY));
  ASSIGN_OR_RETURN(const vm::UniqueFd base, vm::OpenFile(source.base.string(), O_RDONLY));
  ASSIGN_OR_RETURN(const WriteMark before, Mark(overlay));
  images::InspectionRequest request;
  request.key_sets.push_back(std::move(keys));
  images::PredictionRequest& wanted = request.prediction.emplace();
  wanted.variables = std::move(variables);
  if (source.machine) {
    // Packages link one build's file under several names.
    std::error_code failure;
    const auto file = std::filesystem::canonical(source.firmware, failure);
    if (failure) {
      return ErrnoError(failure.value(), "read " + source.firmware.string());
    }
    ASSIGN_OR_RETURN(Bytes firmware, ReadWholeFile(file, kFirmwareLimit));
    wanted.platform = {.firmware = std::move(firmware), .machine = *source.machine};
  }
  ASSIGN_OR_RETURN(images::Inspection inspection,
                   inspector.InspectInstanceDisk(overlay.get(), base.get(), format, request));
  ASSIGN_OR_RETURN(const WriteMark after, Mark(overlay));
  if (!(before == after)) {
    return Unavailable("the guest wrote its disk while it was read");
  }
  BootForecast forecast;
  for (const images::BootBinary& binary : inspection.boot_binaries) {
    *forecast.binaries.Add() = ToProto(binary);
  }
  for (const measure::FirmwareApplication& application : inspection.firmware_applications) {
    *forecast.binaries.Add() = ToProto(application);
  }
  if (!inspection.reports.empty()) {
    forecast.preflight = std::move(inspection.reports.front());
  }
  const std::string other = FindOwnBootOption(store);
  for (measure::Prediction& prediction : inspection.predictions) {
    if (prediction.bank == HashAlgorithm::kSha256) {
      forecast.prediction = other.empty() ? std::move(prediction)
                                          : measure::KeepFirmwarePart(std::move(prediction), other);
    }
  }
  if (!forecast.prediction) {
    forecast.problem = inspection.prediction_problem;
  }
  return forecast;
}

void AddEvents(const measure::PcrPrediction& from, v1::PredictedPcr& to) {
  for (const measure::PredictedEvent& event : from.events) {
    v1::MeasuredEvent& out = *to.add_events();
    out.set_pcr(static_cast<int32_t>(event.pcr.value()));
    out.set_digest(std::string(AsText(event.digest)));
    out.set_what(Printable(event.description));
  }
}

}  // namespace

std::string FindOwnBootOption(const firmware::VariableStore& store) {
  for (const firmware::Variable* variable : store.Variables()) {
    const std::string name = variable->NameText();
    if (variable->vendor != firmware::kGlobalVariableGuid || name.size() != 8 ||
        !name.starts_with("Boot") || name == "BootNext") {
      continue;
    }
    if (const std::string file = FileOf(variable->data); !file.empty()) {
      return "the variable store has a boot option of the guest's own, " + name + ", for " +
             Printable(file);
    }
  }
  return "";
}

BootForecast MakeForecast(const images::ConfinedInspector& inspector,
                          const ForecastSource& source) {
  auto forecast = Forecast(inspector, source);
  if (forecast) {
    return *std::move(forecast);
  }
  BootForecast none;
  none.problem = Printable(forecast.error().Describe(), kTextLimit);
  return none;
}

void AddToEvidence(const BootForecast& forecast, v1::BootEvidence& evidence) {
  *evidence.mutable_boot_binaries() = forecast.binaries;
  evidence.set_prediction_problem(Printable(forecast.problem, kTextLimit));
  if (!forecast.prediction) {
    return;
  }
  for (const measure::PcrPrediction& pcr : forecast.prediction->pcrs) {
    v1::PredictedPcr& out = *evidence.add_prediction();
    out.set_pcr(static_cast<int32_t>(pcr.pcr.value()));
    out.set_knowledge(std::string(measure::PcrKnowledgeName(pcr.state)));
    out.set_reason(Printable(pcr.reason, kTextLimit));
    AddEvents(pcr, out);
  }
}

BootForecast FromEvidence(const v1::BootEvidence& evidence) {
  using measure::PcrKnowledge;
  BootForecast forecast;
  forecast.binaries = evidence.boot_binaries();
  forecast.problem = evidence.prediction_problem();
  if (evidence.prediction().empty()) {
    return forecast;
  }
  measure::Prediction prediction;
  for (const v1::PredictedPcr& from : evidence.prediction()) {
    const auto index = PcrIndex::Create(static_cast<uint32_t>(from.pcr()));
    if (!index) {
      continue;
    }
    measure::PcrPrediction to{*index, PcrKnowledge::kUnknown, from.reason(), {}, {}};
    for (const PcrKnowledge state : {PcrKnowledge::kExact, PcrKnowledge::kPartial}) {
      to.state = from.knowledge() == measure::PcrKnowledgeName(state) ? state : to.state;
    }
    for (const v1::MeasuredEvent& event : from.events()) {
      to.events.push_back({*index, ToBytes(AsBytes(event.digest())), event.what()});
    }
    prediction.pcrs.push_back(std::move(to));
  }
  forecast.prediction = std::move(prediction);
  return forecast;
}

std::vector<measure::BootBinary> ToMeasureBinaries(const BootBinaries& binaries) {
  std::vector<measure::BootBinary> result;
  for (const v1::BootBinary& binary : binaries) {
    if (binary.of_firmware()) continue;  // nothing lets it start: it is measured, not verified
    measure::BootBinary out;
    out.path = binary.path();
    if (auto digest = FromHex(binary.authenticode_sha256()); digest && digest->size() == 32) {
      out.authenticode_sha256 = *std::move(digest);
    }
    for (const std::string& certificate : binary.signer_certificates()) {
      out.signer_certificates.push_back(ToBytes(AsBytes(certificate)));
    }
    out.vendor_cert_section = ToBytes(AsBytes(binary.vendor_cert()));
    out.sbat_level_section = ToBytes(AsBytes(binary.sbat_level()));
    result.push_back(std::move(out));
  }
  return result;
}

}  // namespace vallum::agent
