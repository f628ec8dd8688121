// SPDX-License-Identifier: Apache-2.0
#include "formats/luks.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "base/units.h"
#include "formats/fields.h"
#include "formats/luks_checks.h"
#include "formats/reader.h"

namespace vallum::formats {
namespace {

constexpr std::array kBlockCiphers = {"aes", "camellia", "serpent", "twofish"};
constexpr std::array kXtsModes = {"xts-plain64", "xts-plain", "xts-essiv:sha256"};
constexpr std::array kCbcModes = {"cbc-essiv:sha256", "cbc-plain64", "cbc-plain"};
constexpr std::array kWholeNames = {"xchacha12,aes-adiantum-plain64",
                                    "xchacha20,aes-adiantum-plain64"};
constexpr std::array kHashes = {"sha1",        "sha224",      "sha256",     "sha384",   "sha512",
                                "ripemd160",   "whirlpool",   "sha3-256",   "sha3-384", "sha3-512",
                                "blake2b-256", "blake2b-512", "blake2s-256"};

bool Contains(const auto& names, const auto& name) {
  return std::ranges::any_of(names, [&](const auto& known) { return known == name; });
}

// The key sizes in bytes that a cipher has, empty when it is not known.
std::vector<uint64_t> KeySizes(std::string_view cipher) {
  if (Contains(kWholeNames, cipher)) return {32};
  const size_t dash = cipher.find('-');
  if (dash == std::string_view::npos || !Contains(kBlockCiphers, cipher.substr(0, dash))) return {};
  const std::string_view mode = cipher.substr(dash + 1);
  if (Contains(kXtsModes, mode)) return {32, 64};
  if (Contains(kCbcModes, mode)) return {16, 24, 32};
  return {};
}

std::string CostText(const LuksKdfCost& cost) {
  if (cost.kdf == LuksKdf::kPbkdf2) {
    return fmt::format("pbkdf2 with {}, {} iterations", cost.hash, cost.iterations);
  }
  return fmt::format("{}, {} passes over {}, {} threads", LuksKdfName(cost.kdf), cost.iterations,
                     FormatByteCount(ByteCount::KiB(cost.memory_kib)), cost.cpus);
}

Result<void> CheckArgon2(const LuksKdfCost& cost, std::string_view where) {
  // RFC 9106, 3.1: at least 8 KiB for each lane.
  if (cost.cpus == 0 || cost.cpus > kLuksMaxArgon2Cpus ||
      cost.memory_kib < 8 * uint64_t{cost.cpus} || cost.memory_kib > kLuksMaxArgon2MemoryKib) {
    return LuksRefused(fmt::format(
        "{} asks for {} KiB and {} threads: outside the KDF budget of {} KiB and {}", where,
        cost.memory_kib, cost.cpus, kLuksMaxArgon2MemoryKib, kLuksMaxArgon2Cpus));
  }
  if (cost.iterations == 0 || uint64_t{cost.iterations} * cost.memory_kib > kLuksMaxArgon2WorkKib) {
    return LuksRefused(
        fmt::format("{} asks for {} passes over {} KiB: outside the KDF budget of {} KiB in all",
                    where, cost.iterations, cost.memory_kib, kLuksMaxArgon2WorkKib));
  }
  return Ok();
}

}  // namespace

Error LuksRefused(std::string message) {
  return InvalidInput("LUKS: " + std::move(message))
      .WithFix(
          "look at it where it came from (cryptsetup luksDump <image>), or format it anew: "
          "cryptsetup luksFormat");
}

std::string_view LuksKdfName(LuksKdf kdf) {
  switch (kdf) {
    case LuksKdf::kPbkdf2:
      return "pbkdf2";
    case LuksKdf::kArgon2i:
      return "argon2i";
    case LuksKdf::kArgon2id:
      return "argon2id";
  }
  return "unknown";
}

Result<void> CheckLuksCipher(std::string_view cipher, uint64_t key_bytes, std::string_view where) {
  if (cipher.find("null") != std::string_view::npos) {
    return LuksRefused(
        fmt::format("{} is \"{}\": that is no encryption at all", where, Printable(cipher, 60)));
  }
  const std::vector<uint64_t> sizes = KeySizes(cipher);
  if (sizes.empty()) {
    return LuksRefused(
        fmt::format("{} is \"{}\", an unknown cipher", where, Printable(cipher, 60)));
  }
  if (!Contains(sizes, key_bytes)) {
    return LuksRefused(fmt::format("{} is {} with a key of {} bytes, which it does not have", where,
                                   cipher, key_bytes));
  }
  return Ok();
}

Result<void> CheckLuksHash(std::string_view hash, std::string_view where) {
  if (Contains(kHashes, hash)) return Ok();
  return LuksRefused(fmt::format("{} is \"{}\", an unknown hash", where, Printable(hash, 40)));
}

Result<void> CheckLuksCost(const LuksKdfCost& cost, std::string_view where) {
  if (cost.kdf != LuksKdf::kPbkdf2) return CheckArgon2(cost, where);
  if (cost.iterations < kLuksMinPbkdf2Iterations || cost.iterations > kLuksMaxPbkdf2Iterations) {
    return LuksRefused(fmt::format("{} asks for {} iterations: outside the KDF budget of {} to {}",
                                   where, cost.iterations, kLuksMinPbkdf2Iterations,
                                   kLuksMaxPbkdf2Iterations));
  }
  return CheckLuksHash(cost.hash, where);
}

Result<void> CheckLuksDigestIterations(uint64_t iterations, std::string_view where) {
  if (iterations >= 1 && iterations <= kLuksMaxPbkdf2Iterations) return Ok();
  return LuksRefused(fmt::format("{} asks for {} iterations: outside the KDF budget of 1 to {}",
                                 where, iterations, kLuksMaxPbkdf2Iterations));
}

Result<void> CheckLuksUuid(std::string_view uuid) {
  constexpr std::string_view kForm = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
  const bool good = std::ranges::equal(uuid, kForm, [](char c, char form) {
    const bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
    return form == '-' ? c == '-' : hex;
  });
  if (good) return Ok();
  return LuksRefused(
      fmt::format("the UUID at offset 168 is \"{}\", not in the form {}", Printable(uuid), kForm));
}

Result<std::string> LuksText(ByteView header, size_t offset, size_t size, std::string_view where) {
  const std::string_view field = AsText(header.subspan(offset, size));
  const size_t end = field.find('\0');
  if (end == std::string_view::npos) {
    return LuksRefused(
        fmt::format("{} at offset {} does not end inside its {} bytes", where, offset, size));
  }
  return std::string(field.substr(0, end));
}

void DescribeLuks(LuksHeader& h) {
  h.facts.push_back(fmt::format(
      "LUKS{}: {} with a key of {} bits, {} of data in sectors of {} bytes from offset {}",
      h.version, h.cipher, h.key_bits, FormatByteCount(ByteCount::Bytes(h.payload_size)),
      h.sector_size, h.payload_offset));
  for (const LuksKeySlot& slot : h.key_slots) {
    h.facts.push_back(fmt::format("key slot {}: {}", slot.number, CostText(slot.cost)));
  }
}

Result<LuksHeader> ParseLuks(const RandomAccessReader& image) {
  ASSIGN_OR_RETURN(const Bytes head, ReadUpTo(image, 0, kLuksMagic.size() + 2));
  if (HasText(head, 0, kLuksMagic)) {
    if (head.size() < kLuksMagic.size() + 2) return LuksRefused("truncated: no version");
    const uint16_t version = U16Be(head, kLuksMagic.size());
    if (version == 1) return ParseLuks1(image);
    if (version == 2) return ParseLuks2(image);
    return LuksRefused(fmt::format("unknown version {} at offset 6", version));
  }
  ASSIGN_OR_RETURN(const std::optional<uint64_t> secondary, FindLuks2Secondary(image));
  if (secondary.has_value()) return ParseLuks2(image);
  return LuksRefused("no magic at offset 0, nor that of a secondary header where one can be");
}

Result<void> RequireLuks1(const LuksHeader& header) {
  if (header.version == 1) return Ok();
  return InvalidInput(
             fmt::format("LUKS: version {}, but only version 1 can be used here: QEMU opens no "
                         "other",
                         header.version))
      .WithFix(
          "convert it where it came from: cryptsetup convert --type luks1 <image> (its key slots "
          "must use PBKDF2, its sectors have 512 bytes), or format it anew: cryptsetup luksFormat "
          "--type luks1");
}

}  // namespace vallum::formats
