// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/local_image.h"
#include "firmware/signature_list.h"
#include "measure/bank_hasher.h"
#include "measure/event_content.h"
#include "measure/event_describe.h"
#include "measure/event_log.h"
#include "measure/event_log_replay.h"
#include "measure/event_log_secure_boot.h"
#include "measure/extend_log.h"

namespace vallum::cli {
namespace {

using measure::EventLog;

struct ShowOptions {
  std::string file, bank;
  std::vector<std::string> registers;
  bool confidential = false;
};

constexpr size_t kTextLimit = 400;

// The bank that was asked for, or SHA-256, or else the log's first that can be computed.
Result<HashAlgorithm> ChooseBank(const EventLog& log, const std::string& name) {
  if (!name.empty()) return measure::ParseBankName(name);
  if (log.HasBank(HashAlgorithm::kSha256)) return HashAlgorithm::kSha256;
  for (const measure::LogBank& bank : log.banks()) {
    if (bank.hash.has_value()) return *bank.hash;
  }
  return InvalidInput("the log has no bank that can be computed")
      .WithFix("logs with sha1, sha256, sha384 or sha512 can be replayed");
}

// "7=HEX" as the value of PCR 7.
Result<measure::KnownRegister> ParseKnown(const std::string& word) {
  const size_t equals = word.find('=');
  const std::string number = word.substr(0, equals);
  const bool digits = !number.empty() && number.size() <= 2 &&
                      number.find_first_not_of("0123456789") == std::string::npos;
  if (equals == std::string::npos || !digits) {
    return InvalidInput("--register " + Printable(word) + " names no register and its value")
        .WithFix("write it as --register 7=HEX");
  }
  ASSIGN_OR_RETURN_CONTEXT(Bytes value, FromHex(word.substr(equals + 1)),
                           "reading --register " + Printable(word));
  return measure::KnownRegister{.index = static_cast<uint32_t>(std::stoul(number)),
                                .value = std::move(value)};
}

std::string ContentName(const EventLog& log, const measure::LoggedEvent& event,
                        measure::BankHasher& hasher) {
  if (!log.Extends(event)) return "not measured";
  switch (measure::CheckContent(log, event, hasher)) {
    case measure::ContentCheck::kMatches:
      return "hashed";
    case measure::ContentCheck::kDiffers:
      return "DIFFERS";
    case measure::ContentCheck::kNotCovered:
      break;
  }
  return "remark";
}

std::vector<Json> EventRows(const EventLog& log, HashAlgorithm bank) {
  measure::BankHasher hasher(bank);
  std::vector<Json> rows;
  for (const measure::LoggedEvent& event : log.events()) {
    Json digests = Json::object();
    for (const measure::LogBank& each : log.banks()) {
      if (!each.hash.has_value()) continue;
      const ByteView digest = log.DigestOf(event, *each.hash);
      if (!digest.empty()) digests[each.Name()] = ToHex(digest);
    }
    rows.push_back({{"event", rows.size()},
                    {"offset", event.offset},
                    {"index", event.index},
                    {"register", log.RegisterName(event.index)},
                    {"type", measure::EventTypeName(event.type)},
                    {"data", ContentName(log, event, hasher)},
                    {"description", measure::DescribeEvent(log, event)},
                    {"dataBytes", event.data.size()},
                    {"digests", digests}});
  }
  return rows;
}

Json RegisterValues(const EventLog& log, const measure::EventLogReplay& replay) {
  Json values = Json::array();
  for (uint32_t i = 0; i < replay.extends.size(); ++i) {
    if (replay.extends[i] == 0) continue;
    values.push_back({{"index", i},
                      {"register", log.RegisterName(i)},
                      {"value", ToHex(replay.values[i])},
                      {"events", replay.extends[i]}});
  }
  return values;
}

// The registers of each bank; what cannot be replayed goes to the problems.
Json Replays(const EventLog& log, Json& problems) {
  Json banks = Json::object();
  for (const measure::LogBank& bank : log.banks()) {
    if (!bank.hash.has_value()) {
      problems.push_back("bank " + bank.Name() + " is not computed: it proves nothing here");
      continue;
    }
    const auto replay = measure::ReplayEventLog(log, *bank.hash);
    if (!replay.has_value()) {
      problems.push_back(replay.error().Describe());
      continue;
    }
    banks[bank.Name()] = RegisterValues(log, *replay);
    if (!replay->skipped.empty()) {
      problems.push_back(std::to_string(replay->skipped.size()) + " events, the first " +
                         std::to_string(replay->skipped.front()) + ", have no digest in the bank " +
                         bank.Name() + ": it proves nothing of them");
    }
  }
  return banks;
}

Json PolicyJson(const measure::LoggedSecureBootPolicy& policy) {
  Json out = {{"state", measure::LoggedSecureBootName(policy.state)}};
  const auto lines = [](const std::vector<firmware::Signature>& keys) {
    Json list = Json::array();
    for (const firmware::Signature& key : keys) list.push_back(DescribeSignature(key));
    return list;
  };
  out["pk"] = lines(policy.pk);
  out["kek"] = lines(policy.kek);
  out["db"] = lines(policy.db);
  out["dbxEntries"] = policy.dbx.size();
  out["authorities"] = Json::array();
  for (const measure::LoggedAuthority& each : policy.authorities) {
    out["authorities"].push_back({{"event", each.event},
                                  {"variable", each.variable},
                                  {"beforeSeparator", each.before_separator},
                                  {"hashed", each.covered},
                                  {"description", each.description}});
  }
  out["problems"] = policy.problems;
  return out;
}

void AddProblems(const EventLog& log, Json& problems) {
  if (log.kind() == measure::EventLogKind::kTpm && log.spec_id().has_value() &&
      log.events().front().index == 1) {
    problems.push_back("it begins as the log of a confidential guest: see --confidential");
  }
  for (const measure::ContentMismatch& each : measure::CheckContents(log).mismatches) {
    problems.push_back(measure::DescribeMismatch(log, each));
  }
  for (size_t i = 0; i < log.events().size(); ++i) {
    const measure::LoggedEvent& event = log.events()[i];
    if (event.type != measure::EventType::kNoAction && !log.Extends(event)) {
      problems.push_back("event " + std::to_string(i) + " names " + log.RegisterName(event.index) +
                         ": it measured nothing");
    }
  }
  if (log.tail() == measure::LogTail::kVendorInfo) {
    problems.push_back("the Spec ID event leaves its vendor information out of its size");
  }
}

// What a person reads below the table of events.
void PrintForPeople(Tool* tool, const Json& report, const std::string& bank) {
  std::ostream& out = tool->out();
  const auto line = [&](const std::string& text) { out << Printable(text, kTextLimit) << "\n"; };
  out << "\n";
  for (const Json& each : At(report["banks"], bank)) {
    line(TextAt(each, "register") + " (" + bank + ") " + TextAt(each, "value"));
  }
  line("Secure Boot: " + TextAt(report, "secureBoot.state"));
  for (const Json& each : At(report, "secureBoot.authorities")) {
    line("  used " + TextAt(each, "variable") + ": " + TextAt(each, "description"));
  }
  for (const Json& each : At(report, "secureBoot.problems")) line("  " + each.get<std::string>());
  for (const Json& each : report["problems"]) line("problem: " + each.get<std::string>());
  line("proven: " + TextAt(report, "proven"));
}

// Sets report["proven"]. Returns what differs.
Result<std::optional<std::string>> Prove(const EventLog& log, HashAlgorithm bank,
                                         const std::vector<std::string>& words, Json& report) {
  if (words.empty()) {
    report["proven"] = "nothing: whoever holds a log can write it anew (see --register)";
    return std::optional<std::string>{};
  }
  std::vector<measure::KnownRegister> known;
  for (const std::string& word : words) {
    ASSIGN_OR_RETURN(known.emplace_back(), ParseKnown(word));
  }
  ASSIGN_OR_RETURN(const measure::ReplayComparison compared,
                   measure::CompareEventLog(log, bank, known));
  if (!compared.Agrees()) {
    report["proven"] = "nothing: " + compared.first_difference->reason;
    return std::optional(compared.first_difference->reason);
  }
  std::string text = "the digests of";
  for (const measure::KnownRegister& each : known) text += " " + log.RegisterName(each.index);
  if (!compared.unproven.empty()) text += "; not those of";
  for (const uint32_t index : compared.unproven) text += " " + log.RegisterName(index);
  report["proven"] = text;
  return std::optional<std::string>{};
}

Result<void> ShowEventLog(Tool* tool, const ShowOptions& options) {
  ASSIGN_OR_RETURN(const Bytes bytes, ReadInputFile(options.file, measure::kMaxEventLogSize));
  auto log = EventLog::Parse(bytes, options.confidential ? measure::EventLogKind::kConfidential
                                                         : measure::EventLogKind::kTpm);
  if (!log.has_value()) {
    return InvalidInput(Printable(options.file) + ": " + log.error().Describe())
        .WithFix(log.error().fix());
  }
  ASSIGN_OR_RETURN(const HashAlgorithm bank, ChooseBank(*log, options.bank));
  if (!log->HasBank(bank)) return measure::ReplayEventLog(*log, bank).error();
  Json problems = Json::array();
  Json report = {
      {"format", log->format() == measure::EventLogFormat::kSha1 ? "sha1" : "crypto-agile"},
      {"logBytes", log->size()},
      {"tailBytes", log->tail_size()},
      {"startupLocality",
       log->startup_locality().has_value() ? Json(*log->startup_locality()) : Json()},
      {"hcrtmEvent", log->has_hcrtm_event()},
      {"banks", Replays(*log, problems)},
      {"secureBoot", PolicyJson(measure::ReadSecureBootPolicy(*log, bank))}};
  AddProblems(*log, problems);
  report["problems"] = problems;
  ASSIGN_OR_RETURN(const std::optional<std::string> difference,
                   Prove(*log, bank, options.registers, report));
  const std::vector<Json> rows = EventRows(*log, bank);
  report["events"] = rows;
  static const std::vector<Column> kColumns = {{"EVENT", "event", Style::kNumber},
                                               {"REGISTER", "register"},
                                               {"TYPE", "type"},
                                               {"DATA", "data"},
                                               {"SAYS", "description"},
                                               {"DIGESTS", "digests", Style::kText, true}};
  RETURN_IF_ERROR(tool->Show(kColumns, rows, report));
  if (tool->ForPeople()) PrintForPeople(tool, report, std::string(HashAlgorithmName(bank)));
  if (!difference.has_value()) return Ok();
  return Conflict(*difference).WithFix("do not believe this log");
}

}  // namespace

void AddEventLogCommands(CLI::App* app, Tool* tool) {
  CLI::App* group = app->add_subcommand("eventlog", "What a machine says that it measured");
  group->require_subcommand(1);
  auto options = std::make_shared<ShowOptions>();
  CLI::App* show =
      group->add_subcommand("show", "Decode and replay a TCG event log, without a server");
  show->add_option("FILE", options->file,
                   "The log: /sys/kernel/security/tpm0/binary_bios_measurements")
      ->required();
  show->add_flag("--confidential", options->confidential,
                 "It is a confidential computing log: /sys/firmware/acpi/tables/data/CCEL");
  show->add_option("--bank", options->bank,
                   "Judge by this bank (default: sha256, else the log's first)");
  show->add_option("--register", options->registers,
                   "INDEX=HEX: a value that is known, such as a quoted PCR; repeatable; exit code "
                   "4 if the log does not replay to it");
  show->footer("Example:\n  vallum eventlog show binary_bios_measurements --register 7=HEX");
  show->callback([=] { tool->action = [=] { return ShowEventLog(tool, *options); }; });
}

}  // namespace vallum::cli
