// SPDX-License-Identifier: Apache-2.0
// A host's evidence by a key in software, where the shared vectors have no such host.
#include "attest/host_verification.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "attest/evidence_bundle.h"
#include "attest/learn.h"
#include "attest/quote_builder.h"
#include "measure/bank_hasher.h"
#include "measure/event_log_builder.h"
#include "measure/event_log_replay.h"
#include "measure/ima_log_builder.h"

namespace vallum::attest {
namespace {

using measure::ImaLogBuilder;

constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;
const PcrIndex kImaPcr = PcrIndex::Of<10>();

// Keys take long to make.
const SoftwareKey& Key() {
  static const SoftwareKey key = SoftwareKey::MakeEc(EcCurve::kP256, kBank);
  return key;
}

struct Host {
  PcrBanks pcrs;
  ClockState clock{.clock = 1000, .reset_count = 5, .restart_count = 2, .safe = true};
  Bytes event_log;
  Bytes ima_log;
  uint64_t ima_first_entry = 0;
};

const Bytes& Nonce() {
  static const Bytes nonce(20, std::byte{0x55});
  return nonce;
}

Bytes Quote(const Host& host) {
  Attestation attestation;
  attestation.qualified_signer = Bytes(34, std::byte{0xAA});
  attestation.nonce = Nonce();
  attestation.clock = host.clock;
  attestation.banks = SelectAll(host.pcrs);
  attestation.pcr_digest = PcrDigest(kBank, host.pcrs);
  return BuildAttestation(attestation);
}

HostJudgement Judge(const Host& host, const PreparedPolicy& policy, const HostState& state = {}) {
  const Bytes message = Quote(host);
  const Bytes signature = Key().Sign(message);
  const HostEvidence evidence{.quote = message,
                              .signature = signature,
                              .pcrs = host.pcrs,
                              .event_log = host.event_log,
                              .ima_log = host.ima_log,
                              .ima_first_entry = host.ima_first_entry,
                              .facts = {}};
  const BoundTpm tpm{.key = QuoteKey::Create(Key().Parsed()).value(), .kind = TpmKind::kHardware};
  return VerifyHost(tpm, evidence, state, policy, Nonce());
}

std::vector<ReasonId> Ids(const HostJudgement& judged) {
  std::vector<ReasonId> out;
  for (const Reason& each : judged.verdict.reasons) out.push_back(each.id);
  return out;
}
using Expected = std::vector<ReasonId>;

SharedPolicy MakePolicy(const std::string& rules, const std::string& files = "") {
  auto policy = ParsePolicy("name = \"p\"\nversion = 1\n" + rules);
  EXPECT_TRUE(policy.has_value()) << policy.error().Describe();
  measure::SharedImaAllowList list;
  if (!files.empty()) list = measure::ImportDigestList(files).value();
  return PreparePolicy(*std::move(policy), list);
}

std::string Listed(std::string_view path, std::string_view content) {
  return ToHex(Sha256(AsBytes(content))) + "  " + std::string(path) + "\n";
}

SharedPolicy ImaPolicy() {
  return MakePolicy("[pcr.10]\nrule = \"ima\"\n[ima]\nallow-list = \"l\"\nallow-list-sha256 = \"" +
                        std::string(64, '0') + "\"\n",
                    Listed("boot_aggregate", "boot") + Listed("/a", "a"));
}

Host WithIma(const ImaLogBuilder& log) {
  Host host;
  host.pcrs[kBank] = {{kImaPcr, log.Pcr(kBank).value}};
  host.ima_log = log.bytes();
  return host;
}

ImaLogBuilder MakeList() {
  ImaLogBuilder log;
  log.AddFile("boot_aggregate", "boot").AddFile("/a", "a");
  return log;
}

// A host whose stub measured a section into PCR 11, and systemd these phases after it.
Host WithPhases(const std::vector<std::string>& phases) {
  measure::EventLogBuilder log({kBank});
  log.AddText(11, measure::EventType::kIpl, "uki");
  Host host;
  host.event_log = log.bytes();
  const auto parsed = measure::EventLog::Parse(log.bytes(), measure::EventLogKind::kTpm);
  Bytes value = measure::ReplayEventLog(*parsed, kBank)->values[11];
  measure::BankHasher hasher(kBank);
  for (const std::string& phase : phases) hasher.Extend(value, Digest(kBank, AsBytes(phase)));
  host.pcrs[kBank] = {{PcrIndex::Of<11>(), value}};
  return host;
}

TEST(HostVerification, PolicyLearnedInOnePhaseOfTheBootIsMetInTheOthers) {
  const Host host = WithPhases({"enter-initrd", "leave-initrd", "sysinit", "ready"});
  const Bytes message = Quote(host);
  const Bytes signature = Key().Sign(message);
  const HostEvidence evidence{.quote = message,
                              .signature = signature,
                              .pcrs = host.pcrs,
                              .event_log = host.event_log,
                              .ima_log = {},
                              .facts = {}};
  const BoundTpm tpm{.key = QuoteKey::Create(Key().Parsed()).value(), .kind = TpmKind::kHardware};
  const auto learned = LearnPolicy("p", tpm, evidence, Nonce());
  ASSERT_TRUE(learned.has_value()) << learned.error().Describe();
  EXPECT_EQ(PcrRuleName(learned->policy.pcrs.at(11)), "events") << learned->document;
  const SharedPolicy policy = PreparePolicy(learned->policy, {});
  EXPECT_EQ(Ids(Judge(host, *policy)), Expected{});
  EXPECT_EQ(Ids(Judge(WithPhases({}), *policy)), Expected{});
  EXPECT_EQ(Ids(Judge(WithPhases({"sysinit"}), *policy)), Expected{});
  EXPECT_EQ(Ids(Judge(WithPhases({"other"}), *policy)), Expected{ReasonId::kEventLogReplay});
}

TEST(HostVerification, ListOfAcceptedFilesIsTrusted) {
  const HostJudgement judged = Judge(WithIma(MakeList()), *ImaPolicy());
  EXPECT_EQ(Ids(judged), Expected{});
  ASSERT_TRUE(judged.state.ima.has_value());
  EXPECT_EQ(judged.state.ima->replay.entries, 2U);
}

TEST(HostVerification, PcrThatImaNeverExtendedProvesNoList) {
  Host host = WithIma(MakeList());
  host.pcrs[kBank].at(kImaPcr) = Bytes(32);
  const HostJudgement judged = Judge(host, *ImaPolicy());
  EXPECT_EQ(Ids(judged), Expected{ReasonId::kImaReplay});
  EXPECT_FALSE(judged.state.ima.has_value());
}

TEST(HostVerification, ListThatDoesNotBeginWithTheBootAggregateIsRefused) {
  ImaLogBuilder log;
  log.AddFile("/a", "a");
  EXPECT_EQ(Ids(Judge(WithIma(log), *ImaPolicy())), Expected{ReasonId::kImaEntryNotAccepted});
}

TEST(HostVerification, RefusedEntryBeyondTheListedReasonsIsNotPassedOver) {
  // A quoted PCR without a rule is a reason, and so is each event of PCR 0: the list of reasons is
  // full before IMA's is judged.
  measure::EventLogBuilder events({kBank});
  for (size_t i = 0; i < kMaxReasons; ++i) {
    events.AddText(0, measure::EventType::kPostCode, "firmware" + std::to_string(i));
  }
  events.AddSeparator(0);
  const auto log = measure::EventLog::Parse(events.bytes(), measure::EventLogKind::kTpm);
  ImaLogBuilder list = MakeList();
  Host host = WithIma(list.AddFile("/evil", "evil"));
  host.event_log = events.bytes();
  host.pcrs[kBank].emplace(PcrIndex::Of<0>(),
                           measure::ReplayEventLog(log.value(), kBank)->values[0]);
  SharedPolicy policy = ImaPolicy();
  AttestationPolicy rules = policy->policy;
  rules.pcrs.emplace(0, EventsRule{});
  policy = PreparePolicy(rules, policy->allow_list);
  const HostJudgement judged = Judge(host, *policy);
  ASSERT_EQ(judged.verdict.reasons.size(), kMaxReasons);
  EXPECT_FALSE(judged.state.ima.has_value());
  EXPECT_FALSE(judged.state.boot.has_value());
}

const PcrIndex kFirmware = PcrIndex::Of<0>();
const PcrIndex kLate = PcrIndex::Of<12>();

SharedPolicy BootPolicy() {
  return MakePolicy("[pcr.0]\nrule = \"events\"\naccept = [ { sha256 = \"" +
                    ToHex(Digest(kBank, AsBytes("firmware"))) +
                    "\" } ]\n[pcr.12]\nrule = \"ignored\"\nbecause = \"the running system's\"\n");
}

Host BootedHost() {
  measure::EventLogBuilder events({kBank});
  events.AddText(0, measure::EventType::kPostCode, "firmware").AddSeparator(0);
  const auto log = measure::EventLog::Parse(events.bytes(), measure::EventLogKind::kTpm);
  const auto replay = measure::ReplayEventLog(log.value(), kBank);
  Host host;
  host.event_log = events.bytes();
  host.pcrs[kBank] = {{kFirmware, replay->values[0]}, {kLate, replay->values[12]}};
  return host;
}

// A host that was trusted, and is asked again without its log.
struct KnownHost {
  SharedPolicy policy = BootPolicy();
  Host host = BootedHost();
  HostState state = Judge(host, *policy).state;

