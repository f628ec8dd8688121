// SPDX-License-Identifier: Apache-2.0
#include "cli/tool.h"

#include <algorithm>
#include <ostream>
#include <thread>

#include "base/text.h"
#include "cli/context.h"
#include "tls/file.h"

namespace vallum::cli {
namespace {

constexpr std::chrono::milliseconds kPollInterval{250};

// A token file may end with a line feed; the header field may not.
SecretBytes TrimToken(const SecretBytes& secret) {
  return SecretBytes(AsBytes(Trim(AsText(secret.Reveal(SecretAccess("reading a token file"))))));
}

}  // namespace

std::filesystem::path Tool::ConfigDir() const {
  if (const auto dir = environment_.variable("VALLUM_CONFIG_DIR")) return *dir;
  if (const auto dir = environment_.variable("XDG_CONFIG_HOME")) {
    return std::filesystem::path(*dir) / "vallum";
  }
  return std::filesystem::path(environment_.variable("HOME").value_or("/")) / ".config" / "vallum";
}

Result<http::Client*> Tool::Connect() {
  if (client_ != nullptr) return client_.get();
  const ContextStore store(ConfigDir());
  http::ClientOptions options;
  std::string name =
      context.empty() ? environment_.variable("VALLUM_CONTEXT").value_or("") : context;
  if (name.empty() && server.empty()) {
    ASSIGN_OR_RETURN(name, store.Current());
  }
  if (!name.empty()) {
    ASSIGN_OR_RETURN(Context chosen, store.Get(name));
    options.server = std::move(chosen.server);
    options.ca_pem = std::move(chosen.ca_pem);
  }
  if (!server.empty()) options.server = server;
  if (!ca_file.empty()) {
    ASSIGN_OR_RETURN(const Bytes pem, tls::ReadSmallFile(ca_file));
    options.ca_pem = std::string(AsText(pem));
  }
  if (options.server.empty() || options.ca_pem.empty()) {
    return InvalidInput("no controller is chosen")
        .WithFix("vallum context add NAME --server https://HOST:7443 --ca FILE --token-file FILE");
  }
  ASSIGN_OR_RETURN(client_, http::Client::Create(std::move(options)));
  const std::string file =
      token_file.empty() ? environment_.variable("VALLUM_TOKEN_FILE").value_or("") : token_file;
  if (!file.empty()) {
    ASSIGN_OR_RETURN(const SecretBytes token, tls::ReadSecretFile(file));
    client_->SetBearerToken(TrimToken(token));
  } else if (!name.empty()) {
    Result<SecretBytes> token = store.Token(name);
    if (token.has_value()) {
      client_->SetBearerToken(TrimToken(*token));
    } else if (token.error().code() != ErrorCode::kNotFound) {
      return std::move(token).error();
    }
  }
  return client_.get();
}

Result<Json> Tool::Call(http::Method method, const std::string& target, const Json& body,
                        const std::string& content_type) {
  ASSIGN_OR_RETURN(http::Client* const client, Connect());
  http::ClientRequest request{.method = method, .target = target, .headers = {}, .body = {}};
  if (!body.is_null()) {
    request.headers.Set("Content-Type", content_type);
    request.body = body.dump(-1, ' ', false, Json::error_handler_t::replace);
  }
  ASSIGN_OR_RETURN(const http::Response response, client->Send(request));
  if (response.status >= 400) return http::ErrorFromProblem(response.status, response.body);
  if (response.body.empty()) return Json::object();
  Json answer = Json::parse(response.body, nullptr, false);
  if (answer.is_discarded()) return Internal("the server's answer is no JSON");
  return answer;
}

Result<Json> Tool::CallList(const std::string& plural, const std::string& query) {
  Json all = {{"items", Json::array()}};
  std::string page;
  while (true) {
    std::string target = "/v1/" + plural + "?limit=500" + (query.empty() ? "" : "&" + query);
    if (!page.empty()) target += "&page=" + http::PercentEncode(page);
    ASSIGN_OR_RETURN(const Json part, Call(http::Method::kGet, target));
    const Json items = At(part, "items");
    if (items.is_array()) {
      for (const Json& item : items) all["items"].push_back(item);
    }
    // The first page's: what changed while the others were read is told by a watch from there.
    if (part.contains("revision") && !all.contains("revision")) all["revision"] = part["revision"];
    const std::string next = TextAt(part, "nextPage");
    if (next.empty() || next == page) return all;
    page = next;
  }
}

Result<void> Tool::Show(const std::vector<Column>& columns, const std::vector<Json>& items,
                        const Json& full) {
  ASSIGN_OR_RETURN(const OutputFormat format, Format());
  out() << Render(format, columns, items, full, now());
  return Ok();
}

void Tool::Progress(const std::string& line) {
  if (line == last_progress_) return;
  if (environment_.terminal && !no_color) {
    err() << "\r\x1b[K" << line << std::flush;
  } else {
    // A log wants to see that it moves, not each step.
    const MonotonicTime now = environment_.clock->Monotonic();
    if (!last_progress_.empty() && now - last_progress_time_ < std::chrono::seconds(1)) return;
    last_progress_time_ = now;
    err() << line << "\n";
  }
  last_progress_ = line;
}

void Tool::EndProgress() {
  if (!last_progress_.empty() && environment_.terminal && !no_color) err() << "\n";
  last_progress_.clear();
}

Result<void> Tool::WaitForOperation(const Json& operation) {
  const std::string name = TextAt(operation, "metadata.name");
  const std::string target = "/v1/operations/" + http::PercentEncode(name);
  const MonotonicTime end = environment_.clock->Monotonic() + timeout();
  Json current = operation;
  while (true) {
    const std::string state = TextAt(current, "state");
    if (state == "OPERATION_DONE") {
      EndProgress();
      return Ok();
    }
    if (state == "OPERATION_FAILED") {
      EndProgress();
      const Json problem = At(current, "error");
      return http::ErrorFromProblem(static_cast<int>(NumberAt(problem, "status")), problem.dump());
    }
    Progress(Printable(TextAt(current, "kind")) + " " + Printable(TextAt(current, "target")) +
             ": " + std::to_string(NumberAt(current, "progressPercent")) + "% " +
             Printable(TextAt(current, "message")));
    if (environment_.clock->Monotonic() >= end) {
      EndProgress();
      return Unavailable("operation " + Printable(name) + " is not done after " +
                         std::to_string(timeout_seconds) + " s; it goes on")
          .WithFix("vallum operation show " + Printable(name) + ", or a longer --timeout");
    }
    std::this_thread::sleep_for(kPollInterval);
    ASSIGN_OR_RETURN(current, Call(http::Method::kGet, target));
  }
}

}  // namespace vallum::cli
