// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"

namespace vallum::measure {

// TEMPLATE_NUM_FIELDS_MAX of the kernel.
inline constexpr size_t kMaxImaFields = 15;
inline constexpr size_t kMaxImaFormatName = 255;
// PATH_MAX is 4096; the kernel adds a few words such as " (deleted)".
inline constexpr size_t kMaxImaPath = 8192;
// A name of template "ima" with the zeros that are hashed after it.
inline constexpr size_t kImaLegacyNameSize = 256;
inline constexpr size_t kMaxImaDigest = 64;

// The kernel's enum hash_algo (include/uapi/linux/hash_info.h): file signatures carry the number,
// digests the name.
enum class ImaHash : uint8_t {
  kMd4 = 0,
  kMd5 = 1,
  kSha1 = 2,
  kRipemd160 = 3,
  kSha256 = 4,
  kSha384 = 5,
  kSha512 = 6,
  kSha224 = 7,
  kRipemd128 = 8,
  kRipemd256 = 9,
  kRipemd320 = 10,
  kWhirlpool256 = 11,
  kWhirlpool384 = 12,
  kWhirlpool512 = 13,
  kTiger128 = 14,
  kTiger160 = 15,
  kTiger192 = 16,
  kSm3 = 17,
  kStreebog256 = 18,
  kStreebog512 = 19,
  kSha3With256 = 20,
  kSha3With384 = 21,
  kSha3With512 = 22,
};

// "sha256", "rmd160", "sha3-256", ...
std::string_view ImaHashName(ImaHash hash);
size_t ImaHashSize(ImaHash hash);
std::optional<ImaHash> ImaHashFromName(std::string_view name);
std::optional<ImaHash> ImaHashFromNumber(uint8_t number);

// What a template is made of (ima_template.c, supported_fields).
enum class ImaField : uint8_t {
  kDigest,        // d: SHA-1 or MD5, no name
  kName,          // n: at most 255 bytes
  kDigestNg,      // d-ng: "sha256:", zero, digest
  kDigestNgv2,    // d-ngv2: "ima:sha256:" or "verity:sha256:", zero, digest
  kNameNg,        // n-ng
  kSignature,     // sig: security.ima
  kBuffer,        // buf
  kModsigDigest,  // d-modsig: as d-ng; of the file without its appended signature
  kModsig,        // modsig: PKCS#7
  kEvmSignature,  // evmsig: security.evm
  kUid,           // iuid
  kGid,           // igid
  kMode,          // imode
  kXattrNames,    // xattrnames: "security.selinux|security.ima"
  kXattrLengths,  // xattrlengths
  kXattrValues,   // xattrvalues
};

// A template: its name, as logged, and its fields. The kernel logs the list of fields as the name
// of a template that has none.
struct ImaFormat {
  std::string name;
  std::vector<ImaField> fields;
  // The first template, "ima", is laid out and hashed in a way of its own: no lengths, and the
  // name padded with zeros to 256 bytes.
  bool is_ima = false;
};

// The formats that the kernel has a name for; "ima" is the first.
const std::vector<ImaFormat>& BuiltinImaFormats();
// Errors: kInvalidInput (neither a name of the above nor a list of fields, divided by '|').
Result<ImaFormat> ImaFormatFromName(std::string_view name);

// What kind of digest d-ngv2 names; the older fields can only be of the first.
enum class ImaDigestType : uint8_t { kFile, kVerity };

struct ImaDigest {
  ImaDigestType type = ImaDigestType::kFile;
  ImaHash hash = ImaHash::kSha1;
  ByteView bytes;
};

// Reads d, d-ng, d-ngv2 or d-modsig as in the binary log, without the length before it.
// Errors: kCorrupt (algorithm unknown, not of its size, no zero after the colon).
// Source: Linux security/integrity/ima/ima_template_lib.c, ima_eventdigest_init_common.
Result<ImaDigest> ParseImaDigest(ImaField field, ByteView data);

// "sha256:0123...", "verity:sha256:0123...".
std::string DescribeImaDigest(const ImaDigest& digest);

}  // namespace vallum::measure
