// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "vm/vm_spec.h"

namespace vallum::vm {

// A directory of one test, removed with all in it.
class TestDir {
 public:
  TestDir();
  ~TestDir();
  TestDir(const TestDir&) = delete;
  TestDir& operator=(const TestDir&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// An instance whose guest is one boot sector, run by SeaBIOS under TCG. It answers to the power
// button by powering off, and to single letters on the serial port: 'p' powers off, 'r' resets, 'x'
// reports a panic; it writes '!' when it has booted.
VmSpec MakeTestSpec(const TestDir& dir);

}  // namespace vallum::vm