  KnownHost() {
    EXPECT_EQ(state.last, HostVerdictKind::kTrusted);
    EXPECT_EQ(EvidenceFor(*policy, state).known_reset_count, 5U);
    host.event_log.clear();
  }
};

TEST(HostVerification, KnownStartNeedsNoLog) {
  const KnownHost known;
  EXPECT_EQ(Ids(Judge(known.host, *known.policy, known.state)), Expected{});
}

TEST(HostVerification, IgnoredPcrOfTheRunningSystemIsNoOtherStart) {
  KnownHost known;
  known.host.pcrs[kBank].at(kLate) = Bytes(32, std::byte{1});
  EXPECT_EQ(Ids(Judge(known.host, *known.policy, known.state)), Expected{});
}

TEST(HostVerification, ResumeIsNoOtherStart) {
  KnownHost known;
  ++known.host.clock.restart_count;
  EXPECT_EQ(Ids(Judge(known.host, *known.policy, known.state)), Expected{});
}

TEST(HostVerification, OtherPcrsThanOfTheKnownStartAreAskedAbout) {
  KnownHost known;
  known.host.pcrs[kBank].at(kFirmware) = Bytes(32, std::byte{1});
  const HostJudgement judged = Judge(known.host, *known.policy, known.state);
  EXPECT_EQ(judged.next, NextRequest::kAtOnce);
  EXPECT_EQ(judged.verdict.kind, HostVerdictKind::kStale);
  EXPECT_EQ(Ids(judged), Expected{ReasonId::kEventLogAbsent});
  EXPECT_FALSE(EvidenceFor(*known.policy, judged.state).known_reset_count.has_value());
}

TEST(HostVerification, LogThatWasAskedForAndDoesNotComeIsAReason) {
  KnownHost known;
  known.host.pcrs[kBank].at(kFirmware) = Bytes(32, std::byte{1});
  const HostState asked = Judge(known.host, *known.policy, known.state).state;
  const HostJudgement judged = Judge(known.host, *known.policy, asked);
  EXPECT_EQ(judged.verdict.kind, HostVerdictKind::kUntrusted);
  EXPECT_EQ(judged.next, NextRequest::kWhenDue);
}

TEST(HostVerification, RebootWithoutALogIsUntrusted) {
  KnownHost known;
  ++known.host.clock.reset_count;
  EXPECT_EQ(Judge(known.host, *known.policy, known.state).verdict.kind,
            HostVerdictKind::kUntrusted);
}

TEST(HostVerification, UntrustedIsNotTakenBackByAskingAgain) {
  KnownHost known;
  known.state.last = HostVerdictKind::kUntrusted;
  known.host.pcrs[kBank].at(kFirmware) = Bytes(32, std::byte{1});
  EXPECT_EQ(Judge(known.host, *known.policy, known.state).verdict.kind,
            HostVerdictKind::kUntrusted);
}

TEST(HostVerification, IgnoredPcrOfTheFirmwareNeedsNoLogButAgreesWithOne) {
  Host host = BootedHost();
  host.pcrs[kBank].erase(kLate);
  host.pcrs[kBank].at(kFirmware) = Bytes(32, std::byte{1});
  const SharedPolicy policy = MakePolicy("[pcr.0]\nrule = \"ignored\"\nbecause = \"inventory\"\n");
  EXPECT_EQ(Ids(Judge(host, *policy)), Expected{ReasonId::kEventLogReplay});
  host.event_log.clear();
  EXPECT_EQ(Ids(Judge(host, *policy)), Expected{});
}

TEST(HostVerification, IgnoredPcrOfTheFirmwareIsNotLeftOutOfTheLog) {
  Host host = BootedHost();
  host.pcrs[kBank] = {{PcrIndex::Of<1>(), Bytes(32, std::byte{1})}};
  const SharedPolicy policy = MakePolicy("[pcr.1]\nrule = \"ignored\"\nbecause = \"inventory\"\n");
  EXPECT_EQ(Ids(Judge(host, *policy)), Expected{ReasonId::kEventLogReplay});
}

// A file with a signature by a key that no list has.
Bytes SignedFile(std::string_view path) {
  ByteWriter signature;
  signature.U8(3).U8(2).U8(static_cast<uint8_t>(measure::ImaHash::kSha256));
  signature.U32Be(0x01020304).U16Be(4).U32Be(0);
  return measure::Concatenate({measure::ImaDigestField("sha256", Sha256(AsBytes("signed"))),
                               measure::ImaNameField(path),
                               measure::ImaFieldBytes(signature.bytes())});
}

// A bundle of the entries that a list has more than MakeList().
Verdict JudgeRest(const ImaLogBuilder& log) {
  const Host host = WithIma(log);
  const size_t before = MakeList().bytes().size();
  EvidenceBundle bundle;
  bundle.ak_public = Key().Public();
  bundle.tpm = TpmKind::kHardware;
  bundle.nonce = Nonce();
  bundle.quote = Quote(host);
  bundle.signature = Key().Sign(bundle.quote);
  bundle.pcrs = host.pcrs;
  bundle.ima_log = ToBytes(ByteView(host.ima_log).subspan(before));
  bundle.ima_before = {.entries = 2, .pcrs = {MakeList().Pcr(kBank)}};
  return VerifyBundle(bundle, *ImaPolicy()).value();
}

TEST(HostVerification, SignatureThatAnEarlierKeyMayHaveMadeLeavesABundleUndecided) {
  ImaLogBuilder log = MakeList();
  const Verdict verdict = JudgeRest(log.Add("ima-sig", SignedFile("/signed")));
  EXPECT_EQ(verdict.kind, HostVerdictKind::kUnknown);
  ASSERT_EQ(verdict.reasons.size(), 1U);
  EXPECT_EQ(verdict.reasons[0].id, ReasonId::kImaFileSignature);
}

TEST(HostVerification, FileWithoutASignatureDecidesABundle) {
  ImaLogBuilder log = MakeList();
  log.Add("ima-sig", SignedFile("/signed")).AddFile("/evil", "evil");
  EXPECT_EQ(JudgeRest(log).kind, HostVerdictKind::kUntrusted);
}

TEST(HostVerification, AcceptedFilesAreForgottenUnderAPolicyWithoutThem) {
  HostState state = Judge(WithIma(MakeList()), *ImaPolicy()).state;
  ASSERT_TRUE(state.ima.has_value());
  EXPECT_FALSE(Judge(BootedHost(), *BootPolicy(), state).state.ima.has_value());
}

}  // namespace
}  // namespace vallum::attest
