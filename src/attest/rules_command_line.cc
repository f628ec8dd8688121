// SPDX-License-Identifier: Apache-2.0
#include "attest/rules_command_line.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/text.h"
#include "measure/event_data.h"

namespace vallum::attest {
namespace {

constexpr std::string_view kBootImage = "BOOT_IMAGE=";
constexpr std::string_view kModuleCommandLine = "module_cmdline";
constexpr std::array<std::string_view, 3> kLinuxCommands = {"linux", "linux16", "linuxefi"};

bool IsFile(std::string_view text) { return text.starts_with('/') || text.starts_with('('); }

// COMMAND_LINE_SIZE less the closing zero and what GRUB puts before the line.
constexpr size_t kMaxLine = 2047 - kBootImage.size();
// What the kernel's isspace() knows: Latin-1's 0xA0, too.
constexpr std::string_view kSpaces = " \t\n\v\f\r\xa0";

// The words as they are written.
std::vector<std::string_view> Words(std::string_view line) {
  std::vector<std::string_view> out;
  line = line.substr(0, line.find('\0'));
  bool quoted = false;
  size_t begin = 0;
  for (size_t i = 0; i <= line.size(); ++i) {
    const bool end = i == line.size() || (!quoted && kSpaces.find(line[i]) != kSpaces.npos);
    if (end && i > begin) out.push_back(line.substr(begin, i - begin));
    if (end) begin = i + 1;
    if (i < line.size() && line[i] == '"') quoted = !quoted;
  }
  return out;
}

// As next_arg takes quotes away: at the beginning and the end of the word, or of the value.
std::string Unquoted(std::string_view word) {
  const bool whole = word.starts_with('"');
  if (whole) word.remove_prefix(1);
  std::string out(word);
  const size_t value = word.find('=', 1) + 1;
  const bool quoted = value > 0 && word.substr(value).starts_with('"');
  if ((whole || quoted) && out.ends_with('"')) out.pop_back();
  if (quoted && out.size() > value) out.erase(value, 1);
  return out;
}

// Whether quotes are around the word, around its value, or absent.
bool IsPlainlyQuoted(std::string_view word) {
  const size_t first = word.find('"');
  if (first == std::string_view::npos) return true;
  const bool begins = first == 0 || (word.find('=') + 1 == first && first > 1);
  return begins && word.find('"', first + 1) == word.size() - 1;
}

char Folded(char c) { return c == '-' ? '_' : c; }

bool SameName(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, {}, Folded, Folded);
}

std::string_view NameOf(std::string_view argument) {
  return argument.substr(0, argument.find('='));
}

bool IsAny(std::string_view argument, const std::vector<std::string>& rules) {
  return std::ranges::any_of(rules,
                             [&](const std::string& rule) { return IsArgument(argument, rule); });
}

Reason Make(ReasonId id, MeasuredAt at, std::string_view line) {
  return {.id = id, .pcr = at.pcr, .event = at.event, .content = std::string(line)};
}

void JudgeExact(const CommandLineRule& rule, const std::vector<std::string>& arguments,
                std::string_view line, MeasuredAt at, Reasons& reasons) {
  if (std::ranges::any_of(rule.exact, [&](const std::string& each) {
        return KernelArguments(each) == arguments;
      })) {
    return;
  }
  Reason reason = Make(ReasonId::kCommandLineNotAccepted, at, line);
  reason.expected = Join(rule.exact, " | ");
  reason.actual = Join(arguments, " ");
  reason.fix = "add to command-line.exact: \"" + reason.actual + "\"";
  reasons.Add(std::move(reason));
}

// Required, and not taken back by the same name with another value.
void JudgeRequired(const std::string& required, const std::vector<std::string>& arguments,
                   std::string_view line, MeasuredAt at, Reasons& reasons) {
  bool found = false;
  for (const std::string& each : arguments) {
    if (IsArgument(each, required)) {
      found = true;
    } else if (SameName(NameOf(each), NameOf(required))) {
      Reason reason = Make(ReasonId::kArgumentForbidden, at, line);
      reason.expected = required;
      reason.actual = each;
      reason.fix = "remove the argument from the host's boot loader";
      reasons.Add(std::move(reason));
    }
  }
  if (found) return;
  Reason reason = Make(ReasonId::kArgumentMissing, at, line);
  reason.expected = required;
  reason.fix = "add the argument in the host's boot loader";
  reasons.Add(std::move(reason));
}

Bytes Utf16(std::string_view text) {
  Bytes out;
  out.reserve(2 * text.size());
  for (const char c : text) {
    out.push_back(static_cast<std::byte>(c));
    out.push_back(std::byte{0});
  }
  return out;
}

}  // namespace

std::vector<std::string> KernelArguments(std::string_view line) {
  std::vector<std::string> out;
  const std::vector<std::string_view> words = Words(line);
  for (const std::string_view word : words) {
    const bool first = word.data() == words.front().data();
    if (!first || !(IsFile(word) || word.starts_with(kBootImage))) out.push_back(Unquoted(word));
  }
  return out;
}

