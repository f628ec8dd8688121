// SPDX-License-Identifier: Apache-2.0
#include "measure/ima_assessment.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/text.h"

namespace vallum::measure {
namespace {

constexpr uint32_t kSha1BootPcrs = 8;
constexpr size_t kMaxDigestsShown = 3;

std::optional<HashAlgorithm> BankOf(ImaHash hash) {
  for (const HashAlgorithm bank : {HashAlgorithm::kSha1, HashAlgorithm::kSha256,
                                   HashAlgorithm::kSha384, HashAlgorithm::kSha512}) {
    if (HashAlgorithmName(bank) == ImaHashName(hash)) {
      return bank;
    }
  }
  return std::nullopt;
}

// "listed are 0123..., 4567... and 5 more"
std::string DescribeListed(const ImaDigestTable& table, std::string_view name) {
  const auto digests = table.DigestsOf(name);
  if (digests.empty()) {
    return "no digest of it is accepted";
  }
  std::string out = "listed:";
  for (size_t i = 0; i < std::min(digests.size(), kMaxDigestsShown); ++i) {
    out += (i == 0 ? " " : ", ") + ToHex(digests[i]);
  }
  return digests.size() <= kMaxDigestsShown
             ? out
             : out + fmt::format(" and {} more", digests.size() - kMaxDigestsShown);
}

// Judges entry after entry.
class Assessor {
 public:
  Assessor(const ImaAssessmentInput& input, const ImaAssessmentState& from) : input_(input) {
    out_.state = from;
    for (const Bytes& key : from.loaded_keys) {
      // It was read when it was loaded; should it not be now, it signs nothing.
      static_cast<void>(loaded_.AddLoaded(key));
    }
  }

  ImaAssessment Run() && {
    const size_t count = std::min(input_.proven, input_.log.entries().size());
    for (number_ = 0; number_ < count; ++number_) {
      Judge(input_.log.entries()[number_]);
    }
    return std::move(out_);
  }

 private:
  void Judge(const ImaEntry& entry) {
    if (entry.pcr != kImaPcr) {
      Find(entry, ImaReason::kImaOtherPcr,
           fmt::format("it is of PCR {}; let the host's IMA policy measure into PCR {}", entry.pcr,
                       kImaPcr));
    } else if (entry.violation) {
      JudgeViolation(entry);
    } else if (entry.digest.bytes.empty() || entry.path.empty()) {
      Find(entry, ImaReason::kImaNothingMeasured,
           "template " + Printable(input_.log.FormatOf(entry).name, 64));
    } else if (const ByteView buffer = input_.log.FieldOf(entry, ImaField::kBuffer);
               !buffer.empty()) {
      JudgeBuffer(entry, buffer);
    } else if (entry.path == kBootAggregate) {
      JudgeBootAggregate(entry);
    } else {
      JudgeFile(entry);
    }
  }

  // The PCR is extended by ones alone: the path is not proven, so that no exclude may go by it.
  void JudgeViolation(const ImaEntry& entry) {
    if (input_.violations == ImaViolationRule::kAccept) {
      ++out_.ignored;
    } else {
      Find(entry, ImaReason::kImaViolation,
           "the file was written while it was measured, so that nobody knows what was read; which "
           "file it was is the host's word alone");
    }
  }

  void JudgeFile(const ImaEntry& entry) {
    const ImaListed listed = input_.list.files().Find(entry.path, entry.digest.bytes);
    if (listed == ImaListed::kListed) {
      ++out_.by_digest;
      return;
    }
    if (input_.list.IsExcluded(entry.path)) {
      ++out_.excluded;
      return;
    }
    const auto signature = VerifySignatures(entry);
    if (signature == ImaSignatureVerdict::kGood) {
      ++out_.by_signature;
    } else if (signature == ImaSignatureVerdict::kBad) {
      Find(entry, ImaReason::kImaBadSignature, "a listed key signed something else");
    } else if (listed == ImaListed::kOtherDigest) {
      Find(entry, ImaReason::kImaDigestMismatch, DescribeListed(input_.list.files(), entry.path));
    } else if (signature == ImaSignatureVerdict::kUnknownKey) {
      Find(entry, ImaReason::kImaUnknownKey, DescribeSigner(entry));
    } else {
      Find(entry, ImaReason::kImaUnknownFile, "");
    }
  }

