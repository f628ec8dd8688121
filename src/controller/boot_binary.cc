// SPDX-License-Identifier: Apache-2.0
#include "controller/boot_binary.h"

#include <string>

#include "base/bytes.h"

namespace vallum::controller {

void AddBootBinaries(const images::Inspection& found,
                     google::protobuf::RepeatedPtrField<v1::BootBinary>& out) {
  for (const images::BootBinary& binary : found.boot_binaries) {
    v1::BootBinary& to = *out.Add();
    to.set_path(binary.path);
    to.set_authenticode_sha256(binary.authenticode_sha256);
    to.set_signer(binary.signer);
    to.set_vendor_cert(std::string(AsText(binary.vendor_cert_section)));
    to.set_sbat_level(std::string(AsText(binary.sbat_level_section)));
    for (const Bytes& certificate : binary.certificates) {
      to.add_signer_certificates(std::string(AsText(certificate)));
    }
  }
}

}  // namespace vallum::controller
