// SPDX-License-Identifier: Apache-2.0
#include "controller/principal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace vallum::controller {
namespace {

constexpr Verb kVerbs[] = {Verb::kRead,    Verb::kCreate,  Verb::kUpdate, Verb::kDelete,
                           Verb::kOperate, Verb::kConsole, Verb::kExplain};

Principal Who(v1::Role role, const std::string& tenant = "") {
  return {.name = "someone", .role = role, .tenant = tenant};
}

bool Allowed(const Principal& who, Verb verb, Kind kind, const std::string& tenant = "") {
  return Authorize(who, verb, kind, tenant).has_value();
}

TEST(AuthorizeTest, AdminMayDoEverythingButWriteHistory) {
  for (const Kind kind : kAllKinds) {
    for (const Verb verb : kVerbs) {
      const bool history = kind == Kind::kEvent || kind == Kind::kOperation;
      EXPECT_EQ(Allowed(Who(v1::ROLE_ADMIN), verb, kind), !history || verb == Verb::kRead);
    }
  }
}

TEST(AuthorizeTest, OperatorMayDoEverythingButTokens) {
  for (const Verb verb : kVerbs) {
    EXPECT_FALSE(Allowed(Who(v1::ROLE_OPERATOR), verb, Kind::kToken));
    EXPECT_TRUE(Allowed(Who(v1::ROLE_OPERATOR), verb, Kind::kInstance, "acme"));
    EXPECT_TRUE(Allowed(Who(v1::ROLE_OPERATOR), verb, Kind::kHost));
  }
}

TEST(AuthorizeTest, AuditorOnlyReads) {
  for (const Kind kind : kAllKinds) {
    EXPECT_TRUE(Allowed(Who(v1::ROLE_AUDITOR), Verb::kRead, kind));
    for (const Verb verb :
         {Verb::kCreate, Verb::kUpdate, Verb::kDelete, Verb::kOperate, Verb::kConsole}) {
      EXPECT_FALSE(Allowed(Who(v1::ROLE_AUDITOR), verb, kind));
    }
  }
}

TEST(AuthorizeTest, TenantHasItsOwnInstancesOnly) {
  const Principal acme = Who(v1::ROLE_TENANT, "acme");
  for (const Verb verb : kVerbs) {
    EXPECT_TRUE(Allowed(acme, verb, Kind::kInstance, "acme"));
    EXPECT_FALSE(Allowed(acme, verb, Kind::kInstance, "other"));
    EXPECT_FALSE(Allowed(acme, verb, Kind::kInstance, ""));
  }
}

TEST(AuthorizeTest, TenantReadsImagesFlavorsAndPoolsAndWritesNone) {
  const Principal acme = Who(v1::ROLE_TENANT, "acme");
  for (const Kind kind : {Kind::kImage, Kind::kFlavor, Kind::kPool}) {
    EXPECT_TRUE(Allowed(acme, Verb::kRead, kind));
    EXPECT_FALSE(Allowed(acme, Verb::kCreate, kind));
    EXPECT_FALSE(Allowed(acme, Verb::kDelete, kind));
    EXPECT_FALSE(Allowed(acme, Verb::kRead, kind, "other"));
  }
  for (const Kind kind : {Kind::kHost, Kind::kEvent, Kind::kToken}) {
    EXPECT_FALSE(Allowed(acme, Verb::kRead, kind));
  }
}

TEST(AuthorizeTest, TenantTokenWithoutTenantOwnsNothing) {
  EXPECT_FALSE(Allowed(Who(v1::ROLE_TENANT), Verb::kRead, Kind::kInstance, ""));
  EXPECT_FALSE(Visible(Who(v1::ROLE_TENANT), Kind::kInstance, ""));
}

TEST(AuthorizeTest, JoinAndUnknownRolesMayDoNothing) {
  for (const v1::Role role : {v1::ROLE_JOIN, v1::ROLE_UNSPECIFIED}) {
    for (const Kind kind : kAllKinds) {
      for (const Verb verb : kVerbs) {
        EXPECT_FALSE(Allowed(Who(role), verb, kind));
      }
      EXPECT_FALSE(Visible(Who(role), kind, ""));
    }
  }
}

TEST(AuthorizeTest, RefusalSaysWhichRoleItTakes) {
  const Result<void> refused = Authorize(Who(v1::ROLE_AUDITOR), Verb::kDelete, Kind::kHost, "");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code(), ErrorCode::kDenied);
  EXPECT_THAT(refused.error().message(), testing::HasSubstr("auditor may not delete this host"));
  EXPECT_THAT(refused.error().fix(), testing::HasSubstr("admin or operator"));
}

}  // namespace
}  // namespace vallum::controller
