// SPDX-License-Identifier: Apache-2.0
#include "tls/session_tickets.h"

#include <openssl/bio.h>
#include <openssl/conf.h>
#include <openssl/ssl.h>

#include <memory>

#include "tls/openssl.h"

namespace vallum::tls {
namespace {

// One for the whole process: this is how OpenSSL hands settings to servers that others set up.
constexpr char kSettings[] =
    "vallum = modules\n"
    "[modules]\n"
    "ssl_conf = programs\n"
    "[programs]\n"
    "system_default = servers\n"
    "[servers]\n"
    "MinProtocol = TLSv1.2\n"
    "NumTickets = 0\n";

}  // namespace

Result<void> SendNoSessionTickets() {
  const std::unique_ptr<CONF, decltype(&NCONF_free)> conf(NCONF_new(nullptr), NCONF_free);
  const std::unique_ptr<BIO, decltype(&BIO_free)> text(BIO_new_mem_buf(kSettings, -1), BIO_free);
  long line = 0;  // NOLINT(google-runtime-int): OpenSSL's
  // The system's own file first, or it would be read later and win.
  if (OPENSSL_init_ssl(OPENSSL_INIT_LOAD_CONFIG, nullptr) != 1 || conf == nullptr ||
      text == nullptr || NCONF_load_bio(conf.get(), text.get(), &line) != 1 ||
      CONF_modules_load(conf.get(), "vallum", 0) != 1) {
    return OpenSslError("turn TLS session tickets off");
  }
  return Ok();
}

}  // namespace vallum::tls
