// SPDX-License-Identifier: Apache-2.0
// A TPM command and its response, cut at the command's own size: what a guest and swtpm can send.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "vtpm/key_command.h"
#include "vtpm/pcr_reader.h"
#include "vtpm/quote_maker.h"
#include "vtpm/tpm_command.h"
#include "vtpm/tpm_tracker.h"

using namespace vallum;  // NOLINT: a fuzzer

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteView input = std::as_bytes(std::span(data, size));
  const auto command_size = vtpm::TpmMessageSize(input);
  const size_t wanted = command_size.has_value() ? command_size->value_or(size) : size / 2;
  const size_t cut = std::min(wanted, size);
  vtpm::TpmTracker tracker;
  tracker.OnControl(vtpm::MakeControlInit(), vtpm::MakeControlResult(0));
  tracker.OnCommand(input.first(cut), input.subspan(cut));
  tracker.OnBanks(input);
  tracker.OnCommand(input.first(cut), input.subspan(cut));
  vtpm::PcrReader reader({HashAlgorithm::kSha256, {PcrIndex::Of<0>(), PcrIndex::Of<7>()}});
  static_cast<void>(reader.OnResponse(input));
  // A TPM that answers everything with the same, until the quote ends.
  vtpm::QuoteMaker maker({{}, {{HashAlgorithm::kSha256, {PcrIndex::Of<0>()}}}},
                         vtpm::KeyTemplate(vtpm::KeyKind::kAttestation));
  for (int step = 0; step < 64 && !maker.OnResponse(input).has_value(); ++step) {
    static_cast<void>(maker.Next());
  }
  static_cast<void>(vtpm::ParseReadPublicReply(input));
  static_cast<void>(vtpm::ParseCreatePrimaryReply(input));
  static_cast<void>(vtpm::ParseQuoteReply(input));
  static_cast<void>(vtpm::CheckQuoted(input, {}, {}));
  static_cast<void>(vtpm::ParseCertificatePublicReply(input));
  static_cast<void>(vtpm::ParseReadCertificateReply(input));
  static_cast<void>(vtpm::SubjectPublicKeyInfo(input));
  return 0;
}
