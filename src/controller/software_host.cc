// SPDX-License-Identifier: Apache-2.0
#include "controller/software_host.h"

#include <string_view>
#include <utility>

#include "attest/public_key.h"
#include "base/digest.h"
#include "measure/event_log_builder.h"
#include "measure/event_type.h"
#include "measure/pcr_selection.h"

namespace vallum::controller {
namespace {

std::string ToText(const Bytes& bytes) { return std::string(AsText(bytes)); }

}  // namespace

attest::SoftwareKey SoftwareHost::MakeKey() {
  return attest::SoftwareKey::MakeEc(attest::EcCurve::kP256, HashAlgorithm::kSha256);
}

SoftwareHost::SoftwareHost(HashAlgorithm bank) : key_(MakeKey()), bank_(bank) {
  for (uint32_t pcr = 0; pcr < PcrIndex::kCount; ++pcr) SetPcr(pcr, '\0');
  clock_.clock = 1000;
  clock_.reset_count = 1;
  clock_.safe = true;
  clock_.firmware_version = 7;
}

void SoftwareHost::SetPcr(uint32_t pcr, char fill) {
  pcrs_[bank_].insert_or_assign(PcrIndex::Create(pcr).value(),
                                Bytes(DigestSize(bank_), std::byte(fill)));
}

void SoftwareHost::Reboot(const std::string& boot_id) {
  boot_id_ = boot_id;
  ++clock_.reset_count;
}

void SoftwareHost::ExtendSecretly(uint32_t pcr, const std::string& content) {
  Bytes& value = pcrs_[HashAlgorithm::kSha256].at(PcrIndex::Create(pcr).value());
  Bytes extended = value;
  const Sha256Digest digest = Sha256(AsBytes(content));
  extended.insert(extended.end(), digest.begin(), digest.end());
  value = ToBytes(Sha256(extended));
}

void SoftwareHost::StartLoader(const std::string& loader) {
  constexpr uint32_t kImages = 4;
  constexpr std::string_view kSeparator("\0\0\0\0", 4);
  SetPcr(kImages, '\0');
  measure::EventLogBuilder log({HashAlgorithm::kSha256});
  log.Add(kImages, measure::EventType::kBootServicesApplication, Bytes(32), AsBytes(loader));
  cut_log_ = log.bytes();
  event_log_ = log.AddSeparator(kImages).bytes();
  ExtendSecretly(kImages, loader);
  ExtendSecretly(kImages, std::string(kSeparator));
}

v1::HostIdentity SoftwareHost::Identity() const {
  const attest::TpmPublic ak = key_.Parsed();
  v1::HostIdentity identity;
  identity.set_ek_sha256(ToHex(Sha256(attest::PublicKey::FromTpm(ak)->ToSpki())));
  identity.set_ak_public(ToText(key_.Public()));
  identity.set_ak_name(ToHex(ak.Name()));
  identity.set_accepted_by("approved by tester");
  return identity;
}

std::vector<v1::EvidenceChunk> SoftwareHost::Refusal(const v1::RequestEvidence& request,
                                                     HashAlgorithm bank) {
  v1::EvidenceChunk header;
  header.mutable_header()->set_request_id(request.request_id());
  v1::EvidenceChunk problem;
  problem.mutable_problem()->set_code(std::string(ErrorCodeName(ErrorCode::kInvalidInput)));
  problem.mutable_problem()->set_detail("no bank " + std::string(HashAlgorithmName(bank)));
  return {header, problem};
}

std::vector<v1::EvidenceChunk> SoftwareHost::Answer(const v1::RequestEvidence& request) {
  attest::PcrBanks asked;
  const auto selections = measure::ParsePcrSelections(request.pcrs());
  for (const measure::BankSelection& selection : selections.value()) {
    if (!pcrs_.contains(selection.bank)) return Refusal(request, selection.bank);
    for (const PcrIndex pcr : selection.pcrs) {
      asked[selection.bank][pcr] = pcrs_.at(selection.bank).at(pcr);
    }
  }
  attest::Attestation attestation;
  const ByteView nonce = AsBytes(request.nonce());
  attestation.nonce.assign(nonce.begin(), nonce.end());
  ++clock_.clock;
  attestation.clock = clock_;
  attestation.banks = attest::SelectAll(asked);
  attestation.pcr_digest = attest::PcrDigest(HashAlgorithm::kSha256, asked);
  const Bytes quoted = attest::BuildAttestation(attestation);
  v1::EvidenceChunk chunk;
  v1::EvidenceHeader& header = *chunk.mutable_header();
  header.set_request_id(request.request_id());
  header.set_quoted(ToText(quoted));
  header.set_signature(ToText(key_.Sign(quoted)));
  header.add_nonces(request.nonce());
  for (const auto& [bank, values] : asked) {
    v1::QuotedBank& out = *header.add_banks();
    out.set_bank(std::string(HashAlgorithmName(bank)));
    for (const auto& [pcr, value] : values) {
      out.add_pcrs(pcr.value());
      out.add_values(ToText(value));
    }
  }
  header.set_boot_id(boot_id_);
  const bool known = request.known_reset_count() == clock_.reset_count && !request.event_log();
  if (known) return {chunk};
  if (event_log_.empty()) {
    header.set_event_log_detail("this host has no event log");
    return {chunk};
  }
  header.set_event_log_size(static_cast<int64_t>(event_log_.size()));
  v1::EvidenceChunk log;
  log.set_event_log(ToText(event_log_));
  return {chunk, log};
}

std::string SoftwareHost::PcrHex(uint32_t pcr) const {
  return ToHex(pcrs_.at(HashAlgorithm::kSha256).at(PcrIndex::Create(pcr).value()));
}

std::string SoftwareHost::PolicyDocument() const {
  std::string document = "name = \"gold\"\nversion = 1\n\n[tpm]\nbanks = [\"sha256\"]\n";
  for (const uint32_t pcr : {0U, 7U}) {
    document += "\n[pcr." + std::to_string(pcr) + "]\nrule = \"golden\"\nvalues = [ { sha256 = \"" +
                PcrHex(pcr) + "\" } ]\n";
  }
  return document;
}

std::string SoftwareHost::PolicyDocument(const std::string& loader) const {
  return PolicyDocument() + "\n[pcr.4]\nrule = \"events\"\naccept = [ { sha256 = \"" +
         ToHex(Sha256(AsBytes(loader))) + "\", what = \"the loader\" } ]\n";
}

}  // namespace vallum::controller
