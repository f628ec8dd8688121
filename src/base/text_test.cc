// SPDX-License-Identifier: Apache-2.0
#include "base/text.h"

#include <gtest/gtest.h>

#include <string>

#include "base/clock.h"

namespace vallum {
namespace {

TEST(Text, SplitKeepsEmptyParts) {
  EXPECT_EQ(Split("a,,b", ','), (std::vector<std::string>{"a", "", "b"}));
  EXPECT_EQ(Split("", ','), (std::vector<std::string>{""}));
}

TEST(Text, JoinPutsTheSeparatorBetween) {
  EXPECT_EQ(Join({"a", "b"}, ", "), "a, b");
  EXPECT_EQ(Join({"", "b"}, ","), ",b");
}

TEST(Text, PrintableEscapesControlCharactersAndBadUtf8) {
  EXPECT_EQ(Printable("a\x1b[2J"), "a\\x1b[2J");
  EXPECT_EQ(Printable("\xc3\xa9"), "\xc3\xa9");
  EXPECT_EQ(Printable("\xc3"), "\\xc3");
  EXPECT_EQ(Printable("\xc2\x9b"), "\\xc2\\x9b");
  EXPECT_EQ(Printable(std::string(300, 'a'), 10), "aaaaaaaaaa...");
}

TEST(Clock, FormatsRfc3339WithMilliseconds) {
  EXPECT_EQ(FormatTime(WallTime(std::chrono::milliseconds(1700000000123))),
            "2023-11-14T22:13:20.123Z");
}

}  // namespace
}  // namespace vallum
