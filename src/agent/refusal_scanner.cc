// SPDX-License-Identifier: Apache-2.0
#include "agent/refusal_scanner.h"

#include <array>
#include <string_view>

#include "base/text.h"

namespace vallum::agent {
namespace {

constexpr size_t kLineLimit = 1024;
constexpr size_t kOptionLimit = 160;
// EDK2, MdeModulePkg/Library/UefiBootManagerLib and UniversalPayload's BdsDxe: "BdsDxe: failed to
// load %s %s from %s: %r" and "failed to start ..."; %r prints the two statuses of a rejected
// image.
constexpr std::array<std::string_view, 2> kBeginnings = {"BdsDxe: failed to load ",
                                                         "BdsDxe: failed to start "};
constexpr std::array<std::string_view, 2> kCauses = {"Security Violation", "Access Denied"};
// shim, shim.c: console_error(L"Verification failed", efi_status), which prints "%s: (0x%x) %r".
constexpr std::string_view kShimBeginning = "Verification failed: (0x";
// The same of itself, since 15.3 and since 15.8: "Something has gone seriously wrong: SBAT
// self-check failed: %r", "Verifying shim SBAT data failed: %r".
constexpr std::array<std::string_view, 2> kShimItself = {"SBAT self-check failed",
                                                         "Verifying shim SBAT data failed"};
// GRUB, grub-core/kern/efi/sb.c: what its kernel says when shim's protocol refuses a file.
constexpr std::string_view kGrubBeginning = "error: bad shim signature";

std::optional<FirmwareRefusal> MatchShim(std::string_view line) {
  for (const std::string_view itself : kShimItself) {
    if (line.find(itself) != std::string_view::npos) {
      return FirmwareRefusal{RefusedBy::kShimOfItself, {}, "its SBAT self-check failed"};
    }
  }
  if (line.find(kGrubBeginning) != std::string_view::npos) {
    return FirmwareRefusal{RefusedBy::kShim, {}, "bad shim signature, says GRUB"};
  }
  const size_t start = line.find(kShimBeginning);
  if (start == std::string_view::npos) {
    return std::nullopt;
  }
  for (const std::string_view cause : kCauses) {
    if (line.find(cause, start) != std::string_view::npos) {
      return FirmwareRefusal{RefusedBy::kShim, {}, std::string(cause)};
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<FirmwareRefusal> RefusalScanner::MatchLine() const {
  const std::string_view line = line_;
  if (auto by_shim = MatchShim(line); by_shim) {
    return by_shim;
  }
  for (const std::string_view beginning : kBeginnings) {
    const size_t start = line.find(beginning);
    if (start == std::string_view::npos) {
      continue;
    }
    const std::string_view rest = line.substr(start + beginning.size());
    for (const std::string_view cause : kCauses) {
      const size_t at = rest.rfind(cause);
      // The cause ends the line; a boot option with the cause in its name does not count.
      if (at == std::string_view::npos || at < 2 || !Trim(rest.substr(at + cause.size())).empty()) {
        continue;
      }
      std::string_view option = Trim(rest.substr(0, at));
      if (option.empty() || option.back() != ':') {
        continue;
      }
      option.remove_suffix(1);
      return FirmwareRefusal{RefusedBy::kFirmware, Printable(Trim(option), kOptionLimit),
                             std::string(cause)};
    }
  }
  return std::nullopt;
}

void RefusalScanner::EndLine(std::optional<FirmwareRefusal>& found) {
  if (auto match = MatchLine(); match && !found) {
    found = std::move(match);
  }
  line_.clear();
}

void RefusalScanner::FeedByte(char c, std::optional<FirmwareRefusal>& found) {
  constexpr char kEscape = '\x1b';
  if (c == kEscape) {
    escape_ = Escape::kStart;
    return;
  }
  if (escape_ == Escape::kStart) {
    escape_ = c == '[' ? Escape::kSequence : Escape::kNone;
    return;
  }
  if (escape_ == Escape::kSequence) {
    if (c >= '@' && c <= '~') {
      escape_ = Escape::kNone;
      // ECMA-48 CUP: what follows stands elsewhere on the screen.
      if (c == 'H') {
        EndLine(found);
      }
    }
    return;
  }
  if (c == '\n' || c == '\r') {
    EndLine(found);
    return;
  }
  if (line_.size() < kLineLimit) {
    line_ += c;
  }
}

std::optional<FirmwareRefusal> RefusalScanner::Feed(ByteView piece) {
  std::optional<FirmwareRefusal> found;
  if (!armed_) {
    return found;
  }
  for (const char c : AsText(piece)) {
    FeedByte(c, found);
  }
  return found;
}

void RefusalScanner::Reset() {
  line_.clear();
  escape_ = Escape::kNone;
  armed_ = true;
}

}  // namespace vallum::agent
