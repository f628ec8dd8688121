// SPDX-License-Identifier: Apache-2.0
#include "controller/evidence_book.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/ids.h"
#include "controller/test_rig.h"

namespace vallum::controller {
namespace {

class EvidenceBookTest : public testing::Test {
 protected:
  // Each one a second newer than the one before, whatever the file system's clock tells.
  std::string Put(EvidenceKind kind, const std::string& content) {
    const std::string digest = book_->Put(host_, kind, AsBytes(content)).value();
    for (const auto& entry : std::filesystem::directory_iterator(dir_.path() / "book" / host_)) {
      if (entry.path().string().ends_with(digest)) {
        std::filesystem::last_write_time(entry.path(), time_ += std::chrono::seconds(1));
      }
    }
    return digest;
  }
  std::string Get(EvidenceKind kind) {
    const auto bundle = book_->Get(host_, kind);
    return bundle.has_value() ? std::string(AsText(*bundle)) : bundle.error().message();
  }

  TempDir dir_;
  std::string host_ = NewUid();
  std::filesystem::file_time_type time_ =
      std::filesystem::file_time_type::clock::now() - std::chrono::hours(1);
  std::unique_ptr<EvidenceBook> book_ = EvidenceBook::Open(dir_.path() / "book").value();
};

TEST_F(EvidenceBookTest, NewestOfItsKindIsGiven) {
  Put(EvidenceKind::kWhole, "one");
  Put(EvidenceKind::kWhole, "two");
  Put(EvidenceKind::kLast, "three");
  EXPECT_EQ(Get(EvidenceKind::kWhole), "two");
  EXPECT_EQ(Get(EvidenceKind::kLast), "three");
  EXPECT_EQ(book_->Get(host_, EvidenceKind::kUntrusted).error().code(), ErrorCode::kNotFound);
}

TEST_F(EvidenceBookTest, LastIsAWholeOneThatIsNewer) {
  Put(EvidenceKind::kLast, "one");
  Put(EvidenceKind::kWhole, "two");
  Put(EvidenceKind::kUntrusted, "three");
  EXPECT_EQ(Get(EvidenceKind::kLast), "two");
}

TEST_F(EvidenceBookTest, EarlierEvidenceIsFoundByItsDigestUntilItMakesRoom) {
  const std::string first = Put(EvidenceKind::kUntrusted, "0");
  for (int i = 1; i < 8; ++i) Put(EvidenceKind::kUntrusted, std::to_string(i));
  EXPECT_EQ(AsText(book_->GetExactly(host_, first).value()), "0");
  Put(EvidenceKind::kUntrusted, "8");
  EXPECT_EQ(book_->GetExactly(host_, first).error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(Get(EvidenceKind::kUntrusted), "8");
}

TEST_F(EvidenceBookTest, LargeEvidenceMakesRoomSooner) {
  const auto large = [](char c) { return std::string(size_t{9} << 20U, c); };
  const std::string small = Put(EvidenceKind::kUntrusted, "0");
  const std::string first = Put(EvidenceKind::kUntrusted, large('1'));
  const std::string second = Put(EvidenceKind::kUntrusted, large('2'));
  const std::string third = Put(EvidenceKind::kUntrusted, large('3'));
  EXPECT_EQ(book_->GetExactly(host_, first).error().code(), ErrorCode::kNotFound);
  for (const std::string& kept : {small, second, third}) {
    EXPECT_TRUE(book_->GetExactly(host_, kept).has_value());
  }
}

TEST_F(EvidenceBookTest, PartOfADigestNamesNothing) {
  const std::string digest = Put(EvidenceKind::kWhole, "one");
  for (const std::string& part : {std::string(), digest.substr(8), "whole-" + digest}) {
    EXPECT_EQ(book_->GetExactly(host_, part).error().code(), ErrorCode::kNotFound) << part;
  }
}

TEST_F(EvidenceBookTest, WhatAnInterruptedWriteLeftIsNotRead) {
  const std::string digest = Put(EvidenceKind::kWhole, "one");
  std::ofstream(dir_.path() / "book" / host_ / ("whole-" + digest + ".tmp")) << "half";
  EXPECT_EQ(Get(EvidenceKind::kWhole), "one");
}

TEST_F(EvidenceBookTest, DamagedFileIsNotTakenForWhatWasPut) {
  const std::string digest = Put(EvidenceKind::kWhole, "one");
  std::ofstream(dir_.path() / "book" / host_ / ("whole-" + digest)) << "two";
  EXPECT_EQ(book_->Get(host_, EvidenceKind::kWhole).error().code(), ErrorCode::kCorrupt);
}

TEST_F(EvidenceBookTest, NameThatIsNoUidReachesNoFile) {
  EXPECT_FALSE(book_->Put("../x", EvidenceKind::kWhole, AsBytes("one")).has_value());
  EXPECT_FALSE(book_->Get("..", EvidenceKind::kWhole).has_value());
}

}  // namespace
}  // namespace vallum::controller
