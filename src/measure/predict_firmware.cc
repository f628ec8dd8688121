// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "measure/authorities.h"
#include "measure/event_digest.h"
#include "measure/predict_stages.h"

namespace vallum::measure {
namespace {

constexpr size_t kGptHeaderSize = 92;
constexpr size_t kTypeGuidSize = 16;
constexpr size_t kEntryCountOffset = 80;
constexpr uint32_t kMinEntrySize = 128;

// UEFI_GPT_DATA: the header, the number of entries in use (8 bytes), these entries (TCG PC Client
// Platform Firmware Profile, section 10.2.6.2).
Result<Bytes> EncodeGptData(ByteView header, ByteView entries) {
  ByteCursor cursor(header);
  RETURN_IF_ERROR(cursor.Seek(kEntryCountOffset));
  ASSIGN_OR_RETURN(const uint32_t count, cursor.ReadU32Le());
  ASSIGN_OR_RETURN(const uint32_t size, cursor.ReadU32Le());
  if (header.size() < kGptHeaderSize || size < kMinEntrySize || entries.size() / size < count) {
    return InvalidInput(fmt::format("GPT: {} entries of {} bytes do not fit the {} given", count,
                                    size, entries.size()));
  }
  uint64_t used = 0;
  ByteWriter content;
  for (size_t i = 0; i < count; ++i) {
    const ByteView entry = entries.subspan(i * size, size);
    const ByteView type = entry.first(kTypeGuidSize);
    if (std::any_of(type.begin(), type.end(), [](std::byte b) { return b != std::byte{0}; })) {
      ++used;
      content.Raw(entry);
    }
  }
  ByteWriter data;
  data.Raw(header.first(kGptHeaderSize)).U64Le(used).Raw(content.bytes());
  return std::move(data).Take();
}

void Action(const BootRun& run, std::string_view text) {
  run.out.Extend(kImagesPcr, ActionDigest(run.out.bank(), text),
                 fmt::format("action \"{}\"", text));
}

void Separator(const BootRun& run, PcrIndex pcr) {
  run.out.Extend(pcr, SeparatorDigest(run.out.bank()), "separator");
}

}  // namespace

Result<void> PredictFirmware(const BootRun& run) {
  const ChainBinary& first = run.input.chain.front();
  for (auto& each : ExpectedPcr7Configuration(run.out.bank(), run.store)) {
    run.out.Extend(kPolicyPcr, each.digest, each.explanation);
  }
  Action(run, kActionCalling);
  Separator(run, kImagesPcr);
  Separator(run, kTablePcr);
  for (size_t i = 0; i < run.input.failed_boot_options; ++i) {
    Action(run, kActionReturning);
    Action(run, kActionCalling);
  }
  if (!run.input.gpt_header.empty()) {
    const auto table = EncodeGptData(run.input.gpt_header, run.input.gpt_entries);
    if (table.has_value()) {
      run.ExtendBytes(kTablePcr, *table, "GPT of the disk that the loader is on");
    } else {
      run.out.Stop(kTablePcr, table.error().Describe());
    }
  }
  if (run.secure_boot) {
    ASSIGN_OR_RETURN(const auto authority, FirmwareAuthority(run.store, first.binary));
    if (!authority.has_value()) {
      const std::string reason = fmt::format("db does not admit {}: the firmware refuses it",
                                             Printable(first.binary.path));
      run.out.Stop(kPolicyPcr, reason);
      run.out.Stop(kImagesPcr, reason);
      return Ok();
    }
    run.out.Extend(kPolicyPcr, authority->DigestIn(run.out.bank()), authority->explanation);
  }
  run.ExtendImage(first, "firmware");
  return Ok();
}

}  // namespace vallum::measure
