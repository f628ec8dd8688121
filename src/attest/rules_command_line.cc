// SPDX-License-Identifier: Apache-2.0
#include "attest/rules_command_line.h"

#include <algorithm>
#include <array>

#include "base/text.h"
#include "measure/event_data.h"

namespace vallum::attest {
namespace {

constexpr std::string_view kBootImage = "BOOT_IMAGE=";
constexpr std::string_view kModuleCommandLine = "module_cmdline";
constexpr std::array<std::string_view, 3> kLinuxCommands = {"linux", "linux16", "linuxefi"};

bool IsFile(std::string_view text) { return text.starts_with('/') || text.starts_with('('); }

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
  std::string word;
  bool quoted = false;
  const auto finish = [&] {
    if (!word.empty()) out.push_back(std::move(word));
    word.clear();
  };
  for (const char c : line) {
    if (c == '\0') break;
    if (c == '"') quoted = !quoted;
    if (!quoted && (c == ' ' || c == '\t' || c == '\n' || c == '\r')) {
      finish();
    } else if (c != '"') {
      word += c;
    }
  }
  finish();
  if (!out.empty() && (IsFile(out[0]) || out[0].starts_with(kBootImage))) {
    out.erase(out.begin());
  }
  return out;
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
