// SPDX-License-Identifier: Apache-2.0
// TPMs of hosts, who certifies them, evidence, and allow lists.
#include <chrono>
#include <memory>
#include <ostream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/local_image.h"
#include "tls/file.h"

namespace vallum::cli {
namespace {

constexpr int kNotTrusted = 10;
constexpr size_t kTextLimit = 600;
constexpr size_t kMaxPem = size_t{512} << 10U;  // the server takes bodies of 1 MiB
constexpr std::chrono::milliseconds kPollInterval{200};

struct HostOptions {
  std::string name, ek, out, kind = "whole", sha256, pool;
  bool wait = false;
  bool allow_untrusted = false;
};
struct AuthorityOptions {
  std::string name, file, description;
  bool emulated = false;
};
struct ListOptions {
  std::string name, file, description;
};

// "Title:    text\n"; nothing when there is nothing to say.
std::string Line(const std::string& title, const std::string& text) {
  constexpr size_t kWidth = 11;
  if (text.empty()) return {};
  return title + ":" + std::string(title.size() < kWidth ? kWidth - title.size() : 1, ' ') +
         Printable(text, kTextLimit) + "\n";
}

std::string DescribeTpm(const Json& identity, WallTime now) {
  if (TextAt(identity, "ekSha256").empty()) return {};
  std::string out = TextAt(identity, "ekType") + ", endorsement key " +
                    TextAt(identity, "ekSha256").substr(0, 16);
  for (const char* part : {"manufacturer", "model", "firmwareVersion"}) {
    const std::string text = TextAt(identity, part);
    if (!text.empty()) out += ", " + text;
  }
  if (TextAt(identity, "emulated") == "true") out += ", EMULATED";
  const std::string accepted = TextAt(identity, "acceptedBy");
  if (!accepted.empty()) out += "; " + accepted;
  const std::string bound = TextAt(identity, "bindTime");
  if (!bound.empty()) out += ", bound " + FriendlyAge(bound, now);
  return out;
}

std::string DescribePending(const Json& host) {
  const Json pending = At(host, "status.pendingIdentity");
  const std::string ek = TextAt(pending, "ekSha256");
  if (ek.empty()) return {};
  const std::string name = TextAt(host, "metadata.name");
  return Line("TPM WAITS", DescribeTpm(pending, {})) +
         Line("  because", TextAt(pending, "detail")) + Line("  endorsed", ek) +
         Line("  fix",
              "compare the key with what the machine itself says, then: vallum host "
              "approve " +
                  name + " --ek " + ek.substr(0, 16));
}

std::string DescribeReasons(const Json& trust) {
  std::string out;
  int number = 0;
  for (const Json& reason : At(trust, "reasons")) {
    std::string head = TextAt(reason, "id");
    if (reason.contains("pcr")) head += ", PCR " + std::to_string(NumberAt(reason, "pcr"));
    if (reason.contains("event")) head += ", event " + std::to_string(NumberAt(reason, "event"));
    out += Line("reason " + std::to_string(++number), head) +
           Line("  says", TextAt(reason, "decoded")) +
           Line("  expected", TextAt(reason, "expected")) +
           Line("  actual", TextAt(reason, "actual")) + Line("  fix", TextAt(reason, "fix"));
  }
  for (const Json& note : At(trust, "notes")) {
    if (note.is_string()) out += Line("note", note.get<std::string>());
  }
  return out;
}

Result<void> Approve(Tool* tool, const HostOptions& options) {
  const Kind& kind = KindOf("host");
  ASSIGN_OR_RETURN(const Json answer,
                   tool->Call(http::Method::kPost, ResourcePath(kind, options.name) + "/approve",
                              Json{{"ekSha256", options.ek}}));
  return ShowWritten(tool, kind, answer,
                     "host " + options.name + " has the TPM with endorsement key " +
                         TextAt(answer, "status.identity.ekSha256").substr(0, 16));
}

// A verdict since then, or word of why there is none.
bool IsAnswered(const Json& before, const Json& after) {
  for (const char* path :
       {"status.trust.verifyTime", "status.trust.level", "status.trust.detail"}) {
    if (TextAt(before, path) != TextAt(after, path)) return true;
  }
  return false;
}

Result<Json> AwaitVerdict(Tool* tool, const std::string& path, const Json& before) {
  const MonotonicTime end = tool->environment().clock->Monotonic() + tool->timeout();
  while (true) {
    ASSIGN_OR_RETURN(Json host, tool->Call(http::Method::kGet, path));
    if (IsAnswered(before, host)) {
      tool->EndProgress();
      return host;
    }
    const std::string name = Printable(TextAt(host, "metadata.name"));
    tool->Progress("host " + name + " is asked for evidence");
    if (tool->environment().clock->Monotonic() >= end) {
      tool->EndProgress();
      return Unavailable("host " + name + " gave no evidence within " +
                         std::to_string(tool->timeout_seconds) + " s")
          .WithFix("vallum host show " + name + " --explain, or a longer --timeout");
    }
    std::this_thread::sleep_for(kPollInterval);
  }
}

Result<void> Attest(Tool* tool, const HostOptions& options) {
  const Kind& kind = KindOf("host");
  const std::string path = ResourcePath(kind, options.name);
  ASSIGN_OR_RETURN(const Json before, tool->Call(http::Method::kPost, path + "/attest"));
  if (!options.wait) {
    return ShowWritten(tool, kind, before, "host " + options.name + " is asked for evidence");
  }
  ASSIGN_OR_RETURN(const Json host, AwaitVerdict(tool, path, before));
  if (TextAt(host, "status.trust.level") != "TRUST_TRUSTED") tool->exit_code = kNotTrusted;
  if (!tool->ForPeople()) return tool->Show(kind.columns, {host}, host);
  tool->out() << DescribeTrust(host, tool->now());
  return Ok();
}

Result<void> Evidence(Tool* tool, const HostOptions& options) {
  const std::string which = options.sha256.empty()
                                ? "kind=" + http::PercentEncode(options.kind)
                                : "sha256=" + http::PercentEncode(options.sha256);
  ASSIGN_OR_RETURN(http::Client* const client, tool->Connect());
  ASSIGN_OR_RETURN(
      const http::Response response,
      client->Send({.method = http::Method::kGet,
                    .target = ResourcePath(KindOf("host"), options.name) + "/evidence?" + which,
                    .headers = {},
                    .body = {}}));
  if (response.status >= 400) return http::ErrorFromProblem(response.status, response.body);
  RETURN_IF_ERROR(tls::WriteFileAtomically(options.out, AsBytes(response.body), 0644));
  tool->out() << "wrote " << Printable(options.out, 400) << ": " << response.body.size()
              << " bytes; `vallum attest verify` judges it\n";
  return Ok();
}

Result<void> Move(Tool* tool, const HostOptions& options) {
  const Kind& kind = KindOf("host");
  const std::string query = options.allow_untrusted ? "?allowUntrusted=true" : "";
  ASSIGN_OR_RETURN(
      const Json answer,
      tool->Call(http::Method::kPatch, ResourcePath(kind, options.name) + query,
                 Json{{"spec", {{"pool", options.pool}}}}, "application/merge-patch+json"));
  return ShowWritten(tool, kind, answer, "host " + options.name + " is in pool " + options.pool);
}

constexpr const char* kReport = "/certificates";

std::string DescribeAuthority(const Json& report, WallTime now) {
  std::string out;
  for (const Json& each : At(report, "certificates")) {
    out += Line("certificate",
                TextAt(each, "subject") + ", ends " + FriendlyAge(TextAt(each, "notAfter"), now));
  }
  for (const Json& problem : At(report, "unreadable")) {
    if (problem.is_string()) out += Line("left out", problem.get<std::string>());
  }
  for (const Json& host : At(report, "hosts")) {
    if (host.is_string()) out += Line("host", host.get<std::string>());
  }
  return out;
}

Result<void> CreateAuthority(Tool* tool, const AuthorityOptions& options) {
  ASSIGN_OR_RETURN(const Bytes file, ReadInputFile(options.file, kMaxPem));
  const Json body = {{"metadata", {{"name", options.name}}},
                     {"spec",
                      {{"description", options.description},
                       {"certificatesPem", AsText(file)},
                       {"emulated", options.emulated}}}};
  const Kind& kind = KindOf("tpmauthority");
  ASSIGN_OR_RETURN(const Json answer, tool->Call(http::Method::kPost, "/v1/tpmauthorities", body));
  RETURN_IF_ERROR(ShowWritten(tool, kind, answer,
                              "tpmauthority " + options.name + " created" +
                                  (options.emulated ? ", of emulated TPMs" : "")));
  if (!tool->ForPeople()) return Ok();
  ASSIGN_OR_RETURN(const Json report,
                   tool->Call(http::Method::kGet, ResourcePath(kind, options.name) + kReport));
  tool->out() << DescribeAuthority(report, tool->now());
  return Ok();
}

Result<void> ShowAuthority(Tool* tool, const AuthorityOptions& options) {
  const Kind& kind = KindOf("tpmauthority");
  const std::string path = ResourcePath(kind, options.name);
  ASSIGN_OR_RETURN(const Json answer, tool->Call(http::Method::kGet, path));
  RETURN_IF_ERROR(tool->Show(kind.columns, {answer}, answer));
  if (!tool->ForPeople()) return Ok();
  ASSIGN_OR_RETURN(const Json report, tool->Call(http::Method::kGet, path + kReport));
  tool->out() << "\n" << DescribeAuthority(report, tool->now());
  return Ok();
}

Result<void> ImportList(Tool* tool, const ListOptions& options) {
  ASSIGN_OR_RETURN(const LocalImage file, LocalImage::Open(options.file));
  ASSIGN_OR_RETURN(const Json answer,
                   WriteAllowList(tool, options.name, options.description, file.fd(), file.size()));
  return ShowWritten(tool, KindOf("allowlist"), answer,
                     "allowlist " + options.name + ": " +
                         std::to_string(NumberAt(answer, "status.paths")) +
                         " paths; policies name it by allow-list-sha256 = \"" +
                         TextAt(answer, "status.sha256") + "\"");
}

}  // namespace

std::string DescribeTrust(const Json& host, WallTime now) {
  const Json trust = At(host, "status.trust");
  std::string out =
      Line("TPM", DescribeTpm(At(host, "status.identity"), now)) + DescribePending(host);
  const std::string level = TextAt(trust, "level");
  if (level.empty()) return out + "trust:      its pool asks for none, or it was not asked yet\n";
  const std::string since = TextAt(trust, "changeTime");
  out += Line("trust", ToLower(FriendlyEnum(level)) +
                           (since.empty() ? "" : ", since " + FriendlyAge(since, now)) + ": " +
                           TextAt(trust, "detail"));
  const std::string policy = TextAt(trust, "policy");
  if (!policy.empty()) {
    out += Line("policy", policy + " version " + std::to_string(NumberAt(trust, "policyVersion")));
  }
  const std::string verified = TextAt(trust, "verifyTime");
  if (!verified.empty()) {
    out += Line("evidence", "judged " + FriendlyAge(verified, now) + "; boot " +
                                std::to_string(NumberAt(trust, "resetCount")) + " of its TPM, " +
                                std::to_string(NumberAt(trust, "imaEntries")) +
                                " entries of IMA's list");
  }
  const std::string lease = TextAt(trust, "leaseExpireTime");
  if (!lease.empty()) out += Line("lease", "ends " + FriendlyAge(lease, now));
  return out + DescribeReasons(trust);
}

Result<Json> WriteAllowList(Tool* tool, const std::string& name, const std::string& description,
                            int fd, uint64_t size) {
  const Json body = {{"metadata", {{"name", name}}}, {"spec", {{"description", description}}}};
  const Result<Json> created = tool->Call(http::Method::kPost, "/v1/allowlists", body);
  if (!created.has_value() && created.error().code() != ErrorCode::kConflict) return created;
  ASSIGN_OR_RETURN(http::Client* const client, tool->Connect());
  const http::ClientRequest request{.method = http::Method::kPut,
                                    .target = ResourcePath(KindOf("allowlist"), name) + "/content",
                                    .headers = {},
                                    .body = {}};
  const auto sent =
      client->Upload(request, {.fd = fd, .offset = 0, .length = size}, [&](uint64_t done) {
        tool->Progress("upload " + std::to_string(done) + " of " + std::to_string(size) + " bytes");
      });
  tool->EndProgress();
  RETURN_IF_ERROR(sent);
  if (sent->status >= 400) {
    // A list that was made for this content and is refused is none.
    if (created.has_value()) {
      static_cast<void>(tool->Call(http::Method::kDelete, ResourcePath(KindOf("allowlist"), name)));
    }
    return http::ErrorFromProblem(sent->status, sent->body);
  }
  Json list = Json::parse(sent->body, nullptr, false);
  if (!list.is_object()) return Internal("the server's answer is no JSON");
  return list;
}

void AddHostTrustCommands(CLI::App* group, Tool* tool) {
  auto options = std::make_shared<HostOptions>();
  CLI::App* approve = group->add_subcommand("approve", "Make the TPM that waits the host's own");
  approve->add_option("NAME", options->name, "The host's name")->required();
  approve
      ->add_option("--ek", options->ek,
                   "SHA-256 of its endorsement key, at least 16 digits, as you saw it")
      ->required();
  approve->callback([=] { tool->action = [=] { return Approve(tool, *options); }; });
  approve->footer("Example:\n  vallum host approve node7 --ek 5f1c2a9be0d74e11");

  CLI::App* attest = group->add_subcommand("attest", "Ask it for evidence now");
  attest->add_option("NAME", options->name, "The host's name")->required();
  attest->add_flag("--wait", options->wait,
                   "Until it is judged: exit code 0 if it is trusted, else 10");
  attest->callback([=] { tool->action = [=] { return Attest(tool, *options); }; });
  attest->footer("Example:\n  vallum host attest node7 --wait");

  CLI::App* evidence = group->add_subcommand("evidence", "Fetch the evidence that is kept of it");
  evidence->add_option("NAME", options->name, "The host's name")->required();
  evidence->add_option("--out", options->out, "The file to write")->required();
  CLI::Option* const newest =
      evidence->add_option("--kind", options->kind,
                           "whole (default): with all logs; last: what was judged last; untrusted: "
                           "what last made it untrusted");
  evidence
      ->add_option("--sha256", options->sha256,
                   "the one that an event names; some earlier ones of each kind are kept")
      ->excludes(newest);
  evidence->callback([=] { tool->action = [=] { return Evidence(tool, *options); }; });
  evidence->footer(
      "Example:\n  vallum host evidence node7 --out node7.evidence\n"
      "  vallum attest verify node7.evidence --policy gold.toml");

  CLI::App* move = group->add_subcommand("move", "Put it into another pool");
  move->add_option("NAME", options->name, "The host's name")->required();
  move->add_option("--pool", options->pool, "The pool")->required();
  move->add_flag("--allow-untrusted", options->allow_untrusted,
                 "Even while trusted instances are on it; recorded");
  move->callback([=] { tool->action = [=] { return Move(tool, *options); }; });
  move->footer("Example:\n  vallum host move node7 --pool gold");
}

void AddTpmAuthorityCommands(CLI::App* group, Tool* tool) {
  auto options = std::make_shared<AuthorityOptions>();
  CLI::App* create = group->add_subcommand("create", "Believe TPMs that it certified");
  CLI::App* show = group->add_subcommand("show", "Show one, with its certificates and hosts");
  show->add_option("NAME", options->name, "Its name")->required();
  show->callback([=] { tool->action = [=] { return ShowAuthority(tool, *options); }; });
  create->add_option("NAME", options->name, "Its name")->required();
  create->add_option("--file", options->file, "Its certificates, PEM: roots, and intermediates")
      ->required();
  create->add_flag("--emulated", options->emulated,
                   "It certifies programs, such as swtpm: its hosts are shown as emulated");
  create->add_option("--description", options->description, "For people");
  create->callback([=] { tool->action = [=] { return CreateAuthority(tool, *options); }; });
  create->footer(
      "Examples:\n  vallum tpmauthority create infineon --file infineon-roots.pem\n"
      "  vallum tpmauthority create lab --file /var/lib/swtpm-localca/issuercert.pem --emulated");
}

void AddAllowListCommands(CLI::App* group, Tool* tool) {
  auto options = std::make_shared<ListOptions>();
  CLI::App* import = group->add_subcommand(
      "import", "Upload a runtime policy or flat list of Keylime, or what sha256sum prints");
  import->add_option("FILE", options->file, "The file")->required();
  import->add_option("--name", options->name, "Its name; another content replaces the one there is")
      ->required();
  import->add_option("--description", options->description, "For people");
  import->callback([=] { tool->action = [=] { return ImportList(tool, *options); }; });
  import->footer(
      "Example:\n  find /usr -xdev -type f -exec sha256sum {} + > files\n"
      "  vallum allowlist import files --name debian-12-files");
}

}  // namespace vallum::cli
