// SPDX-License-Identifier: Apache-2.0
#include "attest/rules.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "attest/golden.h"
#include "attest/rules_command_line.h"
#include "attest/rules_secure_boot.h"
#include "measure/bank_hasher.h"
#include "measure/event_log_builder.h"
#include "measure/event_log_replay.h"

namespace vallum::attest {
namespace {

using measure::EventLogBuilder;
using measure::EventType;

constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;
constexpr std::string_view kLine = "/vmlinuz-6.1 root=/dev/vda1 ro lockdown=integrity";

std::string HexOf(std::string_view text) { return ToHex(Digest(kBank, AsBytes(text))); }

EventLogBuilder MakeValidLog() {
  EventLogBuilder log({kBank});
  log.AddText(0, EventType::kPostCode, "firmware").AddSeparator(0);
  log.Add(4, EventType::kBootServicesApplication, Bytes(32), AsBytes("shim"));
  log.AddText(4, EventType::kEfiAction, "Calling EFI Application from Boot Option").AddSeparator(4);
  AddSecureBootPolicy(log);
  const std::string command = "linux " + std::string(kLine);
  log.Add(8, EventType::kIpl, AsBytes("grub_cmd: " + command), AsBytes(command));
  log.Add(8, EventType::kIpl, AsBytes("kernel_cmdline: " + std::string(kLine)), AsBytes(kLine));
  return log;
}

std::string MakeValidPolicy() {
  return R"(name = "p"
version = 1
[pcr.0]
rule = "events"
accept = [ { sha256 = ")" +
         HexOf("firmware") + R"(" } ]
[pcr.4]
rule = "events"
accept = [ { sha256 = ")" +
         HexOf("shim") + R"(" } ]
[pcr.8]
rule = "events"
commands = "any"
command-lines = "checked"
[command-line]
required = ["lockdown=integrity"]
allowed = ["root", "ro"]
)";
}

std::string With(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

struct Outcome {
  std::vector<ReasonId> ids;
  std::vector<Reason> reasons;
};

// Judges a log whose replay is what the TPM quotes, but for the PCRs of `other`.
Outcome Judge(const EventLogBuilder& builder, const std::string& text, const HostFacts& facts = {},
              const std::map<uint32_t, Bytes>& other = {}) {
  const auto policy = ParsePolicy(text);
  EXPECT_TRUE(policy.has_value()) << policy.error().Describe();
  const auto log = measure::EventLog::Parse(builder.bytes(), measure::EventLogKind::kTpm);
  EXPECT_TRUE(log.has_value()) << log.error().Describe();
  const auto replay = measure::ReplayEventLog(*log, kBank);
  PcrBanks quoted;
  for (const auto& [pcr, rule] : policy->pcrs) {
    const auto changed = other.find(pcr);
    quoted[kBank].emplace(*PcrIndex::Create(pcr),
                          changed == other.end() ? replay->values[pcr] : changed->second);
  }
  Reasons reasons;
  const uint32_t proven = ProveEventLog(*policy, quoted, *log, reasons);
  const PcrJudgement judged =
      JudgePcrs(*policy, {.quoted = quoted, .log = &*log, .proven = proven}, facts, reasons);
  JudgeFacts(*policy, facts, judged.command_lines, reasons);
  Outcome out;
  out.reasons = std::move(reasons).TakeReasons();
  for (const Reason& each : out.reasons) out.ids.push_back(each.id);
  return out;
}

using Ids = std::vector<ReasonId>;

TEST(Rules, ValidBootIsAccepted) { EXPECT_EQ(Judge(MakeValidLog(), MakeValidPolicy()).ids, Ids{}); }

TEST(Rules, FirmwareThatIsNotListedIsNamedWithWhatToApprove) {
  const Outcome out =
      Judge(MakeValidLog(), With(MakeValidPolicy(), HexOf("firmware"), HexOf("other")));
  ASSERT_EQ(out.ids, Ids{ReasonId::kFirmwareNotAccepted});
  EXPECT_EQ(out.reasons[0].pcr, 0U);
  EXPECT_EQ(out.reasons[0].event, 1U);
  EXPECT_NE(out.reasons[0].fix.find(HexOf("firmware")), std::string::npos);
}

TEST(Rules, ImageThatIsNotListedIsNotAccepted) {
  EXPECT_EQ(Judge(MakeValidLog(), With(MakeValidPolicy(), HexOf("shim"), HexOf("other"))).ids,
            Ids{ReasonId::kImageNotAccepted});
}

TEST(Rules, PcrThatTheLogDoesNotExplainIsNotLookedAt) {
  EXPECT_EQ(Judge(MakeValidLog(), With(MakeValidPolicy(), HexOf("shim"), HexOf("other")), {},
                  {{4, Bytes(32, std::byte{1})}})
                .ids,
            Ids{ReasonId::kEventLogReplay});
}

TEST(Rules, PcrOfEventsIntoWhichNothingWasMeasuredIsRefused) {
  const std::string text = MakeValidPolicy() + "[pcr.9]\nrule = \"events\"\n";
  EXPECT_EQ(Judge(MakeValidLog(), text).ids, Ids{ReasonId::kNothingMeasured});
  EXPECT_EQ(Judge(MakeValidLog(), text + "empty = \"accepted\"\n").ids, Ids{});
}

TEST(Rules, FirmwarePcrWithoutSeparatorIsRefused) {
  EventLogBuilder log = MakeValidLog();
  log.AddText(2, EventType::kPostCode, "firmware");
  EXPECT_EQ(Judge(log, MakeValidPolicy() + "[pcr.2]\nrule = \"events\"\naccept = [ { sha256 = \"" +
                           HexOf("firmware") + "\" } ]\n")
                .ids,
            Ids{ReasonId::kSeparatorAbsent});
}

TEST(Rules, SeparatorThatSaysThatMeasuringFailedIsRefused) {
  EventLogBuilder log = MakeValidLog();
  const Bytes one = {std::byte{1}, std::byte{0}, std::byte{0}, std::byte{0}};
  log.Add(4, EventType::kSeparator, one);
  EXPECT_EQ(Judge(log, MakeValidPolicy()).ids, Ids{ReasonId::kMeasuringFailed});
}

TEST(Rules, EventWhoseDataIsNotWhatWasHashedIsRefused) {
  EventLogBuilder log = MakeValidLog();
  log.Add(8, EventType::kIpl, AsBytes("kernel_cmdline: /v ro lockdown=integrity"), AsBytes("x"));
  const Outcome out = Judge(log, MakeValidPolicy());
  EXPECT_EQ(out.ids, (Ids{ReasonId::kEventData, ReasonId::kCommandNotAccepted}));
}

TEST(Rules, CommandsMustBeListedWhereTheListCounts) {
  const std::string listed = "commands = \"listed\"\ncommand-list = [\"linux ";
  EXPECT_EQ(Judge(MakeValidLog(), With(MakeValidPolicy(), "commands = \"any\"",
                                       listed + std::string(kLine) + "\"]"))
                .ids,
            Ids{});
  EXPECT_EQ(
      Judge(MakeValidLog(), With(MakeValidPolicy(), "commands = \"any\"", listed + "\"]")).ids,
      Ids{ReasonId::kCommandNotAccepted});
}

EventLogBuilder WithText(std::string_view prefix, std::string_view text) {
  EventLogBuilder log = MakeValidLog();
  log.Add(8, EventType::kIpl, AsBytes(std::string(prefix) + std::string(text)), AsBytes(text));
  return log;
}

TEST(Rules, KernelsLineIsJudgedWhateverItIsCalled) {
  for (const char* prefix : {"grub_cmd: ", "module_cmdline: ", "kernel_cmdline: "}) {
    for (const char* text :
         {"/v lockdown=integrity init=/bin/sh", "(hd0)/v lockdown=integrity init=/bin/sh"}) {
      EXPECT_EQ(Judge(WithText(prefix, text), MakeValidPolicy()).ids,
                Ids{ReasonId::kArgumentNotAllowed})
          << prefix << text;
    }
  }
}

TEST(Rules, KernelsLineThatIsCalledACommandIsRefusedWhereLinesAre) {
  const std::string text = With(With(MakeValidPolicy(), "command-lines = \"checked\"\n", ""),
                                "[command-line]\nrequired = [\"lockdown=integrity\"]\nallowed = "
                                "[\"root\", \"ro\"]\n",
                                "");
  EventLogBuilder log({kBank});
  log.AddText(0, EventType::kPostCode, "firmware").AddSeparator(0);
  log.Add(4, EventType::kBootServicesApplication, Bytes(32), AsBytes("shim")).AddSeparator(4);
  log.Add(8, EventType::kIpl, AsBytes("grub_cmd: /v ro"), AsBytes("/v ro"));
  EXPECT_EQ(Judge(log, text).ids, Ids{ReasonId::kCommandNotAccepted});
}

TEST(Rules, LineThatOnlyTheLinuxCommandShowsIsJudged) {
  EXPECT_EQ(
      Judge(WithText("grub_cmd: ", "linux echo lockdown=integrity init=/bin/sh"), MakeValidPolicy())
          .ids,
      (Ids{ReasonId::kArgumentNotAllowed, ReasonId::kArgumentNotAllowed}));
}

TEST(Rules, ChainloaderIsNotAmongAnyCommands) {
  EXPECT_EQ(Judge(WithText("grub_cmd: ", "chainloader /v.efi init=/bin/sh"), MakeValidPolicy()).ids,
            Ids{ReasonId::kCommandNotAccepted});
}

TEST(Rules, CommandLineIsJudgedByItsArguments) {
  const std::string text = MakeValidPolicy();
  EXPECT_EQ(Judge(MakeValidLog(), With(text, "lockdown=integrity", "ima_appraise=enforce")).ids,
            (Ids{ReasonId::kArgumentMissing, ReasonId::kArgumentNotAllowed}));
  EXPECT_EQ(Judge(MakeValidLog(), text + "forbidden = [\"ro\"]\n").ids,
            Ids{ReasonId::kArgumentForbidden});
  EXPECT_EQ(Judge(MakeValidLog(), With(text, "\"root\", ", "")).ids,
            Ids{ReasonId::kArgumentNotAllowed});
  EXPECT_EQ(
      Judge(MakeValidLog(), With(text, "\"root\", \"ro\"]", "]\nother-arguments = \"accepted\""))
          .ids,
      Ids{});
}

TEST(Rules, CommandLineMustBeMeasured) {
  EventLogBuilder log({kBank});
  log.AddText(0, EventType::kPostCode, "firmware").AddSeparator(0);
  log.Add(4, EventType::kBootServicesApplication, Bytes(32), AsBytes("shim")).AddSeparator(4);
  log.Add(8, EventType::kIpl, AsBytes("grub_cmd: x"), AsBytes("x"));
  EXPECT_EQ(Judge(log, MakeValidPolicy()).ids, Ids{ReasonId::kCommandLineNotMeasured});
}

TEST(Rules, LoadOptionsAreProvenByTheHostsWordAndTheirDigest) {
  EventLogBuilder log = MakeValidLog();
  ByteWriter data;
  data.U32Le(kLoadOptionsTag).U32Le(4).Raw(AsBytes("opts"));
  ByteWriter units;
  for (const char c : std::string_view("BOOT_IMAGE=/v ro lockdown=integrity init=/bin/sh")) {
    units.U8(static_cast<uint8_t>(c)).U8(0);
  }
  log.Add(9, EventType::kEventTag, data.bytes(), units.bytes());
  const std::string text =
      With(MakeValidPolicy(), "[command-line]",
           "[pcr.9]\nrule = \"events\"\ncommand-lines = \"checked\"\n[command-line]");
  EXPECT_EQ(Judge(log, text).ids, Ids{ReasonId::kCommandLineUnproven});
  HostFacts facts;
  facts.command_line = "BOOT_IMAGE=/v ro lockdown=integrity init=/bin/sh";
  EXPECT_EQ(Judge(log, text, facts).ids, Ids{ReasonId::kArgumentNotAllowed});
}

TEST(Rules, CommandLineThatTheHostStatesOtherwiseIsAContradiction) {
  HostFacts facts;
  facts.command_line = "BOOT_IMAGE=/vmlinuz-6.1 root=/dev/vda1 ro lockdown=integrity";
  EXPECT_EQ(Judge(MakeValidLog(), MakeValidPolicy(), facts).ids, Ids{});
  facts.command_line += " quiet";
  EXPECT_EQ(Judge(MakeValidLog(), MakeValidPolicy(), facts).ids, Ids{ReasonId::kFactContradicted});
}

TEST(Rules, SecureBootNeedsAnAcceptedSigner) {
  const std::string text =
      "name = \"p\"\nversion = 1\n[pcr.7]\nrule = \"secure-boot\"\nsigners = [\"";
  const Outcome refused = Judge(MakeValidLog(), text + std::string(64, '0') + "\"]\n");
  ASSERT_EQ(refused.ids, Ids{ReasonId::kSignerNotAccepted});
  EXPECT_EQ(refused.reasons[0].pcr, 7U);
  EXPECT_EQ(Judge(MakeValidLog(), text + refused.reasons[0].actual + "\"]\n").ids, Ids{});
}

TEST(Rules, SecureBootKeysAndRevocationsAreHeldAgainstThePolicy) {
  const std::string text =
      "name = \"p\"\nversion = 1\n[pcr.7]\nrule = \"secure-boot\"\nsigners = [\"";
  const std::string signer =
      Judge(MakeValidLog(), text + std::string(64, '0') + "\"]\n").reasons.at(0).actual;
  const std::string valid = text + signer + "\"]\n";
  const std::string zeros = "[\"" + std::string(64, '0') + "\"]\n";
  EXPECT_EQ(Judge(MakeValidLog(), valid + "db = " + zeros).ids, Ids{ReasonId::kSecureBootKey});
  EXPECT_EQ(Judge(MakeValidLog(), valid + "dbx-required = " + zeros).ids,
            Ids{ReasonId::kSecureBootRevocation});
}

TEST(Rules, SecureBootThatIsOffIsRefused) {
  EventLogBuilder log({kBank});
  log.AddVariable(7, "SecureBoot", firmware::kGlobalVariableGuid, Bytes(1)).AddSeparator(7);
  const Outcome out =
      Judge(log, "name = \"p\"\nversion = 1\n[pcr.7]\nrule = \"secure-boot\"\nsigners = [\"" +
                     std::string(64, '0') + "\"]\n");
  ASSERT_FALSE(out.ids.empty());
  EXPECT_EQ(out.ids[0], ReasonId::kSecureBootOff);
}

TEST(Rules, ReferenceComponentsMustBeAllThatWasMeasured) {
  const std::string head = "name = \"p\"\nversion = 1\n[pcr.0]\nrule = \"reference\"\n";
  const auto component = [](const std::string& name, const std::string& digest) {
    return "[[component]]\nname = \"" + name +
           "\"\n[[component.variant]]\nrecords = [ { pcr = 0, sha256 = \"" + digest + "\" } ]\n";
  };
  const std::string separator = ToHex(Digest(kBank, Bytes(4)));
  EXPECT_EQ(
      Judge(MakeValidLog(), head + component("1", HexOf("firmware")) + component("2", separator))
          .ids,
      Ids{});
  const Outcome out = Judge(MakeValidLog(), head + component("1", HexOf("firmware")));
  ASSERT_EQ(out.ids, Ids{ReasonId::kReferenceNotMatched});
  EXPECT_EQ(out.reasons[0].actual, separator);
}

TEST(Rules, FactsThatAreAskedForMustBeSaidAndAccepted) {
  const std::string text =
      MakeValidPolicy() +
      "[facts]\nkernel-release = [\"6.1.*\"]\nlockdown = [\"integrity\"]\nleast-microcode = 240\n"
      "cpu-features = [\"smep\"]\n";
  EXPECT_EQ(Judge(MakeValidLog(), text).ids, Ids(4, ReasonId::kFactAbsent));
  HostFacts facts;
  facts.kernel_release = "6.1.0-18-amd64";
  facts.lockdown = "integrity";
  facts.microcode = "0xf0";
  facts.cpu_features = {"smep"};
  EXPECT_EQ(Judge(MakeValidLog(), text, facts).ids, Ids{});
  facts.kernel_release = "6.12.0";
  facts.microcode = "0xef";
  EXPECT_EQ(Judge(MakeValidLog(), text, facts).ids, Ids(2, ReasonId::kFactNotAccepted));
}

TEST(CommandLine, IsPartedAsTheKernelDoes) {
  EXPECT_EQ(KernelArguments("BOOT_IMAGE=/v a  b=\"x y\"\tc"),
            (std::vector<std::string>{"a", "b=x y", "c"}));
  EXPECT_EQ(KernelArguments("(hd0,gpt2)/v ro"), std::vector<std::string>{"ro"});
  EXPECT_EQ(KernelArguments("ro BOOT_IMAGE=/v"), (std::vector<std::string>{"ro", "BOOT_IMAGE=/v"}));
  EXPECT_TRUE(KernelArguments("").empty());
}

TEST(CommandLine, QuotesOfGrubAreTakenAway) {
  EXPECT_EQ(WithoutGrubQuotes(R"(/v "a=b \'c" d=\\e)"), R"(/v a=b 'c d=\e)");
}

TEST(CommandLine, QuotesGoOnlyWhereAWordOrValueBeginsOrEnds) {
  EXPECT_EQ(KernelArguments(R"(/v "a b" c="d e" "f=g h")"),
            (std::vector<std::string>{"a b", "c=d e", "f=g h"}));
  EXPECT_EQ(KernelArguments(R"(/v init="/bin/sh" i"n"it=x)"),
            (std::vector<std::string>{"init=/bin/sh", R"(i"n"it=x)"}));
}

TEST(CommandLine, KernelsSpacesPartWords) {
  EXPECT_EQ(KernelArguments("a\vinit=x\fb\xa0"
                            "c"),
            (std::vector<std::string>{"a", "init=x", "b", "c"}));
}

TEST(CommandLine, QuotedFileNameSwallowsNoArguments) {
  EXPECT_EQ(KernelArguments(R"("/v init=/bin/sh" ro)"),
            (std::vector<std::string>{"/v init=/bin/sh", "ro"}));
}

TEST(CommandLine, PlainLineHasNoFault) {
  for (const char* line : {"/v ro", "", R"(/v "a b" c="d e")", "/v ro\n", "/v ---"}) {
    EXPECT_EQ(CommandLineFault(line), "") << line;
  }
  EXPECT_EQ(CommandLineFault(std::string(2036, 'a')), "");
}

std::vector<ReasonId> JudgeLine(std::string_view line) {
  Reasons reasons;
  CommandLineRule rule;
  rule.forbidden = {"init"};
  rule.other_arguments = OtherArguments::kAccepted;
  JudgeCommandLine(rule, line, {}, reasons);
  std::vector<ReasonId> out;
  for (const Reason& each : std::move(reasons).TakeReasons()) out.push_back(each.id);
  return out;
}

TEST(CommandLine, ByteThatIsNotPrintableIsRefused) {
  for (const char* line : {"/v a\vb", "/v a\nb", "/v a\xa0", "/v a\tb", "/v \x7f"}) {
    EXPECT_EQ(JudgeLine(line), Ids{ReasonId::kCommandLineNotAccepted}) << line;
  }
}

TEST(CommandLine, LineThatTheKernelCutsIsRefused) {
  EXPECT_EQ(JudgeLine(std::string(2037, 'a')), Ids{ReasonId::kCommandLineNotAccepted});
}

TEST(CommandLine, LineThatEndsTheKernelsPartIsRefused) {
  EXPECT_EQ(JudgeLine("/v -- ro"), Ids{ReasonId::kCommandLineNotAccepted});
  EXPECT_EQ(JudgeLine(R"(/v "--" ro)"), Ids{ReasonId::kCommandLineNotAccepted});
}

TEST(CommandLine, QuoteWithinAWordIsRefused) {
  for (const char* line : {R"(/v" ro")", R"(/v a"b c"d)", R"(/v a="b)", R"(/v a="b"c)",
                           R"(/v "a="b c"")", R"(/v =")"}) {
    EXPECT_EQ(JudgeLine(line), Ids{ReasonId::kCommandLineNotAccepted}) << line;
  }
}

TEST(CommandLine, NamesAreComparedAsTheKernelDoes) {
  EXPECT_TRUE(IsArgument("intel-iommu=on", "intel_iommu=on"));
  EXPECT_TRUE(IsArgument("init=/bin/sh", "init"));
  EXPECT_FALSE(IsArgument("init=/bin/sh", "init=/sbin/init"));
  EXPECT_FALSE(IsArgument("initrd=x", "init"));
  EXPECT_FALSE(IsArgument("lockdown", "lockdown=integrity"));
}

TEST(CommandLine, RequiredArgumentMayNotBeTakenBack) {
  Reasons reasons;
  CommandLineRule rule;
  rule.required = {"lockdown=integrity"};
  rule.other_arguments = OtherArguments::kAccepted;
  JudgeCommandLine(rule, "/v lockdown=integrity lockdown=none", {}, reasons);
  const std::vector<Reason> list = std::move(reasons).TakeReasons();
  ASSERT_EQ(list.size(), 1U);
  EXPECT_EQ(list[0].id, ReasonId::kArgumentForbidden);
  EXPECT_EQ(list[0].actual, "lockdown=none");
}

TEST(CommandLine, ExactLineIsComparedWithoutTheKernelsPath) {
  CommandLineRule rule;
  rule.exact = {"root=/dev/vda1 ro"};
  Reasons same;
  JudgeCommandLine(rule, "/vmlinuz-6.1 root=/dev/vda1  ro", {}, same);
  EXPECT_TRUE(same.empty());
  Reasons other;
  JudgeCommandLine(rule, "/vmlinuz-6.1 root=/dev/vda1", {}, other);
  EXPECT_FALSE(other.empty());
}

TEST(Golden, WhitelistBecomesRulesByPcrAndBank) {
  const std::vector<WhitelistEntry> entries = {{"0", std::string(40, 'a'), "BIOS 1"},
                                               {"PCR 0", std::string(64, 'b'), "BIOS 2"},
                                               {"17", std::string(40, 'c'), "VMM"}};
  const auto rules = GoldenFromWhitelist(entries);
  ASSERT_TRUE(rules.has_value()) << rules.error().Describe();
  ASSERT_EQ(rules->size(), 2U);
  EXPECT_TRUE(rules->at(0).values.HasBank(HashAlgorithm::kSha1));
  EXPECT_TRUE(rules->at(0).values.HasBank(HashAlgorithm::kSha256));
  AttestationPolicy policy;
  policy.banks = {HashAlgorithm::kSha1};
  EXPECT_TRUE(WithGoldenRules(policy, *rules).has_value());
  policy.banks = {HashAlgorithm::kSha256};
  EXPECT_FALSE(WithGoldenRules(policy, *rules).has_value());
}

TEST(Golden, WhitelistEntryThatIsNoneIsRefused) {
  for (const WhitelistEntry& each : std::vector<WhitelistEntry>{
           {"24", std::string(40, 'a'), ""}, {"x", std::string(40, 'a'), ""}, {"0", "aa", ""}}) {
    EXPECT_FALSE(GoldenFromWhitelist(std::span(&each, 1)).has_value()) << each.pcr_name;
  }
}

}  // namespace
}  // namespace vallum::attest
