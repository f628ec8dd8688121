// SPDX-License-Identifier: Apache-2.0
// Attestation policies: written, learned, tried, compared, put to use.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "attest/policy.h"
#include "base/bytes.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/local_image.h"
#include "tls/file.h"

namespace vallum::cli {
namespace {

constexpr int kSomeFallOut = 10;
constexpr size_t kMaxDocument = size_t{256} << 10U;
constexpr size_t kTextLimit = 600;
constexpr size_t kMaxShownReasons = 3;

struct PolicyOptions {
  std::string name, file, description, from, out, create, before, after;
  int32_t version = 0;
  bool document = false;
};

const Kind& Policies() { return KindOf("policy"); }

std::string PathOf(const std::string& name) { return ResourcePath(Policies(), name); }

// Read here too: a mistake is told with its line before anything is sent.
Result<std::string> ReadDocument(const std::string& file) {
  ASSIGN_OR_RETURN(const Bytes bytes, ReadInputFile(file, kMaxDocument));
  std::string text(AsText(bytes));
  RETURN_IF_ERROR(attest::ParsePolicy(text)).context(Printable(file, 400));
  return text;
}

Result<Json> CreatePolicy(Tool* tool, const std::string& name, const std::string& description,
                          const std::string& document) {
  return tool->Call(http::Method::kPost, "/v1/attestationpolicies",
                    Json{{"metadata", {{"name", name}}},
                         {"spec", {{"description", description}, {"document", document}}}});
}

Result<void> Create(Tool* tool, const PolicyOptions& options) {
  ASSIGN_OR_RETURN(const std::string document, ReadDocument(options.file));
  ASSIGN_OR_RETURN(const Json answer,
                   CreatePolicy(tool, options.name, options.description, document));
  return ShowWritten(tool, Policies(), answer,
                     "policy " + options.name + " has version 1, a draft; `vallum policy test " +
                         options.name + "` says whom it would trust, `vallum policy activate " +
                         options.name + "` puts it to use");
}

int64_t NewestVersion(const Json& policy) {
  int64_t newest = 0;
  for (const Json& version : At(policy, "status.versions")) newest = NumberAt(version, "version");
  return newest;
}

Result<void> Update(Tool* tool, const PolicyOptions& options) {
  ASSIGN_OR_RETURN(const std::string document, ReadDocument(options.file));
  const std::string path = PathOf(options.name);
  ASSIGN_OR_RETURN(const Json before, tool->Call(http::Method::kGet, path));
  Json spec = {{"document", document}};
  if (!options.description.empty()) spec["description"] = options.description;
  ASSIGN_OR_RETURN(const Json answer, tool->Call(http::Method::kPatch, path, Json{{"spec", spec}},
                                                 "application/merge-patch+json"));
  const int64_t newest = NewestVersion(answer);
  return ShowWritten(
      tool, Policies(), answer,
      newest == NewestVersion(before)
          ? "policy " + options.name + ": the document is that of version " + std::to_string(newest)
          : "policy " + options.name + " has version " + std::to_string(newest) +
                ", a draft; hosts are judged by the active one until `vallum policy "
                "activate " +
                options.name + "`");
}

Result<std::string> FetchDocument(Tool* tool, const std::string& name, int64_t version) {
  const std::string path = PathOf(name);
  if (version == 0) {
    ASSIGN_OR_RETURN(const Json policy, tool->Call(http::Method::kGet, path));
    return TextAt(policy, "spec.document");
  }
  ASSIGN_OR_RETURN(const Json answer,
                   tool->Call(http::Method::kGet, path + "/versions/" + std::to_string(version)));
  return TextAt(answer, "document");
}

Result<std::string> PoolsThatUse(Tool* tool, const std::string& name) {
  ASSIGN_OR_RETURN(
      const Json pools,
      tool->CallList("pools", "fields=" + http::PercentEncode("spec.attestationPolicy=" + name)));
  std::string out;
  for (const Json& pool : pools["items"]) {
    out += "  " + Printable(TextAt(pool, "metadata.name"), 63) +
           (TextAt(pool, "spec.trustedService") == "true" ? "" : "  not trusted yet") + "\n";
  }
  return out.empty() ? "used by no pool\n" : "pools\n" + out;
}

Result<void> Show(Tool* tool, const PolicyOptions& options) {
  if (options.document || options.version != 0) {
    ASSIGN_OR_RETURN(const std::string text, FetchDocument(tool, options.name, options.version));
    tool->out() << text << (text.ends_with('\n') ? "" : "\n");
    return Ok();
  }
  ASSIGN_OR_RETURN(const Json policy, tool->Call(http::Method::kGet, PathOf(options.name)));
  if (!tool->ForPeople()) return tool->Show(Policies().columns, {policy}, policy);
  ASSIGN_OR_RETURN(const std::string pools, PoolsThatUse(tool, options.name));
  tool->out() << "policy " << Printable(options.name) << "\n";
  if (const std::string text = TextAt(policy, "spec.description"); !text.empty()) {
    tool->out() << Printable(text, 4096) << "\n";
  }
  const int64_t active = NumberAt(policy, "status.activeVersion");
  tool->out() << (active == 0 ? "no version is active: it trusts nobody\n" : "") << "versions\n";
  for (const Json& version : At(policy, "status.versions")) {
    const std::string user = TextAt(version, "user");
    tool->out() << "  " << NumberAt(version, "version") << "  "
                << FriendlyEnum(TextAt(version, "state")) << "  "
                << Printable(TextAt(version, "sha256").substr(0, 16)) << "  "
                << FriendlyAge(TextAt(version, "createTime"), tool->now())
                << (user.empty() ? "" : "  by " + Printable(user, 63)) << "\n";
  }
  tool->out() << pools;
  return Ok();
}

Result<void> Activate(Tool* tool, const PolicyOptions& options) {
  ASSIGN_OR_RETURN(const Json answer,
                   tool->Call(http::Method::kPost, PathOf(options.name) + "/activate",
                              Json{{"version", options.version}}));
  return ShowWritten(tool, Policies(), answer,
                     "policy " + options.name + " version " +
                         std::to_string(NumberAt(answer, "status.activeVersion")) +
                         " is active; the hosts of its pools are attested anew");
}

Result<void> Retire(Tool* tool, const PolicyOptions& options) {
  ASSIGN_OR_RETURN(const Json answer,
                   tool->Call(http::Method::kPost, PathOf(options.name) + "/retire",
                              Json{{"version", options.version}}));
  const bool none = NumberAt(answer, "status.activeVersion") == 0;
  return ShowWritten(tool, Policies(), answer,
                     "policy " + options.name + " version " + std::to_string(options.version) +
                         " is retired" + (none ? "; no version is active: it trusts nobody" : ""));
}

// "pcr-value (PCR 4): expected ..., actual ...", the first few.
std::string Why(const Json& host) {
  std::string out = TextAt(host, "detail");
  size_t shown = 0;
  const Json reasons = At(host, "reasons");
  for (const Json& reason : reasons) {
    if (shown++ == kMaxShownReasons) {
      out += " (and " + std::to_string(reasons.size() - kMaxShownReasons) + " more)";
      break;
    }
    out += (out.empty() ? "" : "; ") + TextAt(reason, "id");
    if (reason.contains("pcr")) out += " PCR " + std::to_string(NumberAt(reason, "pcr"));
    const std::string said = TextAt(reason, "decoded");
    if (!said.empty()) out += ": " + said;
  }
  return out;
}

Result<void> Test(Tool* tool, const PolicyOptions& options) {
  Json body = Json::object();
  if (!options.file.empty()) {
    if (options.version != 0) {
      return InvalidInput("--file and --version both say what is to be tested")
          .WithFix("give one of them");
    }
    ASSIGN_OR_RETURN(const std::string document, ReadDocument(options.file));
    body["document"] = document;
  } else if (options.version != 0) {
    body["version"] = options.version;
  }
  ASSIGN_OR_RETURN(const Json reply,
                   tool->Call(http::Method::kPost, PathOf(options.name) + "/test", body));
  const int64_t out = NumberAt(reply, "wouldFallOut");
  if (out > 0) tool->exit_code = kSomeFallOut;
  std::vector<Json> rows;
  for (const Json& host : At(reply, "hosts")) {
    Json row = host;
    row["why"] = Why(host);
    rows.push_back(std::move(row));
  }
  static const std::vector<Column> kColumns = {{"HOST", "host"},
                                               {"NOW", "now", Style::kEnum},
                                               {"THEN", "then", Style::kEnum},
                                               {"WHY", "why"}};
  RETURN_IF_ERROR(tool->Show(kColumns, rows, reply));
  if (tool->ForPeople()) {
    tool->out() << rows.size() << " hosts: " << out << " would fall out, "
                << NumberAt(reply, "wouldComeIn") << " would come in\n";
  }
  return Ok();
}

// An allow list as a file that the upload can read.
Result<Json> UploadLearned(Tool* tool, const std::string& name, const std::string& list) {
  const int fd = ::memfd_create("allowlist", MFD_CLOEXEC);
  if (fd < 0) return Unavailable("no memory for the allow list");
  Result<Json> done = Unavailable("no memory for the allow list");
  size_t written = 0;
  while (written < list.size()) {
    const ssize_t count = ::write(fd, list.data() + written, list.size() - written);
    if (count <= 0) break;
    written += static_cast<size_t>(count);
  }
  if (written == list.size()) done = WriteAllowList(tool, name, "learned", fd, list.size());
  ::close(fd);
  return done;
}

Result<void> WriteLearned(Tool* tool, const PolicyOptions& options, const std::string& document,
                          const std::string& list) {
  RETURN_IF_ERROR(tls::WriteFileAtomically(options.out, AsBytes(document), 0644));
  tool->err() << "wrote " << Printable(options.out, 400) << "\n";
  if (list.empty()) return Ok();
  const std::string path = options.out + ".files";
  RETURN_IF_ERROR(tls::WriteFileAtomically(path, AsBytes(list), 0644));
  tool->err() << "wrote " << Printable(path, 400) << ", the allow list that it names\n";
  return Ok();
}

Result<void> Learn(Tool* tool, const PolicyOptions& options) {
  const std::string name = options.create.empty() ? options.from : options.create;
  ASSIGN_OR_RETURN(
      const Json reply,
      tool->Call(http::Method::kPost, ResourcePath(KindOf("host"), options.from) + "/learn",
                 Json{{"name", name}}));
  const std::string document = TextAt(reply, "document");
  const std::string list = TextAt(reply, "imaList");
  if (!options.out.empty()) {
    RETURN_IF_ERROR(WriteLearned(tool, options, document, list));
  }
  if (options.create.empty()) {
    if (!options.out.empty()) return Ok();
    tool->out() << document;
    if (!list.empty()) {
      tool->err() << "the allow list that it names is written with --out or --create\n";
    }
    return Ok();
  }
  if (!list.empty()) {
    const std::string list_name = TextAt(reply, "allowList");
    ASSIGN_OR_RETURN(const Json made, UploadLearned(tool, list_name, list));
    tool->err() << "allowlist " << Printable(list_name, 128) << ": "
                << NumberAt(made, "status.paths") << " paths\n";
  }
  ASSIGN_OR_RETURN(const Json answer, CreatePolicy(tool, options.create,
                                                   "learned from host " + options.from, document));
  return ShowWritten(tool, Policies(), answer,
                     "policy " + options.create + " has version 1, a draft of what host " +
                         options.from + " is: read it (`vallum policy show " + options.create +
                         " --document`) before you activate it");
}

// "gold", "gold@3", or a file when the word has a '/' or ends like one.
Result<attest::AttestationPolicy> ReadPolicy(Tool* tool, const std::string& word) {
  std::string text;
  if (word.find('/') != std::string::npos || word.ends_with(".toml") || word.ends_with(".json")) {
    ASSIGN_OR_RETURN(text, ReadDocument(word));
  } else {
    const size_t at = word.find('@');
    int64_t version = 0;
    if (at != std::string::npos) {
      const char* end = word.data() + word.size();
      const auto parsed = std::from_chars(word.data() + at + 1, end, version);
      if (parsed.ec != std::errc() || parsed.ptr != end || version < 1) {
        return InvalidInput("'" + Printable(word, 100) + "' names no version")
            .WithFix("write NAME, NAME@VERSION or the path of a file");
      }
    }
    ASSIGN_OR_RETURN(text, FetchDocument(tool, word.substr(0, at), version));
  }
  return attest::ParsePolicy(text);
}

// The lines of each section, how often each: what is the same judges the same, however it was
// written. Name, version and description are no rules.
using Sections = std::map<std::string, std::map<std::string, int>>;
Sections SectionsOf(attest::AttestationPolicy policy) {
  policy.name.clear();
  policy.description.clear();
  policy.version = 0;
  Sections out;
  std::string section;
  std::string text = attest::FormatPolicy(policy);
  for (size_t from = 0; from < text.size();) {
    const size_t end = std::min(text.find('\n', from), text.size());
    const std::string line(Trim(std::string_view(text).substr(from, end - from)));
    from = end + 1;
    if (line.starts_with('[') && line.ends_with(']') && line.size() > 2) {
      section = line;
    } else if (!line.empty() && line != "]") {
      ++out[section][line];
    }
  }
  return out;
}

Result<void> Diff(Tool* tool, const PolicyOptions& options) {
  ASSIGN_OR_RETURN(attest::AttestationPolicy before, ReadPolicy(tool, options.before));
  ASSIGN_OR_RETURN(attest::AttestationPolicy after, ReadPolicy(tool, options.after));
  Sections changes = SectionsOf(std::move(after));
  for (const auto& [section, lines] : SectionsOf(std::move(before))) {
    for (const auto& [line, count] : lines) changes[section][line] -= count;
  }
  Json items = Json::array();
  std::string text;
  for (const auto& [section, lines] : changes) {
    std::string part;
    for (const auto& [line, count] : lines) {
      if (count == 0) continue;
      part += (count < 0 ? "  - " : "  + ") + Printable(line, kTextLimit) + "\n";
      items.push_back(
          {{"section", section}, {"change", count < 0 ? "removed" : "added"}, {"line", line}});
    }
    if (!part.empty()) text += (section.empty() ? "(top)" : Printable(section, 100)) + "\n" + part;
  }
  if (tool->ForPeople()) {
    tool->out() << (text.empty() ? "the same rules\n" : text);
    return Ok();
  }
  static const std::vector<Column> kColumns = {
      {"SECTION", "section"}, {"CHANGE", "change"}, {"LINE", "line"}};
  return tool->Show(kColumns, {items.begin(), items.end()}, Json{{"differences", items}});
}

CLI::App* AddCommand(CLI::App* group, Tool* tool, const std::shared_ptr<PolicyOptions>& options,
                     const std::string& name, const std::string& about,
                     Result<void> (*run)(Tool*, const PolicyOptions&)) {
  CLI::App* command = group->add_subcommand(name, about);
  command->callback([=] { tool->action = [=] { return run(tool, *options); }; });
  return command;
}

void AddLearnAndDiff(CLI::App* group, Tool* tool, const std::shared_ptr<PolicyOptions>& options) {
  CLI::App* learn =
      AddCommand(group, tool, options, "learn", "Draft a policy that a host meets", &Learn);
  learn
      ->add_option(
          "--from", options->from,
          "The host; its evidence must be kept. The draft has its name, unless --create gives "
          "another")
      ->required();
  learn->add_option("--out", options->out, "Write it to this file, its allow list to FILE.files");
  learn->add_option("--create", options->create, "Make a policy of this name, and its allow list");
  learn->footer(
      "Examples:\n  vallum policy learn --from node7 --out gold.toml    # and gold.toml.files, its "
      "allow list\n"
      "  vallum policy learn --from node7 --create gold");
  CLI::App* diff =
      AddCommand(group, tool, options, "diff",
                 "What two policies judge otherwise: NAME, NAME@VERSION, or files", &Diff);
  diff->add_option("A", options->before, "Before")->required();
  diff->add_option("B", options->after, "After")->required();
  diff->footer("Example:\n  vallum policy diff gold@3 ./gold.toml");
}

}  // namespace

void AddPolicyCommands(CLI::App* group, Tool* tool) {
  auto options = std::make_shared<PolicyOptions>();
  CLI::App* show = AddCommand(group, tool, options, "show", "Show its versions and pools", &Show);
  show->add_flag("--document", options->document, "Print the newest document");
  CLI::App* create =
      AddCommand(group, tool, options, "create", "Make one; its first version is a draft", &Create);
  CLI::App* update = AddCommand(group, tool, options, "update",
                                "Give it another document: a new version, a draft", &Update);
  CLI::App* activate =
      AddCommand(group, tool, options, "activate", "Judge hosts by a version", &Activate);
  CLI::App* retire = AddCommand(group, tool, options, "retire",
                                "Take a version out of use for good; if it is the active one, its "
                                "hosts are no longer trusted",
                                &Retire);
  CLI::App* test =
      AddCommand(group, tool, options, "test",
                 "Which hosts would fall out and which come in, by their kept evidence: exit code "
                 "10 if one falls out",
                 &Test);
  for (CLI::App* command : {show, create, update, activate, retire, test}) {
    command->add_option("NAME", options->name, "Its name")->required();
  }
  for (CLI::App* command : {create, update}) {
    command->add_option("--file", options->file, "The document, TOML or JSON")->required();
    command->add_option("--description", options->description, "For people");
  }
  test->add_option("--file", options->file, "This document, before it is a version");
  show->add_option("--version", options->version, "Print this version's document");
  activate->add_option("--version", options->version, "Which (default: the newest)");
  retire->add_option("--version", options->version, "Which")->required();
  test->add_option("--version", options->version, "Which (default: the newest)");
  create->footer("Example:\n  vallum policy create gold --file gold.toml");
  update->footer("Example:\n  vallum policy update gold --file gold.toml");
  retire->footer("Example:\n  vallum policy retire gold --version 2");
  activate->footer("Example:\n  vallum policy activate gold --version 3");
  test->footer(
      "Examples:\n  vallum policy test gold --file gold.toml\n  vallum policy test gold "
      "--version 3");
  AddLearnAndDiff(group, tool, options);
  AddPolicyImportCommands(group, tool);
}

}  // namespace vallum::cli
