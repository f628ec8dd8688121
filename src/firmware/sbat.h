// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

// SBAT: programs name their components and generations, and a revocation level names the
// generations below which shim starts none (shim SBAT.md).
namespace vallum::firmware {

inline constexpr size_t kMaxSbatBytes = size_t{64} << 10U;
inline constexpr size_t kMaxSbatRows = 256;
inline constexpr uint32_t kMaxSbatGeneration = 65535;  // shim keeps 16 bits of it

// One row of a program's section .sbat.
struct SbatComponent {
  std::string name;
  uint32_t generation = 0;
  std::string vendor;
  std::string package;
  std::string version;
  std::string url;
};
//   section: the PE section .sbat with its padding; untrusted.
// Errors: kInvalidInput (no rows; a row with less than six fields, an empty field, or a generation
// that is no number of 0..65535); kExhausted (limits above).
// Source: shim sbat.c, parse_sbat_section; csv.c. shim takes an unreadable generation for another
// number; it is refused here.
Result<std::vector<SbatComponent>> ParseSbat(ByteView section);

// One row of a revocation level: programs of this component need this generation at least.
struct SbatRevocation {
  std::string name;
  uint32_t generation = 0;
};
struct SbatLevel {
  std::string datestamp;                    // "2025021800": of the first row, "sbat,1,2025021800"
  std::vector<SbatRevocation> revocations;  // with the first row
};
// Parses the value of the variable SbatLevel, or one that shim carries in .sbatlevel.
//   text: may end with zeros; untrusted.
// Errors: kInvalidInput (does not begin with "sbat,<number>,<10 digits>"; a row with less than two
// fields or an unreadable generation); kExhausted (limits above).
// Source: shim sbat.c, parse_sbat_var_data.
Result<SbatLevel> ParseSbatLevel(std::string_view text);

// Which of its own levels shim wants: as the variable SbatPolicy says, kAutomatic without it.
enum class SbatPolicy { kAutomatic, kLatest };
// The level in force once shim has run with Secure Boot on: the variable, unless the candidate has
// a later datestamp.
//   variable: the value of SbatLevel, "" when there is none.
//   built_in: ParseSbatLevelSection of this shim: automatic first, then latest; empty for a shim
//   without the section.
// Returns the text to parse; "" when there is no level at all.
// Errors: kInvalidInput (the candidate is no level).
// Source: shim sbat.c, set_sbat_uefi_variable and preserve_sbat_uefi_variable.
Result<std::string> AppliedSbatLevel(std::string_view variable, std::span<const Bytes> built_in,
                                     SbatPolicy policy);

// shim demands the section of what it loads itself (GRUB, and shim of itself); a kernel that GRUB
// hands it to verify may lack it.
enum class SbatNeed { kRequired, kOptional };

struct SbatVerdict {
  bool allowed = false;
  std::vector<std::string> reasons;  // why not, and what would make it yes
};
//   section: of the image's PE section .sbat; nothing when it has none. Untrusted.
// Source: shim pe.c, verify_sbat_section; sbat.c, verify_sbat_helper.
SbatVerdict CheckSbat(std::optional<ByteView> section, const SbatLevel& level, SbatNeed need);

}  // namespace vallum::firmware
