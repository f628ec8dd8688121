// SPDX-License-Identifier: Apache-2.0
#include "formats/luks2_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/luks.h"
#include "formats/luks_test_support.h"
#include "formats/test_support.h"

namespace vallum::formats {
namespace {

using nlohmann::json;
using ::testing::Contains;
using ::testing::HasSubstr;
using testing::kLuks2Copy;
using testing::kLuks2ImageSize;
using testing::kLuks2Segment;
using testing::ReadFile;
using testing::ValidLuks2Metadata;
using testing::VectorsDir;

Result<Luks2Metadata> Parse(const json& metadata) {
  return ParseLuks2Metadata(metadata.dump(), kLuks2Copy, kLuks2ImageSize);
}

TEST(Luks2Metadata, ValidOneIsRead) {
  const auto parsed = Parse(ValidLuks2Metadata());
  ASSERT_TRUE(parsed.has_value()) << parsed.error().Describe();
  EXPECT_EQ(parsed->payload_size, 0x10000U);
}

struct MetadataCase {
  std::string name;
  std::function<void(json&)> damage;
  std::string reason;
};
class HostileLuks2Metadata : public ::testing::TestWithParam<MetadataCase> {};

TEST_P(HostileLuks2Metadata, IsRefusedWithItsReason) {
  json metadata = ValidLuks2Metadata();
  GetParam().damage(metadata);
  const auto parsed = Parse(metadata);
  ASSERT_FALSE(parsed.has_value());
  EXPECT_EQ(parsed.error().code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(parsed.error().Describe(), HasSubstr(GetParam().reason));
  EXPECT_THAT(parsed.error().Describe(), ::testing::Not(HasSubstr("\n")));
  EXPECT_FALSE(parsed.error().fix().empty());
}

// Sets the member that a JSON pointer names.
auto Set(const std::string& pointer, json value) {
  return [=](json& m) { m[json::json_pointer(pointer)] = value; };
}
auto Erase(const std::string& parent, const std::string& name) {
  return [=](json& m) { m[json::json_pointer(parent)].erase(name); };
}

INSTANTIATE_TEST_SUITE_P(
    Sections, HostileLuks2Metadata,
    ::testing::Values(
        MetadataCase{"NoKeyslots", Erase("", "keyslots"), "keyslots is missing"},
        MetadataCase{"NoTokens", Erase("", "tokens"), "tokens is missing"},
        MetadataCase{"NoSegments", Erase("", "segments"), "segments is missing"},
        MetadataCase{"NoDigests", Erase("", "digests"), "digests is missing"},
        MetadataCase{"NoConfig", Erase("", "config"), "config is missing"},
        MetadataCase{"SegmentsEmpty",
                     [](json& m) {
                       m["segments"] = json::object();
                       m["digests"]["0"]["segments"] = json::array();
                     },
                     "segments is empty"},
        MetadataCase{"SegmentsArray", Set("/segments", json::array()), "segments is no object"},
        MetadataCase{"KeyslotName", Set("/keyslots/x", json::object()), "\"x\""},
        MetadataCase{"KeyslotNumber", Set("/keyslots/32", json::object()), "\"32\""},
        MetadataCase{"KeyslotNumberZero", Set("/keyslots/00", json::object()), "\"00\""},
        MetadataCase{"JsonSize", Set("/config/json_size", "16384"), "config.json_size"},
        MetadataCase{"JsonSizeNumber", Set("/config/json_size", 12288), "json_size is no text"},
        MetadataCase{"JsonSizeSpace", Set("/config/json_size", " 12288"), "not a decimal"},
        MetadataCase{"JsonSizeSign", Set("/config/json_size", "+12288"), "not a decimal"},
        MetadataCase{"JsonSizeHex", Set("/config/json_size", "0x3000"), "not a decimal"},
        MetadataCase{"KeyslotsSizeZeroes", Set("/config/keyslots_size", "0262144"),
                     "not a decimal"},
        MetadataCase{"KeyslotsSizeWraps", Set("/config/keyslots_size", "18446744073709551616"),
                     "not a decimal"},
        MetadataCase{"KeyslotsSizeHuge", Set("/config/keyslots_size", "18446744073709547520"),
                     "keyslots_size"},
        MetadataCase{"KeyslotsSizePastTheFile", Set("/config/keyslots_size", "134217728"),
                     "keyslots_size"},
        MetadataCase{"KeyslotsSizeOdd", Set("/config/keyslots_size", "262145"), "keyslots_size"},
        MetadataCase{"ConfigFlags", Set("/config/flags", json::array({1})), "config.flags"},
        MetadataCase{"RequirementUnknown", Set("/config/requirements", {{"mandatory", {"opal\n"}}}),
                     "unknown flag \"opal\\x0a\""},
        MetadataCase{"RequirementReencrypt",
                     Set("/config/requirements", {{"mandatory", {"online-reencrypt-v2"}}}),
                     "half re-encrypted"},
        MetadataCase{"RequirementKind", Set("/config/requirements", {{"needed", {"x"}}}),
                     "requirements.needed is unknown"},
        MetadataCase{"TokenWithoutType", Erase("/tokens/0", "type"), "tokens.0.type is missing"},
        MetadataCase{"TokenOfNoSlot", Set("/tokens/0/keyslots", {"7"}), "refers to \"7\""}),
    [](const auto& row) { return row.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Keyslots, HostileLuks2Metadata,
    ::testing::Values(
        MetadataCase{"Type", Set("/keyslots/0/type", "luks3"), "keyslots.0.type"},
        MetadataCase{"Reencrypt", Set("/keyslots/0/type", "reencrypt"), "half re-encrypted"},
        MetadataCase{"KeySizeZero", Set("/keyslots/0/key_size", 0), "does not fit"},
        MetadataCase{"KeySizeHuge", Set("/keyslots/0/key_size", 4294967295U), "does not fit"},
        MetadataCase{"KeySizeLarger", Set("/keyslots/0/key_size", 4294967296U), "too large"},
        MetadataCase{"KeySizeNegative", Set("/keyslots/0/key_size", -32), "is no number"},
        MetadataCase{"KeySizeFloat", Set("/keyslots/0/key_size", 32.0), "is no number"},
        MetadataCase{"KeySizeText", Set("/keyslots/0/key_size", "32"), "is no number"},
        MetadataCase{"KeySizesDiffer", Set("/keyslots/1/key_size", 16), "another slot's is 32"},
        MetadataCase{"Priority", Set("/keyslots/0/priority", 3), "priority is 3"},
        MetadataCase{"Stripes", Set("/keyslots/0/af/stripes", 4001), "not 4000"},
        MetadataCase{"AfType", Set("/keyslots/0/af/type", "luks2"), "af.type"},
        MetadataCase{"AfHash", Set("/keyslots/0/af/hash", "md5"), "unknown hash"},
        MetadataCase{"AreaType", Set("/keyslots/0/area/type", "journal"), "area.type"},
        MetadataCase{"AreaCipherNull", Set("/keyslots/0/area/encryption", "cipher_null-ecb"),
                     "no encryption at all"},
        MetadataCase{"AreaCipher", Set("/keyslots/0/area/encryption", "aes-ecb"), "unknown cipher"},
        MetadataCase{"AreaSmall", Set("/keyslots/0/area/size", "127999"), "does not fit"},
        MetadataCase{"AreaInHeader", Set("/keyslots/0/area/offset", "16384"),
                     "not inside the area"},
        MetadataCase{"AreaPastArea", Set("/keyslots/1/area/offset", "180000"),
                     "not inside the area"},
        MetadataCase{"AreaWraps", Set("/keyslots/1/area/size", "18446744073709551615"),
                     "not inside the area"},
        MetadataCase{"AreasOverlap", Set("/keyslots/1/area/offset", "163839"),
                     "overlaps that of slot 0"},
        MetadataCase{"KdfUnknown", Set("/keyslots/0/kdf/type", "scrypt"), "unknown KDF"},
        MetadataCase{"KdfSalt", Set("/keyslots/0/kdf/salt", "?"), "not base64"},
        MetadataCase{"KdfHash", Set("/keyslots/0/kdf/hash", "md5"), "unknown hash"},
        MetadataCase{"IterationsZero", Set("/keyslots/0/kdf/iterations", 0), "KDF budget"},
        MetadataCase{"IterationsHuge", Set("/keyslots/0/kdf/iterations", 4294967295U),
                     "KDF budget"},
        MetadataCase{"ArgonTimeZero", Set("/keyslots/1/kdf/time", 0), "KDF budget"},
        MetadataCase{"ArgonWork", Set("/keyslots/1/kdf/time", 17), "KDF budget"},
        MetadataCase{"ArgonMemory", Set("/keyslots/1/kdf/memory", 1048577), "KDF budget"},
        MetadataCase{"ArgonMemoryZero", Set("/keyslots/1/kdf/memory", 0), "KDF budget"},
        MetadataCase{"ArgonCpus", Set("/keyslots/1/kdf/cpus", 5), "KDF budget"},
        MetadataCase{"ArgonCpusZero", Set("/keyslots/1/kdf/cpus", 0), "KDF budget"}),
    [](const auto& row) { return row.param.name; });

json SecondSegment(json m) {
  json second = m["segments"]["0"];
  second["offset"] = std::to_string(kLuks2Segment + 0x8000);
  m["segments"]["0"]["size"] = "32768";
  m["segments"]["1"] = second;
  m["digests"]["0"]["segments"] = {"0", "1"};
  return m;
}

INSTANTIATE_TEST_SUITE_P(
    SegmentsAndDigests, HostileLuks2Metadata,
    ::testing::Values(
        MetadataCase{"CipherNull", Set("/segments/0/encryption", "cipher_null-ecb"),
                     "no encryption at all"},
        MetadataCase{"CipherNullAlone", Set("/segments/0/encryption", "null"),
                     "no encryption at all"},
        MetadataCase{"CipherUnknown", Set("/segments/0/encryption", "capi:xts(aes)-plain64"),
                     "unknown cipher"},
        MetadataCase{"Type", Set("/segments/0/type", "opal"), "unknown segment"},
        MetadataCase{"Linear", Set("/segments/0/type", "linear"), "not encrypted"},
        MetadataCase{"Integrity", Set("/segments/0/integrity", {{"type", "hmac(sha256)"}}),
                     "integrity"},
        MetadataCase{"Flags", Set("/segments/0/flags", {"backup-final"}), "half re-encrypted"},
        MetadataCase{"SectorSize", Set("/segments/0/sector_size", 8192), "sector_size is 8192"},
        MetadataCase{"SectorSizeZero", Set("/segments/0/sector_size", 0), "sector_size is 0"},
        MetadataCase{"IvTweak", Set("/segments/0/iv_tweak", "-1"), "iv_tweak"},
        MetadataCase{"OffsetInKeyslots", Set("/segments/0/offset", "294400"), "overlaps"},
        MetadataCase{"OffsetZero", Set("/segments/0/offset", "0"), "overlaps"},
        MetadataCase{"OffsetOdd", Set("/segments/0/offset", "294913"), "whole sectors"},
        MetadataCase{"OffsetPastTheEnd", Set("/segments/0/offset", "999999488"), "past the end"},
        MetadataCase{"OffsetAtTheEnd", Set("/segments/0/offset", std::to_string(kLuks2ImageSize)),
                     "past the end"},
        MetadataCase{"SizePastTheEnd", Set("/segments/0/size", "66048"), "past the end"},
        MetadataCase{"SizeZero", Set("/segments/0/size", "0"), "past the end"},
        MetadataCase{"SizeHuge", Set("/segments/0/size", "18446744073709551104"), "past the end"},
        MetadataCase{"SizeOdd", Set("/segments/0/size", "511"), "whole sectors"},
        MetadataCase{"SizeText", Set("/segments/0/size", "Dynamic"), "not a decimal"},
        MetadataCase{"DynamicNotLast",
                     [](json& m) {
                       m = SecondSegment(m);
                       m["segments"]["0"]["size"] = "dynamic";
                     },
                     "not the last"},
        MetadataCase{"SegmentsOverlap",
                     [](json& m) {
                       m = SecondSegment(m);
                       m["segments"]["0"]["size"] = "33280";
                     },
                     "overlaps"},
        MetadataCase{"SegmentsDiffer",
                     [](json& m) {
                       m = SecondSegment(m);
                       m["segments"]["1"]["sector_size"] = 4096;
                     },
                     "not encrypted as the first"},
        MetadataCase{"SegmentWithoutDigest",
                     [](json& m) {
                       m = SecondSegment(m);
                       m["digests"]["0"]["segments"] = {"0"};
                     },
                     "has no digest"},
        MetadataCase{"SegmentsWithTwoDigests",
                     [](json& m) { m["digests"]["1"] = m["digests"]["0"]; }, "several digests"},
        MetadataCase{"KeyslotWithTwoDigests",
                     [](json& m) {
                       m["digests"]["1"] = m["digests"]["0"];
                       m["digests"]["1"]["segments"] = json::array();
                     },
                     "has several"},
        MetadataCase{"DigestOfNoSlot", Set("/digests/0/keyslots", {"0", "5"}), "refers to \"5\""},
        MetadataCase{"DigestOfASlotTwice", Set("/digests/0/keyslots", {"0", "0"}), "twice"},
        MetadataCase{"DigestOfNoSegment", Set("/digests/0/segments", {"1"}), "refers to \"1\""},
        MetadataCase{"DigestType", Set("/digests/0/type", "argon2id"), "digests.0.type"},
        MetadataCase{"DigestHash", Set("/digests/0/hash", "md5"), "unknown hash"},
        MetadataCase{"DigestIterations", Set("/digests/0/iterations", 4294967295U), "KDF budget"},
        MetadataCase{"DigestValue", Set("/digests/0/digest", ""), "not base64"},
        MetadataCase{"NoKeySlot",
                     [](json& m) {
                       m["keyslots"] = json::object();
                       m["tokens"] = json::object();
                       m["digests"]["0"]["keyslots"] = json::array();
                     },
                     "no key slot"}),
    [](const auto& row) { return row.param.name; });

TEST(Luks2Metadata, SeveralEqualSegmentsAreRead) {
  const auto parsed = Parse(SecondSegment(ValidLuks2Metadata()));
  ASSERT_TRUE(parsed.has_value()) << parsed.error().Describe();
  EXPECT_EQ(parsed->payload_size, 0x10000U);
}

TEST(Luks2Metadata, UnboundKeySlotIsAFactAndNotOneThatOpens) {
  json metadata = ValidLuks2Metadata();
  metadata["digests"]["0"]["keyslots"] = {"0"};
  const auto parsed = Parse(metadata);
  ASSERT_TRUE(parsed.has_value()) << parsed.error().Describe();
  EXPECT_EQ(parsed->key_slots.size(), 1U);
  EXPECT_THAT(parsed->facts, Contains(HasSubstr("unbound")));
}

TEST(Luks2Metadata, TextThatIsNotOneSmallJsonObjectIsRefused) {
  const std::string good = ValidLuks2Metadata().dump();
  const auto reason = [](const std::string& text) {
    const auto parsed = ParseLuks2Metadata(text, kLuks2Copy, kLuks2ImageSize);
    return parsed.has_value() ? "" : parsed.error().Describe();
  };
  EXPECT_EQ(reason(good), "");
  EXPECT_THAT(reason(""), HasSubstr("not valid at byte"));
  EXPECT_THAT(reason("[]"), HasSubstr("no object"));
  EXPECT_THAT(reason(good + "x"), HasSubstr("not valid at byte"));
  EXPECT_THAT(reason("{\"\xff\": 1}"), HasSubstr("not valid at byte"));
  EXPECT_THAT(reason("{\"a\": 1e999}"), HasSubstr("not valid at byte"));
  EXPECT_THAT(reason(R"({"a": 1, "a": 1})"), HasSubstr("\"a\" occurs twice"));
  EXPECT_THAT(reason(std::string(4 << 20, '[')), HasSubstr("nested deeper than 16"));
  std::string deep = good;
  deep.insert(1, "\"a\":" + std::string(1000, '[') + std::string(1000, ']') + ",");
  EXPECT_THAT(reason(deep), HasSubstr("nested deeper than 16"));
  std::string many = "[";
  for (int i = 0; i < 1 << 20; ++i) many += "0,";
  EXPECT_THAT(reason(many + "0]"), HasSubstr("more than 16384 values"));
}

TEST(LuksVectors, MetadataIsReadAsTheirManifestSays) {
  const std::string dir = VectorsDir();
  if (dir.empty()) GTEST_SKIP() << "no test vectors: set VALLUM_VECTORS";
  size_t seen = 0;
  for (const auto& vector : json::parse(AsText(ReadFile(dir + "/manifest.json")))) {
    if (vector["kind"] != "luks2_json") continue;
    ++seen;
    const auto file = vector["file"].get<std::string>();
    SCOPED_TRACE(file);
    const json& expect = vector["expect"];
    const Bytes text = ReadFile(dir + "/" + file);
    const auto metadata = ParseLuks2Metadata(AsText(text), kLuks2Copy, uint64_t{1} << 30U);
    ASSERT_TRUE(metadata.has_value()) << metadata.error().Describe();
    EXPECT_EQ(json(metadata->cipher), expect["encryption"][0]);
    std::vector<std::string> slots;
    std::vector<std::string> kdfs;
    for (const LuksKeySlot& slot : metadata->key_slots) {
      slots.push_back(std::to_string(slot.number));
      kdfs.emplace_back(LuksKdfName(slot.cost.kdf));
    }
    EXPECT_EQ(slots, expect["keyslots"].get<std::vector<std::string>>());
    EXPECT_EQ(kdfs, expect["kdf"].get<std::vector<std::string>>());
    EXPECT_EQ(metadata->facts.size(), expect["tokens"].size());
  }
  EXPECT_GE(seen, 2U);
}

}  // namespace
}  // namespace vallum::formats
