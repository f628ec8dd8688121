// SPDX-License-Identifier: Apache-2.0
#include "controller/seal.h"

#include <openssl/evp.h>
#include <openssl/kdf.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "tls/file.h"

namespace vallum::controller {
namespace {

constexpr size_t kKey = 32;
constexpr size_t kMagic = 8;
constexpr size_t kSalt = 32;
constexpr size_t kNonce = 12;
constexpr size_t kTag = 16;
constexpr std::string_view kDeploymentMagic = "VLSEAL1\n";
constexpr std::string_view kPassphraseMagic = "VLPASS1\n";
static_assert(kMagic + kSalt + kNonce + kTag == kSealOverhead);

using Cipher = std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)>;

unsigned char* Raw(std::byte* p) { return reinterpret_cast<unsigned char*>(p); }
const unsigned char* Raw(const std::byte* p) { return reinterpret_cast<const unsigned char*>(p); }

// Derived keys live as long as one seal.
struct Key {
  std::array<std::byte, kKey> bytes{};
  Key() = default;
  ~Key() { Wipe(bytes); }
  Key(const Key&) = delete;
  Key& operator=(const Key&) = delete;
};

Result<void> DeriveFromKey(const SecretBytes& master, ByteView salt, Key& out) {
  const ByteView key = master.Reveal(SecretAccess("deriving the key of a seal"));
  const std::unique_ptr<EVP_PKEY_CTX, decltype(&EVP_PKEY_CTX_free)> context(
      EVP_PKEY_CTX_new_id(EVP_PKEY_HKDF, nullptr), &EVP_PKEY_CTX_free);
  constexpr std::string_view kInfo = "vallum seal 1";
  size_t size = kKey;
  const bool good =
      context != nullptr && EVP_PKEY_derive_init(context.get()) > 0 &&
      EVP_PKEY_CTX_set_hkdf_md(context.get(), EVP_sha256()) > 0 &&
      EVP_PKEY_CTX_set1_hkdf_key(context.get(), Raw(key.data()), static_cast<int>(key.size())) >
          0 &&
      EVP_PKEY_CTX_set1_hkdf_salt(context.get(), Raw(salt.data()), static_cast<int>(salt.size())) >
          0 &&
      EVP_PKEY_CTX_add1_hkdf_info(context.get(), Raw(AsBytes(kInfo).data()),
                                  static_cast<int>(kInfo.size())) > 0 &&
      EVP_PKEY_derive(context.get(), Raw(out.bytes.data()), &size) > 0 && size == kKey;
  return good ? Ok() : Result<void>(Internal("OpenSSL derived no key"));
}

Result<void> DeriveFromPassphrase(const SecretBytes& passphrase, ByteView salt, Key& out) {
  if (passphrase.size() < kMinPassphrase || passphrase.size() > kMaxPassphrase) {
    return InvalidInput("the passphrase has " + std::to_string(passphrase.size()) + " bytes; " +
                        std::to_string(kMinPassphrase) + " to " + std::to_string(kMaxPassphrase) +
                        " are taken")
        .WithFix("write a long random one into the file, such as `openssl rand -base64 24`");
  }
  const std::string_view text =
      AsText(passphrase.Reveal(SecretAccess("deriving a key from a passphrase")));
  constexpr uint64_t kMemory = uint64_t{64} << 20U;
  if (EVP_PBE_scrypt(text.data(), text.size(), Raw(salt.data()), salt.size(),
                     uint64_t{1} << kPassphraseLogN, 8, 1, kMemory, Raw(out.bytes.data()),
                     kKey) != 1) {
    return Internal("OpenSSL derived no key from the passphrase");
  }
  return Ok();
}

// magic, salt, nonce, ciphertext, tag.
Result<Bytes> Encrypt(const Key& key, std::string_view magic, ByteView salt,
                      std::string_view context, ByteView secret) {
  const SecretBytes nonce_bytes = SecretBytes::Random(kNonce);
  const ByteView nonce = nonce_bytes.Reveal(SecretAccess("a nonce, which is no secret"));
  Bytes out(kMagic + kSalt + kNonce + secret.size() + kTag);
  std::ranges::copy(AsBytes(magic), out.begin());
  std::ranges::copy(salt, out.begin() + kMagic);
  std::ranges::copy(nonce, out.begin() + kMagic + kSalt);
  std::byte* const text = out.data() + kMagic + kSalt + kNonce;
  const Cipher cipher(EVP_CIPHER_CTX_new(), &EVP_CIPHER_CTX_free);
  int count = 0;
  const auto size = static_cast<int>(secret.size());
  const bool good =
      cipher != nullptr &&
      EVP_EncryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr, Raw(key.bytes.data()),
                         Raw(nonce.data())) == 1 &&
      EVP_EncryptUpdate(cipher.get(), nullptr, &count, Raw(out.data()), kMagic + kSalt) == 1 &&
      EVP_EncryptUpdate(cipher.get(), nullptr, &count, Raw(AsBytes(context).data()),
                        static_cast<int>(context.size())) == 1 &&
      EVP_EncryptUpdate(cipher.get(), Raw(text), &count, Raw(secret.data()), size) == 1 &&
      EVP_EncryptFinal_ex(cipher.get(), Raw(text) + size, &count) == 1 &&
      EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_GET_TAG, kTag, text + size) == 1;
  if (!good) return Internal("OpenSSL did not encrypt");
  return out;
}

