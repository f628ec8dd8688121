// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

#include "base/bytes.h"
#include "firmware/signature_list.h"
#include "formats/test_support.h"

// For the tests of firmware only: keys and signed programs by openssl and sbsign.
namespace vallum::firmware::testing {

// Keys by name, in a folder of their own. What fails fails the test.
class TestKeys {
 public:
  // A self-signed certificate authority. Returns its certificate, DER.
  Bytes MakeAuthority(const std::string& name);
  // A certificate issued by `issuer`.
  //   options: of `openssl x509 -req`, such as "-days 1".
  Bytes MakeSigner(const std::string& name, const std::string& issuer,
                   const std::string& options = "-days 9");
  // Signs by sbsign; a signature that is there already stays.
  //   options: such as "--addcert FILE".
  Bytes Sign(const Bytes& image, const std::string& signer, const std::string& options = "");
  // Puts the time of now, by `authority`, beside the only signature of a program (RFC 3161).
  Bytes AddTimestamp(const Bytes& program, const std::string& authority);
  // What `sbverify --cert` says.
  bool SbverifyAccepts(const Bytes& image, const Bytes& certificate);

  std::string File(const std::string& name) const { return dir_.File(name); }

 private:
  Bytes ToDer(const std::string& name);
  formats::testing::TempDir dir_;
};

// Where the programs of MakeProgram hold the size of their certificate table.
inline constexpr size_t kTableSizeOffset = 0x80 + 24 + 112 + 4 * 8 + 4;

Signature Entry(const Bytes& certificate);
// A PE program with a section .sbat that shim accepts at any level.
Bytes MakeProgram(const std::string& sbat = "sbat,1,v,p,1,u\ngrub,9,v,p,1,u\n");

// The folder with Debian's signed loaders and kernel, as scripts/make-debian-guest unpacks them, or
// "" when it is absent; VALLUM_DEBIAN_TREE names another.
std::string DebianTree();
Bytes DebianShim();
Bytes DebianGrub();
Bytes DebianKernel();

}  // namespace vallum::firmware::testing
