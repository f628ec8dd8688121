// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"
#include "firmware/variable_store.h"

namespace vallum::measure {

// What is known of one loader or kernel that the firmware or shim may have started: all of it read
// from the instance's disk by the caller. Untrusted bytes.
struct BootBinary {
  std::string path;                        // "EFI/BOOT/BOOTX64.EFI", for messages
  Bytes authenticode_sha256;               // 32 bytes, or empty when not computed
  std::vector<Bytes> signer_certificates;  // DER, all of the PE's PKCS#7 blobs
  Bytes vendor_cert_section;               // shim's PE section .vendor_cert; empty for others
  Bytes sbat_level_section;                // shim's PE section .sbatlevel; empty for others
};

enum class SecureBootState { kOn, kOff, kUnknown };
std::string_view SecureBootStateName(SecureBootState state);  // "on", "off", "unknown"

// What an extend of PCR 7 was recognised as.
enum class Pcr7EventKind {
  kSecureBoot,     // the variable SecureBoot
  kKeyVariable,    // PK, KEK, db, dbx, dbt, dbr
  kSeparator,      // end of the configuration part
  kDbAuthority,    // an entry of db that let an image start
  kSbatLevel,      // shim's revocation level
  kShimAuthority,  // shim's vendor certificate, or an entry of MokList
  kUnexplained,
};

struct Pcr7Event {
  Pcr7EventKind kind = Pcr7EventKind::kUnexplained;
  Bytes measured;  // the digest that was extended
  Bytes computed;  // recomputed from the artefact; empty when unexplained
  std::string
      explanation;  // "db: X.509 CN=Microsoft Corporation UEFI CA 2011 let EFI/BOOT/... start"
};

// The judgement of PCR 7. A value; `reasons` says in words why matches is false (or, when it is
// true, what is worth knowing).
struct Pcr7Explanation {
  SecureBootState secure_boot = SecureBootState::kUnknown;  // as measured, by an explained extend
  firmware::SecureBootSetting configured = firmware::SecureBootSetting::kOff;  // by the store
  Bytes computed_digest;  // replay of the recomputed digests; empty when it cannot be computed
  Bytes measured_digest;  // replay of the measured ones
  bool matches = false;   // computed_digest == measured_digest and the order is complete
  std::vector<Pcr7Event> events;  // one for each measured extend, in order
  std::vector<std::string> reasons;
};

// Explains every extend of PCR 7 by something recomputed from the instance's own artefacts; see
// docs/boot-measurement.md for what is admissible and in which order.
//   store: the instance's variable store; PK, KEK, db and dbx as they were when it started.
//   binaries: what the disk's ESP holds; with none, shim's authorities cannot be explained.
//   measured: digests extended into PCR 7 (SHA-256 bank) since the TPM's last reset, in order.
// matches is true only if all of SecureBoot, PK, KEK, db, dbx and the separator were measured, in
// that order, and every further extend is an admissible authority. SecureBoot measured as off can
// match: look at secure_boot too.
// Errors: kInvalidInput (a measured digest that is not 32 bytes); kCorrupt (a key variable of the
// store does not parse).
Result<Pcr7Explanation> ComputePcr7(const firmware::VariableStore& store,
                                    std::span<const BootBinary> binaries,
                                    std::span<const Bytes> measured);

// An extend of PCR 7's configuration part.
struct Pcr7Configuration {
  Bytes digest;
  std::string explanation;
};

// What PCR 7 of any boot with this store begins with (SecureBoot to separator), as firmware that
// implements Secure Boot measures it.
std::vector<Pcr7Configuration> ExpectedPcr7Configuration(HashAlgorithm bank,
                                                         const firmware::VariableStore& store);

}  // namespace vallum::measure
