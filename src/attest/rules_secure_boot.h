// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "attest/policy.h"
#include "attest/reason.h"
#include "base/bytes.h"
#include "base/digest.h"
#include "firmware/signature_list.h"
#include "measure/event_log.h"

namespace vallum::attest {

// By what a policy names an entry of PK, KEK, db or dbx: the SHA-256 of a certificate, or the
// digest that the entry is.
Bytes KeyName(const firmware::Signature& key);

// By what a policy names the key of an authority event: the data of an EFI_SIGNATURE_DATA behind
// its owner, or of a certificate that shim logged as it is.
//   data: of the variable event. Two names, of which one is meant.
struct SignerNames {
  Bytes certificate;  // SHA-256 of the data behind the owner
  Bytes bare;         // SHA-256 of all of it
};
SignerNames NamesOfSigner(ByteView data);

// The one of them, or the digest behind the owner, that a policy is to list.
//   variable: the event's, such as "db".
Bytes NameOfSigner(std::string_view variable, ByteView data);

// Judges PCR 7, of which the log is proven.
void JudgeSecureBoot(const SecureBootRule& rule, const measure::EventLog& log, HashAlgorithm bank,
                     Reasons& reasons);

}  // namespace vallum::attest
