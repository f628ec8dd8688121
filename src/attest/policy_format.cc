// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <type_traits>

#include "attest/policy.h"
#include "attest/policy_facts.h"
#include "base/text.h"

namespace vallum::attest {
namespace {

// A TOML basic string.
std::string Quote(std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (code < 0x20 || code == 0x7f) {
      out += "\\u00";
      out += kHex[code >> 4U];
      out += kHex[code & 0xfU];
    } else {
      out += c;
    }
  }
  return out + "\"";
}

class Writer {
 public:
  explicit Writer(const std::map<std::string, std::string>& remarks) : remarks_(remarks) {}

  void Remark(const std::string& path) {
    const auto found = remarks_.find(path);
    if (found == remarks_.end()) return;
    for (const std::string& line : Split(found->second, '\n')) {
      out_ += line.empty() ? "#\n" : "# " + Printable(line, 500) + "\n";
    }
  }
  void Section(const std::string& path) {
    out_ += "\n";
    Remark(path);
    out_ += "[" + path + "]\n";
  }
  void Text(std::string_view key, std::string_view text) { Line(key, Quote(text)); }
  void Number(std::string_view key, uint64_t number) { Line(key, std::to_string(number)); }
  // Nothing for an empty list.
  void Texts(std::string_view key, const std::vector<std::string>& texts) {
    std::string list;
    for (const std::string& each : texts) list += "  " + Quote(each) + ",\n";
    if (!texts.empty()) Line(key, "[\n" + list + "]");
  }
  void Keys(std::string_view key, const std::vector<Bytes>& keys) {
    std::vector<std::string> texts;
    for (const Bytes& each : keys) texts.push_back(ToHex(each));
    Texts(key, texts);
  }
  void Line(std::string_view key, const std::string& value) {
    out_.append(key).append(" = ").append(value).append("\n");
  }
  void Raw(const std::string& text) { out_ += text; }
  std::string Take() && { return std::move(out_); }

