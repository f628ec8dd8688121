// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "base/bytes.h"
#include "tpm/esys.h"
#include "tpm/host_tpm.h"

namespace vallum::tpm {

// The certificate of the endorsement key of a kind in the TPM's NV memory; empty: there is none.
// Source: TCG EK Credential Profile, 2.2.1.4: 0x01C00002 (RSA), 0x01C0000A (ECC).
// Errors: kUnavailable.
Result<Bytes> ReadEkCertificate(EsysContext& esys, KeyKind kind);

// The certificates of its issuers, from 0x01C00100 on; none where they are not there or not
// readable. Errors: kUnavailable.
Result<std::vector<Bytes>> ReadEkCertificateChain(EsysContext& esys);

// Cuts DER certificates that follow each other; ends at the first bytes that are none (indices are
// filled up with zeros or ones). Pure.
std::vector<Bytes> CutCertificates(ByteView bytes);

}  // namespace vallum::tpm
