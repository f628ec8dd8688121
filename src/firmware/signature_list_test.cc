// SPDX-License-Identifier: Apache-2.0
#include "firmware/signature_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/digest.h"
#include "firmware/variable_store_editor.h"

namespace vallum::firmware {
namespace {

using ::testing::HasSubstr;

constexpr std::string_view kSha256Type = "c1c41626-504c-4092-aca9-41f936934328";

Bytes ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return ToBytes(AsBytes(text.str()));
}

Signature MakeHash(uint8_t fill) {
  Signature signature;
  signature.type = SignatureType::kSha256;
  signature.type_guid = *Guid::Parse(kSha256Type);
  signature.owner = kGlobalVariableGuid;
  signature.data = Bytes(32, static_cast<std::byte>(fill));
  return signature;
}

void Put32(Bytes& bytes, size_t offset, uint32_t value) {
  ByteWriter out;
  out.U32Le(value);
  std::copy(out.bytes().begin(), out.bytes().end(), bytes.begin() + static_cast<long>(offset));
}

TEST(Guid, TextFormSwapsTheFirstThreeFields) {
  EXPECT_EQ(kGlobalVariableGuid.ToString(), "8be4df61-93ca-11d2-aa0d-00e098032b8c");
  EXPECT_EQ(*Guid::Parse("8BE4DF61-93ca-11d2-aa0d-00e098032b8c"), kGlobalVariableGuid);
  for (const char* text : {"", "8be4df61", "8be4df61-93ca-11d2-aa0d-00e098032b8x",
                           "8be4df61093ca-11d2-aa0d-00e098032b8c"}) {
    EXPECT_FALSE(Guid::Parse(text).has_value()) << text;
  }
}

TEST(SignatureList, ListsFollowEachOtherAndRoundTrip) {
  Bytes lists = EncodeSignatureList(MakeHash(1));
  const Bytes second = EncodeSignatureList(MakeHash(2));
  lists.insert(lists.end(), second.begin(), second.end());
  const auto parsed = ParseSignatureLists(lists);
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(*parsed, (std::vector<Signature>{MakeHash(1), MakeHash(2)}));
}

TEST(SignatureList, EmptyValueHoldsNothing) { EXPECT_TRUE(ParseSignatureLists({})->empty()); }

TEST(SignatureList, EachSizeThatContradictsTheOthersIsRefused) {
  const Bytes valid = EncodeSignatureList(MakeHash(1));
  ASSERT_TRUE(ParseSignatureLists(valid).has_value());
  const struct {
    size_t offset;
    uint32_t value;
  } damages[] = {{16, 27},         {16, 75}, {16, 77}, {16, 0xffffffff}, {20, 1},
                 {20, 0xffffffff}, {24, 0},  {24, 15}, {24, 47},         {24, 0xffffffff}};
  for (const auto& damage : damages) {
    Bytes broken = valid;
    Put32(broken, damage.offset, damage.value);
    EXPECT_FALSE(ParseSignatureLists(broken).has_value()) << damage.offset << " " << damage.value;
  }
}

TEST(SignatureList, BytesAfterTheLastListAreRefused) {
  Bytes lists = EncodeSignatureList(MakeHash(1));
  lists.push_back(std::byte{0});
  EXPECT_EQ(ParseSignatureLists(lists).error().code(), ErrorCode::kCorrupt);
}

TEST(SignatureList, TooManyEntriesAreRefused) {
  ByteWriter out;
  const auto count = static_cast<uint32_t>(kMaxSignatures + 1);
  out.Raw(Guid::Parse("00000000-0000-0000-0000-000000000001")->bytes);
  out.U32Le(28 + 16 * count).U32Le(0).U32Le(16).Zeros(size_t{16} * count);
  EXPECT_EQ(ParseSignatureLists(out.bytes()).error().code(), ErrorCode::kExhausted);
}

TEST(KeySet, TemplatesAreNamedByWhoseCertificatesDbHolds) {
  const std::pair<const char*, const char*> cases[] = {{"OVMF_VARS_4M.ms.fd", "microsoft"},
                                                       {"OVMF_VARS.ms.fd", "microsoft"},
                                                       {"OVMF_VARS_4M.snakeoil.fd", "custom"},
                                                       {"OVMF_VARS_4M.fd", "none"}};
  for (const auto& [file, name] : cases) {
    const Bytes image = ReadFile(std::string("/usr/share/OVMF/") + file);
    if (image.empty()) {
      GTEST_SKIP() << "package ovmf is not installed";
    }
    const auto store = VariableStore::Parse(image);
    ASSERT_TRUE(store.has_value()) << file;
    const auto summary = SummarizeKeySet(*store);
    ASSERT_TRUE(summary.has_value()) << file;
    EXPECT_EQ(summary->name, name) << file;
  }
}

TEST(KeySet, OneForeignEntryInDbIsNotMicrosoftsSetAnyMore) {
  const auto store = VariableStore::Parse(ReadFile("/usr/share/OVMF/OVMF_VARS_4M.ms.fd"));
  if (!store.has_value()) {
    GTEST_SKIP() << "package ovmf is not installed";
  }
  std::vector<Variable> variables;
  for (const Variable* variable : store->Variables()) {
    variables.push_back(*variable);
    if (variable->name == u"db") {
      const Bytes more = EncodeSignatureList(MakeHash(9));
      variables.back().data.insert(variables.back().data.end(), more.begin(), more.end());
    }
  }
  const auto changed = VariableStore::Parse(*MakeVariableStoreImage(variables));
  ASSERT_TRUE(changed.has_value());
  const auto summary = SummarizeKeySet(*changed);
  EXPECT_EQ(summary->name, "microsoft+custom");
  EXPECT_THAT(summary->db.front(), HasSubstr("Microsoft Windows Production PCA 2011"));
  EXPECT_EQ(summary->dbx_entries, 1U);
}

std::string VectorsDirectory() {
  const char* set = std::getenv("VALLUM_VECTORS");
  const std::string root =
      (std::filesystem::path(VALLUM_TESTDATA) / "../../../../shared/vectors").lexically_normal();
  return set != nullptr ? set : root;
}

// Counts of entries by list type name of the manifest, and their first data's digests.
void ExpectAsManifestSays(const nlohmann::json& vector, const std::vector<Signature>& signatures) {
  size_t at = 0;
  for (const auto& list : vector["expect"]["lists"]) {
    const auto count = list["count"].get<size_t>();
    ASSERT_LE(at + count, signatures.size());
    for (size_t i = 0; i < count; ++i) {
      const Signature& signature = signatures[at + i];
      EXPECT_EQ(signature.Encode().size(), list["signature_size"].get<size_t>());
      if (list.contains("entries")) {
        const auto& entry = list["entries"][i];
        EXPECT_EQ(signature.owner.ToString(), entry["owner"].get<std::string>());
        EXPECT_EQ(ToHex(Sha256(signature.data)), entry["sha256_of_data"].get<std::string>());
      }
    }
    if (list.contains("first_hash")) {
      EXPECT_EQ(ToHex(signatures[at].data), list["first_hash"].get<std::string>());
      EXPECT_EQ(ToHex(signatures[at + count - 1].data), list["last_hash"].get<std::string>());
    }
    at += count;
  }
  EXPECT_EQ(at, signatures.size());
}

TEST(Vectors, SignatureListsReadAsTheManifestSays) {
  const std::string root = VectorsDirectory();
  std::ifstream in(root + "/manifest.json");
  if (!in) {
    GTEST_SKIP() << "no vectors at " << root;
  }
  size_t seen = 0;
  for (const auto& vector : nlohmann::json::parse(in)) {
    const std::string kind = vector["kind"];
    const auto& expect = vector["expect"];
    if (kind != "efi_signature_list" && kind != "efi_variable_authentication_2") {
      continue;
    }
    Bytes content = ReadFile(root + "/" + vector["file"].get<std::string>());
    size_t skip = 0;  // the 4 attribute bytes of efivarfs, or what authenticates the payload
    if (expect.contains("efivars_attributes")) {
      skip = 4;
    } else if (expect.contains("payload_bytes")) {
      skip = content.size() - expect["payload_bytes"].get<size_t>();
    }
    const auto parsed = ParseSignatureLists(ByteView(content).subspan(skip));
    ASSERT_TRUE(parsed.has_value()) << vector["file"];
    ExpectAsManifestSays(vector, *parsed);
    ++seen;
  }
  EXPECT_GE(seen, 12U);
}

}  // namespace
}  // namespace vallum::firmware
