// SPDX-License-Identifier: Apache-2.0
#include "controller/boot_judgement.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/text.h"
#include "firmware/guid.h"
#include "firmware/variable_store.h"
#include "firmware/variable_store_editor.h"
#include "measure/authorities.h"

namespace vallum::controller {
namespace {

constexpr size_t kDigestBytes = 32;
constexpr size_t kMaxWords = 300;
constexpr const char* kEmptied = "the evidence of this boot is more than is kept: ";
constexpr int kImages = 4;
// The platform's own PCRs that a baseline can stand in for; 1 is settings (docs/boot-verdict.md).
constexpr int kPlatformPcrs[] = {0, 2, 3, 6, 7};

bool IsKept(const v1::MeasuredEvent& event) {
  return event.digest().size() == kDigestBytes && event.pcr() >= 0 && event.pcr() <= 14 &&
         event.pcr() != 10;
}

Bytes DigestOf(const v1::MeasuredEvent& event) { return ToBytes(AsBytes(event.digest())); }

std::vector<measure::BootEvent> ToEvents(
    const google::protobuf::RepeatedPtrField<v1::MeasuredEvent>& events) {
  std::vector<measure::BootEvent> out;
  for (const v1::MeasuredEvent& event : events) {
    if (IsKept(event)) {
      out.push_back(
          {*PcrIndex::Create(static_cast<uint32_t>(event.pcr())), DigestOf(event), event.what()});
    }
  }
  return out;
}

// Words that the prediction has for what was measured.
using PredictedWords = std::map<std::pair<int, std::string>, std::string>;
PredictedWords WordsOf(const v1::BootEvidence& evidence) {
  PredictedWords words;
  for (const v1::PredictedPcr& pcr : evidence.prediction()) {
    for (const v1::MeasuredEvent& event : pcr.events()) {
      words.try_emplace({pcr.pcr(), event.digest()}, event.what());
    }
  }
  return words;
}

bool IsExactlyPredicted(const v1::BootEvidence& evidence, int pcr) {
  const auto& prediction = evidence.prediction();
  return std::any_of(prediction.begin(), prediction.end(), [&](const auto& each) {
    return each.pcr() == pcr && each.knowledge() == "exact";
  });
}

bool OnItsPlatform(const JudgementInput& input) {
  return !input.platform.empty() && input.platform == input.baseline.platform();
}

// Not exactly predicted, on the platform where they were learned.
std::set<PcrIndex> PlatformPcrs(const JudgementInput& input) {
  std::set<PcrIndex> pcrs;
  if (!OnItsPlatform(input)) {
    return pcrs;
  }
  for (const int number : kPlatformPcrs) {
    if (!IsExactlyPredicted(input.evidence, number)) {
      pcrs.insert(*PcrIndex::Create(static_cast<uint32_t>(number)));
    }
  }
  return pcrs;
}

measure::BootBinary ToBinary(const v1::BootBinary& binary) {
  measure::BootBinary out;
  out.path = binary.path();
  if (auto digest = FromHex(binary.authenticode_sha256()); digest.has_value()) {
    out.authenticode_sha256 = *std::move(digest);
  }
  for (const std::string& certificate : binary.signer_certificates()) {
    out.signer_certificates.push_back(ToBytes(AsBytes(certificate)));
  }
  out.vendor_cert_section = ToBytes(AsBytes(binary.vendor_cert()));
  out.sbat_level_section = ToBytes(AsBytes(binary.sbat_level()));
  return out;
}

// db and MokList of a key set as a variable store, which the rules of firmware and shim read.
std::optional<firmware::VariableStore> StoreOf(const v1::KeySetContent& keys) {
  constexpr uint32_t kBootServices = 1U | 2U;  // non-volatile, boot services
  std::vector<firmware::Variable> variables;
  const auto add = [&](std::u16string name, const firmware::Guid& vendor, const std::string& data) {
    if (!data.empty()) {
      variables.push_back({.name = std::move(name),
                           .vendor = vendor,
                           .attributes = kBootServices,
                           .data = ToBytes(AsBytes(data)),
                           .time = {},
                           .monotonic_count = 0,
                           .public_key_index = 0});
    }
  };
  add(u"db", firmware::kSecurityDatabaseGuid, keys.db());
  add(u"MokList", firmware::kShimLockGuid, keys.mok());
  const Result<Bytes> image = firmware::MakeVariableStoreImage(variables);
  if (!image.has_value()) {
    return std::nullopt;
  }
  Result<firmware::VariableStore> store = firmware::VariableStore::Parse(*image);
  return store.has_value() ? std::optional(*std::move(store)) : std::nullopt;
}

// Without Secure Boot nobody has verified a signature in this boot.
bool AcceptsSignedUpdates(const JudgementInput& input) {
  return input.secure_boot && input.accept_signed_updates;
}

// Of the firmware's own programs, when it starts nothing else unverified: without Secure Boot its
// shell runs whatever script the disk has for it.
std::set<Bytes> FirmwarePrograms(const JudgementInput& input) {
  std::set<Bytes> digests;
  if (!input.secure_boot) return digests;
  for (const v1::BootBinary& binary : input.evidence.boot_binaries()) {
    if (!binary.of_firmware()) continue;
    if (auto digest = FromHex(binary.authenticode_sha256()); digest.has_value()) {
      digests.insert(*std::move(digest));
    }
  }
  return digests;
}

// The programs of the disk; `measured` are the digests of PCR 4. Whose signer is accepted is asked
// of those alone that ran: the firmware has verified their signatures, so what is left to ask is
// whether the instance's keys (or the shim that ran) admit the signer.
std::vector<measure::DiskProgram> ProgramsOf(const JudgementInput& input,
                                             const std::set<Bytes>& measured) {
  const std::optional<firmware::VariableStore> store =
      AcceptsSignedUpdates(input) ? StoreOf(input.keys) : std::nullopt;
  std::vector<measure::BootBinary> shims;
  std::vector<measure::BootBinary> binaries;
  std::vector<std::string> signers;
  for (const v1::BootBinary& binary : input.evidence.boot_binaries()) {
    if (binary.of_firmware()) continue;
    binaries.push_back(ToBinary(binary));
    signers.push_back(Printable(binary.signer()));
    if (!binary.vendor_cert().empty() && measured.contains(binaries.back().authenticode_sha256)) {
      shims.push_back(binaries.back());
    }
  }
  const auto accepted = [&](const measure::BootBinary& binary) {
    if (!store || !measured.contains(binary.authenticode_sha256)) {
      return false;
    }
    const auto by_firmware = measure::FirmwareAuthority(*store, binary);
    if (by_firmware.has_value() && by_firmware->has_value()) {
      return true;
    }
    return std::any_of(shims.begin(), shims.end(), [&](const measure::BootBinary& shim) {
      const auto by_shim = measure::ShimAuthority(*store, shim, binary);
      return by_shim.has_value() && by_shim->has_value();
    });
  };
  std::vector<measure::DiskProgram> programs;
  for (size_t i = 0; i < binaries.size(); ++i) {
    programs.push_back({.path = Printable(binaries[i].path),
                        .authenticode_sha256 = binaries[i].authenticode_sha256,
                        .signer = signers[i],
                        .signer_accepted = accepted(binaries[i])});
  }
  return programs;
}

}  // namespace

v1::BootEvidence Bounded(v1::BootEvidence evidence) {
  if (evidence.ByteSizeLong() > kMaxEvidenceBytes || evidence.events_size() > kMaxBootEvents) {
    v1::BootEvidence emptied;
    emptied.set_tpm_resets(evidence.tpm_resets());
    emptied.set_left_firmware(evidence.left_firmware());
    emptied.set_boot_sequence(evidence.boot_sequence());
    if (evidence.has_run_started_at()) {
      *emptied.mutable_run_started_at() = evidence.run_started_at();
    }
    emptied.add_gaps(kEmptied + std::to_string(evidence.ByteSizeLong()) + " bytes and " +
                     std::to_string(evidence.events_size()) + " extends");
    return emptied;
  }
  google::protobuf::RepeatedPtrField<v1::MeasuredEvent> kept;
  for (v1::MeasuredEvent& event : *evidence.mutable_events()) {
    if (IsKept(event)) {
      event.set_what(Printable(event.what(), kMaxWords));
      *kept.Add() = std::move(event);
    }
  }
  *evidence.mutable_events() = std::move(kept);
  return evidence;
}

bool IsEmptied(const v1::BootEvidence& evidence) {
  return evidence.events().empty() && !evidence.gaps().empty() &&
         evidence.gaps(0).starts_with(kEmptied);
}

std::vector<v1::MeasuredEvent> OwnEvents(const v1::BootEvidence& evidence) {
  const std::vector<measure::BootEvent> events = ToEvents(evidence.events());
  const PredictedWords words = WordsOf(evidence);
  std::vector<v1::MeasuredEvent> out;
  const size_t count = measure::CountBootEvents(events).value_or(events.size());
  for (size_t i = 0; i < count; ++i) {
    v1::MeasuredEvent event;
    event.set_pcr(static_cast<int32_t>(events[i].pcr.value()));
    event.set_digest(std::string(AsText(events[i].digest)));
    const auto predicted = words.find({event.pcr(), event.digest()});
    event.set_what(Printable(
        events[i].what.empty() && predicted != words.end() ? predicted->second : events[i].what,
        kMaxWords));
    out.push_back(std::move(event));
  }
  return out;
}

bool IsComplete(const v1::BootEvidence& evidence) {
  return evidence.left_firmware() &&
         measure::CountBootEvents(ToEvents(evidence.events())).has_value();
}

measure::BaselineJudgement JudgeEvidence(const JudgementInput& input) {
  google::protobuf::RepeatedPtrField<v1::MeasuredEvent> own;
  std::set<Bytes> images;
  for (v1::MeasuredEvent& event : OwnEvents(input.evidence)) {
    if (event.pcr() == kImages) images.insert(DigestOf(event));
    *own.Add() = std::move(event);
  }
  const std::vector<measure::BootEvent> measured = ToEvents(own);
  const std::vector<measure::BootEvent> expected = ToEvents(input.baseline.events());
  const auto describe = [&](PcrIndex /*pcr*/, const Bytes& digest) {
    const std::string hex = ToHex(digest);
    for (const v1::BootBinary& binary : input.evidence.boot_binaries()) {
      if (binary.authenticode_sha256() == hex) {
        if (binary.of_firmware()) return Printable(binary.path()) + " of the instance's firmware";
        return Printable(binary.path()) + " of the instance's disk" +
               (binary.signer().empty() ? ", unsigned"
                                        : ", signed by " + Printable(binary.signer()));
      }
    }
    return input.artefacts.Describe(digest, input.tenant);
  };
  measure::BaselineInput judged{.baseline = expected,
                                .measured = measured,
                                .programs = {},
                                .platform_pcrs = PlatformPcrs(input),
                                .accept_signed_updates = false,
                                .pinned = input.baseline.pinned(),
                                .extent = input.extent,
                                .firmware_programs = FirmwarePrograms(input),
                                .describe = describe};
  measure::BaselineJudgement judgement = measure::JudgeByBaseline(judged);
  if (judgement.First() == nullptr || !AcceptsSignedUpdates(input) || input.baseline.pinned()) {
    return judgement;
  }
  const std::vector<measure::DiskProgram> programs = ProgramsOf(input, images);
  judged.programs = programs;
  judged.accept_signed_updates = true;
  return measure::JudgeByBaseline(judged);
}

std::vector<int> UncomparedPcrs(const JudgementInput& input) {
  std::vector<int> pcrs;
  if (OnItsPlatform(input)) return pcrs;
  for (const int number : kPlatformPcrs) {
    const auto& events = input.evidence.events();
    const bool measured = std::any_of(events.begin(), events.end(),
                                      [&](const auto& event) { return event.pcr() == number; });
    if (measured && !IsExactlyPredicted(input.evidence, number)) pcrs.push_back(number);
  }
  return pcrs;
}

v1::BaselineSpec WithPlatformOf(const v1::BootEvidence& evidence,
                                const v1::BaselineSpec& baseline) {
  const auto is_platform = [](const v1::MeasuredEvent& event) {
    return std::find(std::begin(kPlatformPcrs), std::end(kPlatformPcrs), event.pcr()) !=
           std::end(kPlatformPcrs);
  };
  v1::BaselineSpec out = baseline;
  out.clear_events();
  // Between PCRs the order is nobody's promise; the platform's come first.
  for (v1::MeasuredEvent& event : OwnEvents(evidence)) {
    if (is_platform(event)) *out.add_events() = std::move(event);
  }
  for (const v1::MeasuredEvent& event : baseline.events()) {
    if (!is_platform(event)) *out.add_events() = event;
  }
  return out;
}

v1::BootDifference ToProto(const measure::BaselineDifference& difference) {
  v1::BootDifference out;
  out.set_pcr(static_cast<int32_t>(difference.pcr.value()));
  out.set_event(static_cast<int32_t>(difference.event));
  out.set_measured(ToHex(difference.measured));
  out.set_expected(ToHex(difference.expected));
  out.set_expected_what(difference.expected_what);
  out.set_measured_what(difference.measured_what);
  out.set_expected_from("baseline");
  return out;
}

}  // namespace vallum::controller
