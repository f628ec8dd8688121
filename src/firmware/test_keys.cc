// SPDX-License-Identifier: Apache-2.0
#include "firmware/test_keys.h"

#include <openssl/objects.h>
#include <openssl/pkcs7.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include "firmware/guid.h"
#include "formats/pe.h"

namespace vallum::firmware::testing {

using formats::testing::MustRun;
using formats::testing::ReadFile;
using formats::testing::WriteFile;

Bytes TestKeys::ToDer(const std::string& name) {
  MustRun("openssl x509 -in " + File(name + ".crt") + " -outform der -out " + File(name + ".der"));
  return ReadFile(File(name + ".der"));
}

Bytes TestKeys::MakeAuthority(const std::string& name) {
  MustRun("openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj '/CN=" + name + "' -keyout " +
          File(name + ".key") + " -out " + File(name + ".crt"));
  return ToDer(name);
}

Bytes TestKeys::MakeSigner(const std::string& name, const std::string& issuer,
                           const std::string& options) {
  MustRun("openssl req -newkey rsa:2048 -nodes -subj '/CN=" + name + "' -keyout " +
          File(name + ".key") + " -out " + File(name + ".csr"));
  MustRun("openssl x509 -req -CAcreateserial " + options + " -in " + File(name + ".csr") + " -CA " +
          File(issuer + ".crt") + " -CAkey " + File(issuer + ".key") + " -out " +
          File(name + ".crt"));
  return ToDer(name);
}

Bytes TestKeys::Sign(const Bytes& image, const std::string& signer, const std::string& options) {
  WriteFile(File("unsigned"), image);
  MustRun("sbsign " + options + " --key " + File(signer + ".key") + " --cert " +
          File(signer + ".crt") + " --output " + File("signed") + " " + File("unsigned"));
  return ReadFile(File("signed"));
}

Bytes TestKeys::AddTimestamp(const Bytes& program, const std::string& authority) {
  const auto image = formats::PeImage::Parse(program);
  const ByteView blob = image->certificates().front().data;
  const auto* at = reinterpret_cast<const unsigned char*>(blob.data());
  const std::unique_ptr<PKCS7, decltype(&PKCS7_free)> message(
      d2i_PKCS7(nullptr, &at, static_cast<long>(blob.size())), &PKCS7_free);
  PKCS7_SIGNER_INFO* signer = sk_PKCS7_SIGNER_INFO_value(message->d.sign->signer_info, 0);
  const auto* value = reinterpret_cast<const std::byte*>(signer->enc_digest->data);
  WriteFile(File("value"), ByteView(value, static_cast<size_t>(signer->enc_digest->length)));
  WriteFile(File("ts.conf"),
            AsBytes("[tsa]\nserial=" + File("serial") +
                    "\ndefault_policy=1.2.3.4\ndigests=sha256\nsigner_digest=sha256\n"));
  MustRun("openssl ts -query -cert -sha256 -data " + File("value") + " -out " + File("query"));
  MustRun("openssl ts -reply -token_out -section tsa -config " + File("ts.conf") + " -queryfile " +
          File("query") + " -signer " + File(authority + ".crt") + " -inkey " +
          File(authority + ".key") + " -out " + File("token"));
  const Bytes token = ReadFile(File("token"));
  ASN1_STRING* sequence = ASN1_STRING_type_new(V_ASN1_SEQUENCE);
  ASN1_STRING_set(sequence, token.data(), static_cast<int>(token.size()));
  // OpenSSL takes a new name only once.
  static const int timestamp = OBJ_create("1.3.6.1.4.1.311.3.3.1", "timestamp", "timestamp");
  PKCS7_add_attribute(signer, timestamp, V_ASN1_SEQUENCE, sequence);
  unsigned char* der = nullptr;
  const auto size = static_cast<size_t>(i2d_PKCS7(message.get(), &der));
  const size_t table = program.size() - image->certificate_table_size();
  const size_t padded = (size + 8 + 7) / 8 * 8;
  ByteWriter out;
  out.Raw(ByteView(program).first(table)).U32Le(static_cast<uint32_t>(padded));
  out.U16Le(formats::kWinCertRevision2).U16Le(formats::kWinCertTypePkcs7);
  out.Raw(ByteView(reinterpret_cast<const std::byte*>(der), size)).Zeros(padded - size - 8);
  OPENSSL_free(der);
  Bytes stamped = std::move(out).Take();
  formats::testing::PutLe32(stamped, kTableSizeOffset, static_cast<uint32_t>(padded));
  return stamped;
}

bool TestKeys::SbverifyAccepts(const Bytes& image, const Bytes& certificate) {
  WriteFile(File("image"), image);
  WriteFile(File("certificate.der"), certificate);
  MustRun("openssl x509 -inform der -in " + File("certificate.der") + " -out " +
          File("certificate.pem"));
  return formats::testing::Run("sbverify --cert " + File("certificate.pem") + " " + File("image"))
             .status == 0;
}

Signature Entry(const Bytes& certificate) {
  return MakeSignature(SignatureType::kX509, kGlobalVariableGuid, certificate);
}

Bytes MakeProgram(const std::string& sbat) {
  return formats::testing::MakePe({{".sbat", ToBytes(AsBytes(sbat))}});
}

std::string DebianTree() {
  namespace fs = std::filesystem;
  if (const char* set = std::getenv("VALLUM_DEBIAN_TREE"); set != nullptr) return set;
  // Not by the file system: a component without test data has no such folder.
  const fs::path cache =
      (fs::path(VALLUM_TESTDATA) / "../../../build/guest/cache").lexically_normal();
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(cache, error)) {
    if (fs::exists(entry.path() / ".complete")) return entry.path().string();
  }
  return "";
}

Bytes DebianShim() { return ReadFile(DebianTree() + "/usr/lib/shim/shimx64.efi.signed"); }

Bytes DebianGrub() {
  return ReadFile(DebianTree() + "/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed");
}

Bytes DebianKernel() {
  for (const auto& entry : std::filesystem::directory_iterator(DebianTree() + "/boot")) {
    if (entry.path().filename().string().starts_with("vmlinuz-")) return ReadFile(entry.path());
  }
  return {};
}

}  // namespace vallum::firmware::testing
