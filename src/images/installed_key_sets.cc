// SPDX-License-Identifier: Apache-2.0
#include "images/installed_key_sets.h"

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "firmware/descriptor.h"
#include "firmware/guid.h"
#include "firmware/variable_store.h"
#include "images/firmware_files.h"

namespace vallum::images {
namespace {

using firmware::KeySet;

constexpr size_t kMaxFile = size_t{16} << 20U;
constexpr const char* kShim = "/usr/lib/shim/shimx64.efi.signed";

Result<KeySet> ReadMicrosoft() {
  const std::vector<std::string> folders = firmware::DescriptorDirectories("");
  // A descriptor that cannot be read is one less to choose from.
  std::vector<std::string> problems;
  const auto set = firmware::ResolveDescriptors(folders, ReadDescriptorFiles(folders, problems));
  ASSIGN_OR_RETURN(const firmware::FirmwareDescriptor found,
                   firmware::SelectFirmware(set.descriptors,
                                            {.secure_boot = firmware::SecureBootSupport::kRequired,
                                             .keys = firmware::KeyEnrolment::kEnrolled}));
  ASSIGN_OR_RETURN(const Bytes content, ReadLocalFile(found.mapping.nvram_template.path, kMaxFile));
  ASSIGN_OR_RETURN(const auto store, firmware::VariableStore::Parse(content));
  return firmware::KeySetFromStore(store);
}

Result<KeySet> ReadDebian() {
  ASSIGN_OR_RETURN(const Bytes shim, ReadLocalFile(kShim, kMaxFile));
  return firmware::DebianKeySet(shim);
}

KeySet FromCertificates(const std::vector<firmware::Signature>& certificates) {
  KeySet keys;
  keys.pk = {certificates.front()};
  keys.kek = {certificates.front()};
  keys.db = certificates;
  return keys;
}

// What a key set may be called when it is handed to another process.
std::string NameOf(const std::string& path) {
  std::string name = Printable(std::filesystem::path(path).filename().string());
  if (name.size() <= firmware::kMaxKeySetName) return name;
  name.resize(firmware::kMaxKeySetName);
  while (!name.empty() && (static_cast<unsigned char>(name.back()) & 0x80U) != 0) name.pop_back();
  return name;
}

}  // namespace

InstalledKeySets FindInstalledKeySets() {
  InstalledKeySets out;
  const auto add = [&](Result<KeySet> keys, const std::string& name, const std::string& package) {
    if (keys.has_value()) {
      out.sets.push_back(*std::move(keys));
      out.sets.back().name = name;  // whatever else its owner put in
      return;
    }
    out.missing.push_back("key set " + name + " is not here (" + keys.error().Describe() +
                          "): install the package " + package);
  };
  add(ReadMicrosoft(), "microsoft", "ovmf");
  add(ReadDebian(), "debian", "shim-signed");
  return out;
}

Result<KeySet> ReadKeySetFile(const std::string& path) {
  ASSIGN_OR_RETURN(const Bytes content, ReadLocalFile(path, kMaxFile));
  const std::string name = NameOf(path);
  if (Result<KeySet> keys = firmware::ParseKeySet(AsText(content)); keys.has_value()) return keys;
  if (const auto store = firmware::VariableStore::Parse(content); store.has_value()) {
    ASSIGN_OR_RETURN(KeySet keys, firmware::KeySetFromStore(*store));
    keys.name = name;
    return keys;
  }
  const auto certificates = firmware::CertificatesFromFile(content, firmware::Guid{});
  if (!certificates.has_value() || certificates->empty()) {
    return InvalidInput(path + " is no variable store, no key set and no certificate")
        .WithFix("give OVMF variables (.fd), a certificate in PEM or DER, or a key set in JSON");
  }
  KeySet keys = FromCertificates(*certificates);
  keys.name = name;
  return keys;
}

}  // namespace vallum::images
