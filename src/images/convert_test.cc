// SPDX-License-Identifier: Apache-2.0
#include "images/convert.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/result.h"
#include "base/units.h"
#include "formats/byte_sink.h"
#include "formats/fields.h"
#include "formats/qcow2.h"
#include "formats/qcow2_entries.h"
#include "formats/reader.h"
#include "formats/test_support.h"
#include "images/confined_converter.h"
#include "images/conversion_messages.h"
#include "images/fd_reader.h"
#include "images/inspection.h"

namespace vallum::images {
namespace {

using formats::testing::MustRun;
using formats::testing::ReadFile;
using formats::testing::TempDir;
using formats::testing::WriteFile;
using ::testing::HasSubstr;

// A boot disk of 8 MiB with data, zeroes and data that compresses well.
const Bytes& Disk() {
  static const Bytes disk = [] {
    Bytes bytes = formats::testing::MakeGptDisk(512, 16384, {{2048, 8191}, {8192, 14335}});
    std::mt19937_64 random(3);
    for (size_t i = 1 << 20; i < 2 << 20; ++i) bytes[i] = static_cast<std::byte>(random());
    for (size_t i = 5 << 20; i < (5 << 20) + 70000; ++i) bytes[i] = std::byte{0x41};
    return bytes;
  }();
  return disk;
}

struct Source {
  DeclaredFormat format;
  std::string qemu_name;
  std::string options;  // of qemu-img convert
};

const std::vector<Source>& Sources() {
  static const std::vector<Source> sources = {
      {DeclaredFormat::kGpt, "raw", ""},
      {DeclaredFormat::kQcow2, "qcow2", ""},
      {DeclaredFormat::kQcow2, "qcow2", "-o cluster_size=2M"},
      {DeclaredFormat::kQcow2, "qcow2", "-c"},
      {DeclaredFormat::kQcow2, "qcow2", "-o preallocation=full"},
      {DeclaredFormat::kVmdk, "vmdk", ""},
      {DeclaredFormat::kVmdk, "vmdk", "-o subformat=streamOptimized"},
      {DeclaredFormat::kVhd, "vpc", "-o force_size=on"},
      {DeclaredFormat::kVhd, "vpc", "-o force_size=on,subformat=fixed"},
      {DeclaredFormat::kVhdx, "vhdx", ""},
      {DeclaredFormat::kVhdx, "vhdx", "-o subformat=fixed"},
      {DeclaredFormat::kVdi, "vdi", ""},
      {DeclaredFormat::kVdi, "vdi", "-o static=on"},
  };
  return sources;
}

class UniqueDescriptor {
 public:
  explicit UniqueDescriptor(const std::string& path)
      : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    EXPECT_GE(fd_, 0) << path;
  }
  ~UniqueDescriptor() { close(fd_); }
  UniqueDescriptor(const UniqueDescriptor&) = delete;
  UniqueDescriptor& operator=(const UniqueDescriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

class Convert : public ::testing::Test {
 protected:
  std::string Make(const Source& source) {
    WriteFile(dir_.File("disk"), Disk());
    std::string file = dir_.File("image");
    MustRun("qemu-img convert -f raw -O " + source.qemu_name + " " + source.options + " " +
            dir_.File("disk") + " " + file);
    return file;
  }

  Result<InspectedImage> Proof(const std::string& file, DeclaredFormat format) {
    const UniqueDescriptor fd(file);
    ASSIGN_OR_RETURN(const FdReader reader, FdReader::Open(fd.get()));
    return InspectBound(reader, format, Sha256Digest{});
  }

  // Converts, with what Inspect() says of the file as the proof.
  Result<Bytes> Run(const std::string& file, DeclaredFormat format, StoreFormat target) {
    ASSIGN_OR_RETURN(const InspectedImage proof, Proof(file, format));
    return RunWith(file, proof, target);
  }
  Result<Bytes> RunWith(const std::string& file, const InspectedImage& proof, StoreFormat target) {
    const UniqueDescriptor fd(file);
    const ConfinedConverter converter({.program = program_, .timeout = timeout_});
    formats::BytesSink out;
    RETURN_IF_ERROR(converter.Convert(
        fd.get(), proof, target, [&](ByteView bytes) { return out.Write(bytes); },
        [&](uint64_t done, uint64_t total) {
          EXPECT_LE(done, total);
          done_ = done;
          total_ = total;
        }));
    return std::move(out).Take();
  }

  void UseScript(const std::string& body) {
    program_ = dir_.File("program");
    WriteFile(program_, AsBytes("#!/bin/sh\n" + body + "\n"));
    MustRun("chmod +x " + program_);
  }
  // Runs a script in place of vallum-inspect; returns how the conversion was refused.
  Error RefusalOf(const std::string& body) {
    UseScript(body);
    WriteFile(dir_.File("raw"), Disk());
    auto result = Run(dir_.File("raw"), DeclaredFormat::kGpt, StoreFormat::kQcow2);
    EXPECT_FALSE(result.has_value());
    return result.has_value() ? Internal("accepted") : result.error();
  }

  TempDir dir_;
  std::string program_ = VALLUM_BIN_DIR "/vallum-inspect";
  std::optional<std::chrono::milliseconds> timeout_;
  uint64_t done_ = 0;
  uint64_t total_ = 0;
};

TEST_F(Convert, EverySourceBecomesAQcow2ThatQemuReadsTheSame) {
  for (const Source& source : Sources()) {
    SCOPED_TRACE(source.qemu_name + " " + source.options);
    const std::string file = Make(source);
    const auto image = Run(file, source.format, StoreFormat::kQcow2);
    ASSERT_TRUE(image.has_value()) << image.error().Describe();
    EXPECT_EQ(done_, image->size());
    EXPECT_EQ(total_, image->size());
    const std::string out = dir_.File("out");
    WriteFile(out, *image);
    EXPECT_THAT(MustRun("qemu-img check -f qcow2 " + out), HasSubstr("No errors"));
    MustRun("qemu-img convert -f " + source.qemu_name + " -O raw " + file + " " +
            dir_.File("expected"));
    MustRun("qemu-img compare -s -f raw -F qcow2 " + dir_.File("expected") + " " + out +
            " || qemu-img compare -f raw -F qcow2 " + dir_.File("expected") + " " + out);
    const auto inspected = Proof(out, DeclaredFormat::kQcow2);
    ASSERT_TRUE(inspected.has_value()) << inspected.error().Describe();
    EXPECT_EQ(inspected->inspection().content, ContentFormat::kGpt);
    EXPECT_EQ(inspected->inspection().virtual_size,
              std::filesystem::file_size(dir_.File("expected")));
  }
}

TEST_F(Convert, EverySourceBecomesTheRawDiskThatQemuMakes) {
  for (const Source& source : Sources()) {
    SCOPED_TRACE(source.qemu_name + " " + source.options);
    const std::string file = Make(source);
    const auto disk = Run(file, source.format, StoreFormat::kRaw);
    ASSERT_TRUE(disk.has_value()) << disk.error().Describe();
    MustRun("qemu-img convert -f " + source.qemu_name + " -O raw " + file + " " +
            dir_.File("expected"));
    EXPECT_TRUE(*disk == ReadFile(dir_.File("expected")));
  }
}

// A base under an overlay of ours, in which QEMU has written, zeroed and left alone; larger than
// it.
TEST_F(Convert, OverlayAndItsImageBecomeOneDiskThatQemuReadsTheSame) {
  for (const auto& [format, name] : {std::pair(DeclaredFormat::kGpt, std::string("raw")),
                                     std::pair(DeclaredFormat::kQcow2, std::string("qcow2"))}) {
    SCOPED_TRACE(name);
    WriteFile(dir_.File("disk"), Disk());
    const std::string base = dir_.File("base");
    MustRun("qemu-img convert -f raw -O " + name + " " + dir_.File("disk") + " " + base);
    const std::string overlay = dir_.File("overlay");
    WriteFile(overlay, *formats::MakeQcow2Overlay(ByteCount::MiB(12)));
    const std::string graph = "driver=qcow2,file.driver=file,file.filename=" + overlay +
                              ",backing.driver=" + name +
                              ",backing.file.driver=file,backing.file.filename=" + base;
    MustRun(
        "qemu-io --image-opts -c 'write -P 0x42 1100k 300k' -c 'write -z 5M 1M' "
        "-c 'write -P 0x43 9M 64k' " +
        graph);
    MustRun("qemu-img convert --image-opts -O raw " + graph + " " + dir_.File("expected"));

    const UniqueDescriptor top(overlay);
    const UniqueDescriptor below(base);
    const ConfinedConverter converter({.program = program_, .timeout = timeout_});
    formats::BytesSink out;
    uint64_t announced = 0;
    const auto flat = converter.Flatten(
        top.get(), below.get(), format, 12 << 20U,
        [&](uint64_t size) -> Result<void> {
          announced = size;
          return Ok();
        },
        [&](ByteView bytes) { return out.Write(bytes); }, {});
    ASSERT_TRUE(flat.has_value()) << flat.error().Describe();
    const Bytes image = std::move(out).Take();
    EXPECT_EQ(announced, image.size());
    WriteFile(dir_.File("flat"), image);
    EXPECT_THAT(MustRun("qemu-img check -f qcow2 " + dir_.File("flat")), HasSubstr("No errors"));
    MustRun("qemu-img compare -f raw -F qcow2 " + dir_.File("expected") + " " + dir_.File("flat"));
  }
}

TEST_F(Convert, OverlayOfAnotherSizeThanItsOwnerKnowsIsRefused) {
  WriteFile(dir_.File("base"), Disk());
  WriteFile(dir_.File("overlay"), *formats::MakeQcow2Overlay(ByteCount::MiB(12)));
  const UniqueDescriptor top(dir_.File("overlay"));
  const UniqueDescriptor below(dir_.File("base"));
  const auto nothing = [](auto) { return Ok(); };
  const auto flat =
      ConfinedConverter({.program = program_, .timeout = timeout_})
          .Flatten(top.get(), below.get(), DeclaredFormat::kGpt, 13 << 20U, nothing, nothing, {});
  ASSERT_FALSE(flat.has_value());
  EXPECT_EQ(flat.error().code(), ErrorCode::kInvalidInput);
}

TEST_F(Convert, ZeroesOfADenseSourceAreNotStored) {
  const std::string file = Make(Sources().front());
  MustRun("fallocate -l 8M " + file);
  const auto image = Run(file, DeclaredFormat::kGpt, StoreFormat::kQcow2);
  ASSERT_TRUE(image.has_value()) << image.error().Describe();
  // 1 MiB and 70,000 bytes of data, two GPTs, five tables.
  EXPECT_LE(image->size(), (16U + 3U + 3U + 5U) << 16U);
}

TEST_F(Convert, HolesCostNothing) {
  WriteFile(dir_.File("raw"), Bytes(4096, std::byte{7}));
  MustRun("truncate -s 1T " + dir_.File("raw"));
  timeout_ = std::chrono::seconds(30);
  const auto image = Run(dir_.File("raw"), DeclaredFormat::kRaw, StoreFormat::kQcow2);
  ASSERT_TRUE(image.has_value()) << image.error().Describe();
  EXPECT_EQ(image->size(), 6U << 16U);
}

TEST_F(Convert, RefusalOfTheChildComesBackInItsWords) {
  WriteFile(dir_.File("raw"), Bytes(1000, std::byte{7}));  // no whole sectors
  const auto image = Run(dir_.File("raw"), DeclaredFormat::kRaw, StoreFormat::kQcow2);
  ASSERT_FALSE(image.has_value());
  EXPECT_EQ(image.error().code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(image.error().message(), HasSubstr("a disk of 1000 bytes cannot be a qcow2"));
  EXPECT_THAT(image.error().fix(), HasSubstr("multiple of 512"));
}

TEST_F(Convert, ErrorInTheMiddleOfTheImageComesBackInItsWords) {
  const std::string file = Make({DeclaredFormat::kQcow2, "qcow2", "-c"});
  const auto proof = Proof(file, DeclaredFormat::kQcow2);
  ASSERT_TRUE(proof.has_value()) << proof.error().Describe();
  Bytes image = ReadFile(file);
  // The compressed cluster at 5 MiB; the tables stay.
  const auto l1 = static_cast<size_t>(formats::U64Be(image, 40));
  const uint64_t l2 = formats::U64Be(image, l1) & formats::kQcow2OffsetMask;
  const uint64_t entry = formats::U64Be(image, static_cast<size_t>(l2) + 80 * 8);
  ASSERT_NE(entry & formats::kL2Compressed, 0U);
  const auto at = static_cast<std::ptrdiff_t>(formats::CompressedRange(entry, 16).offset);
  std::fill_n(image.begin() + at, 16, std::byte{0xff});
  WriteFile(file, image);
  const auto result = RunWith(file, *proof, StoreFormat::kRaw);
  ASSERT_FALSE(result.has_value());
  EXPECT_THAT(result.error().message(), HasSubstr("compressed cluster"));
  EXPECT_GT(done_, 0U);
}

TEST_F(Convert, ErrorOfTheWriterEndsTheChildAndComesBack) {
  const std::string file = Make(Sources().front());
  const auto proof = Proof(file, DeclaredFormat::kGpt);
  ASSERT_TRUE(proof.has_value());
  const UniqueDescriptor fd(file);
  uint64_t taken = 0;
  const auto result = ConfinedConverter({.program = program_, .timeout = {}})
                          .Convert(fd.get(), *proof, StoreFormat::kRaw,
                                   [&](ByteView bytes) -> Result<void> {
                                     taken += bytes.size();
                                     return taken > 1 << 20 ? Exhausted("the disk is full") : Ok();
                                   },
                                   {});
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code(), ErrorCode::kExhausted);
  EXPECT_LE(taken, 3U << 20U);
}

TEST_F(Convert, ProofOfAnotherFileIsRefused) {
  const std::string file = Make(Sources().front());
  const auto proof = Proof(file, DeclaredFormat::kGpt);
  ASSERT_TRUE(proof.has_value());
  MustRun("truncate -s +512 " + file);
  const auto result = RunWith(file, *proof, StoreFormat::kRaw);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code(), ErrorCode::kCorrupt);
}

TEST_F(Convert, DiskOfAnotherSizeIsRefused) {
  const auto qcow2 = formats::MakeQcow2Overlay(ByteCount::MiB(1));
  const auto result = ConvertImage(
      formats::MemoryReader(*qcow2), DeclaredFormat::kQcow2, StoreFormat::kRaw, 2 << 20,
      [](uint64_t) { return Ok(); }, *std::make_unique<formats::BytesSink>());
  ASSERT_FALSE(result.has_value());
  EXPECT_THAT(result.error().message(), HasSubstr("when it was inspected"));
}

TEST_F(Convert, ChildThatIsKilledInTheMiddleIsARefusal) {
  const Error error = RefusalOf("echo '{\"size\":1000000}' >&5; echo some bytes; kill -KILL $$");
  EXPECT_EQ(error.code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(error.message(), HasSubstr("conversion was ended by signal 9"));
}

TEST_F(Convert, ChildThatWritesLessThanItAnnouncedIsARefusal) {
  const Error error = RefusalOf("echo '{\"size\":1000000}' >&5; echo some bytes");
  EXPECT_THAT(error.message(), HasSubstr("gave 11 bytes where"));
}

TEST_F(Convert, ChildThatAnnouncesNothingIsARefusal) {
  EXPECT_THAT(RefusalOf("echo some bytes").message(), HasSubstr("gave 11 bytes where"));
}

TEST_F(Convert, ChildThatWritesWithoutEndIsARefusal) {
  EXPECT_THAT(RefusalOf("exec cat /dev/zero").message(), HasSubstr("where at most"));
}

TEST_F(Convert, ChildThatAnnouncesMoreThanTheDiskHoldsIsARefusal) {
  EXPECT_THAT(RefusalOf("echo '{\"size\":10000000000}' >&5").message(),
              HasSubstr("gave 10000000000 bytes where"));
}

TEST_F(Convert, ChildThatTalksNonsenseIsARefusal) {
  EXPECT_EQ(RefusalOf("echo nonsense >&5").code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(RefusalOf("exec cat /dev/zero >&5").message(), HasSubstr("have no end"));
}

TEST_F(Convert, ChildThatTakesTooLongIsARefusal) {
  timeout_ = std::chrono::milliseconds(200);
  EXPECT_THAT(RefusalOf("exec tail -f /dev/null").message(), HasSubstr("did not end within"));
  // It closes its pipes and stays.
  EXPECT_THAT(RefusalOf("exec sleep 1000 >&- 5>&-").message(), HasSubstr("did not end within"));
}

TEST_F(Convert, TimeOfTheWriterIsNotTheChilds) {
  const std::string file = Make(Sources().front());
  const auto proof = Proof(file, DeclaredFormat::kGpt);
  ASSERT_TRUE(proof.has_value());
  // The writer needs longer than the child may, in all.
  const auto allowed = std::chrono::seconds(2);
  const auto slow_until = [&](auto time) {
    while (std::chrono::steady_clock::now() < time) {
    }
  };
  const UniqueDescriptor fd(file);
  bool first = true;
  const auto result = ConfinedConverter({.program = program_, .timeout = allowed})
                          .Convert(fd.get(), *proof, StoreFormat::kRaw,
                                   [&](ByteView) {
                                     if (std::exchange(first, false)) {
                                       slow_until(std::chrono::steady_clock::now() + allowed);
                                     }
                                     return Ok();
                                   },
                                   {});
  EXPECT_TRUE(result.has_value()) << result.error().Describe();
}

std::vector<std::string> OpenDescriptors() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    names.push_back(entry.path().filename());
  }
  std::ranges::sort(names);
  return names;
}

TEST_F(Convert, NoDescriptorIsLeftWhateverHappens) {
  const std::string file = Make(Sources().front());
  const auto before = OpenDescriptors();
  EXPECT_TRUE(Run(file, DeclaredFormat::kGpt, StoreFormat::kQcow2).has_value());
  RefusalOf("kill -KILL $$");
  program_ = "/nonexistent/vallum-inspect";
  const auto missing = Run(file, DeclaredFormat::kGpt, StoreFormat::kQcow2);
  ASSERT_FALSE(missing.has_value());
  EXPECT_EQ(missing.error().code(), ErrorCode::kNotFound);
  timeout_ = std::chrono::milliseconds(100);
  RefusalOf("exec tail -f /dev/null");
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST_F(Convert, ChildHasOnlyWhatItNeeds) {
  // Everything that is open in it, as its message.
  const Error error = RefusalOf(
      "cd /proc/$$/fd; printf "
      "'{\"refused\":{\"code\":\"denied\",\"message\":\"%s\",\"fix\":\"\"}}\\n' "
      "\"$(readlink 0 4 | tr '\\n' ' ')$(echo *)\" >&5");
  EXPECT_EQ(error.code(), ErrorCode::kDenied);
  // 10 is the script itself, 6 the directory that `echo *` reads.
  EXPECT_THAT(error.message(),
              ::testing::MatchesRegex("/dev/null /dev/null 0 1( 10)? 2 3 4 5( 6)?"));
}

TEST(ConversionMessages, SurviveJson) {
  EXPECT_EQ(*ConversionMessageFromJson(ConversionMessageToJson(1234)), 1234U);
  const std::string line = ConversionMessageToJson(Corrupt("no\nline").WithFix("do x"));
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  const auto refused = ConversionMessageFromJson(line);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code(), ErrorCode::kCorrupt);
  EXPECT_EQ(refused.error().fix(), "do x");
}

TEST(ConversionMessages, NonsenseFromTheChildIsAnError) {
  for (const std::string text : {"", "{", "[]", "{}", "1", "{\"size\":-1}", "{\"size\":\"1\"}",
                                 "{\"refused\":[]}", "{\"refused\":{}}"}) {
    EXPECT_FALSE(ConversionMessageFromJson(text).has_value()) << text;
  }
}

TEST(ConvertLimits, GrowWithTheDisk) {
  EXPECT_EQ(ConvertTimeout(0), std::chrono::seconds(120));
  EXPECT_EQ(ConvertCpuSeconds((uint64_t{2} << 30U) + 1), 70U);
  EXPECT_EQ(MaxConvertedSize(StoreFormat::kRaw, 12345), 12345U);
  EXPECT_GT(MaxConvertedSize(StoreFormat::kQcow2, 12345), 12345U);
}

}  // namespace
}  // namespace vallum::images