  // The best that is said of either signature; kMalformed when there is none to judge.
  ImaSignatureVerdict VerifySignatures(const ImaEntry& entry) {
    auto out = ImaSignatureVerdict::kMalformed;
    const ByteView sig = input_.log.FieldOf(entry, ImaField::kSignature);
    if (!sig.empty()) {
      out = input_.list.keys().Verify(sig, entry.digest);
      if (out != ImaSignatureVerdict::kGood && loaded_.size() > 0) {
        const auto loaded = loaded_.Verify(sig, entry.digest);
        out = out == ImaSignatureVerdict::kUnknownKey || loaded == ImaSignatureVerdict::kGood
                  ? loaded
                  : out;
      }
    }
    const ByteView modsig = input_.log.FieldOf(entry, ImaField::kModsig);
    const auto digest =
        ParseImaDigest(ImaField::kModsigDigest, input_.log.FieldOf(entry, ImaField::kModsigDigest));
    if (out != ImaSignatureVerdict::kGood && !modsig.empty() && digest.has_value()) {
      const auto listed = input_.list.keys().VerifyModsig(modsig, *digest, budget_);
      const auto both = listed == ImaSignatureVerdict::kGood
                            ? listed
                            : loaded_.VerifyModsig(modsig, *digest, budget_);
      out =
          both == ImaSignatureVerdict::kGood || out == ImaSignatureVerdict::kMalformed ? both : out;
    }
    return out;
  }

  std::string DescribeSigner(const ImaEntry& entry) const {
    const auto header = ParseImaSignature(input_.log.FieldOf(entry, ImaField::kSignature));
    if (header.has_value()) return fmt::format("signed by key {:08x}", header->key_id);
    return budget_.spent() ? "the list has more appended signatures than are verified"
                           : "signed by an appended signature of another key";
  }

  // Certificates on keyrings, kexec's command line, critical data of other subsystems.
  void JudgeBuffer(const ImaEntry& entry, ByteView buffer) {
    if (!IsOfDigest(entry.digest, buffer)) {
      Find(entry, ImaReason::kImaBufferMismatch, "the buffer in the log is not what was measured");
      return;
    }
    const bool is_key = IsKeyring(entry.path) && ImaKeys().AddLoaded(buffer).has_value();
    if (is_key && input_.list.IgnoresKeyring(entry.path)) {
      ++out_.ignored;
      return;
    }
    const ImaDigestTable& table = is_key ? input_.list.keyrings() : input_.list.buffers();
    const ImaListed listed = table.Find(entry.path, entry.digest.bytes);
    if (listed == ImaListed::kListed) {
      ++out_.by_digest;
      if (is_key && entry.path == ".ima") {
        Load(buffer);
      }
    } else if (input_.list.IsExcluded(entry.path)) {
      ++out_.excluded;
    } else {
      Find(entry, is_key ? ImaReason::kImaKeyNotListed : ImaReason::kImaUnknownBuffer,
           listed == ImaListed::kOtherDigest ? DescribeListed(table, entry.path) : "");
    }
  }

  // Keys are measured under the name of their keyring (.ima, _uid.0), other buffers under names
  // that do not begin so (kexec-cmdline): one of these is no key, whatever its writer put in.
  static bool IsKeyring(std::string_view name) {
    return name.starts_with('.') || name.starts_with('_');
  }

