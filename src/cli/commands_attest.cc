// SPDX-License-Identifier: Apache-2.0
// `attest verify`, `attest learn`: a host's evidence judged here, without a server.
#include <cstddef>
#include <memory>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "attest/evidence_bundle.h"
#include "attest/host_verification.h"
#include "attest/learn.h"
#include "attest/public_key.h"
#include "attest/serialized_pcrs.h"
#include "base/bytes.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/local_image.h"
#include "measure/event_log.h"
#include "measure/ima_allow_list.h"
#include "measure/ima_log.h"
#include "tls/file.h"

namespace vallum::cli {
namespace {

constexpr int kNotTrusted = 10;
constexpr size_t kSmallFile = size_t{64} << 10U;
constexpr size_t kTextLimit = 600;

struct EvidenceOptions {
  std::string bundle, quote, signature, pcrs, ak, nonce, event_log, ima_log, facts;
};
struct VerifyOptions {
  EvidenceOptions evidence;
  std::string policy, ima_list, save;
};
struct LearnOptions {
  EvidenceOptions evidence;
  std::string name, ima_list_out;
};

// Evidence with the key that it is by.
struct LocalEvidence {
  attest::BoundTpm tpm;
  attest::EvidenceBundle bundle;
};

Result<Bytes> ReadOptional(const std::string& path, size_t limit) {
  if (path.empty()) return Bytes();
  return ReadInputFile(path, limit);
}

// A TPM2B_PUBLIC or TPMT_PUBLIC, as TPMs and their tools write it, or the key alone as PEM.
Result<attest::QuoteKey> ReadKey(const std::string& path, attest::EvidenceBundle& bundle) {
  ASSIGN_OR_RETURN(const Bytes file, ReadInputFile(path, kSmallFile));
  auto parsed = attest::ParseTpm2bPublic(file);
  if (!parsed.has_value()) parsed = attest::ParseTpmtPublic(file);
  if (parsed.has_value()) {
    bundle.ak_public = parsed->encoded;
    return attest::QuoteKey::Create(*parsed);
  }
  ASSIGN_OR_RETURN_CONTEXT(attest::PublicKey key, attest::PublicKey::FromPem(AsText(file)),
                           "reading the attestation key " + Printable(path));
  return attest::QuoteKey::CreateUnchecked(std::move(key));
}

// As tpm2_quote --pcrs_format=serialized writes them, or =values in the quote's own order.
Result<attest::PcrBanks> ReadPcrs(const std::string& path, ByteView quote) {
  ASSIGN_OR_RETURN(const Bytes file, ReadInputFile(path, attest::kMaxSerializedPcrs));
  auto pcrs = attest::ParseSerializedPcrs(file);
  if (pcrs.has_value()) return pcrs;
  ASSIGN_OR_RETURN_CONTEXT(const attest::Attestation quoted, attest::ParseAttestation(quote),
                           "telling which PCRs are in " + Printable(path));
  std::vector<measure::BankSelection> selections;
  for (const attest::QuotedBank& bank : quoted.banks) {
    if (bank.bank.has_value()) selections.push_back({.bank = *bank.bank, .pcrs = bank.pcrs});
  }
  auto values = attest::ParsePcrValues(file, selections);
  if (values.has_value()) return values;
  return InvalidInput(Printable(path) + ": " + pcrs.error().Describe())
      .WithFix("write them with tpm2_quote -o FILE");
}

Result<LocalEvidence> ReadFiles(const EvidenceOptions& options) {
  if (options.quote.empty() || options.signature.empty() || options.pcrs.empty() ||
      options.ak.empty() || options.nonce.empty()) {
    return InvalidInput("there is neither a bundle nor a whole quote")
        .WithFix("name a bundle, or give --quote, --signature, --pcrs, --ak and --nonce");
  }
  attest::EvidenceBundle bundle;
  ASSIGN_OR_RETURN(attest::QuoteKey key, ReadKey(options.ak, bundle));
  ASSIGN_OR_RETURN(bundle.quote, ReadInputFile(options.quote, kSmallFile));
  ASSIGN_OR_RETURN(bundle.signature, ReadInputFile(options.signature, kSmallFile));
  // tpm2_quote writes a TPMT_SIGNATURE unless it is told otherwise.
  bundle.format = attest::ParseSignature(bundle.signature).has_value()
                      ? attest::SignatureFormat::kTpmt
                      : attest::SignatureFormat::kPlain;
  ASSIGN_OR_RETURN(bundle.pcrs, ReadPcrs(options.pcrs, bundle.quote));
  ASSIGN_OR_RETURN_CONTEXT(bundle.nonce, FromHex(options.nonce), "reading --nonce");
  ASSIGN_OR_RETURN(bundle.event_log, ReadOptional(options.event_log, measure::kMaxEventLogSize));
  ASSIGN_OR_RETURN(bundle.ima_log, ReadOptional(options.ima_log, measure::kMaxImaLogSize));
  if (!options.facts.empty()) {
    ASSIGN_OR_RETURN(const Bytes facts, ReadInputFile(options.facts, attest::kMaxFactsSize));
    ASSIGN_OR_RETURN(bundle.facts, attest::ParseHostFacts(AsText(facts)));
  }
  return LocalEvidence{.tpm = {.key = std::move(key), .kind = attest::TpmKind::kUnknown},
                       .bundle = std::move(bundle)};
}

Result<LocalEvidence> ReadEvidence(const EvidenceOptions& options) {
  if (options.bundle.empty()) return ReadFiles(options);
  if (!options.quote.empty()) {
    return InvalidInput("both a bundle and --quote are given").WithFix("give one of them");
  }
  ASSIGN_OR_RETURN(const Bytes file, ReadInputFile(options.bundle, attest::kMaxBundleSize));
  ASSIGN_OR_RETURN_CONTEXT(attest::EvidenceBundle bundle, attest::ParseBundle(file),
                           Printable(options.bundle));
  ASSIGN_OR_RETURN(const attest::TpmPublic ak, attest::ParseTpmtPublic(bundle.ak_public));
  ASSIGN_OR_RETURN(attest::QuoteKey key, attest::QuoteKey::Create(ak));
  const attest::TpmKind kind = bundle.tpm;
  return LocalEvidence{.tpm = {.key = std::move(key), .kind = kind}, .bundle = std::move(bundle)};
}

// Keylime's JSON, or lines as of sha256sum.
Result<measure::SharedImaAllowList> ReadAllowList(const std::string& path,
                                                  const attest::AttestationPolicy& policy) {
  if (path.empty()) return measure::SharedImaAllowList();
  ASSIGN_OR_RETURN(const Bytes file, ReadInputFile(path, measure::kMaxAllowListInput));
  if (Digest(HashAlgorithm::kSha256, file) != policy.ima.allow_list_sha256) {
    return InvalidInput(Printable(path) +
                        " is not the list that the policy names: its SHA-256 is " +
                        ToHex(Digest(HashAlgorithm::kSha256, file)))
        .WithFix("ima.allow-list-sha256 is " + ToHex(policy.ima.allow_list_sha256));
  }
  const std::string_view text = Trim(AsText(file));
  return text.starts_with('{') ? measure::ImportKeylimePolicy(text)
                               : measure::ImportDigestList(AsText(file));
}

// Without a policy only what the evidence says of itself can be judged: each PCR may be anything.
attest::AttestationPolicy NoPolicy(const attest::PcrBanks& pcrs) {
  attest::AttestationPolicy out;
  out.name = "(none)";
  for (const auto& [bank, values] : pcrs) {
    out.banks.push_back(bank);
    if (bank == HashAlgorithm::kSha1) out.sha1 = attest::Sha1Use::kAllowed;
    for (const auto& [pcr, value] : values) {
      out.pcrs.emplace(pcr.value(), attest::IgnoredRule{.because = "no policy was given"});
    }
  }
  return out;
}

Result<attest::Verdict> Judge(const LocalEvidence& evidence, const VerifyOptions& options) {
  attest::AttestationPolicy policy = NoPolicy(evidence.bundle.pcrs);
  if (!options.policy.empty()) {
    ASSIGN_OR_RETURN(const Bytes text, ReadInputFile(options.policy, size_t{8} << 20U));
    ASSIGN_OR_RETURN_CONTEXT(policy, attest::ParsePolicy(AsText(text)), Printable(options.policy));
  }
  ASSIGN_OR_RETURN(measure::SharedImaAllowList list, ReadAllowList(options.ima_list, policy));
  const attest::SharedPolicy prepared = attest::PreparePolicy(std::move(policy), std::move(list));
  if (!options.evidence.bundle.empty()) return attest::VerifyBundle(evidence.bundle, *prepared);
  return attest::VerifyHost(evidence.tpm, attest::EvidenceOf(evidence.bundle), {}, *prepared,
                            evidence.bundle.nonce)
      .verdict;
}

void PrintVerdict(Tool* tool, const attest::Verdict& verdict) {
  std::ostream& out = tool->out();
  out << "\nverdict: " << attest::HostVerdictName(verdict.kind) << " (policy "
      << Printable(verdict.policy) << " version " << verdict.policy_version << ")\n";
  for (const attest::Reason& each : verdict.reasons) {
    if (!each.fix.empty()) {
      out << "fix for " << attest::ReasonName(each.id) << ": " << Printable(each.fix, kTextLimit)
          << "\n";
    }
  }
  for (const attest::Reason& each : verdict.notes) {
    out << "note: " << Printable(attest::DescribeReason(each), kTextLimit) << "\n";
  }
}

Result<void> Save(const std::string& path, const attest::EvidenceBundle& bundle) {
  if (path.empty()) return Ok();
  if (bundle.ak_public.empty()) {
    return InvalidInput("--save needs the key as the TPM describes it: a PEM says too little")
        .WithFix("give the file that tpm2_createak -u wrote");
  }
  ASSIGN_OR_RETURN(const Bytes file, attest::FormatBundle(bundle));
  return tls::WriteFileAtomically(path, file, 0644);
}

Result<void> Verify(Tool* tool, const VerifyOptions& options) {
  ASSIGN_OR_RETURN(const LocalEvidence evidence, ReadEvidence(options.evidence));
  RETURN_IF_ERROR(Save(options.save, evidence.bundle));
  ASSIGN_OR_RETURN(attest::Verdict verdict, Judge(evidence, options));
  if (options.policy.empty() && verdict.kind == attest::HostVerdictKind::kTrusted) {
    verdict.kind = attest::HostVerdictKind::kUnknown;  // nothing says what it should be
    verdict.notes.push_back({.id = attest::ReasonId::kPolicyDiffers,
                             .actual = "no --policy was given: the evidence agrees with itself, "
                                       "and that is all"});
  }
  Json report = attest::VerdictToJson(verdict);
  std::vector<Json> rows;
  for (const Json& each : report["reasons"]) rows.push_back(each);
  static const std::vector<Column> kColumns = {{"REASON", "id"},
                                               {"PCR", "pcr"},
                                               {"EVENT", "event"},
                                               {"SAYS", "content"},
                                               {"EXPECTED", "expected"},
                                               {"ACTUAL", "actual"},
                                               {"FIX", "fix", Style::kText, true}};
  if (!tool->ForPeople() || !rows.empty()) {
    RETURN_IF_ERROR(tool->Show(kColumns, rows, report));
  }
  if (tool->ForPeople()) PrintVerdict(tool, verdict);
  if (verdict.kind != attest::HostVerdictKind::kTrusted) tool->exit_code = kNotTrusted;
  return Ok();
}

Result<void> Learn(Tool* tool, const LearnOptions& options) {
  ASSIGN_OR_RETURN(const LocalEvidence evidence, ReadEvidence(options.evidence));
  ASSIGN_OR_RETURN(const attest::LearnedPolicy learned,
                   attest::LearnPolicy(options.name, evidence.tpm,
                                       attest::EvidenceOf(evidence.bundle), evidence.bundle.nonce));
  if (!learned.ima_list.empty()) {
    if (options.ima_list_out.empty()) {
      return InvalidInput("the evidence has a list of IMA and --ima-list-out is not given")
          .WithFix("say where the allow list that is learned from it shall go");
    }
    RETURN_IF_ERROR(
        tls::WriteFileAtomically(options.ima_list_out, AsBytes(learned.ima_list), 0644));
  }
  tool->out() << learned.document;
  return Ok();
}

void AddEvidenceOptions(CLI::App* command, EvidenceOptions* options) {
  command->add_option("BUNDLE", options->bundle, "Evidence as the controller keeps it");
  command->add_option("--quote", options->quote, "Instead: the message (tpm2_quote -m)");
  command->add_option("--signature", options->signature, "Its signature (tpm2_quote -s)");
  command->add_option("--pcrs", options->pcrs, "The PCR values (tpm2_quote -o)");
  command->add_option("--ak", options->ak,
                      "The attestation key: as the TPM describes it (tpm2_createak -u), or PEM");
  command->add_option("--nonce", options->nonce, "What the quote must answer, hex (tpm2_quote -q)");
  command->add_option("--event-log", options->event_log,
                      "/sys/kernel/security/tpm0/binary_bios_measurements");
  command->add_option("--ima-log", options->ima_log,
                      "/sys/kernel/security/ima/binary_runtime_measurements, or the ascii one");
  command->add_option("--facts", options->facts, "What the host says of itself, JSON");
}

}  // namespace

void AddAttestCommands(CLI::App* app, Tool* tool) {
  CLI::App* group = app->add_subcommand("attest", "Judge a host's evidence, without a server");
  group->require_subcommand(1);
  auto verify = std::make_shared<VerifyOptions>();
  CLI::App* command = group->add_subcommand(
      "verify",
      "Whether the evidence shows what a policy asks for: exit code 0 if it does, else "
      "10");
  AddEvidenceOptions(command, &verify->evidence);
  command->add_option("--policy", verify->policy,
                      "The policy, TOML or JSON; without one the verdict is at most \"unknown\"");
  command->add_option("--ima-list", verify->ima_list,
                      "The allow list that the policy names: of Keylime, or of sha256sum");
  command->add_option("--save", verify->save, "Write the evidence as a bundle");
  command->callback([=] { tool->action = [=] { return Verify(tool, *verify); }; });
  command->footer(
      "Examples:\n  vallum attest verify node7.evidence --policy gold.toml --ima-list gold-files\n"
      "  vallum attest verify --quote q.msg --signature q.sig --pcrs q.pcrs --ak ak.pub "
      "--nonce HEX --event-log binary_bios_measurements --policy gold.toml");

  auto learn = std::make_shared<LearnOptions>();
  command = group->add_subcommand("learn", "Draft a policy that this host meets");
  AddEvidenceOptions(command, &learn->evidence);
  command->add_option("--name", learn->name, "The policy's name")->required();
  command->add_option("--ima-list-out", learn->ima_list_out,
                      "Where the allow list of the measured files goes");
  command->callback([=] { tool->action = [=] { return Learn(tool, *learn); }; });
  command->footer(
      "Example:\n  vallum attest learn node7.evidence --name gold --ima-list-out gold-files > "
      "gold.toml");
  AddPlatformCertificateCommand(group, tool);
}

}  // namespace vallum::cli
