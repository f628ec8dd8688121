// SPDX-License-Identifier: Apache-2.0
#include "store/blob_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/digest.h"
#include "store/crash_content.h"
#include "store/test_support.h"

namespace vallum::store {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Of "abc" (FIPS 180-2).
constexpr char kAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

class BlobStoreTest : public ::testing::Test {
 protected:
  std::unique_ptr<BlobStore> Open() { return BlobStore::Open(options_, clock_).value(); }
  // Where uploads of this run of the machine lie.
  std::filesystem::path Uploads() const {
    for (const auto& entry : std::filesystem::directory_iterator(options_.directory / "uploads")) {
      return entry.path();
    }
    return {};
  }

  TempDir dir_;
  FakeClock clock_;
  BlobStoreOptions options_{.directory = dir_.path() / "blobs"};
};

ErrorCode CodeOf(const auto& result) {
  EXPECT_FALSE(result.has_value());
  return result ? ErrorCode::kInternal : result.error().code();
}

void Add(BlobUpload& upload, std::string_view text) {
  ASSERT_TRUE(upload.Append(upload.received(), AsBytes(text)).has_value());
}

BlobInfo Import(BlobStore& store, std::string_view text) {
  auto upload = store.BeginUpload("import").value();
  Add(*upload, text);
  return upload->Commit().value();
}

std::string ReadBlob(BlobStore& store, std::string_view digest) {
  const OpenBlob blob = store.Open(digest).value();
  std::string text(blob.size.bytes(), '\0');
  EXPECT_EQ(::pread(blob.fd.get(), text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
  return text;
}

TEST_F(BlobStoreTest, CommittedUploadIsABlobUnderItsDigest) {
  const auto store = Open();
  const auto upload = store->BeginUpload("disk.1").value();
  Add(*upload, "a");
  Add(*upload, "bc");
  EXPECT_EQ(upload->received(), ByteCount::Bytes(3));
  EXPECT_THAT(store->List().value(), IsEmpty()) << "nothing is visible before the commit";
  const auto blob = upload->Commit();
  ASSERT_TRUE(blob.has_value()) << blob.error().DebugString();
  EXPECT_EQ(blob->digest, kAbc);
  EXPECT_EQ(blob->size, ByteCount::Bytes(3));
  EXPECT_EQ(ReadBlob(*store, kAbc), "abc");
  EXPECT_THAT(store->ListUploads().value(), IsEmpty());
  struct stat status{};
  ASSERT_EQ(::stat(store->Open(kAbc)->path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0400U);
}

TEST_F(BlobStoreTest, LargePiecesAreHashedRight) {
  const auto store = Open();
  const auto upload = store->BeginUpload("large").value();
  const Bytes content = CrashBytes(0, 3'000'000);
  const ByteView view(content);
  // Sizes on both sides of where the second thread hashes.
  for (size_t at = 0, size = 1; at < content.size(); size = size * 3 + 1) {
    const ByteView piece = view.subspan(at, std::min(size, content.size() - at));
    ASSERT_TRUE(upload->Append(ByteCount::Bytes(at), piece).has_value());
    at += piece.size();
  }
  EXPECT_EQ(upload->Commit()->digest, ToHex(Sha256(content)));
}

TEST_F(BlobStoreTest, EmptyUploadIsABlob) {
  const auto store = Open();
  EXPECT_EQ(Import(*store, "").digest, ToHex(Sha256({})));
}

TEST_F(BlobStoreTest, AppendAtAnotherOffsetIsRefusedAndSaysWhereToGoOn) {
  const auto store = Open();
  const auto upload = store->BeginUpload("u").value();
  Add(*upload, "ab");
  for (const uint64_t offset : {0U, 1U, 3U}) {
    const auto result = upload->Append(ByteCount::Bytes(offset), AsBytes("x"));
    EXPECT_EQ(CodeOf(result), ErrorCode::kConflict);
    EXPECT_THAT(result.error().fix(), HasSubstr("offset 2"));
  }
  Add(*upload, "c");
  EXPECT_EQ(upload->Commit()->digest, kAbc);
}

TEST_F(BlobStoreTest, ContentWithAnotherDigestThanExpectedIsNotKept) {
  const auto store = Open();
  const auto upload = store->BeginUpload("u").value();
  Add(*upload, "abd");
  EXPECT_EQ(CodeOf(upload->CommitExpecting("abc")), ErrorCode::kInvalidInput);
  const auto result = upload->CommitExpecting(kAbc);
  EXPECT_EQ(CodeOf(result), ErrorCode::kCorrupt);
  EXPECT_THAT(result.error().message(), HasSubstr(kAbc));
  EXPECT_THAT(store->List().value(), IsEmpty());
  EXPECT_THAT(store->ListUploads().value(), IsEmpty());
  EXPECT_EQ(CodeOf(upload->Commit()), ErrorCode::kInvalidInput);
}

TEST_F(BlobStoreTest, ExpectedDigestMayBeInUpperCase) {
  const auto store = Open();
  const auto upload = store->BeginUpload("u").value();
  Add(*upload, "abc");
  std::string upper(kAbc);
  for (char& c : upper) c = (c >= 'a' && c <= 'f') ? static_cast<char>(c - 32) : c;
  EXPECT_EQ(upload->CommitExpecting(upper)->digest, kAbc);
}

TEST_F(BlobStoreTest, SameContentIsStoredOnce) {
  const auto store = Open();
  Import(*store, "abc");
  struct stat before{};
  ASSERT_EQ(::stat(store->Open(kAbc)->path.c_str(), &before), 0);
  EXPECT_EQ(Import(*store, "abc").digest, kAbc);
  struct stat after{};
  ASSERT_EQ(::stat(store->Open(kAbc)->path.c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
  EXPECT_EQ(store->List()->size(), 1U);
  EXPECT_THAT(store->ListUploads().value(), IsEmpty());
}

TEST_F(BlobStoreTest, ImportReplacesABlobThatWasCutShort) {
  const auto store = Open();
  Import(*store, "abc");
  const auto path = store->Open(kAbc)->path;
  ASSERT_EQ(::chmod(path.c_str(), 0600), 0);
  ASSERT_EQ(::truncate(path.c_str(), 1), 0);
  Import(*store, "abc");
  EXPECT_EQ(ReadBlob(*store, kAbc), "abc");
}

TEST_F(BlobStoreTest, UploadIsResumedWhereItStopped) {
  auto store = Open();
  auto upload = store->BeginUpload("u").value();
  Add(*upload, "ab");
  EXPECT_EQ(CodeOf(store->ResumeUpload("u")), ErrorCode::kConflict);
  upload.reset();
  store.reset();
  store = Open();
  EXPECT_EQ(store->ListUploads()->at(0).id, "u");
  EXPECT_EQ(CodeOf(store->BeginUpload("u")), ErrorCode::kConflict);
  upload = store->ResumeUpload("u").value();
  EXPECT_EQ(upload->received(), ByteCount::Bytes(2));
  Add(*upload, "c");
  EXPECT_EQ(upload->Commit()->digest, kAbc);
  EXPECT_EQ(CodeOf(store->ResumeUpload("u")), ErrorCode::kNotFound);
}

TEST_F(BlobStoreTest, AbortedUploadIsGone) {
  const auto store = Open();
  const auto upload = store->BeginUpload("u").value();
  Add(*upload, "abc");
  ASSERT_TRUE(upload->Abort().has_value());
  EXPECT_THAT(store->ListUploads().value(), IsEmpty());
  EXPECT_EQ(CodeOf(upload->Append({}, AsBytes("x"))), ErrorCode::kInvalidInput);
  EXPECT_TRUE(store->BeginUpload("u").has_value());
}

TEST_F(BlobStoreTest, UploadOutlivesItsStore) {
  auto store = Open();
  const auto upload = store->BeginUpload("u").value();
  store.reset();
  Add(*upload, "abc");
  EXPECT_EQ(upload->Commit()->digest, kAbc);
}

TEST_F(BlobStoreTest, UploadLargerThanTheLimitIsRefused) {
  options_.max_blob_size = ByteCount::Bytes(3);
  const auto store = Open();
  const auto upload = store->BeginUpload("u").value();
  Add(*upload, "ab");
  EXPECT_EQ(CodeOf(upload->Append(ByteCount::Bytes(2), AsBytes("cd"))), ErrorCode::kExhausted);
  Add(*upload, "c");
  EXPECT_EQ(upload->Commit()->digest, kAbc);
}

TEST_F(BlobStoreTest, NamesThatAreNoDigestOrIdNeverReachTheFileSystem) {
  const auto store = Open();
  for (const char* id : {"", "../x", "a/b", ".hidden", "A"}) {
    EXPECT_EQ(CodeOf(store->BeginUpload(id)), ErrorCode::kInvalidInput) << id;
    EXPECT_EQ(CodeOf(store->ResumeUpload(id)), ErrorCode::kInvalidInput) << id;
  }
  for (const std::string& digest : {std::string(), std::string("../../etc/passwd"),
                                    std::string(64, 'A'), std::string(63, 'a')}) {
    EXPECT_EQ(CodeOf(store->Open(digest)), ErrorCode::kInvalidInput) << digest;
    EXPECT_EQ(CodeOf(store->Remove(digest)), ErrorCode::kInvalidInput) << digest;
    EXPECT_EQ(CodeOf(store->VerifyDigest(digest)), ErrorCode::kInvalidInput) << digest;
  }
}

TEST_F(BlobStoreTest, RemovedBlobIsGoneButOpenDescriptorsStayReadable) {
  const auto store = Open();
  Import(*store, "abc");
  const OpenBlob blob = store->Open(kAbc).value();
  ASSERT_TRUE(store->Remove(kAbc).has_value());
  EXPECT_EQ(CodeOf(store->Open(kAbc)), ErrorCode::kNotFound);
  EXPECT_EQ(CodeOf(store->Remove(kAbc)), ErrorCode::kNotFound);
  char first = 0;
  EXPECT_EQ(::pread(blob.fd.get(), &first, 1, 0), 1);
  EXPECT_EQ(first, 'a');
}

TEST_F(BlobStoreTest, VerifyFindsAChangedByte) {
  const auto store = Open();
  Import(*store, "abc");
  EXPECT_TRUE(store->VerifyDigest(kAbc).has_value());
  const auto path = store->Open(kAbc)->path;
  ASSERT_EQ(::chmod(path.c_str(), 0600), 0);
  std::ofstream(path) << "abd";
  EXPECT_EQ(CodeOf(store->VerifyDigest(kAbc)), ErrorCode::kCorrupt);
}

TEST_F(BlobStoreTest, ListHasTheBlobsAndNothingElse) {
  const auto store = Open();
  Import(*store, "abc");
  Import(*store, "abd");
  std::ofstream(store->Open(kAbc)->path.parent_path() / "notes.txt") << "x";
  const auto blobs = store->List().value();
  ASSERT_EQ(blobs.size(), 2U);
  EXPECT_LT(blobs[0].digest, blobs[1].digest);
  EXPECT_EQ(blobs[0].size, ByteCount::Bytes(3));
}

TEST_F(BlobStoreTest, AbandonedUploadsAreSweptAtOpening) {
  auto store = Open();
  Add(*store->BeginUpload("old").value(), "x");
  store.reset();
  clock_.Advance(std::chrono::hours(23));
  store = Open();
  EXPECT_EQ(store->ListUploads()->size(), 1U);
  store.reset();
  clock_.Advance(std::chrono::hours(2));
  EXPECT_THAT(Open()->ListUploads().value(), IsEmpty());
}

// Their bytes may never have reached the disk, although the file has its length.
TEST_F(BlobStoreTest, UploadsOfAnEarlierRunOfTheMachineAreSweptAtOpening) {
  auto store = Open();
  Add(*store->BeginUpload("u").value(), "x");
  store.reset();
  const auto earlier = options_.directory / "uploads" / "00000000-0000-4000-8000-000000000000";
  std::filesystem::rename(Uploads(), earlier);
  store = Open();
  EXPECT_THAT(store->ListUploads().value(), IsEmpty());
  EXPECT_FALSE(std::filesystem::exists(earlier));
}

TEST_F(BlobStoreTest, SecondOpeningIsRefused) {
  const auto store = Open();
  EXPECT_EQ(CodeOf(BlobStore::Open(options_, clock_)), ErrorCode::kConflict);
}

}  // namespace
}  // namespace vallum::store
