// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "measure/ima_allow_list.h"
#include "measure/ima_assessment.h"
#include "measure/ima_log.h"
#include "measure/ima_replay.h"
#include "measure/ima_template_hash.h"

using namespace vallum;  // NOLINT: a fuzzer

namespace {

void Expect(bool holds) {
  if (!holds) {
    std::abort();
  }
}

bool IsWithin(ByteView part, ByteView whole) {
  return part.empty() ||
         (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

void CheckViews(const measure::ImaLog& log, ByteView input) {
  for (const measure::ImaEntry& entry : log.entries()) {
    const bool binary = log.form() == measure::ImaLogForm::kBinary;
    Expect(!binary || IsWithin(entry.template_data, input));
    Expect(IsWithin(entry.digest.bytes, entry.template_data));
    Expect(IsWithin(AsBytes(entry.path), entry.template_data));
    for (const measure::ImaField field : log.FormatOf(entry).fields) {
      Expect(IsWithin(log.FieldOf(entry, field), entry.template_data));
    }
  }
}

// A log must reach what its own entries extend to, and nothing else.
void Replay(const measure::ImaLog& log, HashAlgorithm bank) {
  const auto start = measure::StartOfImaReplay(std::array{bank});
  auto value = start.pcrs.front();
  for (const measure::ImaEntry& entry : log.entries()) {
    if (entry.pcr != measure::kImaPcr) continue;
    const measure::ImaHashedData data(log, entry);
    const Bytes digest =
        entry.violation ? Bytes(DigestSize(bank), std::byte{0xff}) : Digest(bank, data.view());
    Bytes both = value.value;
    both.insert(both.end(), digest.begin(), digest.end());
    value.value = Digest(bank, both);
  }
  const auto replay = measure::ReplayImaLog(log, start, std::array{value});
  Expect(replay.has_value() && replay->Reached());
  Expect(replay->proven + replay->unproven == log.entries().size());
  value.value.front() ^= std::byte{1};
  Expect(!measure::ReplayImaLog(log, start, std::array{value})->Reached());
}

void Judge(const measure::ImaLog& log) {
  static const measure::SharedImaAllowList list =
      *measure::ImportKeylimePolicy(R"({"digests":{},"excludes":["/tmp/.*"]})");
  const size_t count = log.entries().size();
  const auto out = measure::AssessImaEntries({.log = log, .proven = count, .list = *list}, {});
  Expect(out.by_digest + out.by_signature == 0);
  Expect(out.excluded + out.ignored + out.finding_count == count);
  Expect(out.findings.size() == std::min(out.finding_count, measure::kMaxImaFindings));
  const auto hashes = measure::CheckTemplateHashes(log);
  Expect(hashes.agreeing + hashes.violations + hashes.mismatches.size() == count);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteView input = std::as_bytes(std::span(data, size));
  for (const auto hash : {measure::ImaTemplateHash::kDetect, measure::ImaTemplateHash::kSha1,
                          measure::ImaTemplateHash::kSha256}) {
    const auto log = measure::ImaLog::Parse(input, hash);
    if (!log.has_value()) {
      continue;
    }
    Expect(log->size() + log->tail_size() == size);
    Expect(size == 0 || !log->entries().empty());
    CheckViews(*log, input);
    Replay(*log, HashAlgorithm::kSha256);
    Judge(*log);
  }
  return 0;
}
