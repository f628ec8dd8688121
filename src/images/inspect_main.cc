// SPDX-License-Identifier: Apache-2.0
// vallum-inspect FORMAT: inspects the file behind descriptor 3 and writes a report to standard
// output. Started by ConfinedInspector; confines itself before it reads.

#include <openssl/crypto.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/result.h"
#include "images/confine.h"
#include "images/fd_reader.h"
#include "images/inspection.h"
#include "images/inspection_json.h"

namespace vallum::images {
namespace {

constexpr int kImageDescriptor = 3;

Result<Inspection> Run(std::string_view format) {
  ASSIGN_OR_RETURN(const DeclaredFormat declared, ParseDeclaredFormat(format));
  ASSIGN_OR_RETURN(const FdReader image, FdReader::Open(kImageDescriptor));
  // Whatever OpenSSL opens or starts when it is first used, it does now: without configuration,
  // and with the digest that inspection needs.
  OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, nullptr);
  static_cast<void>(Sha256(AsBytes("")));
  RETURN_IF_ERROR(ConfineSelf(kImageDescriptor));
  return Inspect(image, declared);
}

// Not stdio: it would fstat its descriptor.
bool WriteAll(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(STDOUT_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    text.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

}  // namespace
}  // namespace vallum::images

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: vallum-inspect FORMAT 3<IMAGE\n", stderr);
    return 2;
  }
  const std::string report = vallum::images::ReportToJson(vallum::images::Run(argv[1]));
  // _exit: there is nothing to clean up, and exit handlers might need forbidden calls.
  _exit(vallum::images::WriteAll(report) ? 0 : 1);
}