  static bool IsOfDigest(const ImaDigest& digest, ByteView data) {
    const auto bank = BankOf(digest.hash);
    return bank.has_value() && std::ranges::equal(Digest(*bank, data), digest.bytes);
  }

  void Load(ByteView certificate) {
    auto& keys = out_.state.loaded_keys;
    if (keys.size() < kMaxLoadedImaKeys && loaded_.AddLoaded(certificate).has_value() &&
        std::ranges::none_of(
            keys, [&](const Bytes& each) { return std::ranges::equal(each, certificate); })) {
      keys.push_back(ToBytes(certificate));
    }
  }

  void JudgeBootAggregate(const ImaEntry& entry) {
    const auto bank = BankOf(entry.digest.hash);
    const auto known = std::ranges::find_if(input_.boot_pcrs, [&](const ImaBootPcrs& pcrs) {
      return bank.has_value() && pcrs.bank == *bank && pcrs.values.size() >= kBootAggregatePcrs;
    });
    if (known == input_.boot_pcrs.end()) {
      JudgeFile(entry);
      return;
    }
    const auto is = [&](uint32_t count) {
      return std::ranges::equal(ImaBootAggregate(*known, count), entry.digest.bytes);
    };
    if (is(kSha1BootPcrs) || (known->bank != HashAlgorithm::kSha1 && is(kBootAggregatePcrs))) {
      ++out_.boot_aggregates;
    } else {
      Find(entry, ImaReason::kImaBootAggregate,
           fmt::format("PCRs 0 to 9 of {} give {}", HashAlgorithmName(known->bank),
                       ToHex(ImaBootAggregate(*known, known->bank == HashAlgorithm::kSha1
                                                          ? kSha1BootPcrs
                                                          : kBootAggregatePcrs))));
    }
  }

  void Find(const ImaEntry& entry, ImaReason reason, std::string detail) {
    ++out_.finding_count;
    if (out_.findings.size() < kMaxImaFindings) {
      out_.findings.push_back({.entry = input_.first_entry + number_,
                               .reason = reason,
                               .path = Printable(entry.path),
                               .digest = DescribeImaDigest(entry.digest),
                               .detail = std::move(detail)});
    }
  }

  const ImaAssessmentInput& input_;
  ImaAssessment out_;
  ImaKeys loaded_;
  ModsigBudget budget_;
  size_t number_ = 0;
};

}  // namespace

std::string_view ImaReasonName(ImaReason reason) {
  switch (reason) {
    case ImaReason::kImaUnknownFile:
      return "ima_unknown_file";
    case ImaReason::kImaDigestMismatch:
      return "ima_digest_mismatch";
    case ImaReason::kImaBadSignature:
      return "ima_bad_signature";
    case ImaReason::kImaUnknownKey:
      return "ima_unknown_key";
    case ImaReason::kImaViolation:
      return "ima_violation";
    case ImaReason::kImaKeyNotListed:
      return "ima_key_not_listed";
    case ImaReason::kImaUnknownBuffer:
      return "ima_unknown_buffer";
    case ImaReason::kImaBufferMismatch:
      return "ima_buffer_mismatch";
    case ImaReason::kImaBootAggregate:
      return "ima_boot_aggregate";
    case ImaReason::kImaOtherPcr:
      return "ima_other_pcr";
    case ImaReason::kImaNothingMeasured:
      return "ima_nothing_measured";
  }
  return "ima_unknown";
}

ImaAssessment AssessImaEntries(const ImaAssessmentInput& input, const ImaAssessmentState& from) {
  return Assessor(input, from).Run();
}

Bytes ImaBootAggregate(const ImaBootPcrs& pcrs, uint32_t count) {
  CHECK(pcrs.values.size() >= count);
  Hasher hasher(pcrs.bank);
  for (uint32_t i = 0; i < count; ++i) {
    hasher.Update(pcrs.values[i]);
  }
  return hasher.Finish();
}

}  // namespace vallum::measure
