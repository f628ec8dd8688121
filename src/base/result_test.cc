// SPDX-License-Identifier: Apache-2.0
#include "base/result.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <string>

namespace vallum {
namespace {

Result<int> Half(int n) {
  if (n % 2 != 0) return InvalidInput("odd").WithFix("give an even number");
  return n / 2;
}

Result<std::unique_ptr<int>> Quarter(int n) {
  ASSIGN_OR_RETURN_CONTEXT(const int half, Half(n), "first half of " + std::to_string(n));
  ASSIGN_OR_RETURN(const int quarter, Half(half));
  return std::make_unique<int>(quarter);
}

Result<void> CheckEven(int n) {
  RETURN_IF_ERROR(Half(n)).context("checking");
  return Ok();
}

TEST(Result, MacrosPassTheValueOrTheErrorOn) {
  EXPECT_EQ(**Quarter(8), 2);
  EXPECT_EQ(Quarter(6).error().Describe(), "odd");
  EXPECT_EQ(Quarter(3).error().Describe(), "first half of 3: odd");
  EXPECT_TRUE(CheckEven(2).has_value());
  EXPECT_EQ(CheckEven(1).error().Describe(), "checking: odd");
}

TEST(Error, KeepsCodeFixAndPlace) {
  const Result<int> result = Half(1);
  EXPECT_EQ(result.error().code(), ErrorCode::kInvalidInput);
  EXPECT_EQ(result.error().fix(), "give an even number");
  EXPECT_NE(result.error().DebugString().find("result_test.cc:"), std::string::npos);
}

TEST(Error, ErrnoDecidesTheCode) {
  EXPECT_EQ(ErrnoError(ENOENT, "open x").code(), ErrorCode::kNotFound);
  EXPECT_EQ(ErrnoError(ENOSPC, "write x").code(), ErrorCode::kExhausted);
  EXPECT_EQ(ErrnoError(EACCES, "open x").code(), ErrorCode::kDenied);
}

}  // namespace
}  // namespace vallum
