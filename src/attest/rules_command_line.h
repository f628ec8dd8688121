// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "attest/policy.h"
#include "attest/reason.h"
#include "base/bytes.h"
#include "measure/bank_hasher.h"
#include "measure/event_log.h"

namespace vallum::attest {

// The arguments of a kernel's command line as the kernel parts them: at spaces outside of double
// quotes, which go if they begin or end a word or a value. The kernel's own path, or GRUB's
// BOOT_IMAGE, is no argument if it comes first. What follows a zero is not looked at.
// Source: Linux lib/cmdline.c, next_arg.
std::vector<std::string> KernelArguments(std::string_view line);

// Why kernel, EFI stub and loader could disagree on what the line's arguments are, so that it is
// not to be judged by them: a byte other than 0x20 to 0x7E (but for line ends at its end), a length
// beyond what the kernel keeps, the word "--", which ends the kernel's part, or a quote within a
// word or without its pair. "" if they cannot.
// Source: Linux lib/cmdline.c (next_arg), kernel/params.c (parse_args), x86's COMMAND_LINE_SIZE,
// drivers/firmware/efi/libstub/efi-stub-helper.c (efi_convert_cmdline).
std::string CommandLineFault(std::string_view line);

// What GRUB measured with a text. The prefix in the log is not hashed, so that it alone decides
// nothing: a text that begins with a file is a kernel's line, whatever it is called.
enum class GrubText {
  kNone,         // no text of GRUB, or not known to be
  kCommandLine,  // "/vmlinuz ro", "(hd0,gpt2)/vmlinuz ro"
  kCommand,      // also a module's command line
  kChainloader,  // starts a program with a command line that is measured nowhere else
};
//   event: of EV_IPL; whether its digest is of its data is not looked at.
GrubText KindOfGrubText(const measure::LoggedEvent& event);

// The command line in GRUB's command that loads Linux: "/vmlinuz ro" of "linux /vmlinuz ro"; the
// quotes that GRUB gives to the kernel are lost. "" if it is another command.
std::string_view LineOfLinuxCommand(std::string_view command);

// A kernel's command line without the quotes and escapes that GRUB adds.
// Source: GRUB grub-core/lib/cmdline.c, grub_create_loader_cmdline.
std::string WithoutGrubQuotes(std::string_view line);

// Whether an argument is what a rule names: "name" any value of it, "name=value" that one. '-' and
// '_' are the same in names (Linux kernel/params.c, parameq).
bool IsArgument(std::string_view argument, std::string_view rule);

// Where a command line was measured; no event: the place is not known.
struct MeasuredAt {
  std::optional<uint32_t> pcr;
  std::optional<size_t> event;
};

// Judges one measured command line.
void JudgeCommandLine(const CommandLineRule& rule, std::string_view line, MeasuredAt at,
                      Reasons& reasons);

// The tag of LOADED_IMAGE::LoadOptions in EV_EVENT_TAG:
// Linux' LOAD_OPTIONS_EVENT_TAG_ID (drivers/firmware/efi/libstub/efistub.h).
inline constexpr uint32_t kLoadOptionsTag = 0x8f3b22ed;

// Which of the candidates the kernel's EFI stub measured as LOADED_IMAGE::LoadOptions: its digest
// is of the line in UTF-16, with or without a closing zero, to which GRUB adds BOOT_IMAGE=. Nothing
// if none. Source: Linux drivers/firmware/efi/libstub/efi-stub-helper.c.
std::optional<std::string> FindLoadOptions(const std::vector<std::string>& candidates,
                                           ByteView digest, measure::BankHasher& hasher);

}  // namespace vallum::attest
