// SPDX-License-Identifier: Apache-2.0
#include "controller/rest_query.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "vallum/v1/resources.pb.h"

namespace vallum::controller {
namespace {

const auto& kType = *v1::Instance::descriptor();

v1::Instance MakeInstance() {
  v1::Instance instance;
  instance.mutable_metadata()->set_name("web1");
  (*instance.mutable_metadata()->mutable_labels())["tier"] = "front";
  instance.mutable_spec()->set_vcpus(2);
  instance.mutable_status()->set_phase(v1::INSTANCE_RUNNING);
  return instance;
}

bool Selects(const std::string& name, const std::string& value) {
  const Result<ListQuery> query = ParseListQuery({{name, value}}, kType);
  return query.has_value() && Matches(query->selector, MakeInstance());
}

TEST(ListQuery, LabelsMustAllBeEqual) {
  EXPECT_TRUE(Selects("labels", "tier=front"));
  EXPECT_FALSE(Selects("labels", "tier=back"));
  EXPECT_FALSE(Selects("labels", "tier=front,zone=a"));
}

TEST(ListQuery, FieldsCompareEnumsByNameAndNumbersByText) {
  EXPECT_TRUE(Selects("fields", "status.phase=INSTANCE_RUNNING"));
  EXPECT_TRUE(Selects("fields", "status.phase=instance_running,spec.vcpus=2"));
  EXPECT_FALSE(Selects("fields", "status.phase=INSTANCE_STOPPED"));
  EXPECT_TRUE(Selects("fields", "status.boot.measured.verdict=BOOT_VERDICT_UNSPECIFIED"));
}

TEST(ListQuery, UnknownFieldIsAnErrorNotAnEmptyList) {
  EXPECT_FALSE(ParseListQuery({{"fields", "status.fase=x"}}, kType).has_value());
  EXPECT_FALSE(ParseListQuery({{"fields", "status=x"}}, kType).has_value());
  EXPECT_FALSE(ParseListQuery({{"fields", "status.phase.x=1"}}, kType).has_value());
  EXPECT_FALSE(ParseListQuery({{"fields", "spec.networks=1"}}, kType).has_value());
}

TEST(ListQuery, UnknownParameterAndBadNumbersAreRefused) {
  EXPECT_FALSE(ParseListQuery({{"lable", "a=b"}}, kType).has_value());
  EXPECT_FALSE(ParseListQuery({{"limit", "0"}}, kType).has_value());
  EXPECT_FALSE(ParseListQuery({{"limit", "999999"}}, kType).has_value());
  EXPECT_FALSE(ParseListQuery({{"watch", "-1"}}, kType).has_value());
  EXPECT_FALSE(ParseListQuery({{"page", "*"}}, kType).has_value());
}

TEST(ListQuery, PageTokenGoesOnAfterTheName) {
  EXPECT_EQ(ParseListQuery({{"page", PageToken("web1")}}, kType)->after, "web1");
}

TEST(UnsignedQuery, IsAWholeNumberFromZeroOrItsFallback) {
  const auto read = [](const std::string& text) {
    http::Request request;
    request.query = {{"offset", text}};
    return ParseUnsigned(request, "offset", 7);
  };
  EXPECT_EQ(*read("0"), 0U);
  EXPECT_EQ(*read("9223372036854775807"), uint64_t{INT64_MAX});
  EXPECT_EQ(*ParseUnsigned(http::Request(), "offset", 7), 7U);
  for (const char* text : {"", "-1", "1x", " 1", "9223372036854775808"}) {
    EXPECT_EQ(read(text).error().code(), ErrorCode::kInvalidInput) << text;
  }
}

TEST(IfMatch, TakesOneStrongETagOrAnything) {
  http::Headers headers;
  EXPECT_EQ(*ParseIfMatch(headers), 0);
  headers.Set("If-Match", "\"42\"");
  EXPECT_EQ(*ParseIfMatch(headers), 42);
  headers.Set("If-Match", "*");
  EXPECT_EQ(*ParseIfMatch(headers), 0);
}

TEST(IfMatch, WeakListOrForeignTagsAreRefusedInsteadOfIgnored) {
  http::Headers headers;
  for (const char* tag : {"42", "W/\"42\"", "\"a\"", "\"1\", \"2\"", "\"\"", "\"0\""}) {
    headers.Set("If-Match", tag);
    EXPECT_FALSE(ParseIfMatch(headers).has_value()) << tag;
  }
}

}  // namespace
}  // namespace vallum::controller
