// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"
#include "measure/ima_fields.h"

namespace vallum::measure {

// What Linux' Integrity Measurement Architecture says that it measured. As with firmware's log,
// nothing in it is evidence until it replays to a PCR that a TPM vouches for (ima_replay.h).

inline constexpr uint32_t kImaPcr = 10;
inline constexpr size_t kMaxImaLogSize = size_t{64} << 20U;
inline constexpr size_t kMaxImaEntries = size_t{1} << 19U;
inline constexpr size_t kMaxImaTemplateData = size_t{1} << 20U;
inline constexpr size_t kMaxImaFormats = 64;

enum class ImaLogForm { kBinary, kAscii };

// The size of the template hashes: SHA-1 in binary_runtime_measurements, another bank's in
// binary_runtime_measurements_sha256 and its like. A binary log does not say it.
enum class ImaTemplateHash { kDetect, kSha1, kSha256, kSha384, kSha512 };

// One measurement. The views are into the log that was parsed, or into ImaLog.
struct ImaEntry {
  uint32_t pcr = kImaPcr;
  uint16_t format = 0;  // see ImaLog::FormatOf
  // The kernel could not vouch for what was measured (a file open for writing, or changed while
  // read): the template hash is all zeros and 0xFF..FF was extended.
  bool violation = false;
  ImaDigest digest;  // empty when the template has none
  ByteView template_hash;
  ByteView template_data;  // as in the binary log
  std::string_view path;   // or the name of a buffer; empty when the template has none
};

// A parsed log, or the part of one that is new. Moves, and its views with it. Immutable;
// thread-safe.
class ImaLog {
 public:
  // Parses either form, which the bytes tell: layout alone, nothing is believed.
  //   log: binary_runtime_measurements or ascii_runtime_measurements, from any entry on; x86's
  //   byte order; untrusted; must outlive the result. Empty for a log without entries.
  // Errors: kInvalidInput (no such log); kCorrupt (entry and offset, and what is wrong);
  // kExhausted (a limit above).
  // Source: Linux security/integrity/ima/ima_fs.c and ima_template_lib.c.
  static Result<ImaLog> Parse(ByteView log, ImaTemplateHash template_hash);

  ImaLogForm form() const { return form_; }
  // Bytes of a template hash; 0 in an empty log.
  size_t template_hash_size() const { return template_hash_size_; }
  std::span<const ImaEntry> entries() const { return entries_; }
  // Bytes up to the end of the last entry, and those of an incomplete one that comes after.
  size_t size() const { return size_; }
  size_t tail_size() const { return tail_size_; }

  const ImaFormat& FormatOf(const ImaEntry& entry) const { return formats_[entry.format]; }
  // The content of a field; empty when the entry's template lacks it or it is empty.
  ByteView FieldOf(const ImaEntry& entry, ImaField field) const;

 private:
  friend class ImaLogParser;
  ImaLog() = default;

  ImaLogForm form_ = ImaLogForm::kBinary;
  size_t template_hash_size_ = 0;
  std::vector<ImaEntry> entries_;
  std::vector<ImaFormat> formats_;
  // What the ASCII form says, in the binary one.
  std::vector<std::unique_ptr<std::byte[]>> encoded_;
  size_t size_ = 0;
  size_t tail_size_ = 0;
};

}  // namespace vallum::measure
