// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "controller/view.h"

namespace vallum::controller {

// What a measured digest is, in words, when anything in the deployment has it: the programs of
// images and snapshots ("\EFI\BOOT\grubx64.efi of image debian11, signed by ..."), the key
// variables of every version of every key set ("dbx of key set prod version 2"), and what firmware
// always measures. Kept current from the view. Thread-safe. The view outlives it.
class KnownArtefacts {
 public:
  // More digests than these are not kept; then some stay without words.
  static constexpr size_t kMaxDigests = 200'000;

  explicit KnownArtefacts(View& view);
  ~KnownArtefacts();
  KnownArtefacts(const KnownArtefacts&) = delete;
  KnownArtefacts& operator=(const KnownArtefacts&) = delete;

  // Empty when nothing has it that the tenant may see: the names of others' images are not for it.
  // With several, the first by name.
  //   digest: SHA-256 bank.
  //   tenant: of the instance that measured it; one of no tenant is seen by operators alone.
  std::string Describe(const Bytes& digest, const std::string& tenant) const;

 private:
  struct Artefact {
    Bytes digest;
    std::string words;
  };
  static std::vector<Artefact> ArtefactsOf(Kind kind, const google::protobuf::Message& resource);
  void OnChange(const Change& change);
  void Replace(const std::string& source, const std::string& tenant,
               std::vector<Artefact> artefacts);

  View& view_;
  View::SubscriptionId subscription_ = 0;
  struct Words {
    std::string tenant;  // whose it is; empty: everybody's
    std::string words;
  };
  mutable std::mutex mutex_;                             // guards the members below
  std::map<Bytes, std::map<std::string, Words>> words_;  // digest, source ("images/x")
  std::map<std::string, std::vector<Bytes>> digests_;    // by source
};

}  // namespace vallum::controller
