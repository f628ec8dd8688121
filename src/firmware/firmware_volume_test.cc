// SPDX-License-Identifier: Apache-2.0
#include "firmware/firmware_volume.h"

#include <gtest/gtest.h>
#include <lzma.h>

#include <algorithm>
#include <fstream>
#include <random>
#include <sstream>
#include <utility>

namespace vallum::firmware {
namespace {

constexpr const char* kRealFirmware = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";

void PutU24(ByteWriter& out, size_t value) {
  out.U16Le(static_cast<uint16_t>(value)).U8(static_cast<uint8_t>(value >> 16U));
}

Bytes Section(uint8_t type, ByteView content) {
  ByteWriter out;
  PutU24(out, content.size() + 4);
  return std::move(out.U8(type).Raw(content).Zeros((4 - content.size() % 4) % 4)).Take();
}

Bytes Join(const std::vector<Bytes>& parts) {
  ByteWriter out;
  for (const Bytes& part : parts) {
    out.Raw(part);
  }
  return std::move(out).Take();
}

Bytes Packed(ByteView content) {
  lzma_options_lzma options;
  lzma_lzma_preset(&options, 0);
  lzma_stream stream = LZMA_STREAM_INIT;
  EXPECT_EQ(lzma_alone_encoder(&stream, &options), LZMA_OK);
  Bytes packed(content.size() + 1024);
  stream.next_in = reinterpret_cast<const uint8_t*>(content.data());
  stream.avail_in = content.size();
  stream.next_out = reinterpret_cast<uint8_t*>(packed.data());
  stream.avail_out = packed.size();
  EXPECT_EQ(lzma_code(&stream, LZMA_FINISH), LZMA_STREAM_END);
  packed.resize(packed.size() - stream.avail_out);
  lzma_end(&stream);
  // EDK II's tool writes the size into the header; liblzma leaves it unknown.
  ByteWriter size;
  size.U64Le(content.size());
  std::copy(size.bytes().begin(), size.bytes().end(), packed.begin() + 5);
  ByteWriter section;
  section.Raw(Guid::Parse("ee4e5898-3914-4259-9d6e-dc7bd79403cf")->bytes).U16Le(24).U16Le(1);
  return Section(0x02, std::move(section.Raw(packed)).Take());
}

Bytes File(uint8_t type, ByteView sections) {
  ByteWriter out;
  out.Zeros(18).U8(type).U8(0);
  PutU24(out, sections.size() + 24);
  return std::move(out.U8(0xf8).Raw(sections).Zeros((8 - sections.size() % 8) % 8)).Take();
}

Bytes Volume(ByteView files) {
  ByteWriter out;
  out.Zeros(32).U64Le(72 + files.size() + 64).U32Le(0x4856465f).U32Le(0).U16Le(72).U16Le(0);
  out.U16Le(0).U8(0).U8(2).Zeros(16).Raw(files);
  Bytes volume = std::move(out).Take();
  volume.resize(volume.size() + 64, std::byte{0xff});  // erased
  return volume;
}

Bytes MakeValidImage() {
  const Bytes shell =
      File(kFirmwareFileApplication, Join({Section(0x10, AsBytes("MZ program")),
                                           Section(0x15, AsBytes(std::string("S\0h\0\0\0", 6)))}));
  const Bytes inner = Section(0x17, Volume(Join({File(0xf0, Bytes(8)), shell})));
  return Join({Volume(File(0x0b, Packed(inner))), Volume({})});
}

TEST(FirmwareVolume, ProgramsInPackedVolumesAreFoundByName) {
  const Bytes bytes = MakeValidImage();
  const auto image = FirmwareImage::Parse(bytes);
  ASSERT_TRUE(image.has_value()) << image.error().Describe();
  ASSERT_EQ(image->volumes().size(), 3U);
  EXPECT_FALSE(image->volumes()[0].nested);
  EXPECT_TRUE(image->volumes()[1].nested);
  ASSERT_EQ(image->programs().size(), 1U);
  EXPECT_EQ(image->programs()[0].name, "Sh");
  EXPECT_EQ(image->programs()[0].file_type, kFirmwareFileApplication);
  EXPECT_EQ(AsText(image->programs()[0].image), "MZ program");
}

TEST(FirmwareVolume, ImageWithoutAVolumeIsRefused) {
  Bytes bytes = MakeValidImage();
  bytes[40] = std::byte{0};
  EXPECT_EQ(FirmwareImage::Parse(bytes).error().code(), ErrorCode::kInvalidInput);
  EXPECT_EQ(FirmwareImage::Parse({}).error().code(), ErrorCode::kInvalidInput);
}

TEST(FirmwareVolume, SizesOutsideTheirContainerAreRefused) {
  for (const size_t at : {39U, 49U, 72U + 22U, 72U + 24U + 2U}) {  // volume, header, file, section
    Bytes bytes = MakeValidImage();
    bytes[at] = std::byte{0x7f};
    EXPECT_EQ(FirmwareImage::Parse(bytes).error().code(), ErrorCode::kCorrupt) << at;
  }
}

TEST(FirmwareVolume, PackedSectionThatClaimsTooMuchIsRefusedBeforeItIsUnpacked) {
  Bytes bytes = MakeValidImage();
  bytes[72 + 24 + 24 + 5 + 4] = std::byte{1};  // 4 GiB more
  EXPECT_EQ(FirmwareImage::Parse(bytes).error().code(), ErrorCode::kExhausted);
}

TEST(FirmwareVolume, DamagedPackedDataIsRefused) {
  Bytes bytes = MakeValidImage();
  for (size_t i = 0; i < 16; ++i) {
    bytes[72 + 24 + 24 + 20 + i] ^= std::byte{0xff};
  }
  EXPECT_EQ(FirmwareImage::Parse(bytes).error().code(), ErrorCode::kCorrupt);
}

TEST(FirmwareVolume, DeepNestingIsRefused) {
  Bytes volume = Volume({});
  for (size_t i = 0; i < kMaxFirmwareNesting + 2; ++i) {
    volume = Volume(File(0x0b, Section(0x17, volume)));
  }
  EXPECT_EQ(FirmwareImage::Parse(volume).error().code(), ErrorCode::kExhausted);
}

TEST(FirmwareVolume, DamageNeverCrashes) {
  const Bytes valid = MakeValidImage();
  std::mt19937 random(1);  // NOLINT: the same damage each time
  for (int i = 0; i < 2000; ++i) {
    Bytes bytes = valid;
    bytes[random() % bytes.size()] ^= static_cast<std::byte>(1U << (random() % 8));
    bytes.resize(random() % (bytes.size() + 1));
    static_cast<void>(FirmwareImage::Parse(bytes).has_value());
  }
}

TEST(FirmwareVolume, OvmfHasItsApplicationsInTheDxeVolume) {
  std::ifstream in(kRealFirmware, std::ios::binary);
  if (!in.good()) {
    GTEST_SKIP() << kRealFirmware << " is missing: apt-get install ovmf";
  }
  std::ostringstream text;
  text << in.rdbuf();
  const std::string content = text.str();
  const auto image = FirmwareImage::Parse(AsBytes(content));
  ASSERT_TRUE(image.has_value()) << image.error().Describe();
  EXPECT_EQ(std::count_if(image->volumes().begin(), image->volumes().end(),
                          [](const FirmwareVolume& volume) { return volume.nested; }),
            2);
  EXPECT_TRUE(std::any_of(
      image->programs().begin(), image->programs().end(), [](const FirmwareProgram& program) {
        return program.name == "UiApp" && program.file_type == kFirmwareFileApplication &&
               AsText(program.image).starts_with("MZ");
      }));
}

}  // namespace
}  // namespace vallum::firmware
