// SPDX-License-Identifier: Apache-2.0
#include "http/message.h"

#include <gtest/gtest.h>

#include "http/router.h"

namespace vallum::http {
namespace {

Response Nothing(const Request&) { return {}; }

TEST(Percent, RoundTripsEveryByteThatIsAllowed) {
  EXPECT_EQ(PercentEncode("a b/c%"), "a%20b%2Fc%25");
  EXPECT_EQ(*PercentDecode("a%20b%2fc%25"), "a b/c%");
}

TEST(Percent, RefusesBadEscapesAndControlCharacters) {
  for (const char* text : {"%", "%4", "%zz", "a%0a", "%00", "\x7f"}) {
    EXPECT_FALSE(PercentDecode(text).has_value()) << text;
  }
}

TEST(Query, IsParsedAndRepeatedNamesAreRefused) {
  const Values values = *ParseQuery("a=1&b=x+y&c&d=a%3Db");
  EXPECT_EQ(values.at("b"), "x y");
  EXPECT_EQ(values.at("c"), "");
  EXPECT_EQ(values.at("d"), "a=b");
  EXPECT_FALSE(ParseQuery("a=1&a=2").has_value());
  EXPECT_TRUE(ParseQuery("")->empty());
}

TEST(Headers, CompareWithoutCase) {
  Headers headers;
  headers.Add("Content-Type", "a");
  headers.Set("content-type", "b");
  EXPECT_EQ(headers.Get("CONTENT-TYPE"), "b");
  EXPECT_EQ(headers.items().size(), 1U);
}

TEST(Problem, CarriesCodeDetailAndFixBothWays) {
  const Error error = Conflict("it exists").WithFix("use another name");
  const Response response = ProblemResponse(error);
  EXPECT_EQ(response.status, 409);
  const Error back = ErrorFromProblem(response.status, response.body);
  EXPECT_EQ(back.code(), ErrorCode::kConflict);
  EXPECT_EQ(back.message(), "it exists");
  EXPECT_EQ(back.fix(), "use another name");
}

TEST(Problem, OfAnotherServerFallsBackOnTheStatus) {
  EXPECT_EQ(ErrorFromProblem(404, "<html>").code(), ErrorCode::kNotFound);
  EXPECT_EQ(ErrorFromProblem(503, "[]").code(), ErrorCode::kUnavailable);
  EXPECT_EQ(ErrorFromProblem(403, "{\"code\":7}").code(), ErrorCode::kDenied);
}

TEST(Router, FindsParametersAndPrefersLiterals) {
  Router router;
  router.Add(Method::kGet, "/v1/x/{name}", Nothing);
  router.Add(Method::kGet, "/v1/x/special", Nothing);
  std::string allowed;
  EXPECT_EQ(router.Find(Method::kGet, "/v1/x/special", &allowed)->route->pattern, "/v1/x/special");
  const auto match = router.Find(Method::kGet, "/v1/x/a%2Fb", &allowed);
  EXPECT_EQ(match->params.at("name"), "a/b");
  EXPECT_FALSE(router.Find(Method::kGet, "/v1/x/", &allowed).has_value());
  EXPECT_TRUE(router.Find(Method::kHead, "/v1/x/a", &allowed).has_value());
}

TEST(Router, NamesTheMethodsOfAKnownPath) {
  Router router;
  router.Add(Method::kGet, "/a", Nothing);
  router.Add(Method::kPut, "/a", Nothing);
  std::string allowed;
  EXPECT_FALSE(router.Find(Method::kPost, "/a", &allowed).has_value());
  EXPECT_EQ(allowed, "GET, PUT");
  EXPECT_FALSE(router.Find(Method::kPost, "/b", &allowed).has_value());
  EXPECT_EQ(allowed, "");
}

}  // namespace
}  // namespace vallum::http
