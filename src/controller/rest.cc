// SPDX-License-Identifier: Apache-2.0
#include "controller/rest.h"

#include <charconv>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "controller/controller.h"
#include "controller/openapi.h"
#include "controller/principal.h"
#include "controller/rest_allowlists.h"
#include "controller/rest_console.h"
#include "controller/rest_context.h"
#include "controller/rest_images.h"
#include "controller/rest_metrics.h"
#include "controller/rest_watch.h"
#include "http/message.h"
#include "http/router.h"
#include "http/server.h"
#include "images/confined_inspector.h"
#include "tls/certificate.h"

namespace vallum::controller {
namespace {

using http::Method;
using http::Request;
using http::Response;

Response Unauthorized(const Error& error) {
  Response response = http::ProblemResponse(401, error);
  response.headers.Set("WWW-Authenticate", "Bearer realm=\"vallum\"");
  return response;
}

// "127.0.0.1:7443", "[::1]:7443".
Result<void> ParseListen(std::string_view text, http::ServerOptions& out) {
  const size_t colon = text.rfind(':');
  std::string_view host = text.substr(0, colon);
  const std::string_view port = colon == std::string_view::npos ? "" : text.substr(colon + 1);
  const auto parsed = std::from_chars(port.data(), port.data() + port.size(), out.port);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  if (host.empty() || parsed.ec != std::errc() || parsed.ptr != port.data() + port.size()) {
    return InvalidInput("\"" + Printable(text, 80) + "\" is not ADDRESS:PORT")
        .WithFix("write it as 127.0.0.1:7443 or [::1]:7443");
  }
  out.address = host;
  return Ok();
}

}  // namespace

class Rest::Impl {
 public:
  Impl(Controller& controller, const images::ConfinedInspector& inspector,
       const images::ConfinedConverter& converter, std::vector<firmware::KeySet> key_sets)
      : watches_(controller.view()),
        key_sets_(std::move(key_sets)),
        context_{controller, inspector, converter, watches_, consoles_, controller.contents(),
                 key_sets_} {}

  ~Impl() { Stop(std::chrono::milliseconds(0)); }

  Result<void> Start(const Options& options, const tls::Credentials& credentials) {
    http::ServerOptions server;
    RETURN_IF_ERROR(ParseListen(options.listen, server));
    server.limits = options.limits;
    server.on_request = [this](const http::AccessRecord& record) { metrics_.Count(record); };
    ASSIGN_OR_RETURN(server_, http::Server::Start(std::move(server), MakeRouter(), credentials));
    return Ok();
  }

  uint16_t port() const { return server_->port(); }

  Result<void> ReplaceCredentials(const tls::Credentials& credentials) {
    return server_->ReplaceCredentials(credentials);
  }

  void Stop(std::chrono::milliseconds grace) {
    if (server_ != nullptr) server_->Stop(grace);
  }

 private:
  // Who makes the request. Errors: kDenied, for a 401.
  Result<Principal> Authenticate(const Request& request) {
    const std::optional<std::string> header = request.headers.Get("authorization");
    if (!header.has_value()) {
      return Denied("the request has no bearer token")
          .WithFix("send Authorization: Bearer <token>");
    }
    constexpr std::string_view kScheme = "bearer ";
    if (ToLower(header->substr(0, kScheme.size())) != kScheme) {
      return Denied("the Authorization header is not a bearer token")
          .WithFix("send Authorization: Bearer <token>");
    }
    Result<Principal> principal =
        context_.controller.tokens().Authenticate(Trim(header->substr(kScheme.size())));
    if (!principal.has_value()) ++context_.controller.metrics().authentication_failures_total;
    return principal;
  }

  http::Handler Wrap(ApiHandler handler) {
    return [this, handler = std::move(handler)](const Request& request) {
      watches_.Reap();
      const Result<Principal> principal = Authenticate(request);
      if (!principal.has_value()) return Unauthorized(principal.error());
      Result<Response> response = handler(request, *principal);
      return response.has_value() ? *std::move(response) : http::ProblemResponse(response.error());
    };
  }

  using UploadStart = std::variant<Response, std::unique_ptr<http::UploadSink>>;
  http::UploadHandler WrapUpload(UploadStart (*start)(RestContext&, const Request&,
                                                      const Principal&)) {
    return [this, start](const Request& request) -> UploadStart {
      const Result<Principal> principal = Authenticate(request);
      if (!principal.has_value()) return Unauthorized(principal.error());
      return start(context_, request, *principal);
    };
  }

