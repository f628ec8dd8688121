// SPDX-License-Identifier: Apache-2.0
#include "images/confined_child.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <string>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/test_support.h"

namespace vallum::images {
namespace {

using ::testing::HasSubstr;

// What a script in place of vallum-inspect writes.
Result<std::string> OutputOf(const std::string& body, const std::string& request) {
  const formats::testing::TempDir dir;
  const std::string program = dir.File("program");
  formats::testing::WriteFile(program, AsBytes("#!/bin/sh\n" + body + "\n"));
  formats::testing::MustRun("chmod +x " + program);
  const int image = open("/dev/null", O_RDONLY | O_CLOEXEC);
  std::string output;
  const Result<void> ran = RunConfined({.program = program,
                                        .arguments = {"one", "two words"},
                                        .work = "test",
                                        .image = image,
                                        .request = request,
                                        .timeout = std::chrono::seconds(60)},
                                       [&](ByteView bytes) {
                                         output.append(AsText(bytes));
                                         return Ok();
                                       });
  close(image);
  if (!ran.has_value()) return ran.error();
  return output;
}

TEST(ConfinedChild, GetsItsArgumentsAndNoEnvironment) {
  // PWD and _ are set by the shell itself.
  const auto output = OutputOf("echo \"$1,$2,$#\"; unset PWD _ OLDPWD; export", "");
  ASSERT_TRUE(output.has_value()) << output.error().Describe();
  EXPECT_EQ(*output, "one,two words,2\n");
}

TEST(ConfinedChild, GetsTheRequestWhole) {
  std::string request(kMaxRequestBytes, 'x');
  request[1234567] = 'y';
  const auto output = OutputOf("cat <&4", request);
  ASSERT_TRUE(output.has_value()) << output.error().Describe();
  EXPECT_TRUE(*output == request);
}

TEST(ConfinedChild, CannotChangeTheRequest) {
  const std::string file = "/proc/self/fd/4";
  EXPECT_EQ(
      OutputOf("echo y >&4; truncate -s 0 " + file + "; truncate -s 9 " + file + "; cat " + file,
               "xx")
          .value_or(""),
      "xx");
}

TEST(ConfinedChild, WithoutARequestReadsNothing) {
  EXPECT_EQ(OutputOf("readlink /proc/self/fd/4; cat <&4", "").value_or(""), "/dev/null\n");
}

TEST(ConfinedChild, RequestThatIsTooLargeIsAnError) {
  const auto output = OutputOf("true", std::string(kMaxRequestBytes + 1, ' '));
  ASSERT_FALSE(output.has_value());
  EXPECT_EQ(output.error().code(), ErrorCode::kExhausted);
}

}  // namespace
}  // namespace vallum::images