// Nothing: the tag does not fit.
std::optional<SecretBytes> Decrypt(const Key& key, std::string_view context, ByteView sealed) {
  const ByteView nonce = sealed.subspan(kMagic + kSalt, kNonce);
  const ByteView text = sealed.subspan(kMagic + kSalt + kNonce, sealed.size() - kSealOverhead);
  std::array<std::byte, kTag> tag{};
  std::ranges::copy(sealed.last(kTag), tag.begin());
  const Cipher cipher(EVP_CIPHER_CTX_new(), &EVP_CIPHER_CTX_free);
  Bytes out(text.size() + kTag);
  int count = 0;
  const bool good =
      cipher != nullptr &&
      EVP_DecryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr, Raw(key.bytes.data()),
                         Raw(nonce.data())) == 1 &&
      EVP_DecryptUpdate(cipher.get(), nullptr, &count, Raw(sealed.data()), kMagic + kSalt) == 1 &&
      EVP_DecryptUpdate(cipher.get(), nullptr, &count, Raw(AsBytes(context).data()),
                        static_cast<int>(context.size())) == 1 &&
      EVP_DecryptUpdate(cipher.get(), Raw(out.data()), &count, Raw(text.data()),
                        static_cast<int>(text.size())) == 1 &&
      EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_SET_TAG, kTag, tag.data()) == 1 &&
      EVP_DecryptFinal_ex(cipher.get(), Raw(out.data()) + text.size(), &count) == 1;
  if (!good) {
    Wipe(out);
    return std::nullopt;
  }
  std::optional<SecretBytes> secret(SecretBytes(ByteView(out).first(text.size())));
  Wipe(out);
  return secret;
}

bool HasShape(ByteView sealed, std::string_view magic) {
  return sealed.size() >= kSealOverhead && AsText(sealed.first(kMagic)) == magic;
}

}  // namespace

Result<Sealer> Sealer::LoadOrCreate(const std::filesystem::path& path) {
  Result<SecretBytes> key = tls::ReadSecretFile(path, kKey + 1);
  if (!key.has_value() && key.error().code() == ErrorCode::kNotFound) {
    key = SecretBytes::Random(kKey);
    RETURN_IF_ERROR(tls::WriteFileAtomically(
        path, key->Reveal(SecretAccess("storing the deployment's sealing key")), 0600));
  }
  if (!key.has_value()) return std::move(key).error().Context("reading the sealing key");
  if (key->size() != kKey) {
    return Corrupt("the sealing key " + path.string() + " has " + std::to_string(key->size()) +
                   " bytes, not 32")
        .WithFix("restore it from a backup: without it no snapshot's vTPM can be read");
  }
  return Sealer(*std::move(key));
}

Result<Bytes> Sealer::Seal(ByteView secret, std::string_view context) const {
  const SecretBytes salt_bytes = SecretBytes::Random(kSalt);
  const ByteView salt = salt_bytes.Reveal(SecretAccess("a salt, which is no secret"));
  Key key;
  RETURN_IF_ERROR(DeriveFromKey(key_, salt, key));
  return Encrypt(key, kDeploymentMagic, salt, context, secret);
}

Result<SecretBytes> Sealer::Open(ByteView sealed, std::string_view context) const {
  if (HasShape(sealed, kDeploymentMagic)) {
    Key key;
    RETURN_IF_ERROR(DeriveFromKey(key_, sealed.subspan(kMagic, kSalt), key));
    if (auto secret = Decrypt(key, context, sealed); secret.has_value()) return *std::move(secret);
  }
  return Corrupt("the sealed content of " + Printable(context, 80) +
                 " was not sealed by this deployment, belongs to something else or was changed")
      .WithFix("restore the blob and the controller's seal.key from the same backup");
}

Result<Bytes> SealWithPassphrase(ByteView secret, const SecretBytes& passphrase) {
  const SecretBytes salt_bytes = SecretBytes::Random(kSalt);
  const ByteView salt = salt_bytes.Reveal(SecretAccess("a salt, which is no secret"));
  Key key;
  RETURN_IF_ERROR(DeriveFromPassphrase(passphrase, salt, key));
  return Encrypt(key, kPassphraseMagic, salt, {}, secret);
}

Result<SecretBytes> OpenWithPassphrase(ByteView sealed, const SecretBytes& passphrase) {
  if (!HasShape(sealed, kPassphraseMagic)) {
    return InvalidInput("this is no content sealed under a passphrase")
        .WithFix("export it again with --tpm copy");
  }
  Key key;
  RETURN_IF_ERROR(DeriveFromPassphrase(passphrase, sealed.subspan(kMagic, kSalt), key));
  if (auto secret = Decrypt(key, {}, sealed); secret.has_value()) return *std::move(secret);
  return Denied("the passphrase is wrong, or the file was changed")
      .WithFix("give the passphrase that it was exported with");
}

}  // namespace vallum::controller