  // What needs no token: nothing that tells of the deployment.
  void AddOpenRoutes(http::Router& router, std::string openapi) {
    router.Add(Method::kGet, "/healthz", [this](const Request&) {
      if (context_.controller.view().healthy()) return Response::Text(200, "ok\n");
      return Response::Text(503, "the controller no longer follows its store\n");
    });
    router.Add(Method::kGet, "/openapi.json", [openapi = std::move(openapi)](const Request&) {
      return Response::Json(200, openapi);
    });
    router.Add(Method::kGet, "/v1/consoles/{token}", [this](const Request& request) {
      Result<Response> response = OpenConsole(context_.controller, consoles_, request);
      return response.has_value() ? *std::move(response) : http::ProblemResponse(response.error());
    });
  }

  std::vector<ApiRoute> Routes() {
    std::vector<ApiRoute> routes = ResourceRoutes(context_);
    for (ApiRoute& route : InstanceRoutes(context_)) routes.push_back(std::move(route));
    for (ApiRoute& route : BootRoutes(context_)) routes.push_back(std::move(route));
    for (ApiRoute& route : SnapshotRoutes(context_)) routes.push_back(std::move(route));
    for (ApiRoute& route : KeySetRoutes(context_)) routes.push_back(std::move(route));
    for (ApiRoute& route : RolloutRoutes(context_)) routes.push_back(std::move(route));
    for (ApiRoute& route : PolicyRoutes(context_)) routes.push_back(std::move(route));
    for (ApiRoute& route : TrustRoutes(context_)) routes.push_back(std::move(route));
    for (ApiRoute& route : OatRoutes(context_)) routes.push_back(std::move(route));
    for (ApiRoute& route : KeylimeRoutes()) routes.push_back(std::move(route));
    for (ApiRoute& route : EarRoutes(context_)) routes.push_back(std::move(route));
    routes.push_back({Method::kGet, "/metrics", "Prometheus metrics", nullptr, nullptr, 200,
                      [this](const Request&, const Principal& principal) -> Result<Response> {
                        RETURN_IF_ERROR(Authorize(principal, Verb::kRead, Kind::kHost, {}));
                        return Response::Text(
                            200, metrics_.Render(context_.controller.metrics(),
                                                 context_.controller.view(), server_->counters()));
                      }});
    routes.push_back({Method::kPut, "/v1/images/{name}/content",
                      "Upload content: ?offset=&total=, raw bytes, resumable", nullptr,
                      v1::Image::descriptor(), 200, nullptr});
    routes.push_back({Method::kPut, "/v1/allowlists/{name}/content",
                      "Upload content: a runtime policy of Keylime, or lines of sha256sum", nullptr,
                      v1::AllowList::descriptor(), 200, nullptr});
    return routes;
  }

  http::Router MakeRouter() {
    http::Router router;
    std::vector<ApiRoute> routes = Routes();
    AddOpenRoutes(router, MakeOpenApi(routes));
    for (ApiRoute& route : routes) {
      if (route.handler) {
        router.Add(route.method, route.pattern, Wrap(std::move(route.handler)), route.body_limit);
      }
    }
    router.AddUpload(Method::kPut, "/v1/images/{name}/content", WrapUpload(&StartUpload));
    router.AddUpload(Method::kPut, "/v1/allowlists/{name}/content",
                     WrapUpload(&StartAllowListUpload));
    return router;
  }

  // In this order: the server goes first, then what its handlers and threads use.
  WatchSessions watches_;
  ConsoleSessions consoles_;
  const std::vector<firmware::KeySet> key_sets_;
  RestContext context_;
  RestMetrics metrics_;
  std::unique_ptr<http::Server> server_;
};

Rest::Rest(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Rest::~Rest() = default;

Result<std::unique_ptr<Rest>> Rest::Start(const Options& options, Controller& controller,
                                          const images::ConfinedInspector& inspector,
                                          const images::ConfinedConverter& converter,
                                          const tls::Credentials& credentials) {
  auto impl = std::make_unique<Impl>(controller, inspector, converter, options.key_sets);
  RETURN_IF_ERROR(impl->Start(options, credentials));
  return std::unique_ptr<Rest>(new Rest(std::move(impl)));
}

uint16_t Rest::port() const { return impl_->port(); }
Result<void> Rest::ReplaceCredentials(const tls::Credentials& credentials) {
  return impl_->ReplaceCredentials(credentials);
}
void Rest::Stop(std::chrono::milliseconds grace) { impl_->Stop(grace); }

}  // namespace vallum::controller
