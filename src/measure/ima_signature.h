// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "measure/ima_fields.h"

namespace vallum::measure {

inline constexpr size_t kMaxImaKeys = 256;
inline constexpr size_t kMaxImaKeyBytes = size_t{64} << 10U;
inline constexpr size_t kMaxModsigBytes = size_t{64} << 10U;
// Some seconds. A host has some hundred modules, and a list a handful of keys.
inline constexpr size_t kMaxModsigVerifications = 65536;

// First byte of security.ima (integrity.h, enum evm_ima_xattr_type).
enum class ImaSignatureType : uint8_t { kFile = 3, kPortableEvm = 5, kVerity = 6 };

// struct signature_v2_hdr, before the signature in the field `sig`.
struct ImaSignatureHeader {
  ImaSignatureType type = ImaSignatureType::kFile;
  uint8_t version = 2;  // 2 signs the digest, 3 the hash of {type, algorithm, digest}
  ImaHash hash = ImaHash::kSha256;
  uint32_t key_id = 0;
  ByteView signature;  // RSASSA-PKCS1-v1_5, or ECDSA in DER
};

// Errors: kInvalidInput (not such a structure: type, version, algorithm, or a length that is not
// that of the data).
// Source: Linux security/integrity/integrity.h, struct signature_v2_hdr.
Result<ImaSignatureHeader> ParseImaSignature(ByteView field);

enum class ImaSignatureVerdict {
  kGood,
  kBad,         // of a key that is listed, but not of this digest
  kUnknownKey,  // of no key that is listed
  kMalformed,   // or of a kind that does not sign the file's content
};

// How many signatures of messages may still be verified: a message does not say which key it is
// of in a way that all keys have, so that each is tried, and a host chooses how many it lists.
class ModsigBudget {
 public:
  explicit ModsigBudget(size_t verifications = kMaxModsigVerifications) : left_(verifications) {}
  // False when there is none left.
  bool Take() { return left_ > 0 && left_-- > 0; }
  bool spent() const { return left_ == 0; }

 private:
  size_t left_;
};

struct ImaKey;

// Keys that file signatures are verified with. Immutable once filled, cheap to copy; thread-safe
// for reading.
class ImaKeys {
 public:
  // Adds the key of a certificate or a public key, in DER or PEM (all that the text holds).
  // Returns how many were added; a key that is there already counts.
  // Errors: kInvalidInput (neither, or a key that is not RSA or elliptic); kExhausted (above
  // kMaxImaKeys).
  Result<size_t> Add(ByteView key);

  // Adds the key that a kernel loaded: one certificate or public key in DER, and nothing else, as
  // PEM within other data is no key to a kernel. Errors: as Add's.
  Result<void> AddLoaded(ByteView der);

  size_t size() const { return keys_.size(); }
  // As the kernel prints them: "f3452d23".
  std::vector<std::string> KeyIds() const;

  // Verifies a field `sig` over the digest that the same entry has.
  ImaSignatureVerdict Verify(ByteView field, const ImaDigest& digest) const;
  // Verifies a field `modsig` (PKCS#7 without content) over the digest in `d-modsig`.
  //   budget: when it is spent, no key is known to have signed.
  ImaSignatureVerdict VerifyModsig(ByteView field, const ImaDigest& digest,
                                   ModsigBudget& budget) const;

 private:
  Result<void> Keep(std::shared_ptr<const ImaKey> key);
  std::vector<std::shared_ptr<const ImaKey>> keys_;
};

}  // namespace vallum::measure
