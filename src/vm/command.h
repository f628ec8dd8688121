// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "vm/vm_spec.h"

namespace vallum::vm {

// The numbers under which a program finds the descriptors that it is started with. Listening
// sockets are bound before the program starts, so nobody ever waits for one to appear.
inline constexpr int kQemuQmpFd = 3;
inline constexpr int kQemuSerialFd = 4;
inline constexpr int kQemuFirstTapFd = 5;  // one for each bridge NIC, in order
inline constexpr int kVtpmListenFd = 3;
inline constexpr int kVtpmControlFd = 4;
// Where vallum-vtpm gives swtpm its control channel.
inline constexpr int kSwtpmControlFd = 3;

// A program with its arguments: a value. argv[0] is the absolute path of the program.
struct Command {
  std::vector<std::string> argv;
  bool operator==(const Command&) const = default;
};

// What QEMU calls the network device.
std::string NicDeviceId(const Nic& nic);

// QEMU, paused before the first instruction (-S), with QMP and serial on inherited listeners.
//   spec: valid (ValidateVmSpec).
// Pure; thread-safe; cannot fail.
Command MakeQemuCommand(const VmSpec& spec);

// swtpm as vallum-vtpm starts it. Pure.
//   spec: valid, spec.vtpm set.
Command MakeSwtpmCommand(const VmSpec& spec);

// vallum-vtpm with the swtpm command behind "--". Pure.
//   spec: valid, spec.vtpm set.
Command MakeVtpmCommand(const VmSpec& spec);

}  // namespace vallum::vm
