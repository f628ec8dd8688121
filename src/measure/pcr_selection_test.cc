// SPDX-License-Identifier: Apache-2.0
#include "measure/pcr_selection.h"

#include <gtest/gtest.h>

namespace vallum::measure {
namespace {

TEST(PcrSelections, SurviveTheirText) {
  const std::string text = "sha256:0,1,23+sha1:10";
  const auto parsed = ParsePcrSelections(text);
  ASSERT_TRUE(parsed.has_value()) << parsed.error().Describe();
  EXPECT_EQ(FormatPcrSelections(*parsed), text);
  EXPECT_EQ(FormatPcrSelections(*ParsePcrSelections("sha256:7,0")), "sha256:0,7");
}

TEST(PcrSelections, MalformedTextIsRefused) {
  for (const char* text : {"", "sha256", "sha256:", "sha256:24", "sha256:-1", "sha256:1,1", "md5:1",
                           "sha256:1+sha256:2", "sha256:1+", "sha256:1,", "sha256:1x"}) {
    const auto parsed = ParsePcrSelections(text);
    ASSERT_FALSE(parsed.has_value()) << text;
    EXPECT_EQ(parsed.error().code(), ErrorCode::kInvalidInput) << text;
  }
}

}  // namespace
}  // namespace vallum::measure
