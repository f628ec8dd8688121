// SPDX-License-Identifier: Apache-2.0
#include "http/connector.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <utility>

#include "base/text.h"

namespace vallum::http {
namespace {

using tcp = asio::ip::tcp;

Result<void> SplitUrl(std::string_view url, Target* target) {
  const Error bad = InvalidInput("not a server's URL: '" + Printable(url) + "'")
                        .WithFix("write it as https://host:port");
  static constexpr std::string_view kScheme = "https://";
  if (!url.starts_with(kScheme)) return bad;
  url.remove_prefix(kScheme.size());
  if (url.ends_with('/')) url.remove_suffix(1);
  target->authority = std::string(url);
  size_t colon = url.rfind(':');
  if (url.starts_with('[')) {
    const size_t close = url.find(']');
    if (close == std::string_view::npos) return bad;
    target->host = std::string(url.substr(1, close - 1));
    colon = close + 1 < url.size() ? close + 1 : std::string_view::npos;
    if (colon != std::string_view::npos && url[colon] != ':') return bad;
  } else {
    target->host = std::string(url.substr(0, colon));
  }
  target->port = colon == std::string_view::npos ? "443" : std::string(url.substr(colon + 1));
  const bool digits = target->port.find_first_not_of("0123456789") == std::string::npos;
  if (target->host.empty() || target->port.empty() || !digits ||
      target->host.find_first_of("/?#@ ") != std::string::npos) {
    return bad;
  }
  beast::error_code error;
  asio::ip::make_address(target->host, error);
  target->is_address = !error;
  return Ok();
}

// What SSL_set_tlsext_host_name does, without its old-style cast.
bool SetServerName(SSL* ssl, std::string host) {
  return SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, host.data()) == 1;
}

Result<void> ExpectName(SSL* ssl, const Target& target) {
  X509_VERIFY_PARAM* param = SSL_get0_param(ssl);
  const bool set =
      target.is_address
          ? X509_VERIFY_PARAM_set1_ip_asc(param, target.host.c_str()) == 1
          : SSL_set1_host(ssl, target.host.c_str()) == 1 && SetServerName(ssl, target.host);
  if (!set) return Internal("cannot set the name to verify");
  return Ok();
}

}  // namespace

Result<std::shared_ptr<const Target>> MakeTarget(ClientOptions options) {
  auto target = std::make_shared<Target>();
  RETURN_IF_ERROR(SplitUrl(options.server, target.get()));
  target->tls = std::make_shared<asio::ssl::context>(asio::ssl::context::tls_client);
  SSL_CTX_set_min_proto_version(target->tls->native_handle(), TLS1_2_VERSION);
  beast::error_code error;
  target->tls->set_verify_mode(asio::ssl::verify_peer, error);
  // OpenSSL takes the certificates of an empty text without a complaint.
  RETURN_IF_ERROR(tls::InspectPem(options.ca_pem)).context("reading the CA certificate");
  target->tls->add_certificate_authority(asio::buffer(options.ca_pem.data(), options.ca_pem.size()),
                                         error);
  if (error) return InvalidInput("cannot use the CA certificate: " + error.message());
  target->options = std::move(options);
  return std::shared_ptr<const Target>(std::move(target));
}

Error Unreachable(const Target& target, beast::error_code error) {
  return Unavailable("cannot reach " + Printable(target.authority) + ": " + error.message())
      .WithFix("check that the controller runs and that the address of the context is right");
}

Result<std::unique_ptr<Stream>> Connect(asio::io_context* io, const Target& target) {
  beast::error_code error;
  tcp::resolver resolver(*io);
  const auto addresses = resolver.resolve(target.host, target.port, error);
  if (error) return Unreachable(target, error);
  auto stream = std::make_unique<Stream>(*io, *target.tls);
  auto& socket = beast::get_lowest_layer(*stream);
  socket.expires_after(target.options.connect_timeout);
  error = Await(io, [&](auto done) { socket.async_connect(addresses, done); });
  if (error) return Unreachable(target, error);
  socket.socket().set_option(tcp::no_delay(true), error);
  RETURN_IF_ERROR(ExpectName(stream->native_handle(), target));
  error =
      Await(io, [&](auto done) { stream->async_handshake(asio::ssl::stream_base::client, done); });
  if (!error) return stream;
  const long verdict = SSL_get_verify_result(stream->native_handle());
  if (verdict == X509_V_OK) return Unreachable(target, error);
  return Denied("the certificate of " + Printable(target.authority) +
                " does not verify: " + X509_verify_cert_error_string(verdict))
      .WithFix(
          "use the CA certificate of this deployment, and a name or address that the "
          "controller's certificate carries");
}

}  // namespace vallum::http
