// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"

namespace vallum::attest {

inline constexpr size_t kMaxPcrlockText = size_t{4} << 20U;
inline constexpr size_t kMaxPcrlockRecords = 4096;  // in a file
inline constexpr size_t kMaxReferenceComponents = 512;
inline constexpr size_t kMaxReferenceVariants = 256;   // of a component
inline constexpr size_t kMaxReferenceRecords = 65536;  // of a whole policy

struct BankDigest {
  HashAlgorithm bank = HashAlgorithm::kSha256;
  Bytes digest;
  bool operator==(const BankDigest&) const = default;
};

// One measurement that is to be expected: a digest in each bank that is known.
struct ReferenceRecord {
  uint32_t pcr = 0;
  std::vector<BankDigest> digests;
  bool operator==(const ReferenceRecord&) const = default;
};

// Parses a .pcrlock file: the records of one variant of one component, in order.
//   text: {"records": [{"pcr": 4, "digests": [{"hashAlg": "sha256", "digest": HEX}]}]}; "recnum",
//   "content" and "content_type" of a full TCG CEL-JSON log are passed over, as systemd does;
//   digests of banks that Vallum does not compute are, too. Untrusted.
// Errors: kInvalidInput (not JSON, another member, a digest of another size, past a limit).
// Source: systemd.pcrlock(5); TCG Canonical Event Log Format 1.0, section 5 (CEL-JSON).
Result<std::vector<ReferenceRecord>> ParsePcrlock(std::string_view text);

// One of the forms that a component may take, such as one of two kernels.
struct ReferenceVariant {
  std::string name;
  std::vector<ReferenceRecord> records;
  bool operator==(const ReferenceVariant&) const = default;
};

// A step of the boot. A boot shows exactly one variant of each, in the order of the files.
struct ReferenceComponent {
  std::string name;
  std::vector<ReferenceVariant> variants;
  bool operator==(const ReferenceComponent&) const = default;
};

// A file of pcrlock.d: its path below the folder.
struct PcrlockFile {
  std::string path;  // "630-shim.pcrlock.d/15.8.pcrlock", "650-kernel.pcrlock"
  std::string text;
};

// Puts the files of a pcrlock.d folder together: X.pcrlock is a component of one variant,
// X.pcrlock.d/Y.pcrlock is the variant Y of component X; an empty file is as good as none.
// Errors: kInvalidInput (a path of another form; those of ParsePcrlock with the path), kExhausted
// (a limit above).
Result<std::vector<ReferenceComponent>> ReadPcrlockFolder(std::span<const PcrlockFile> files);

// How far a PCR's measurements are explained.
struct ReferenceMatch {
  bool complete = false;
  size_t explained = 0;   // measurements, of the longest explanation
  std::string component;  // which one did not fit then; empty when all did and events are left
};

// Whether the measurements of a PCR are those of one variant of each component, in order, with
// nothing between and nothing left. A variant without records of the PCR takes none.
//   digests: of one bank, in order. Time is bounded by measurements x records.
ReferenceMatch MatchReference(std::span<const ReferenceComponent> components, uint32_t pcr,
                              HashAlgorithm bank, std::span<const ByteView> digests);

}  // namespace vallum::attest
