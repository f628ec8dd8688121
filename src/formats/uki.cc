// SPDX-License-Identifier: Apache-2.0
#include "formats/uki.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "formats/bzimage.h"
#include "formats/cpio.h"
#include "formats/pe.h"
#include "formats/reader.h"

namespace vallum::formats {
namespace {

constexpr uint32_t kNever = UINT32_MAX;

struct KnownSection {
  std::string_view name;
  uint32_t measured_since;  // version of systemd-stub
};

// In the order in which they are measured; versions have only ever put new ones in between.
// .pcrsig signs the result, so it cannot be part of it.
constexpr auto kKnown = std::to_array<KnownSection>({
    {".linux", kUkiFirstStub},
    {".osrel", kUkiFirstStub},
    {".cmdline", kUkiFirstStub},
    {".initrd", kUkiFirstStub},
    {".ucode", 256},
    {".splash", kUkiFirstStub},
    {".dtb", kUkiFirstStub},
    {".uname", 254},
    {".sbat", 254},
    {".pcrsig", kNever},
    {".pcrpkey", kUkiFirstStub},
});

// Which of these is used, and so measured, depends on the machine and on what is chosen at boot.
constexpr auto kChosenAtBoot =
    std::to_array<std::string_view>({".profile", ".dtbauto", ".hwids", ".efifw"});

Error Refused(const std::string& message) {
  return InvalidInput("UKI: " + message)
      .WithFix("make it with ukify or objcopy from systemd's stub, one section of each name");
}

Error Contradiction(const std::string& message) {
  return Corrupt("UKI: inconsistent: " + message)
      .WithFix("make it with ukify, which places sections so that they do not overlap");
}

std::string_view KnownName(std::string_view name) {
  for (const KnownSection& known : kKnown) {
    if (known.name == name) return known.name;
  }
  for (const std::string_view chosen : kChosenAtBoot) {
    if (chosen == name) return chosen;
  }
  return {};
}

struct Range {
  uint64_t from;
  uint64_t size;
  const std::string* name;
};

Result<void> CheckDisjoint(std::vector<Range> ranges, std::string_view where) {
  std::ranges::sort(ranges, {}, &Range::from);
  for (size_t i = 1; i < ranges.size(); ++i) {
    const Range& before = ranges[i - 1];
    if (before.from + before.size > ranges[i].from) {
      return Contradiction(fmt::format("sections {} and {} overlap in {} at {:#x}",
                                       Printable(*before.name), Printable(*ranges[i].name), where,
                                       ranges[i].from));
    }
  }
  return Ok();
}

// The stub reads what the firmware loaded, at virtual addresses: were these to overlap, it would
// not find there what the file says.
Result<void> CheckLayout(const PeImage& pe) {
  std::vector<Range> raw;
  std::vector<Range> memory;
  for (const PeSection& s : pe.sections()) {
    if (s.raw_size != 0) raw.push_back({s.raw_offset, s.raw_size, &s.name});
    if (s.virtual_size != 0) memory.push_back({s.virtual_address, s.virtual_size, &s.name});
  }
  RETURN_IF_ERROR(CheckDisjoint(std::move(raw), "the file"));
  return CheckDisjoint(std::move(memory), "memory");
}

Result<void> AddSection(const PeImage& pe, const PeSection& s, Uki& out) {
  const std::string_view name = KnownName(s.name);
  if (name.empty() || (s.virtual_size == 0 && s.raw_size == 0)) return Ok();
  // With several profiles, sections repeat.
  if (out.Find(name) != nullptr) {
    return Refused(
        fmt::format("two sections {}; several profiles or devices are not accepted", name));
  }
  if (s.virtual_size == 0 || s.virtual_size > s.raw_size) {
    return Contradiction(fmt::format("section {} has {} bytes in memory and {} in the file", name,
                                     s.virtual_size, s.raw_size));
  }
  const std::optional<ByteView> content = pe.Section(s.name);
  if (content.has_value()) out.sections.push_back({name, *content});
  return Ok();
}

Result<std::string> Text(const Uki& uki, std::string_view name) {
  const UkiSection* section = uki.Find(name);
  if (section == nullptr) return std::string();
  if (section->content.size() > kUkiMaxText) {
    return Refused(fmt::format("section {} of {} bytes; text of at most {} is accepted", name,
                               section->content.size(), kUkiMaxText));
  }
  std::string_view text = AsText(section->content);
  text = text.substr(0, text.find('\0'));
  return Printable(text, kUkiMaxText);
}

// "#### LoaderInfo: systemd-stub 252.39-1~deb12u2 ####"
uint32_t StubVersion(const PeImage& pe) {
  constexpr std::string_view kMark = "LoaderInfo: systemd-stub ";
  const std::optional<ByteView> section = pe.Section(".sdmagic");
  if (!section.has_value()) return 0;
  const std::string_view text = AsText(*section);
  const size_t at = text.find(kMark);
  if (at == std::string_view::npos) return 0;
  uint32_t version = 0;
  const char* from = text.data() + at + kMark.size();
  const auto [end, error] = std::from_chars(from, text.data() + text.size(), version);
  return error == std::errc() ? version : 0;
}

}  // namespace

const UkiSection* Uki::Find(std::string_view name) const {
  const auto it = std::ranges::find(sections, name, &UkiSection::name);
  return it == sections.end() ? nullptr : &*it;
}

bool IsUki(const PeImage& pe) {
  return pe.Section(".linux").has_value() &&
         (pe.Section(".osrel").has_value() || pe.Section(".cmdline").has_value());
}

Result<Uki> ParseUki(const PeImage& pe) {
  if (!IsUki(pe)) return Refused("no section .linux with one of .osrel and .cmdline");
  RETURN_IF_ERROR(CheckLayout(pe));
  Uki out;
  for (const PeSection& s : pe.sections()) {
    RETURN_IF_ERROR(AddSection(pe, s, out));
  }
  const UkiSection* kernel = out.Find(".linux");
  if (kernel == nullptr) return Refused("section .linux is empty");
  ASSIGN_OR_RETURN_CONTEXT(out.kernel, ParseBzImage(kernel->content), "section .linux of the UKI");
  if (const UkiSection* initrd = out.Find(".initrd"); initrd != nullptr) {
    ASSIGN_OR_RETURN_CONTEXT(out.initrd, CheckInitrd(MemoryReader(initrd->content)),
                             "section .initrd of the UKI");
  }
  if (const UkiSection* ucode = out.Find(".ucode"); ucode != nullptr) {
    RETURN_IF_ERROR(CheckInitrd(MemoryReader(ucode->content))).context("section .ucode of the UKI");
  }
  ASSIGN_OR_RETURN(out.command_line, Text(out, ".cmdline"));
  ASSIGN_OR_RETURN(out.os_release, Text(out, ".osrel"));
  ASSIGN_OR_RETURN(out.uname, Text(out, ".uname"));
  RETURN_IF_ERROR(Text(out, ".sbat"));
  out.stub_version = StubVersion(pe);
  return out;
}

Result<std::vector<UkiSection>> UkiMeasurements(const Uki& uki) {
  if (uki.stub_version < kUkiFirstStub) {
    return NotFound(
        fmt::format("UKI: its stub is not systemd-stub {} or later, so what it "
                    "measures into PCR 11 is not known",
                    kUkiFirstStub));
  }
  for (const std::string_view chosen : kChosenAtBoot) {
    if (uki.Find(chosen) != nullptr) {
      return Refused(
          fmt::format("section {} is chosen at boot, so PCR 11 cannot be predicted", chosen));
    }
  }
  std::vector<UkiSection> out;
  for (const KnownSection& known : kKnown) {
    const UkiSection* section = uki.Find(known.name);
    if (section != nullptr && uki.stub_version >= known.measured_since) out.push_back(*section);
  }
  return out;
}

}  // namespace vallum::formats
