// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "attest/pcrlock.h"
#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"

// What a host must show to be trusted. docs/attestation-policy.md explains each rule.
namespace vallum::attest {

// A measurement, or a PCR's value, that is accepted: one of each bank that is known of it.
struct AcceptedDigest {
  std::string what;  // for people
  std::vector<BankDigest> digests;
  bool operator==(const AcceptedDigest&) const = default;
};

// Accepted digests, to be looked up while hosts are judged. A value.
class AcceptedDigests {
 public:
  AcceptedDigests() = default;
  explicit AcceptedDigests(std::vector<AcceptedDigest> list);

  const std::vector<AcceptedDigest>& list() const { return list_; }
  bool Has(HashAlgorithm bank, ByteView digest) const;
  bool HasBank(HashAlgorithm bank) const;
  bool operator==(const AcceptedDigests& other) const { return list_ == other.list_; }

 private:
  std::vector<AcceptedDigest> list_;
  std::array<std::vector<Bytes>, 4> sorted_;  // by bank
};

// The PCR has one of these values.
struct GoldenRule {
  AcceptedDigests values;
  bool operator==(const GoldenRule&) const = default;
};

enum class SignedImages { kRefused, kAccepted };
enum class BootCommands { kRefused, kListed, kAny };
enum class CommandLines { kRefused, kChecked };
enum class EmptyPcr { kRefused, kAccepted };

// Each event of the PCR is accepted. Separators and the firmware's own remarks on the boot attempt
// are, always; PCRs 0 to 7 must have a separator.
struct EventsRule {
  AcceptedDigests accept;
  SignedImages signed_images = SignedImages::kRefused;  // programs that PCR 7's rule vouches for
  BootCommands commands = BootCommands::kRefused;       // GRUB's
  std::vector<std::string> command_list;                // sorted; for kListed
  CommandLines command_lines = CommandLines::kRefused;  // judged by AttestationPolicy::command_line
  EmptyPcr empty = EmptyPcr::kRefused;
  bool operator==(const EventsRule&) const = default;
};

// PCR 7: Secure Boot was on, with nothing odd (measure::LoggedSecureBootPolicy::problems), and
// every program was admitted by an accepted signer. Keys are named by the SHA-256 of a
// certificate's DER, or by the digest that a digest entry holds.
struct SecureBootRule {
  std::vector<Bytes> pk;  // each entry must be one of these; empty: any
  std::vector<Bytes> kek;
  std::vector<Bytes> db;
  std::vector<Bytes> signers;       // of db or shim; empty: nobody
  std::vector<Bytes> dbx_required;  // must be revoked
  uint64_t sbat_level = 0;          // the least date, such as 2023012900; 0: any
  bool operator==(const SecureBootRule&) const = default;
};

// The events are those of AttestationPolicy::components.
struct ReferenceRule {
  bool operator==(const ReferenceRule&) const = default;
};

// The PCR is IMA's: see AttestationPolicy::ima.
struct ImaPcrRule {
  bool operator==(const ImaPcrRule&) const = default;
};

// Anything goes, for a reason that somebody wrote down.
struct IgnoredRule {
  std::string because;
  bool operator==(const IgnoredRule&) const = default;
};

using PcrRule =
    std::variant<GoldenRule, EventsRule, SecureBootRule, ReferenceRule, ImaPcrRule, IgnoredRule>;
// "golden", "events", "secure-boot", "reference", "ima", "ignored".
std::string_view PcrRuleName(const PcrRule& rule);

enum class OtherArguments { kRefused, kAccepted };

// The kernel's command line, without the kernel's own path or BOOT_IMAGE. An argument "name" stands
// for every value of it, "name=value" for that one; '-' and '_' are the same in names.
struct CommandLineRule {
  std::vector<std::string> required;  // also: not given again with another value
  std::vector<std::string> forbidden;
  std::vector<std::string> allowed;
  OtherArguments other_arguments = OtherArguments::kRefused;  // those in none of the lists
  std::vector<std::string> exact;  // not empty: whole lines, and no other list counts
  bool operator==(const CommandLineRule&) const = default;
};

// Accepted words, of HostFacts' members of the same names; an empty list asks for nothing.
struct FactsRule {
  std::vector<std::string> kernel_release;  // "6.1.*" stands for what begins so
  std::vector<std::string> lockdown;
  std::vector<std::string> iommu;
  std::vector<std::string> swap;
  std::vector<std::string> kdump;
  std::vector<std::string> secure_boot;
  std::vector<std::string> architecture;
  uint64_t least_microcode = 0;
  std::vector<std::string> cpu_features;  // required
  bool operator==(const FactsRule&) const = default;
};

enum class ImaViolations { kRefused, kNoted };

// The files that the kernel measured. The lists are objects of their own, shared between policies
// and hosts; a policy names one by its digest.
struct ImaRule {
  std::string allow_list;  // for people
  Bytes allow_list_sha256;
  ImaViolations violations = ImaViolations::kRefused;
  bool operator==(const ImaRule&) const = default;
};

enum class Sha1Use { kRefused, kAllowed };
enum class EmulatedTpm { kRefused, kAllowed };
enum class MismatchedData { kRefused, kNoted };

inline constexpr uint64_t kDefaultMaxAgeSeconds = 86400;
// A lease ends with it, and hosts are asked at half of it: a TPM takes seconds for an answer.
inline constexpr uint64_t kLeastMaxAgeSeconds = 60;

// The firmware's part of the PCRs below this one ends with a separator.
inline constexpr uint32_t kFirmwarePcrs = 8;

// A version of a policy. Immutable once made and shared between hosts. A value.
struct AttestationPolicy {
  std::string name;
  uint64_t version = 0;
  std::string description;
  uint64_t max_age_seconds = kDefaultMaxAgeSeconds;  // of evidence; older is STALE
  std::vector<HashAlgorithm> banks;  // each is quoted; events are judged in the first
  Sha1Use sha1 = Sha1Use::kRefused;
  EmulatedTpm emulated_tpm = EmulatedTpm::kRefused;
  std::vector<uint64_t> tpm_firmware;  // accepted versions; empty: any
  MismatchedData mismatched_data = MismatchedData::kRefused;
  std::map<uint32_t, PcrRule> pcrs;
  CommandLineRule command_line;
  FactsRule facts;
  ImaRule ima;
  std::vector<ReferenceComponent> components;
  bool operator==(const AttestationPolicy&) const = default;

  // The PCRs to be quoted, as a bit mask.
  uint32_t PcrMask() const;
  // Whether a rule needs the event log; an ignored PCR does not, though a log must explain it.
  bool NeedsEventLog() const;
  // Whether the running system may extend the PCR: it is ignored, and none of the firmware's.
  bool IsLateAndIgnored(uint32_t pcr) const;
  // Whether a PCR has the rule "ima", and which.
  const uint32_t* ImaPcr() const;
};

inline constexpr size_t kMaxPolicyName = 128;

// Parses a policy: TOML, or JSON of the same model. Strict: what is not known is an error, and so
// is a rule that could never be met or that nothing refers to.
//   text: untrusted.
// Errors: kInvalidInput, naming path and line.
Result<AttestationPolicy> ParsePolicy(std::string_view text);

// The policy as TOML that ParsePolicy reads back to the same value.
//   remarks: comments above a section, by its path ("", "pcr.4", "facts").
std::string FormatPolicy(const AttestationPolicy& policy,
                         const std::map<std::string, std::string>& remarks = {});

// SHA-256 of FormatPolicy: two versions that judge alike have the same.
Sha256Digest PolicyDigest(const AttestationPolicy& policy);

}  // namespace vallum::attest