std::string CommandLineFault(std::string_view line) {
  line = line.substr(0, line.find('\0'));
  line = line.substr(0, line.find_last_not_of("\r\n") + 1);
  if (line.size() > kMaxLine) {
    return "it has " + std::to_string(line.size()) + " bytes; the kernel keeps no more than " +
           std::to_string(kMaxLine) + " and GRUB's BOOT_IMAGE=";
  }
  if (!std::ranges::all_of(line, [](char c) { return c >= 0x20 && c <= 0x7e; })) {
    return "it has a byte that is no printable ASCII";
  }
  for (const std::string_view word : Words(line)) {
    if (Unquoted(word) == "--") return "it has the word --, behind which the kernel reads nothing";
    if (!IsPlainlyQuoted(word)) {
      return "it has a quote that neither begins nor ends a word or a value: " + std::string(word);
    }
  }
  return {};
}

GrubText KindOfGrubText(const measure::LoggedEvent& event) {
  const measure::IplEvent ipl = measure::ParseIplEvent(event.data);
  const bool line = ipl.kind == measure::IplKind::kCommandLine;
  if (!line && ipl.kind != measure::IplKind::kGrubCommand) return GrubText::kNone;
  const std::string_view text = ipl.text;
  if (IsFile(text) || (line && !AsText(event.data).starts_with(kModuleCommandLine))) {
    return GrubText::kCommandLine;
  }
  return text.substr(0, text.find(' ')) == "chainloader" ? GrubText::kChainloader
                                                         : GrubText::kCommand;
}

std::string_view LineOfLinuxCommand(std::string_view command) {
  const size_t space = command.find(' ');
  if (space == std::string_view::npos ||
      std::ranges::find(kLinuxCommands, command.substr(0, space)) == kLinuxCommands.end()) {
    return {};
  }
  return command.substr(space + 1);
}

std::string WithoutGrubQuotes(std::string_view line) {
  std::string out;
  for (size_t i = 0; i < line.size(); ++i) {
    const bool escape = line[i] == '\\' && i + 1 < line.size() &&
                        std::string_view("\\'\"").find(line[i + 1]) != std::string_view::npos;
    if (escape) {
      out += line[++i];
    } else if (line[i] != '"') {
      out += line[i];
    }
  }
  return out;
}

bool IsArgument(std::string_view argument, std::string_view rule) {
  if (!SameName(NameOf(argument), NameOf(rule))) return false;
  const size_t equals = rule.find('=');
  if (equals == std::string_view::npos) return true;
  const size_t own = argument.find('=');
  return own != std::string_view::npos && argument.substr(own) == rule.substr(equals);
}

void JudgeCommandLine(const CommandLineRule& rule, std::string_view line, MeasuredAt at,
                      Reasons& reasons) {
  if (std::string fault = CommandLineFault(line); !fault.empty()) {
    Reason reason = Make(ReasonId::kCommandLineNotAccepted, at, line);
    reason.expected = "a line that all read alike";
    reason.actual = std::move(fault);
    reason.fix = "write the line plainly in the host's boot loader";
    reasons.Add(std::move(reason));
    return;
  }
  const std::vector<std::string> arguments = KernelArguments(line);
  if (!rule.exact.empty()) {
    JudgeExact(rule, arguments, line, at, reasons);
    return;
  }
  for (const std::string& each : rule.required) JudgeRequired(each, arguments, line, at, reasons);
  for (const std::string& each : arguments) {
    if (IsAny(each, rule.forbidden)) {
      Reason reason = Make(ReasonId::kArgumentForbidden, at, line);
      reason.actual = each;
      reason.fix =
          "remove the argument from the host's boot loader, or from "
          "command-line.forbidden";
      reasons.Add(std::move(reason));
    } else if (rule.other_arguments == OtherArguments::kRefused && !IsAny(each, rule.required) &&
               !IsAny(each, rule.allowed)) {
      Reason reason = Make(ReasonId::kArgumentNotAllowed, at, line);
      reason.actual = each;
      reason.fix = "add to command-line.allowed: \"" + each + "\"";
      reasons.Add(std::move(reason));
    }
  }
}

std::optional<std::string> FindLoadOptions(const std::vector<std::string>& candidates,
                                           ByteView digest, measure::BankHasher& hasher) {
  constexpr std::array<std::byte, 2> kZero{};
  for (const std::string& each : candidates) {
    for (const std::string& line : {std::string(kBootImage) + each, each}) {
      const Bytes units = Utf16(line);
      if (std::ranges::equal(hasher.Hash(units), digest) ||
          std::ranges::equal(hasher.Hash(units, kZero), digest)) {
        return each;
      }
    }
  }
  return std::nullopt;
}

}  // namespace vallum::attest
