// SPDX-License-Identifier: Apache-2.0
#include "attest/rules_secure_boot.h"

#include <algorithm>
#include <charconv>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "measure/event_data.h"
#include "measure/event_log_secure_boot.h"

namespace vallum::attest {
namespace {

using firmware::Signature;
using firmware::SignatureType;

constexpr uint32_t kPcr = 7;
constexpr size_t kOwnerSize = 16;
constexpr std::string_view kSbatLevel = "SbatLevel";
constexpr std::string_view kSbatPrefix = "sbat,1,";

bool Lists(const std::vector<Bytes>& sorted, const Bytes& name) {
  return std::ranges::binary_search(sorted, name);
}

void JudgeKeys(std::string_view variable, const std::vector<Bytes>& accepted,
               const std::vector<Signature>& keys, Reasons& reasons) {
  if (accepted.empty()) return;
  for (const Signature& key : keys) {
    const Bytes name = KeyName(key);
    if (Lists(accepted, name)) continue;
    reasons.Add({.id = ReasonId::kSecureBootKey,
                 .pcr = kPcr,
                 .content = std::string(variable) + ": " + DescribeSignature(key),
                 .expected = "one of pcr.7." + std::string(variable),
                 .actual = ToHex(name),
                 .fix = "add to pcr.7." + std::string(variable) + ": \"" + ToHex(name) + "\""});
  }
}

void JudgeRevocations(const std::vector<Bytes>& required, const std::vector<Signature>& dbx,
                      Reasons& reasons) {
  if (required.empty()) return;
  std::vector<Bytes> names;
  names.reserve(dbx.size());
  for (const Signature& each : dbx) names.push_back(KeyName(each));
  std::ranges::sort(names);
  for (const Bytes& each : required) {
    if (Lists(names, each)) continue;
    reasons.Add({.id = ReasonId::kSecureBootRevocation,
                 .pcr = kPcr,
                 .expected = ToHex(each),
                 .fix = "update the host's dbx (fwupd, or the firmware's setup)"});
  }
}

// The date of "sbat,1,2023012900\n..."; 0 if there is none.
uint64_t SbatDate(ByteView data) {
  std::string_view text = AsText(data);
  if (!text.starts_with(kSbatPrefix)) return 0;
  text.remove_prefix(kSbatPrefix.size());
  uint64_t date = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), date);
  return error == std::errc() ? date : 0;
}

void JudgeAuthority(const SecureBootRule& rule, const measure::EventLog& log,
                    const measure::LoggedAuthority& authority, Reasons& reasons) {
  const auto variable = measure::ParseVariableEvent(log.events()[authority.event].data);
  Reason reason{.id = ReasonId::kSignerNotAccepted, .pcr = kPcr, .event = authority.event};
  reason.content = authority.variable + ": " + authority.description;
  // One that is not what was hashed is among the policy's problems.
  if (!authority.covered || !variable.has_value()) return;
  if (authority.variable == kSbatLevel) {
    const uint64_t date = SbatDate(variable->data);
    if (date >= rule.sbat_level) return;
    reason.id = ReasonId::kSbatLevel;
    reason.expected = "at least " + std::to_string(rule.sbat_level);
    reason.actual = std::to_string(date);
    reason.fix = "update shim on the host, or apply its newer level (mokutil --set-sbat-policy)";
    reasons.Add(std::move(reason));
    return;
  }
  const SignerNames names = NamesOfSigner(variable->data);
  const ByteView entry =
      variable->data.size() > kOwnerSize ? variable->data.subspan(kOwnerSize) : ByteView{};
  if (Lists(rule.signers, names.certificate) || Lists(rule.signers, names.bare) ||
      Lists(rule.signers, ToBytes(entry))) {
    return;
  }
  const std::string name = ToHex(NameOfSigner(authority.variable, variable->data));
  reason.expected = "one of pcr.7.signers";
  reason.actual = name;
  reason.fix = "add to pcr.7.signers: \"" + name + "\"";
  reasons.Add(std::move(reason));
}

}  // namespace

Bytes KeyName(const Signature& key) {
  return key.type == SignatureType::kX509 ? Digest(HashAlgorithm::kSha256, key.data) : key.data;
}

SignerNames NamesOfSigner(ByteView data) {
  SignerNames names{.certificate = {}, .bare = Digest(HashAlgorithm::kSha256, data)};
  if (data.size() > kOwnerSize) {
    names.certificate = Digest(HashAlgorithm::kSha256, data.subspan(kOwnerSize));
  }
  return names;
}

Bytes NameOfSigner(std::string_view variable, ByteView data) {
  const SignerNames names = NamesOfSigner(data);
  const ByteView entry = data.size() > kOwnerSize ? data.subspan(kOwnerSize) : ByteView{};
  // An entry of db of a digest's size is a digest; shim alone logs a certificate as it is.
  for (const HashAlgorithm bank : {HashAlgorithm::kSha1, HashAlgorithm::kSha256,
                                   HashAlgorithm::kSha384, HashAlgorithm::kSha512}) {
    if (entry.size() == DigestSize(bank)) return ToBytes(entry);
  }
  return variable == "Shim" || entry.empty() ? names.bare : names.certificate;
}

void JudgeSecureBoot(const SecureBootRule& rule, const measure::EventLog& log, HashAlgorithm bank,
                     Reasons& reasons) {
  const measure::LoggedSecureBootPolicy policy = measure::ReadSecureBootPolicy(log, bank);
  if (policy.state != measure::LoggedSecureBoot::kOn) {
    reasons.Add({.id = ReasonId::kSecureBootOff,
                 .pcr = kPcr,
                 .expected = "on",
                 .actual = std::string(LoggedSecureBootName(policy.state)),
                 .fix = "switch Secure Boot on in the host's firmware"});
  }
  for (const std::string& problem : policy.problems) {
    reasons.Add({.id = ReasonId::kSecureBootPolicy, .pcr = kPcr, .actual = problem});
  }
  JudgeKeys("pk", rule.pk, policy.pk, reasons);
  JudgeKeys("kek", rule.kek, policy.kek, reasons);
  JudgeKeys("db", rule.db, policy.db, reasons);
  JudgeRevocations(rule.dbx_required, policy.dbx, reasons);
  for (const measure::LoggedAuthority& authority : policy.authorities) {
    JudgeAuthority(rule, log, authority, reasons);
  }
}

}  // namespace vallum::attest
