// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow2_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/byte_sink.h"
#include "formats/qcow2.h"
#include "formats/qcow2_disk.h"
#include "formats/raw_writer.h"
#include "formats/reader.h"
#include "formats/test_support.h"

namespace vallum::formats {
namespace {

using ::testing::HasSubstr;
using testing::MustRun;
using testing::ReadFile;
using testing::TempDir;
using testing::WriteFile;

// A disk that is all hole but for some pieces; counts what is read, and fails where told.
class PiecesDisk final : public RandomAccessReader {
 public:
  explicit PiecesDisk(uint64_t size) : size_(size) {}
  void Put(uint64_t offset, Bytes bytes) { pieces_[offset] = std::move(bytes); }
  void FailAt(uint64_t offset) { fail_at_ = offset; }
  uint64_t bytes_read() const { return read_; }

  uint64_t size() const override { return size_; }
  Result<void> ReadAt(uint64_t offset, std::span<std::byte> out) const override {
    if (!IsInside(offset, out.size(), size_)) return PastTheEnd(offset, out.size(), size_);
    if (offset <= fail_at_ && fail_at_ < offset + out.size()) return Corrupt("the disk is worn");
    read_ += out.size();
    std::ranges::fill(out, std::byte{0});
    for (const auto& [at, bytes] : pieces_) {
      const uint64_t begin = std::max(at, offset);
      const uint64_t end = std::min(at + bytes.size(), offset + out.size());
      if (begin >= end) continue;
      std::ranges::copy(ByteView(bytes).subspan(static_cast<size_t>(begin - at),
                                                static_cast<size_t>(end - begin)),
                        out.begin() + static_cast<std::ptrdiff_t>(begin - offset));
    }
    return Ok();
  }
  Result<std::optional<uint64_t>> NextData(uint64_t offset) const override {
    for (const auto& [at, bytes] : pieces_) {
      if (at + bytes.size() > offset) return std::optional(std::max(at, offset));
    }
    return std::optional<uint64_t>();
  }

