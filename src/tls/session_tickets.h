// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.h"

namespace vallum::tls {

// Makes every TLS server of this process that is set up afterwards send no session tickets. For
// each ticket OpenSSL 3.0 reads the client's certificate once more, which is a fifth of what a
// handshake costs; and what a client could resume with one is lost when the server is restarted,
// which is when all of them come back at once. Connections here live for days.
// Replaces the system's default settings for TLS (ssl_conf, system_default in openssl.cnf) in this
// process: TLS 1.2 stays the least, the security level OpenSSL's.
// Not thread-safe: call it before the first server is set up.
// Errors: kInternal (OpenSSL does not take the setting).
// Source: OpenSSL 3.0, config(5), SSL_CONF_cmd(3) NumTickets; ssl/statem/statem_srvr.c,
// construct_stateless_ticket.
Result<void> SendNoSessionTickets();

}  // namespace vallum::tls
