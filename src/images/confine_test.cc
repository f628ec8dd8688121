// SPDX-License-Identifier: Apache-2.0
#include "images/confine.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <functional>

#include "formats/test_support.h"

namespace vallum::images {
namespace {

using formats::testing::kSanitized;

constexpr int kMessages = 77;  // the second of two outputs

// The signal that ends a confined child which does this; 0 if it ended by itself.
int SignalOf(const std::function<void()>& deed) {
  const int fd = open("/dev/null", O_RDONLY);
  const pid_t pid = fork();
  if (pid == 0) {
    constexpr std::array kOutputs = {STDOUT_FILENO, kMessages};
    // Not what the test was given: that may be a file, and those may not grow.
    const int sink = open("/dev/null", O_WRONLY);
    if (dup2(sink, STDOUT_FILENO) < 0 || dup2(sink, kMessages) < 0) _exit(98);
    if (!ConfineSelf({.image = fd, .outputs = kOutputs}).has_value()) _exit(99);
    deed();
    _exit(0);
  }
  close(fd);
  int status = 0;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0) << WEXITSTATUS(status);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

TEST(Confine, WhatInspectionNeedsIsAllowed) {
  EXPECT_EQ(SignalOf([] {
              for (const int output : {STDOUT_FILENO, kMessages}) {
                if (write(output, "\n", 1) != 1) _exit(1);
              }
            }),
            0);
}

TEST(Confine, WritingElsewhereEndsTheProcess) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer's runtime writes where it wants";
  EXPECT_EQ(SignalOf([] { static_cast<void>(!write(STDERR_FILENO, "x", 1)); }), SIGSYS);
  EXPECT_EQ(SignalOf([] { static_cast<void>(!write(kMessages + 1, "x", 1)); }), SIGSYS);
}

TEST(Confine, EverythingElseEndsTheProcess) {
  EXPECT_EQ(SignalOf([] { static_cast<void>(open("/etc/passwd", O_RDONLY)); }), SIGSYS);
  EXPECT_EQ(SignalOf([] { static_cast<void>(socket(AF_UNIX, SOCK_STREAM, 0)); }), SIGSYS);
  EXPECT_EQ(SignalOf([] { static_cast<void>(fork()); }), SIGSYS);
  EXPECT_EQ(SignalOf([] { execl("/bin/true", "true", nullptr); }), SIGSYS);
  EXPECT_EQ(SignalOf([] {
              char byte = 0;
              static_cast<void>(!pread(0, &byte, 1, 0));
            }),
            SIGSYS);
}

}  // namespace
}  // namespace vallum::images