 private:
  uint64_t size_;
  std::map<uint64_t, Bytes> pieces_;
  uint64_t fail_at_ = ~uint64_t{0};
  mutable uint64_t read_ = 0;
};

Bytes RandomBytes(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes bytes(size);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

Result<Bytes> WriteQcow2(const RandomAccessReader& disk, ZeroClusters zeroes) {
  ASSIGN_OR_RETURN(const Qcow2Plan plan, Qcow2Plan::Make(disk, zeroes));
  BytesSink out;
  RETURN_IF_ERROR(plan.Write(disk, out));
  Bytes image = std::move(out).Take();
  EXPECT_EQ(image.size(), plan.file_size());
  EXPECT_LE(image.size(), MaxQcow2FileSize(disk.size()));
  return image;
}

Result<Qcow2Usage> Check(ByteView image) {
  const MemoryReader reader(image);
  ASSIGN_OR_RETURN(const Qcow2Header header, ParseQcow2Header(reader));
  RETURN_IF_ERROR(ValidateQcow2(header, reader.size()));
  return CheckQcow2Tables(reader, header);
}

// Our own checks, qemu's, and the same content to both.
void ExpectSameDisk(const Bytes& image, const RandomAccessReader& disk) {
  const auto usage = Check(image);
  ASSERT_TRUE(usage.has_value()) << usage.error().Describe();
  const TempDir dir;
  WriteFile(dir.File("q"), image);
  EXPECT_THAT(MustRun("qemu-img check -f qcow2 " + dir.File("q")), HasSubstr("No errors"));
  MustRun("qemu-img convert -f qcow2 -O raw " + dir.File("q") + " " + dir.File("raw"));
  const Bytes qemu = ReadFile(dir.File("raw"));
  const auto source = ReadBytesAt(disk, 0, static_cast<size_t>(disk.size()));
  ASSERT_TRUE(source.has_value());
  EXPECT_TRUE(qemu == *source);
  const MemoryReader reader(image);
  const auto written = Qcow2Disk::Open(reader);
  ASSERT_TRUE(written.has_value());
  const auto own = ReadBytesAt(*written, 0, static_cast<size_t>(written->size()));
  ASSERT_TRUE(own.has_value());
  EXPECT_TRUE(*own == *source);
}

TEST(Qcow2Writer, WritesWhatQemuReads) {
  PiecesDisk disk((3 << 20) + 512);  // ends inside a cluster
  disk.Put(0, RandomBytes(512, 1));
  disk.Put(100000, RandomBytes(300000, 2));
  disk.Put(1 << 20, Bytes(200000));  // zeroes that are no hole
  disk.Put((2 << 20) + 5, RandomBytes(1, 3));
  disk.Put(3 << 20, RandomBytes(512, 4));
  for (const ZeroClusters zeroes : {ZeroClusters::kFind, ZeroClusters::kTrustSource}) {
    const auto image = WriteQcow2(disk, zeroes);
    ASSERT_TRUE(image.has_value()) << image.error().Describe();
    ExpectSameDisk(*image, disk);
  }
}

TEST(Qcow2Writer, WritesDisksOfEverySizeThatQcow2CanHave) {
  for (const uint64_t size : {512U, 65536U, 65536U - 512U, 65536U + 512U, 5U << 20U}) {
    PiecesDisk disk(size);
    disk.Put(size - 512, RandomBytes(512, size));
    const auto image = WriteQcow2(disk, ZeroClusters::kFind);
    ASSERT_TRUE(image.has_value()) << image.error().Describe();
    ExpectSameDisk(*image, disk);
  }
}

TEST(Qcow2Writer, DenseDisksReachTheBoundExactly) {
  // 40,000 clusters: two refcount blocks.
  const uint64_t size = uint64_t{40000} * kQcow2WriterCluster;
  class Dense final : public RandomAccessReader {
   public:
    explicit Dense(uint64_t size) : size_(size) {}
    uint64_t size() const override { return size_; }
    Result<void> ReadAt(uint64_t, std::span<std::byte>) const override {
      return Internal("planning does not read");
    }

   private:
    uint64_t size_;
  };
  const auto plan = Qcow2Plan::Make(Dense(size), ZeroClusters::kTrustSource);
  ASSERT_TRUE(plan.has_value()) << plan.error().Describe();
  EXPECT_EQ(plan->file_size(), MaxQcow2FileSize(size));
  EXPECT_EQ(plan->file_size(), size + (2 + 2 + 1 + 5) * kQcow2WriterCluster);
}

TEST(Qcow2Writer, TablesOfALargeDiskAreCleanForQemu) {
  PiecesDisk disk((uint64_t{5} << 40U) + 512);
  for (uint64_t i = 0; i < 40; ++i) disk.Put(i * 130'000'000'000 + i * 777, RandomBytes(70000, i));
  disk.Put(disk.size() - 3, RandomBytes(3, 99));
  const auto image = WriteQcow2(disk, ZeroClusters::kFind);
  ASSERT_TRUE(image.has_value()) << image.error().Describe();
  const auto usage = Check(*image);
  ASSERT_TRUE(usage.has_value()) << usage.error().Describe();
  EXPECT_EQ(usage->l2_tables, 41U);
  const TempDir dir;
  WriteFile(dir.File("q"), *image);
  EXPECT_THAT(MustRun("qemu-img check -f qcow2 " + dir.File("q")), HasSubstr("No errors"));
  const MemoryReader reader(*image);
  const auto written = Qcow2Disk::Open(reader);
  ASSERT_TRUE(written.has_value());
  for (uint64_t i = 0; i < 40; ++i) {
    const uint64_t at = i * 130'000'000'000 + i * 777;
    EXPECT_EQ(*ReadBytesAt(*written, at, 70000), RandomBytes(70000, i));
    const auto next = written->NextData(at - std::min<uint64_t>(at, 1 << 30));
    ASSERT_TRUE(next.has_value() && next->has_value());
    EXPECT_EQ(**next / kQcow2WriterCluster, at / kQcow2WriterCluster);
  }
}

TEST(Qcow2Writer, HolesCostNothing) {
  PiecesDisk disk(uint64_t{1} << 40U);
  disk.Put(uint64_t{1} << 39U, RandomBytes(1000, 1));
  const auto image = WriteQcow2(disk, ZeroClusters::kFind);
  ASSERT_TRUE(image.has_value()) << image.error().Describe();
  EXPECT_LE(image->size(), 6 * kQcow2WriterCluster);
  EXPECT_LE(disk.bytes_read(), 3 * kQcow2WriterCluster);
}

TEST(Qcow2Writer, ZeroesThatAreNoHolesAreLeftOutAndReadOnce) {
  PiecesDisk disk(64 << 20);
  disk.Put(0, Bytes(64 << 20));
  disk.Put(1 << 20, RandomBytes(1 << 20, 1));
  const auto image = WriteQcow2(disk, ZeroClusters::kFind);
  ASSERT_TRUE(image.has_value()) << image.error().Describe();
  EXPECT_EQ(Check(*image)->data_clusters, 16U);
  EXPECT_LE(disk.bytes_read(), (64 << 20) + (1 << 20) / 16);
}

TEST(Qcow2Writer, SourceThatIsTrustedIsReadOnce) {
  PiecesDisk disk(8 << 20);
  disk.Put(0, Bytes(1 << 20));
  const auto image = WriteQcow2(disk, ZeroClusters::kTrustSource);
  ASSERT_TRUE(image.has_value()) << image.error().Describe();
  EXPECT_EQ(Check(*image)->data_clusters, 16U);
  EXPECT_EQ(disk.bytes_read(), 1U << 20U);
}

TEST(Qcow2Writer, SizesThatQcow2CannotHaveAreRefused) {
  for (const uint64_t size :
       {uint64_t{0}, uint64_t{511}, uint64_t{513}, kQcow2MaxVirtualSize + 512, ~uint64_t{511}}) {
    const auto image = WriteQcow2(PiecesDisk(size), ZeroClusters::kFind);
    ASSERT_FALSE(image.has_value()) << size;
    EXPECT_EQ(image.error().code(), ErrorCode::kInvalidInput);
    EXPECT_FALSE(image.error().fix().empty());
  }
}

TEST(Qcow2Writer, MoreTablesThanInspectionReadsAreRefused) {
  PiecesDisk disk(kQcow2MaxVirtualSize);
  for (uint64_t i = 0; i <= kQcow2WriterMaxL2Tables; ++i) disk.Put(i << 29U, Bytes(1));
  const auto image = WriteQcow2(disk, ZeroClusters::kTrustSource);
  ASSERT_FALSE(image.has_value());
  EXPECT_EQ(image.error().code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(image.error().Describe(), HasSubstr("8192 pieces"));
}

TEST(Qcow2Writer, ErrorInTheMiddleOfTheDiskReachesTheCaller) {
  PiecesDisk disk(8 << 20);
  disk.Put(0, RandomBytes(8 << 20, 1));
  disk.FailAt((4 << 20) + 10000);
  const auto image = WriteQcow2(disk, ZeroClusters::kFind);
  ASSERT_FALSE(image.has_value());
  EXPECT_EQ(image.error().code(), ErrorCode::kCorrupt);
  EXPECT_EQ(image.error().message(), "the disk is worn");
}

TEST(Qcow2Writer, SinkThatFailsStopsTheWriter) {
  class FullSink final : public ByteSink {
   public:
    Result<void> Write(ByteView bytes) override {
      written += bytes.size();
      return written > 1 << 20 ? Exhausted("full") : Ok();
    }
    uint64_t written = 0;
  };
  PiecesDisk disk(8 << 20);
  disk.Put(0, RandomBytes(8 << 20, 1));
  const auto plan = Qcow2Plan::Make(disk, ZeroClusters::kFind);
  ASSERT_TRUE(plan.has_value());
  for (const bool raw : {false, true}) {
    FullSink sink;
    const auto result = raw ? WriteRaw(disk, sink) : plan->Write(disk, sink);
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().code(), ErrorCode::kExhausted);
    EXPECT_LE(sink.written, 3U << 20U);
  }
}

TEST(Qcow2Writer, RandomDisksComeBackWhole) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 30; ++round) {
    PiecesDisk disk((random() % 4096 + 1) * 512);
    uint64_t at = 0;
    while ((at += random() % 200000) < disk.size()) {
      const auto count = static_cast<size_t>(std::min(random() % 200000 + 1, disk.size() - at));
      disk.Put(at, round % 3 == 0 ? Bytes(count) : RandomBytes(count, at));
      at += count;
    }
    const auto image = WriteQcow2(disk, ZeroClusters::kFind);
    ASSERT_TRUE(image.has_value()) << image.error().Describe();
    ASSERT_TRUE(Check(*image).has_value()) << Check(*image).error().Describe();
    const MemoryReader reader(*image);
    const auto written = Qcow2Disk::Open(reader);
    ASSERT_TRUE(written.has_value());
    const auto size = static_cast<size_t>(disk.size());
    EXPECT_TRUE(*ReadBytesAt(*written, 0, size) == *ReadBytesAt(disk, 0, size));
  }
}

TEST(RawWriter, WritesTheDiskAndReadsNoHoles) {
  PiecesDisk disk((5 << 20) + 512);
  disk.Put(700, RandomBytes(3000, 1));
  disk.Put(4 << 20, RandomBytes(512 << 10, 2));
  BytesSink out;
  ASSERT_TRUE(WriteRaw(disk, out).has_value());
  EXPECT_LE(disk.bytes_read(), (2U << 20U) + 512);
  EXPECT_TRUE(std::move(out).Take() == *ReadBytesAt(disk, 0, static_cast<size_t>(disk.size())));
}

TEST(RawWriter, ErrorInTheMiddleOfTheDiskReachesTheCaller) {
  PiecesDisk disk(8 << 20);
  disk.Put(0, RandomBytes(8 << 20, 1));
  disk.FailAt(4 << 20);
  BytesSink out;
  const auto result = WriteRaw(disk, out);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().message(), "the disk is worn");
}

}  // namespace
}  // namespace vallum::formats
