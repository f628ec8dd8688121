// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <lzma.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>

#include "firmware/firmware_volume.h"
#include "firmware/variable_store_editor.h"
#include "formats/pe.h"
#include "measure/event_digest.h"
#include "measure/firmware_measurements.h"
#include "measure/predict.h"

namespace vallum::measure {
namespace {

using firmware::Variable;
using firmware::VariableStore;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;
constexpr std::array kBanks = {kBank};
const std::string kFolder = "/usr/share/OVMF/";
const std::string kSecure = "OVMF_CODE_4M.secboot.fd";
const std::string kPlain = "OVMF_CODE_4M.fd";

Bytes ReadCode(const std::string& name) {
  std::ifstream in(kFolder + name, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  return ToBytes(AsBytes(text));
}

FirmwareMeasurements Measure(ByteView image) {
  auto measured = MeasureFirmware(image, kBanks);
  EXPECT_TRUE(measured.has_value()) << measured.error().Describe();
  return *measured;
}

Variable MakeVariable(const std::u16string& name, const std::string& vendor, ByteView data) {
  Variable variable;
  variable.name = name;
  variable.vendor = *firmware::Guid::Parse(vendor);
  variable.attributes = 7;
  variable.data = ToBytes(data);
  return variable;
}
constexpr const char* kGlobal = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
constexpr const char* kMemoryTypes = "4c19049f-4137-4dd3-9c10-8b97a83ffdfa";

// A machine that boots a kernel directly, as the chain does not matter here.
struct Machine {
  std::vector<Variable> variables;
  MachineInput input = {.memory = ByteCount::MiB(512), .vcpus = 1, .cpu = TcgCpu()};

  Prediction Predict(const FirmwareMeasurements& firmware) const {
    BootInput boot;
    boot.chain.emplace_back().authenticode = {{kBank, Bytes(32)}};
    boot.platform = PlatformInput{&firmware, input};
    const auto store = VariableStore::Parse(*firmware::MakeVariableStoreImage(variables));
    auto prediction = PredictBoot(kBank, *store, boot);
    EXPECT_TRUE(prediction.has_value());
    return *prediction;
  }
  Bytes Pcr0(const FirmwareMeasurements& firmware) const {
    const Prediction prediction = Predict(firmware);
    EXPECT_EQ(prediction.pcrs[0].state, PcrKnowledge::kExact) << prediction.pcrs[0].reason;
    return prediction.pcrs[0].value;
  }
};

class PredictPlatform : public ::testing::Test {
 protected:
  // Measured once: it unpacks 13 MiB.
  static void SetUpTestSuite() {
    if (std::filesystem::exists(kFolder + kSecure)) measured_ = Measure(ReadCode(kSecure));
  }
  void SetUp() override {
    if (!measured_.has_value()) {
      GTEST_SKIP() << kFolder << kSecure << " is missing: apt-get install ovmf";
    }
    secure_ = *measured_;
  }
  static inline std::optional<FirmwareMeasurements> measured_;
  FirmwareMeasurements secure_;
  Machine machine_;
};

TEST_F(PredictPlatform, EachPcrFrom0To9IsListedOnce) {
  const Prediction prediction = machine_.Predict(secure_);
  ASSERT_GE(prediction.pcrs.size(), 10U);
  for (uint32_t i = 0; i < 10; ++i) {
    EXPECT_EQ(prediction.pcrs[i].pcr.value(), i);
  }
  for (const size_t i : {0U, 1U, 2U, 3U, 6U}) {
    EXPECT_EQ(prediction.pcrs[i].state, PcrKnowledge::kExact) << prediction.pcrs[i].reason;
    EXPECT_EQ(prediction.pcrs[i].events.back().digest, SeparatorDigest(kBank));
  }
  EXPECT_THAT(prediction.pcrs[2].events, SizeIs(1));
  EXPECT_THAT(prediction.pcrs[3].events, SizeIs(1));
  EXPECT_THAT(prediction.pcrs[6].events, SizeIs(1));
}

TEST_F(PredictPlatform, Pcr0IsTheVersionBothVolumesAndTheSeparator) {
  const Bytes code = ReadCode(kSecure);
  const auto image = firmware::FirmwareImage::Parse(code);
  const auto events = machine_.Predict(secure_).pcrs[0].events;
  ASSERT_THAT(events, SizeIs(4));
  EXPECT_EQ(events[0].digest, Digest(kBank, Bytes(2)));
  EXPECT_NE(events[1].digest, Digest(kBank, image->volumes()[1].content));  // it writes into itself
  EXPECT_EQ(events[2].digest, Digest(kBank, image->volumes()[2].content));
}

TEST_F(PredictPlatform, ApplicationsInTheFirmwareAreNamedWithWhatPcr4GetsForThem) {
  const Bytes code = ReadCode(kSecure);
  const auto image = firmware::FirmwareImage::Parse(code);
  const auto shell =
      std::ranges::find(image->programs(), "Shell", &firmware::FirmwareProgram::name);
  ASSERT_NE(shell, image->programs().end());
  const Bytes digest =
      *formats::PeImage::Parse(shell->image)->AuthenticodeDigest(HashAlgorithm::kSha256);
  std::vector<std::string> names;
  for (const FirmwareApplication& each : Measure(code).applications) {
    names.push_back(each.name);
    EXPECT_EQ(each.name == "Shell", each.authenticode_sha256 == digest) << each.name;
  }
  EXPECT_THAT(names, testing::UnorderedElementsAre("UiApp", "Shell"));
}

TEST_F(PredictPlatform, EachOfDebiansBuildsIsKnownAndHasItsOwnPcr0) {
  std::vector<Bytes> values;
  for (const char* name :
       {"OVMF_CODE.fd", "OVMF_CODE.secboot.fd", "OVMF_CODE_4M.fd", "OVMF_CODE_4M.secboot.fd"}) {
    const Bytes value = machine_.Pcr0(Measure(ReadCode(name)));
    EXPECT_EQ(std::ranges::count(values, value), 0) << name;
    values.push_back(value);
  }
}

TEST_F(PredictPlatform, Pcr0FollowsTheMachineWhereTheFirmwareDoes) {
  const Bytes base = machine_.Pcr0(secure_);
  const auto with = [&](auto change) {
    Machine other = machine_;
    change(other.input);
    return other.Pcr0(secure_);
  };
  const auto memory = [&](ByteCount size) { return with([&](auto& m) { m.memory = size; }); };
  EXPECT_EQ(memory(ByteCount::GiB(2)), base);
  EXPECT_EQ(memory(ByteCount::GiB(30)), base);  // below 32 GiB with the hole
  EXPECT_NE(memory(ByteCount::GiB(31)), base);
  EXPECT_NE(memory(ByteCount::MiB(2500)), base);  // more than 2 GiB below 4 GiB
  EXPECT_NE(with([](auto& m) { m.vcpus = 2; }), base);
  EXPECT_EQ(with([](auto& m) { m.boot_disk_slot = 9; }), base);
}

TEST_F(PredictPlatform, AddressWidthIsBelievedAsTheFirmwareDoes) {
  const auto with = [&](const char* vendor, uint8_t bits, bool gigabyte_pages) {
    Machine other = machine_;
    other.input.cpu = {vendor, bits, gigabyte_pages};
    return other.Pcr0(secure_);
  };
  const Bytes base = machine_.Pcr0(secure_);  // AMD, 40 bits
  EXPECT_NE(with("GenuineIntel", 40, true), base);
  EXPECT_EQ(with("GenuineIntel", 40, true), with("GenuineIntel", 38, true));
  EXPECT_NE(with("GenuineIntel", 39, true), with("GenuineIntel", 38, true));
  EXPECT_EQ(with("GenuineIntel", 46, false), base);
  EXPECT_NE(with("GenuineIntel", 46, true), with("GenuineIntel", 45, true));
  EXPECT_EQ(with("GenuineIntel", 48, true), with("AuthenticAMD", 47, true));
}

TEST_F(PredictPlatform, MachineThatIsNotFollowedLeavesPcr0Partial) {
  machine_.input.memory = ByteCount::GiB(1024);
  const PcrPrediction pcr = machine_.Predict(secure_).pcrs[0];
  EXPECT_EQ(pcr.state, PcrKnowledge::kPartial);
  EXPECT_THAT(pcr.events, SizeIs(1));
  EXPECT_THAT(pcr.reason, HasSubstr("memory"));
}

Bytes PagesOfRuntimeData(uint32_t pages) {
  ByteWriter hint;
  hint.U32Le(6).U32Le(pages).U32Le(16).U32Le(0);
  return std::move(hint).Take();
}

TEST_F(PredictPlatform, MemoryTypesOfTheStoreOnlyRaiseAndOnlyInTheSmmBuild) {
  const FirmwareMeasurements plain = Measure(ReadCode(kPlain));
  const Bytes base = machine_.Pcr0(secure_);
  const Bytes plain_base = machine_.Pcr0(plain);
  machine_.variables = {
      MakeVariable(u"MemoryTypeInformation", kMemoryTypes, PagesOfRuntimeData(0x10))};
  EXPECT_EQ(machine_.Pcr0(secure_), base);
  machine_.variables = {
      MakeVariable(u"MemoryTypeInformation", kMemoryTypes, PagesOfRuntimeData(0x246))};
  EXPECT_NE(machine_.Pcr0(secure_), base);
  EXPECT_EQ(machine_.Pcr0(plain), plain_base);
}

TEST_F(PredictPlatform, MemoryTypesOfAnImpossibleSizeAreIgnoredAsTheFirmwareDoes) {
  const Bytes base = machine_.Pcr0(secure_);
  Bytes hint = PagesOfRuntimeData(0x246);
  hint.resize(hint.size() - 1);
  machine_.variables = {MakeVariable(u"MemoryTypeInformation", kMemoryTypes, hint)};
  EXPECT_EQ(machine_.Pcr0(secure_), base);
  hint = PagesOfRuntimeData(0x246);
  hint.resize(8 * 18);
  machine_.variables = {MakeVariable(u"MemoryTypeInformation", kMemoryTypes, hint)};
  EXPECT_EQ(machine_.Pcr0(secure_), base);
}

TEST_F(PredictPlatform, Pcr1IsTheBootOrderThenItsOptions) {
  const auto events = machine_.Predict(secure_).pcrs[1].events;
  ASSERT_THAT(events, SizeIs(5));
  const Bytes order = *FromHex("010000000200");
  EXPECT_EQ(events[0].digest, Digest(kBank, order));
  EXPECT_THAT(events[1].description, HasSubstr("Boot0001"));
  machine_.input.boot_disk_slot = 5;
  EXPECT_NE(machine_.Predict(secure_).pcrs[1].events[1].digest, events[1].digest);
}

TEST_F(PredictPlatform, BootOrderThatSomebodyElseMadeLeavesPcr1Unknown) {
  const Bytes order = *FromHex("0300010000000200");
  machine_.variables = {MakeVariable(u"BootOrder", kGlobal, order)};
  EXPECT_EQ(machine_.Predict(secure_).pcrs[1].state, PcrKnowledge::kUnknown);
  EXPECT_THAT(machine_.Predict(secure_).pcrs[1].reason, HasSubstr("boot order"));
}

TEST_F(PredictPlatform, BootOptionThatSomebodyElseMadeLeavesPcr1Unknown) {
  machine_.variables = {MakeVariable(u"BootOrder", kGlobal, *FromHex("010000000200")),
                        MakeVariable(u"Boot0001", kGlobal, *FromHex("0100"))};
  EXPECT_EQ(machine_.Predict(secure_).pcrs[1].state, PcrKnowledge::kUnknown);
  EXPECT_THAT(machine_.Predict(secure_).pcrs[1].reason, HasSubstr("Boot0001"));
}

void PutU24(ByteWriter& out, size_t value) {
  out.U16Le(static_cast<uint16_t>(value)).U8(static_cast<uint8_t>(value >> 16U));
}

Bytes Section(uint8_t type, ByteView content) {
  ByteWriter out;
  PutU24(out, content.size() + 4);
  return std::move(out.U8(type).Raw(content).Zeros((4 - content.size() % 4) % 4)).Take();
}

// A code file that holds these two volumes, packed as OVMF's are.
Bytes Repack(ByteView pei, ByteView dxe) {
  ByteWriter content;
  content.Raw(Section(0x17, pei)).Raw(Section(0x17, dxe));
  lzma_options_lzma options;
  lzma_lzma_preset(&options, 0);
  lzma_stream stream = LZMA_STREAM_INIT;
  EXPECT_EQ(lzma_alone_encoder(&stream, &options), LZMA_OK);
  Bytes packed(content.bytes().size() + 1024);
  stream.next_in = reinterpret_cast<const uint8_t*>(content.bytes().data());
  stream.avail_in = content.bytes().size();
  stream.next_out = reinterpret_cast<uint8_t*>(packed.data());
  stream.avail_out = packed.size();
  EXPECT_EQ(lzma_code(&stream, LZMA_FINISH), LZMA_STREAM_END);
  packed.resize(packed.size() - stream.avail_out);
  lzma_end(&stream);
  ByteWriter size;  // EDK II's tool writes it into the header; liblzma leaves it unknown
  size.U64Le(content.bytes().size());
  std::ranges::copy(size.bytes(), packed.begin() + 5);
  ByteWriter section;
  section.Raw(firmware::Guid::Parse("ee4e5898-3914-4259-9d6e-dc7bd79403cf")->bytes);
  const Bytes inside = Section(0x02, std::move(section.U16Le(24).U16Le(1).Raw(packed)).Take());
  ByteWriter file;
  file.Zeros(18).U8(0x0b).U8(0);
  PutU24(file, inside.size() + 24);
  file.U8(0xf8).Raw(inside);
  ByteWriter out;
  out.Zeros(32).U64Le(72 + file.bytes().size()).U32Le(0x4856465f).U32Le(0).U16Le(72).U16Le(0);
  out.U16Le(0).U8(0).U8(2).Zeros(16).Raw(file.bytes());
  return std::move(out).Take();
}

TEST_F(PredictPlatform, ChangedDxeVolumeGivesAnotherPcr0) {
  const Bytes code = ReadCode(kSecure);
  const auto image = firmware::FirmwareImage::Parse(code);
  const ByteView pei = image->volumes()[1].content;
  Bytes dxe = ToBytes(image->volumes()[2].content);
  const Bytes base = machine_.Pcr0(secure_);
  EXPECT_EQ(machine_.Pcr0(Measure(Repack(pei, dxe))), base);
  dxe.back() ^= std::byte{1};
  EXPECT_NE(machine_.Pcr0(Measure(Repack(pei, dxe))), base);
}

TEST_F(PredictPlatform, ChangedPeiVolumeIsAnUnknownBuild) {
  const Bytes code = ReadCode(kSecure);
  const auto image = firmware::FirmwareImage::Parse(code);
  Bytes pei = ToBytes(image->volumes()[1].content);
  pei.back() ^= std::byte{1};
  const Prediction prediction = machine_.Predict(Measure(Repack(pei, image->volumes()[2].content)));
  for (const size_t i : {0U, 1U}) {
    EXPECT_EQ(prediction.pcrs[i].state, PcrKnowledge::kUnknown);
    EXPECT_THAT(prediction.pcrs[i].reason, HasSubstr("not known"));
    EXPECT_THAT(prediction.pcrs[i].events, IsEmpty());
  }
}

TEST_F(PredictPlatform, TruncatedOrOtherFirmwareIsRefused) {
  const Bytes code = ReadCode(kSecure);
  for (const size_t size :
       {size_t{0}, size_t{40}, size_t{4096}, code.size() / 2, code.size() - 1}) {
    EXPECT_FALSE(MeasureFirmware(ByteView(code).first(size), kBanks).has_value()) << size;
  }
  const auto variables = MeasureFirmware(ReadCode("OVMF_VARS_4M.fd"), kBanks);
  ASSERT_FALSE(variables.has_value());
  EXPECT_THAT(variables.error().Describe(), HasSubstr("OVMF"));
}

TEST(GuestCpu, IsParsed) {
  EXPECT_EQ(ParseGuestCpu("tcg")->physical_bits, 40);
  EXPECT_EQ(ParseGuestCpu("GenuineIntel:46")->vendor, "GenuineIntel");
  EXPECT_EQ(ParseGuestCpu("GenuineIntel:46")->physical_bits, 46);
  for (const char* text : {"", "46", ":46", "GenuineIntel:", "GenuineIntel:46x", "x:300"}) {
    EXPECT_FALSE(ParseGuestCpu(text).has_value()) << text;
  }
}

}  // namespace
}  // namespace vallum::measure
