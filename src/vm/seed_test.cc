// SPDX-License-Identifier: Apache-2.0
#include "vm/seed.h"

#include <archive.h>
#include <archive_entry.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/digest.h"

namespace vallum::vm {
namespace {

using testing::HasSubstr;

SeedSpec MakeSpec() {
  return {.instance_id = "i-1",
          .hostname = "web1",
          .user_data = "",
          .ssh_keys = {"ssh-ed25519 AAAA me@\"home\""},
          .network_config = ""};
}

// All files of an ISO image, read by libarchive.
std::map<std::string, std::string> ReadIso(const Bytes& iso) {
  std::map<std::string, std::string> files;
  archive* reader = archive_read_new();
  archive_read_support_format_iso9660(reader);
  EXPECT_EQ(archive_read_open_memory(reader, iso.data(), iso.size()), ARCHIVE_OK);
  archive_entry* entry = nullptr;
  while (archive_read_next_header(reader, &entry) == ARCHIVE_OK) {
    if (archive_entry_filetype(entry) != AE_IFREG) {
      continue;
    }
    std::string content(static_cast<size_t>(archive_entry_size(entry)), '\0');
    const auto got = archive_read_data(reader, content.data(), content.size());
    EXPECT_EQ(got, static_cast<la_ssize_t>(content.size()));
    files[archive_entry_pathname(entry)] = content;
  }
  archive_read_free(reader);
  return files;
}

TEST(SeedTest, KeysBecomeCloudConfigWithoutUserData) {
  const auto iso = MakeNoCloudSeed(MakeSpec());
  ASSERT_TRUE(iso.has_value());
  const auto files = ReadIso(*iso);
  EXPECT_EQ(files.at("meta-data"), "instance-id: \"i-1\"\nlocal-hostname: \"web1\"\n");
  EXPECT_EQ(files.at("user-data"),
            "#cloud-config\nssh_authorized_keys:\n  - \"ssh-ed25519 AAAA me@\\\"home\\\"\"\n");
  EXPECT_FALSE(files.contains("network-config"));
}

TEST(SeedTest, UserDataIsNotEditedAndKeysGoToMetaData) {
  SeedSpec spec = MakeSpec();
  spec.user_data = "#!/bin/sh\necho hi\n";
  spec.network_config = "version: 2\n";
  const auto iso = MakeNoCloudSeed(spec);
  ASSERT_TRUE(iso.has_value());
  const auto files = ReadIso(*iso);
  EXPECT_EQ(files.at("user-data"), spec.user_data);
  EXPECT_THAT(files.at("meta-data"), HasSubstr("public-keys:\n  - \"ssh-ed25519 AAAA"));
  EXPECT_EQ(files.at("network-config"), "version: 2\n");
}

TEST(SeedTest, ImageIsLabelledAsNoCloudExpects) {
  const auto iso = MakeNoCloudSeed(MakeSpec());
  ASSERT_TRUE(iso.has_value());
  constexpr size_t kPrimaryDescriptor = 16 * 2048;
  EXPECT_EQ(AsText(ByteView(*iso).subspan(kPrimaryDescriptor + 40, 7)), "cidata ");
}

TEST(SeedTest, SameSpecGivesTheSameBytesWheneverItIsMade) {
  const auto iso = MakeNoCloudSeed(MakeSpec());
  ASSERT_TRUE(iso.has_value());
  EXPECT_EQ(ToHex(Sha256(*iso)),
            "c253abd6f824e6a0fb137861325c4125f76cd1ee27fdb65c15a0bbc3ccc0c030");
}

TEST(SeedTest, TextThatCouldBreakOutOfItsLineIsRefused) {
  SeedSpec spec = MakeSpec();
  spec.ssh_keys = {"ssh-ed25519 AAAA\nroot: true"};
  EXPECT_EQ(MakeNoCloudSeed(spec).error().code(), ErrorCode::kInvalidInput);
  spec = MakeSpec();
  spec.hostname = "a\nb";
  EXPECT_EQ(MakeNoCloudSeed(spec).error().code(), ErrorCode::kInvalidInput);
  spec = MakeSpec();
  spec.user_data = std::string((size_t{1} << 20U) + 1, 'x');
  EXPECT_EQ(MakeNoCloudSeed(spec).error().code(), ErrorCode::kInvalidInput);
}

}  // namespace
}  // namespace vallum::vm
