// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "base/bytes.h"

namespace vallum::agent {

// Who refused to start what.
enum class RefusedBy {
  kFirmware,
  kShim,
  kShimOfItself,  // shim's own generation is revoked
};

// A loader that was refused.
struct FirmwareRefusal {
  RefusedBy by = RefusedBy::kFirmware;
  std::string boot_option;  // "Boot0001 \"UEFI QEMU HARDDISK\" from PciRoot(0x0)/..."; untrusted,
                            // printable; empty for shim, which does not say what it refused
  std::string cause;        // "Security Violation", "Access Denied"
  bool operator==(const FirmwareRefusal&) const = default;
};

// Finds the line by which EDK2's boot manager says that it refused a loader, in a stream of serial
// output: "BdsDxe: failed to load Boot0001 ... : Access Denied"; and shim's box that says the same
// of the loader after it: "Verification failed: (0x1A) Security Violation", or of itself: "SBAT
// self-check failed"; and GRUB's "bad shim signature". Terminal escapes are
// dropped, those that move the cursor end a line, a line may arrive in any pieces, and is kept up
// to 1 KiB only. Not thread-safe.
class RefusalScanner {
 public:
  // Returns the first refusal in this piece, if there is one.
  std::optional<FirmwareRefusal> Feed(ByteView piece);
  // Forgets what it saw: the machine was reset.
  void Reset();
  // From now on finds nothing: a boot loader runs, and what it prints is the guest's own word.
  void Disarm() { armed_ = false; }
  bool armed() const { return armed_; }

 private:
  enum class Escape { kNone, kStart, kSequence };
  void FeedByte(char c, std::optional<FirmwareRefusal>& found);
  void EndLine(std::optional<FirmwareRefusal>& found);
  std::optional<FirmwareRefusal> MatchLine() const;

  std::string line_;
  Escape escape_ = Escape::kNone;
  bool armed_ = true;
};

}  // namespace vallum::agent