 private:
  const std::map<std::string, std::string>& remarks_;
  std::string out_;
};

std::string DigestMembers(const std::vector<BankDigest>& digests) {
  std::string out;
  for (const BankDigest& each : digests) {
    if (!out.empty()) out += ", ";
    out.append(HashAlgorithmName(each.bank)).append(" = \"").append(ToHex(each.digest)) += '"';
  }
  return out;
}

void WriteAccepted(Writer& out, std::string_view key, const AcceptedDigests& accepted) {
  if (accepted.list().empty()) return;
  std::string list;
  for (const AcceptedDigest& each : accepted.list()) {
    list += "  { " + DigestMembers(each.digests);
    if (!each.what.empty()) list += ", what = " + Quote(each.what);
    list += " },\n";
  }
  out.Line(key, "[\n" + list + "]");
}

void WriteRule(Writer& out, const GoldenRule& rule) { WriteAccepted(out, "values", rule.values); }
void WriteRule(Writer& out, const EventsRule& rule) {
  if (rule.signed_images == SignedImages::kAccepted) out.Text("signed-images", "accepted");
  if (rule.commands == BootCommands::kAny) out.Text("commands", "any");
  if (rule.commands == BootCommands::kListed) {
    out.Text("commands", "listed");
    out.Texts("command-list", rule.command_list);
  }
  if (rule.command_lines == CommandLines::kChecked) out.Text("command-lines", "checked");
  if (rule.empty == EmptyPcr::kAccepted) out.Text("empty", "accepted");
  WriteAccepted(out, "accept", rule.accept);
}
void WriteRule(Writer& out, const SecureBootRule& rule) {
  out.Keys("signers", rule.signers);
  out.Keys("pk", rule.pk);
  out.Keys("kek", rule.kek);
  out.Keys("db", rule.db);
  out.Keys("dbx-required", rule.dbx_required);
  if (rule.sbat_level != 0) out.Number("sbat-level", rule.sbat_level);
}
void WriteRule(Writer& /*out*/, const ReferenceRule& /*rule*/) {}
void WriteRule(Writer& /*out*/, const ImaPcrRule& /*rule*/) {}
void WriteRule(Writer& out, const IgnoredRule& rule) { out.Text("because", rule.because); }

void WriteTpm(Writer& out, const AttestationPolicy& policy) {
  out.Section("tpm");
  std::string banks;
  for (const HashAlgorithm bank : policy.banks) {
    banks.append(banks.empty() ? "" : ", ").append(Quote(HashAlgorithmName(bank)));
  }
  out.Line("banks", "[" + banks + "]");
  if (policy.sha1 == Sha1Use::kAllowed) out.Text("sha1", "allowed");
  if (policy.emulated_tpm == EmulatedTpm::kAllowed) out.Text("emulated", "allowed");
  std::string versions;
  for (const uint64_t each : policy.tpm_firmware) {
    versions.append(versions.empty() ? "" : ", ").append(std::to_string(each));
  }
  if (!versions.empty()) out.Line("firmware", "[" + versions + "]");
}

void WriteCommandLine(Writer& out, const AttestationPolicy& policy) {
  bool checked = false;
  for (const auto& [pcr, rule] : policy.pcrs) {
    const auto* events = std::get_if<EventsRule>(&rule);
    checked = checked || (events != nullptr && events->command_lines == CommandLines::kChecked);
  }
  if (!checked) return;
  out.Section("command-line");
  const CommandLineRule& rule = policy.command_line;
  out.Texts("exact", rule.exact);
  out.Texts("required", rule.required);
  out.Texts("forbidden", rule.forbidden);
  out.Texts("allowed", rule.allowed);
  if (rule.other_arguments == OtherArguments::kAccepted) out.Text("other-arguments", "accepted");
}

void WriteFacts(Writer& out, const FactsRule& rule) {
  if (rule == FactsRule{}) return;
  out.Section("facts");
  for (const FactRow& row : kFactRows) out.Texts(row.key, rule.*row.accepted);
  if (rule.least_microcode != 0) out.Number("least-microcode", rule.least_microcode);
  out.Texts("cpu-features", rule.cpu_features);
}

void WriteComponents(Writer& out, const std::vector<ReferenceComponent>& components) {
  for (const ReferenceComponent& component : components) {
    out.Raw("\n[[component]]\nname = " + Quote(component.name) + "\n");
    for (const ReferenceVariant& variant : component.variants) {
      out.Raw("[[component.variant]]\n");
      if (!variant.name.empty()) out.Text("name", variant.name);
      std::string list;
      for (const ReferenceRecord& record : variant.records) {
        list += "  { pcr = " + std::to_string(record.pcr) + ", " + DigestMembers(record.digests) +
                " },\n";
      }
      if (!list.empty()) out.Line("records", "[\n" + list + "]");
    }
  }
}

}  // namespace

std::string FormatPolicy(const AttestationPolicy& policy,
                         const std::map<std::string, std::string>& remarks) {
  Writer out(remarks);
  out.Remark("");
  out.Text("name", policy.name);
  out.Number("version", policy.version);
  if (!policy.description.empty()) out.Text("description", policy.description);
  if (policy.max_age_seconds != kDefaultMaxAgeSeconds) {
    out.Number("max-age-seconds", policy.max_age_seconds);
  }
  WriteTpm(out, policy);
  if (policy.mismatched_data == MismatchedData::kNoted) {
    out.Section("event-log");
    out.Text("mismatched-data", "noted");
  }
  for (const auto& [pcr, rule] : policy.pcrs) {
    out.Section("pcr." + std::to_string(pcr));
    out.Text("rule", PcrRuleName(rule));
    std::visit([&out](const auto& each) { WriteRule(out, each); }, rule);
  }
  WriteCommandLine(out, policy);
  WriteFacts(out, policy.facts);
  if (policy.ImaPcr() != nullptr) {
    out.Section("ima");
    out.Text("allow-list", policy.ima.allow_list);
    out.Text("allow-list-sha256", ToHex(policy.ima.allow_list_sha256));
    if (policy.ima.violations == ImaViolations::kNoted) out.Text("violations", "noted");
  }
  WriteComponents(out, policy.components);
  return std::move(out).Take();
}

}  // namespace vallum::attest
