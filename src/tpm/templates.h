// SPDX-License-Identifier: Apache-2.0
// Public areas from which the keys are made; for the .cc files of this component.
#pragma once

#include <tss2/tss2_tpm2_types.h>

#include "tpm/host_tpm.h"

namespace vallum::tpm {

// The endorsement key. Source: TCG EK Credential Profile for TPM Family 2.0, B.3.3 (template L-1,
// RSA 2048) and B.3.4 (L-2, ECC P-256).
TPM2B_PUBLIC EndorsementTemplate(KeyKind kind);
// The attestation key, a child of the endorsement key: restricted, so that it signs only what the
// TPM itself made. Not subject to dictionary-attack lockout: it has no password to find.
TPM2B_PUBLIC AttestationTemplate(KeyKind kind);

// Whether a public area, whose key is its own, was made from a template.
bool IsOfTemplate(const TPMT_PUBLIC& area, const TPM2B_PUBLIC& made_from);

}  // namespace vallum::tpm
