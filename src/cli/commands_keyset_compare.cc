// SPDX-License-Identifier: Apache-2.0
// Key sets beside each other, out into files, and judged.
#include <algorithm>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/key_set_files.h"
#include "cli/key_set_source.h"
#include "firmware/key_set.h"
#include "firmware/key_set_tools.h"
#include "firmware/key_store.h"
#include "firmware/signature_list.h"
#include "firmware/variable_store.h"
#include "tls/file.h"

namespace vallum::cli {
namespace {

using firmware::KeySet;
using firmware::Signature;

constexpr mode_t kFileMode = 0644;  // public keys only

struct ExportOptions {
  std::string key_set, format = "esl", output;
};

firmware::VariableTime TimeOf(WallTime now) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  return {.year = static_cast<uint16_t>(utc.tm_year + 1900),
          .month = static_cast<uint8_t>(utc.tm_mon + 1),
          .day = static_cast<uint8_t>(utc.tm_mday),
          .hour = static_cast<uint8_t>(utc.tm_hour),
          .minute = static_cast<uint8_t>(utc.tm_min),
          .second = static_cast<uint8_t>(utc.tm_sec)};
}

Result<void> Write(Tool* tool, const std::filesystem::path& path, ByteView content) {
  RETURN_IF_ERROR(tls::WriteFileAtomically(path, content, kFileMode));
  tool->err() << "wrote " << Printable(path.string(), 400) << "\n";
  return Ok();
}

// A file for each variable that holds something: PK.esl, db.esl, ..., SbatLevel.csv.
Result<void> ExportLists(Tool* tool, const KeySet& keys, const std::filesystem::path& dir) {
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  if (error) return InvalidInput("making " + Printable(dir.string(), 400) + ": " + error.message());
  for (const KeyVariable& variable : KeyVariables()) {
    const std::vector<Signature>& list = keys.*variable.list;
    if (list.empty()) continue;
    RETURN_IF_ERROR(Write(tool, dir / (std::string(variable.title) + ".esl"),
                          firmware::EncodeSignatureLists(list)));
  }
  if (keys.sbat_level.empty()) return Ok();
  return Write(tool, dir / "SbatLevel.csv", AsBytes(keys.sbat_level));
}

Result<void> Export(Tool* tool, const ExportOptions& options) {
  ASSIGN_OR_RETURN(const KeySet keys, ReadKeys(tool, options.key_set));
  if (options.format == "esl") return ExportLists(tool, keys, options.output);
  if (options.format == "json") return Write(tool, options.output, AsBytes(firmware::ToJson(keys)));
  if (options.format != "store") {
    return InvalidInput("--format '" + Printable(options.format, 40) + "' is unknown")
        .WithFix("use esl, json or store");
  }
  ASSIGN_OR_RETURN(const Bytes store,
                   firmware::MakeKeyStore(keys, firmware::OvmfBuild::k4M, TimeOf(tool->now())));
  return Write(tool, options.output, store);
}

Result<void> Diff(Tool* tool, const std::string& before, const std::string& after) {
  ASSIGN_OR_RETURN(const KeySet a, ReadKeys(tool, before));
  ASSIGN_OR_RETURN(const KeySet b, ReadKeys(tool, after));
  const std::vector<firmware::KeyListDifference> differences = firmware::DiffKeySets(a, b);
  Json items = Json::array();
  std::string text;
  for (const firmware::KeyListDifference& list : differences) {
    items.push_back({{"list", list.list}, {"added", list.added}, {"removed", list.removed}});
    text += list.list + "\n";
    for (const std::string& line : list.removed) text += "  - " + Printable(line, 300) + "\n";
    for (const std::string& line : list.added) text += "  + " + Printable(line, 300) + "\n";
  }
  if (tool->ForPeople()) {
    tool->out() << (text.empty() ? "the same keys\n" : text);
    return Ok();
  }
  static const std::vector<Column> kColumns = {
      {"LIST", "list"}, {"ADDED", "added"}, {"REMOVED", "removed"}};
  return tool->Show(kColumns, {items.begin(), items.end()}, Json{{"differences", items}});
}

// Errors: kInvalidInput when there is a finding that is an error.
Result<void> Verify(Tool* tool, const std::string& word) {
  ASSIGN_OR_RETURN(const KeySet keys, ReadKeys(tool, word));
  std::vector<Json> items;
  bool errors = false;
  for (const firmware::KeyFinding& finding : firmware::VerifyKeySet(keys, tool->now())) {
    errors = errors || finding.severity == firmware::FindingSeverity::kError;
    items.push_back(
        {{"severity", firmware::FindingSeverityName(finding.severity)}, {"text", finding.text}});
  }
  for (const firmware::AgingCertificate& aging :
       firmware::FindAgingCertificates(keys, tool->now())) {
    const std::string end = (aging.expired ? "ended on " : "ends on ") + aging.expires;
    const std::string rest = aging.missing.empty() ? "its successors are there"
                                                   : "without " + Join(aging.missing, " and ");
    items.push_back({{"severity", aging.missing.empty() ? "note" : "warning"},
                     {"text", aging.list + " has " + aging.name + ", which " + end + ", " + rest}});
  }
  static const std::vector<Column> kColumns = {{"SEVERITY", "severity"}, {"FINDING", "text"}};
  RETURN_IF_ERROR(tool->Show(kColumns, items, Json{{"findings", items}}));
  if (!errors) return Ok();
  return InvalidInput("the key set " + Printable(word, 200) + " has errors");
}

Result<void> Audit(Tool* tool) {
  ASSIGN_OR_RETURN(const Json reply, tool->Call(http::Method::kGet, "/v1/keysets/audit"));
  static const std::vector<Column> kColumns = {{"CERTIFICATE", "certificate"},
                                               {"ENDS", "expireTime", Style::kAge},
                                               {"IMAGE", "image"},
                                               {"KEY SET", "keySet"},
                                               {"VERSION", "version", Style::kNumber},
                                               {"INSTANCES", "instances"},
                                               {"SUCCESSORS MISSING", "successorsMissing"},
                                               {"PROGRAM", "program", Style::kText, true}};
  std::vector<Json> items;
  for (const Json& item : At(reply, "dependences")) items.push_back(item);
  RETURN_IF_ERROR(tool->Show(kColumns, items, reply));
  if (!tool->ForPeople()) return Ok();
  for (const Json& key_set : At(reply, "keySets")) {
    for (const Json& finding : At(key_set, "findings")) {
      if (!finding.is_string()) continue;
      tool->out() << "keyset " << Printable(TextAt(key_set, "keySet")) << ": "
                  << Printable(finding.get<std::string>(), 1000) << "\n";
    }
  }
  for (const Json& unknown : At(reply, "unknown")) {
    if (unknown.is_string()) {
      tool->out() << "not known: " << Printable(unknown.get<std::string>(), 400) << "\n";
    }
  }
  return Ok();
}

}  // namespace

