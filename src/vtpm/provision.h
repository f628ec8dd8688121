// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"
#include "vtpm/identity.h"
#include "vtpm/swtpm.h"

// What is done to a TPM while its guest does not run yet. Every call needs both of swtpm's channels
// for itself, and blocks.
namespace vallum::vtpm {

// Makes exactly these PCR banks active: from the TPM's next start on.
Result<void> AllocateBanks(Swtpm& swtpm, const std::vector<HashAlgorithm>& banks,
                           std::chrono::milliseconds timeout);

// Finds the keys of a started TPM, or makes them and keeps them in it, and reads its certificate.
// Errors: those of CheckSuccess (key_command.h): a guest can have set passwords.
Result<VtpmIdentity> EnsureIdentity(Swtpm& swtpm, std::chrono::milliseconds timeout);

// Writes the EK certificate of a started TPM whose platform password is empty (no firmware has run
// since its start), in place of one that is there, and locks it.
//   der: 1 to kMaxCertificate bytes.
Result<void> StoreCertificate(Swtpm& swtpm, ByteView der, std::chrono::milliseconds timeout);

}  // namespace vallum::vtpm
