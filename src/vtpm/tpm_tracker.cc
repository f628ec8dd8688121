// SPDX-License-Identifier: Apache-2.0
#include "vtpm/tpm_tracker.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "base/units.h"
#include "vtpm/tpm_command.h"

namespace vallum::vtpm {
namespace {

using measure::RecordBody;

constexpr std::array kBanks = {HashAlgorithm::kSha1, HashAlgorithm::kSha256, HashAlgorithm::kSha384,
                               HashAlgorithm::kSha512};
constexpr uint32_t kFirstDynamicPcr = 17;
constexpr uint32_t kLastDynamicPcr = 22;
constexpr size_t kControlNumberSize = 4;
constexpr size_t kHashDataHeader = 8;

}  // namespace

std::vector<RecordBody> TpmTracker::OnControl(ByteView request, ByteView response) {
  const auto command = ControlCommandOf(request);
  const auto result = ControlResult(response);
  if (!command.has_value() || !result.has_value()) {
    return {};
  }
  if (*command == ControlCommand::kInit) {
    return OnInit(*result);
  }
  if (*result != kControlSuccess) {
    return {};
  }
  switch (*command) {
    case ControlCommand::kSetLocality:
      if (request.size() > kControlNumberSize) {
        locality_ = std::to_integer<uint8_t>(request[kControlNumberSize]);
      }
      return {};
    case ControlCommand::kStop:
    case ControlCommand::kShutdown:
      state_ = TpmState::kOff;
      hashers_.clear();
      return {};
    case ControlCommand::kStoreVolatile:
    case ControlCommand::kSetStateBlob:
      foreign_state_ = true;
      return {};
    case ControlCommand::kHashStart:
      hashers_.clear();
      for (const HashAlgorithm bank : kBanks) {
        hashers_.emplace_back(bank);
      }
      return {};
    case ControlCommand::kHashData:
      for (Hasher& hasher : hashers_) {
        hasher.Update(request.subspan(std::min(kHashDataHeader, request.size())));
      }
      return {};
    case ControlCommand::kHashEnd:
      return OnHashEnd();
    default:  // an open set; the others do nothing to PCRs
      return {};
  }
}

std::vector<RecordBody> TpmTracker::OnInit(uint32_t result) {
  hashers_.clear();
  banks_.reset();
  shut_down_ = true;
  if (result != kControlSuccess) {
    state_ = TpmState::kOff;
    return {measure::LogNote{"CMD_INIT failed with result " + std::to_string(result)}};
  }
  state_ = TpmState::kReset;
  std::vector<RecordBody> records = {measure::TpmReset{}};
  if (std::exchange(foreign_state_, false)) {
    // It resumes where it was saved, without a TPM2_Startup.
    state_ = TpmState::kStarted;
    shut_down_ = false;
    records.emplace_back(measure::OpaqueChange{"a saved TPM state was loaded"});
  }
  return records;
}

// TPM 2.0 part 1, section 34.3: before startup the H-CRTM's measurement goes to PCR 0; after it, a
// dynamic launch resets 17-22 and measures to 17.
std::vector<RecordBody> TpmTracker::OnHashEnd() {
  std::vector<RecordBody> records;
  if (hashers_.empty()) {
    return records;
  }
  const bool dynamic = state_ == TpmState::kStarted;
  for (uint32_t i = kFirstDynamicPcr; dynamic && i <= kLastDynamicPcr; ++i) {
    records.emplace_back(measure::PcrReset{PcrIndex::Create(i).value()});
  }
  const PcrIndex pcr = dynamic ? PcrIndex::Of<kFirstDynamicPcr>() : PcrIndex::Of<0>();
  for (size_t i = 0; i < kBanks.size(); ++i) {
    records.emplace_back(measure::PcrExtend{pcr, kBanks[i], hashers_[i].Finish()});
  }
  hashers_.clear();
  return Active(std::move(records));
}

std::vector<RecordBody> TpmTracker::OnCommand(ByteView command, ByteView response) {
  const GuestCommand parsed = ParseGuestCommand(command);
  const auto code = ResponseCode(response);
  if (code.has_value() && *code == kTpmSuccess) {
    if (std::holds_alternative<StartupCommand>(parsed)) {
      state_ = TpmState::kStarted;
    }
    shut_down_ = std::holds_alternative<ShutdownCommand>(parsed);
  }
  return Active(EffectsOf(parsed, response, locality_));
}

void TpmTracker::OnBanks(ByteView response) {
  const auto banks = ParsePcrBanksReply(response);
  // Records of a bank that is not there do no harm; missing ones would.
  banks_ = banks.has_value() ? *banks : std::vector<HashAlgorithm>(kBanks.begin(), kBanks.end());
}

std::vector<RecordBody> TpmTracker::Active(std::vector<RecordBody> records) const {
  if (banks_.has_value()) {
    std::erase_if(records, [this](const RecordBody& record) {
      const auto* extend = std::get_if<measure::PcrExtend>(&record);
      return extend != nullptr && std::ranges::find(*banks_, extend->bank) == banks_->end();
    });
  }
  return records;
}

std::vector<RecordBody> TpmTracker::OnUnframed() {
  shut_down_ = false;
  return {measure::OpaqueChange{"bytes that are no TPM command were sent"}};
}

}  // namespace vallum::vtpm