void AddKeySetCompareCommands(CLI::App* group, Tool* tool) {
  auto exported = std::make_shared<ExportOptions>();
  CLI::App* out = group->add_subcommand("export", "Write it to files");
  out->add_option("NAME", exported->key_set, "Its name, NAME@VERSION, or a file (with a '/')")
      ->required();
  out->add_option("--format", exported->format,
                  "esl (a folder, default), json, or store: a variable store for OVMF");
  out->add_option("-o,--out", exported->output, "The folder or file")->required();
  out->footer("vallum keyset export prod@2 --format store -o vars.fd");
  out->callback([=] { tool->action = [=] { return Export(tool, *exported); }; });

  auto before = std::make_shared<std::string>();
  auto after = std::make_shared<std::string>();
  CLI::App* diff = group->add_subcommand("diff", "List what one has more or less than another");
  diff->add_option("A", *before, "NAME, NAME@VERSION, or a file (with a '/')")->required();
  diff->add_option("B", *after, "The same")->required();
  diff->footer("vallum keyset diff prod@1 prod@2\nvallum keyset diff prod ./OVMF_VARS.fd");
  diff->callback([=] { tool->action = [=] { return Diff(tool, *before, *after); }; });

  auto judged = std::make_shared<std::string>();
  CLI::App* verify = group->add_subcommand(
      "verify", "List what is weak or missing; fails when something is wrong");
  verify
      ->add_option("NAME", *judged, "NAME, NAME@VERSION, or a file (with a '/'), without a server")
      ->required();
  verify->footer("vallum keyset verify prod\nvallum keyset verify ./vars.fd");
  verify->callback([=] { tool->action = [=] { return Verify(tool, *judged); }; });

  CLI::App* audit = group->add_subcommand(
      "audit", "List the boots that hang on certificates that end, and key sets with findings");
  audit->callback([=] { tool->action = [=] { return Audit(tool); }; });
}

}  // namespace vallum::cli
