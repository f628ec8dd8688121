// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "attest/policy.h"
#include "attest/policy_document.h"
#include "attest/policy_facts.h"
#include "attest/rules_command_line.h"
#include "base/text.h"
#include "base/units.h"
#include "firmware/signature_list.h"
#include "measure/extend_log.h"

namespace vallum::attest {
namespace {

constexpr std::array kBanks = {HashAlgorithm::kSha1, HashAlgorithm::kSha256, HashAlgorithm::kSha384,
                               HashAlgorithm::kSha512};
// The first word of each list is what counts when the key is absent.
constexpr std::array<std::string_view, 2> kRefusedAllowed = {"refused", "allowed"};
constexpr std::array<std::string_view, 2> kRefusedAccepted = {"refused", "accepted"};
constexpr std::array<std::string_view, 2> kRefusedNoted = {"refused", "noted"};
constexpr std::array<std::string_view, 2> kRefusedChecked = {"refused", "checked"};
constexpr std::array<std::string_view, 3> kCommands = {"refused", "listed", "any"};

template <typename Enum, size_t N>
Result<Enum> Choose(const PolicyTable& table, const char* key,
                    const std::array<std::string_view, N>& words) {
  ASSIGN_OR_RETURN(const size_t choice, table.Choice(key, words));
  return static_cast<Enum>(choice);
}

// {sha256 = HEX, sha384 = HEX, what = TEXT}, at least one digest.
Result<AcceptedDigest> ParseAccepted(const PolicyTable& table) {
  RETURN_IF_ERROR(table.AllowOnly({"what", "sha1", "sha256", "sha384", "sha512"}));
  AcceptedDigest out;
  if (table.Has("what")) {
    ASSIGN_OR_RETURN(out.what, table.Text("what"));
  }
  for (const HashAlgorithm bank : kBanks) {
    const std::string name(HashAlgorithmName(bank));
    if (!table.Has(name.c_str())) continue;
    ASSIGN_OR_RETURN(Bytes digest, table.Digest(name, bank));
    out.digests.push_back({.bank = bank, .digest = std::move(digest)});
  }
  if (out.digests.empty()) return table.Wrong("", "has no digest");
  return out;
}

Result<AcceptedDigests> ParseAcceptedList(const PolicyTable& table, const char* key) {
  ASSIGN_OR_RETURN(const std::vector<PolicyTable> tables, table.Tables(key));
  std::vector<AcceptedDigest> out;
  for (const PolicyTable& each : tables) {
    ASSIGN_OR_RETURN(out.emplace_back(), ParseAccepted(each));
  }
  return AcceptedDigests(std::move(out));
}

Result<PcrRule> ParseGolden(const PolicyTable& table, const AttestationPolicy& policy) {
  RETURN_IF_ERROR(table.AllowOnly({"rule", "values"}));
  GoldenRule rule;
  ASSIGN_OR_RETURN(rule.values, ParseAcceptedList(table, "values"));
  for (const HashAlgorithm bank : policy.banks) {
    if (!rule.values.HasBank(bank)) {
      return table.Wrong("values", "has no value of the bank " +
                                       std::string(HashAlgorithmName(bank)) +
                                       ", which is quoted: the rule could never be met");
    }
  }
  return PcrRule(std::move(rule));
}

Result<PcrRule> ParseEvents(const PolicyTable& table) {
  RETURN_IF_ERROR(table.AllowOnly(
      {"rule", "accept", "signed-images", "commands", "command-list", "command-lines", "empty"}));
  EventsRule rule;
  ASSIGN_OR_RETURN(rule.accept, ParseAcceptedList(table, "accept"));
  ASSIGN_OR_RETURN(rule.signed_images,
                   Choose<SignedImages>(table, "signed-images", kRefusedAccepted));
  ASSIGN_OR_RETURN(rule.commands, Choose<BootCommands>(table, "commands", kCommands));
  ASSIGN_OR_RETURN(rule.command_list, table.Texts("command-list"));
  ASSIGN_OR_RETURN(rule.command_lines,
                   Choose<CommandLines>(table, "command-lines", kRefusedChecked));
  ASSIGN_OR_RETURN(rule.empty, Choose<EmptyPcr>(table, "empty", kRefusedAccepted));
  std::ranges::sort(rule.command_list);
  if ((rule.commands == BootCommands::kListed) == rule.command_list.empty()) {
    return table.Wrong("command-list", "belongs to commands = \"listed\", and it to a list");
  }
  return PcrRule(std::move(rule));
}

// Hexadecimal SHA-256, or the name of a certificate that Vallum knows.
Result<std::vector<Bytes>> ParseKeys(const PolicyTable& table, const char* key) {
  ASSIGN_OR_RETURN(const std::vector<std::string> words, table.Texts(key));
  std::vector<Bytes> out;
  for (const std::string& word : words) {
    const auto known = firmware::KnownCertificates();
    const auto named =
        std::ranges::find_if(known, [&](const auto& each) { return each.name == word; });
    const std::string hex = named == known.end() ? word : std::string(named->sha256);
    Result<Bytes> digest = FromHex(hex);
    if (!digest.has_value() || digest->size() < DigestSize(HashAlgorithm::kSha1) ||
        digest->size() > DigestSize(HashAlgorithm::kSha512)) {
      return table.Wrong(key, "has \"" + Printable(word, 80) + "\", which is no key")
          .WithFix(
              "write the SHA-256 of the certificate's DER, or the name that `vallum eventlog "
              "show` gives to a well-known certificate");
    }
    out.push_back(*std::move(digest));
  }
  std::ranges::sort(out);
  return out;
}

Result<PcrRule> ParseSecureBoot(const PolicyTable& table) {
  RETURN_IF_ERROR(
      table.AllowOnly({"rule", "pk", "kek", "db", "signers", "dbx-required", "sbat-level"}));
  SecureBootRule rule;
  ASSIGN_OR_RETURN(rule.pk, ParseKeys(table, "pk"));
  ASSIGN_OR_RETURN(rule.kek, ParseKeys(table, "kek"));
  ASSIGN_OR_RETURN(rule.db, ParseKeys(table, "db"));
  ASSIGN_OR_RETURN(rule.signers, ParseKeys(table, "signers"));
  ASSIGN_OR_RETURN(rule.dbx_required, ParseKeys(table, "dbx-required"));
  if (table.Has("sbat-level")) {
    ASSIGN_OR_RETURN(rule.sbat_level, table.Number("sbat-level"));
  }
  if (rule.signers.empty()) {
    return table.Wrong("signers", "is empty: nothing could ever start")
        .WithFix("name who signs the loaders that are accepted");
  }
  return PcrRule(std::move(rule));
}

Result<PcrRule> ParseRule(const PolicyTable& table, const AttestationPolicy& policy) {
  ASSIGN_OR_RETURN(const std::string kind, table.Text("rule"));
  if (kind == "golden") return ParseGolden(table, policy);
  if (kind == "events") return ParseEvents(table);
  if (kind == "secure-boot") return ParseSecureBoot(table);
  if (kind == "ignored") {
    RETURN_IF_ERROR(table.AllowOnly({"rule", "because"}));
    ASSIGN_OR_RETURN(std::string because, table.Text("because"));
    if (Trim(because).empty()) return table.Wrong("because", "says nothing");
    return PcrRule(IgnoredRule{.because = std::move(because)});
  }
  RETURN_IF_ERROR(table.AllowOnly({"rule"}));
  if (kind == "reference") return PcrRule(ReferenceRule{});
  if (kind == "ima") return PcrRule(ImaPcrRule{});
  return table.Wrong("rule", "is \"" + Printable(kind, 40) + "\", which is no rule")
      .WithFix("golden, events, secure-boot, reference, ima or ignored");
}

Result<void> ParsePcrs(const PolicyTable& root, AttestationPolicy& policy) {
  if (!root.Has("pcr")) return Ok();
  ASSIGN_OR_RETURN(const PolicyTable table, root.Table("pcr"));
  for (const std::string& key : table.Keys()) {
    const bool digits =
        !key.empty() && key.size() <= 2 && key.find_first_not_of("0123456789") == std::string::npos;
    if (!digits || (key.size() == 2 && key[0] == '0') || std::stoul(key) >= PcrIndex::kCount) {
      return table.Wrong(key, "is no PCR: 0 to 23");
    }
    ASSIGN_OR_RETURN(const PolicyTable each, table.Table(key));
    ASSIGN_OR_RETURN(PcrRule rule, ParseRule(each, policy));
    policy.pcrs.emplace(static_cast<uint32_t>(std::stoul(key)), std::move(rule));
  }
  return Ok();
}

Result<void> ParseTpm(const PolicyTable& root, AttestationPolicy& policy) {
  if (!root.Has("tpm")) {
    policy.banks = {HashAlgorithm::kSha256};
    return Ok();
  }
  ASSIGN_OR_RETURN(const PolicyTable table, root.Table("tpm"));
  RETURN_IF_ERROR(table.AllowOnly({"banks", "sha1", "emulated", "firmware"}));
  ASSIGN_OR_RETURN(policy.sha1, Choose<Sha1Use>(table, "sha1", kRefusedAllowed));
  ASSIGN_OR_RETURN(policy.emulated_tpm, Choose<EmulatedTpm>(table, "emulated", kRefusedAllowed));
  ASSIGN_OR_RETURN(policy.tpm_firmware, table.Numbers("firmware"));
  ASSIGN_OR_RETURN(const std::vector<std::string> names, table.Texts("banks"));
  for (const std::string& name : names) {
    const auto bank = measure::ParseBankName(name);
    if (!bank.has_value()) return table.Wrong("banks", "has no bank that Vallum computes");
    if (std::ranges::find(policy.banks, *bank) != policy.banks.end()) {
      return table.Wrong("banks", "has a bank twice");
    }
    if (*bank == HashAlgorithm::kSha1 && policy.sha1 == Sha1Use::kRefused) {
      return table.Wrong("banks", "has sha1 while sha1 is refused");
    }
    policy.banks.push_back(*bank);
  }
  if (policy.banks.empty()) policy.banks = {HashAlgorithm::kSha256};
  return Ok();
}

Result<void> ParseCommandLine(const PolicyTable& root, AttestationPolicy& policy) {
  const bool checked = std::ranges::any_of(policy.pcrs, [](const auto& each) {
    const auto* events = std::get_if<EventsRule>(&each.second);
    return events != nullptr && events->command_lines == CommandLines::kChecked;
  });
  if (checked != root.Has("command-line")) {
    return root.Wrong("command-line", "belongs to a PCR with command-lines = \"checked\"")
        .WithFix("GRUB measures it into PCR 8, systemd-stub into 12, the kernel's stub into 9");
  }
  if (!checked) return Ok();
  ASSIGN_OR_RETURN(const PolicyTable table, root.Table("command-line"));
  CommandLineRule& rule = policy.command_line;
  if (table.Has("exact")) {
    RETURN_IF_ERROR(table.AllowOnly({"exact"}));
    ASSIGN_OR_RETURN(rule.exact, table.Texts("exact"));
    if (rule.exact.empty()) return table.Wrong("exact", "is empty: nothing could ever match");
    for (const std::string& line : rule.exact) {
      const std::string fault = CommandLineFault(line);
      if (!fault.empty()) return table.Wrong("exact", "has a line that never matches: " + fault);
    }
    return Ok();
  }
  RETURN_IF_ERROR(table.AllowOnly({"required", "forbidden", "allowed", "other-arguments"}));
  ASSIGN_OR_RETURN(rule.required, table.Texts("required"));
  ASSIGN_OR_RETURN(rule.forbidden, table.Texts("forbidden"));
  ASSIGN_OR_RETURN(rule.allowed, table.Texts("allowed"));
  ASSIGN_OR_RETURN(rule.other_arguments,
                   Choose<OtherArguments>(table, "other-arguments", kRefusedAccepted));
  return Ok();
}

Result<void> ParseFacts(const PolicyTable& root, AttestationPolicy& policy) {
  if (!root.Has("facts")) return Ok();
  ASSIGN_OR_RETURN(const PolicyTable table, root.Table("facts"));
  RETURN_IF_ERROR(
      table.AllowOnly({"kernel-release", "lockdown", "iommu", "swap", "kdump", "secure-boot",
                       "architecture", "least-microcode", "cpu-features"}));
  FactsRule& rule = policy.facts;
  for (const FactRow& row : kFactRows) {
    ASSIGN_OR_RETURN(rule.*row.accepted, table.Texts(row.key));
    for (const std::string& word : rule.*row.accepted) {
      if (row.words[0].empty() || std::ranges::find(row.words, word) != row.words.end()) continue;
      return table.Wrong(row.key, "has \"" + Printable(word, 40) + "\", which no host says")
          .WithFix("hosts say " + Join({row.words.begin(), row.words.end()}, ", "));
    }
  }
  ASSIGN_OR_RETURN(rule.cpu_features, table.Texts("cpu-features"));
  if (table.Has("least-microcode")) {
    ASSIGN_OR_RETURN(rule.least_microcode, table.Number("least-microcode"));
  }
  return Ok();
}

Result<void> ParseIma(const PolicyTable& root, AttestationPolicy& policy) {
  const auto count = std::ranges::count_if(policy.pcrs, [](const auto& each) {
    return std::holds_alternative<ImaPcrRule>(each.second);
  });
  if (count > 1) return root.Wrong("pcr", "has the rule \"ima\" more than once");
  if ((count == 1) != root.Has("ima")) {
    return root.Wrong("ima", "belongs to a PCR with rule = \"ima\", usually 10");
  }
  if (count == 0) return Ok();
  ASSIGN_OR_RETURN(const PolicyTable table, root.Table("ima"));
  RETURN_IF_ERROR(table.AllowOnly({"allow-list", "allow-list-sha256", "violations"}));
  ASSIGN_OR_RETURN(policy.ima.allow_list, table.Text("allow-list"));
  ASSIGN_OR_RETURN(policy.ima.allow_list_sha256,
                   table.Digest("allow-list-sha256", HashAlgorithm::kSha256));
  ASSIGN_OR_RETURN(policy.ima.violations,
                   Choose<ImaViolations>(table, "violations", kRefusedNoted));
  return Ok();
}

Result<ReferenceRecord> ParseRecord(const PolicyTable& table) {
  RETURN_IF_ERROR(table.AllowOnly({"pcr", "sha1", "sha256", "sha384", "sha512"}));
  ASSIGN_OR_RETURN(const uint64_t pcr, table.Number("pcr"));
  if (pcr >= PcrIndex::kCount) return table.Wrong("pcr", "is no PCR: 0 to 23");
  ReferenceRecord out{.pcr = static_cast<uint32_t>(pcr), .digests = {}};
  for (const HashAlgorithm bank : kBanks) {
    const std::string name(HashAlgorithmName(bank));
    if (!table.Has(name.c_str())) continue;
    ASSIGN_OR_RETURN(Bytes digest, table.Digest(name, bank));
    out.digests.push_back({.bank = bank, .digest = std::move(digest)});
  }
  if (out.digests.empty()) return table.Wrong("", "has no digest");
  return out;
}

Result<ReferenceVariant> ParseVariant(const PolicyTable& table) {
  RETURN_IF_ERROR(table.AllowOnly({"name", "records"}));
  ReferenceVariant out;
  if (table.Has("name")) {
    ASSIGN_OR_RETURN(out.name, table.Text("name"));
  }
  ASSIGN_OR_RETURN(const std::vector<PolicyTable> records, table.Tables("records"));
  for (const PolicyTable& each : records) {
    ASSIGN_OR_RETURN(out.records.emplace_back(), ParseRecord(each));
  }
  return out;
}

Result<void> ParseComponents(const PolicyTable& root, AttestationPolicy& policy) {
  ASSIGN_OR_RETURN(const std::vector<PolicyTable> tables, root.Tables("component"));
  size_t records = 0;
  for (const PolicyTable& table : tables) {
    RETURN_IF_ERROR(table.AllowOnly({"name", "variant"}));
    ReferenceComponent component;
    ASSIGN_OR_RETURN(component.name, table.Text("name"));
    ASSIGN_OR_RETURN(const std::vector<PolicyTable> variants, table.Tables("variant"));
    for (const PolicyTable& each : variants) {
      ASSIGN_OR_RETURN(component.variants.emplace_back(), ParseVariant(each));
      records += component.variants.back().records.size();
    }
    if (component.variants.empty()) return table.Wrong("variant", "is missing");
    if (std::ranges::find(policy.components, component.name, &ReferenceComponent::name) !=
        policy.components.end()) {
      return table.Wrong("name", "is that of an earlier component");
    }
    if (component.variants.size() > kMaxReferenceVariants || records > kMaxReferenceRecords ||
        policy.components.size() >= kMaxReferenceComponents) {
      return table.Wrong("", "is too many components, variants or records");
    }
    policy.components.push_back(std::move(component));
  }
  return Ok();
}

// What one section says of another.
Result<void> ValidateReferences(const PolicyTable& root, const AttestationPolicy& policy) {
  bool reference = false;
  for (const auto& [pcr, rule] : policy.pcrs) {
    const std::string path = "pcr." + std::to_string(pcr);
    const auto* events = std::get_if<EventsRule>(&rule);
    const auto vouching = policy.pcrs.find(7);
    const bool vouched =
        vouching != policy.pcrs.end() && std::holds_alternative<SecureBootRule>(vouching->second);
    if (events != nullptr && events->signed_images == SignedImages::kAccepted &&
        (!vouched || pcr != 4)) {
      return root.Wrong(path + ".signed-images",
                        "is for PCR 4, with the rule \"secure-boot\" on PCR 7");
    }
    if (std::holds_alternative<SecureBootRule>(rule) && pcr != 7) {
      return root.Wrong(path + ".rule", "is \"secure-boot\", which is for PCR 7");
    }
    reference = reference || std::holds_alternative<ReferenceRule>(rule);
  }
  if (reference == policy.components.empty()) {
    return root.Wrong("component", "belongs to a PCR with rule = \"reference\"");
  }
  return Ok();
}

}  // namespace

Result<AttestationPolicy> ParsePolicy(std::string_view text) {
  ASSIGN_OR_RETURN(const PolicyDocument document, PolicyDocument::Parse(text));
  if (!document.root().is_object()) return InvalidInput("the policy is no table");
  const PolicyTable root(document);
  RETURN_IF_ERROR(
      root.AllowOnly({"name", "version", "description", "max-age-seconds", "tpm", "event-log",
                      "pcr", "command-line", "facts", "ima", "component"}));
  AttestationPolicy policy;
  ASSIGN_OR_RETURN(policy.name, root.Text("name"));
  if (policy.name.empty() || policy.name.size() > kMaxPolicyName ||
      Printable(policy.name) != policy.name) {
    return root.Wrong("name", "is empty, too long or not printable");
  }
  ASSIGN_OR_RETURN(policy.version, root.Number("version"));
  if (root.Has("description")) {
    ASSIGN_OR_RETURN(policy.description, root.Text("description"));
  }
  if (root.Has("max-age-seconds")) {
    ASSIGN_OR_RETURN(policy.max_age_seconds, root.Number("max-age-seconds"));
    if (policy.max_age_seconds < kLeastMaxAgeSeconds) {
      return root.Wrong("max-age-seconds",
                        "is less than " + std::to_string(kLeastMaxAgeSeconds) +
                            ": hosts would lose their leases before they can answer again");
    }
  }
  RETURN_IF_ERROR(ParseTpm(root, policy));
  if (root.Has("event-log")) {
    ASSIGN_OR_RETURN(const PolicyTable table, root.Table("event-log"));
    RETURN_IF_ERROR(table.AllowOnly({"mismatched-data"}));
    ASSIGN_OR_RETURN(policy.mismatched_data,
                     Choose<MismatchedData>(table, "mismatched-data", kRefusedNoted));
  }
  RETURN_IF_ERROR(ParsePcrs(root, policy));
  RETURN_IF_ERROR(ParseCommandLine(root, policy));
  RETURN_IF_ERROR(ParseFacts(root, policy));
  RETURN_IF_ERROR(ParseIma(root, policy));
  RETURN_IF_ERROR(ParseComponents(root, policy));
  RETURN_IF_ERROR(ValidateReferences(root, policy));
  return policy;
}

}  // namespace vallum::attest
