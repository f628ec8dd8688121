// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <filesystem>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "base/secret_bytes.h"

// docs/snapshots.md, "What is sealed", mirrors these constants.
namespace vallum::controller {

inline constexpr size_t kSealOverhead = 8 + 32 + 12 + 16;  // magic, salt, nonce, tag
inline constexpr unsigned kPassphraseLogN = 15;  // scrypt with N = 2^15, r = 8, p = 1: 32 MiB
inline constexpr size_t kMinPassphrase = 8;      // bytes
inline constexpr size_t kMaxPassphrase = 1024;

// Keeps what the controller must not have in clear on its disk. Each seal has a key of its own,
// derived (HKDF-SHA256, a fresh salt of 32 bytes) from the deployment's, and is AES-256-GCM over
// the content with magic, salt and context authenticated. Thread-safe.
class Sealer {
 public:
  // Reads the deployment's key, or makes it (32 random bytes, mode 0600) if there is none.
  // Errors: kDenied (others may read it), kCorrupt (another length), those of the file.
  static Result<Sealer> LoadOrCreate(const std::filesystem::path& path);

  //   context: what it belongs to, such as a uid: must be given again to open it.
  Result<Bytes> Seal(ByteView secret, std::string_view context) const;
  // Errors: kCorrupt (not sealed by this deployment, for something else, or changed).
  Result<SecretBytes> Open(ByteView sealed, std::string_view context) const;

 private:
  explicit Sealer(SecretBytes key) : key_(std::move(key)) {}
  SecretBytes key_;
};

// The same for what leaves the deployment: the key is scrypt of the passphrase.
//   passphrase: kMinPassphrase to kMaxPassphrase bytes, else kInvalidInput.
// Blocks for about 0.1 s.
Result<Bytes> SealWithPassphrase(ByteView secret, const SecretBytes& passphrase);
//   sealed: untrusted. Errors: kInvalidInput (no such file), kDenied (wrong passphrase, or
//   changed).
Result<SecretBytes> OpenWithPassphrase(ByteView sealed, const SecretBytes& passphrase);

}  // namespace vallum::controller
