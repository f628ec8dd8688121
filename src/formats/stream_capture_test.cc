// SPDX-License-Identifier: Apache-2.0
#include "formats/stream_capture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "formats/detect.h"
#include "formats/reader.h"
#include "formats/test_support.h"

namespace vallum::formats {
namespace {

using ::testing::HasSubstr;

Bytes RandomBytes(size_t size) {
  Bytes data(size);
  std::mt19937_64 random(size);
  for (std::byte& b : data) b = static_cast<std::byte>(random());
  return data;
}

void MustFeed(StreamCapture& capture, ByteView chunk) {
  const auto fed = capture.Feed(chunk);
  ASSERT_TRUE(fed.has_value()) << fed.error().Describe();
}

void MustKeep(StreamCapture& capture, uint64_t offset, uint64_t length) {
  const auto kept = capture.Keep(offset, length);
  ASSERT_TRUE(kept.has_value()) << kept.error().Describe();
}

// Which bytes can be read, and that these are right.
std::vector<bool> Readable(const StreamCapture& capture, ByteView stream) {
  std::vector<bool> readable;
  const CapturedReader reader(capture);
  for (size_t i = 0; i < stream.size(); ++i) {
    const auto byte = ReadBytesAt(reader, i, 1);
    readable.push_back(byte.has_value());
    EXPECT_TRUE(!byte.has_value() || byte->front() == stream[i]) << i;
  }
  return readable;
}

TEST(StreamCapture, KeepsTheRegionsThatItWasTold) {
  const Bytes stream = RandomBytes(100'000);
  StreamCapture capture;
  MustKeep(capture, 0, 4096);
  MustKeep(capture, 32768, 100);
  MustFeed(capture, stream);
  const CapturedReader reader(capture);
  EXPECT_EQ(reader.size(), stream.size());
  EXPECT_TRUE(std::ranges::equal(*ReadBytesAt(reader, 0, 4096), ByteView(stream).first(4096)));
  EXPECT_TRUE(
      std::ranges::equal(*ReadBytesAt(reader, 32768, 100), ByteView(stream).subspan(32768, 100)));
}

TEST(StreamCapture, WhatWasNotKeptIsUnavailable) {
  StreamCapture capture;
  MustKeep(capture, 0, 4096);
  MustFeed(capture, RandomBytes(100'000));
  for (const uint64_t offset : {4090U, 4096U, 50'000U}) {
    const auto read = ReadBytesAt(CapturedReader(capture), offset, 20);
    ASSERT_FALSE(read.has_value());
    EXPECT_EQ(read.error().code(), ErrorCode::kUnavailable);
    EXPECT_THAT(read.error().Describe(), HasSubstr("not kept"));
  }
}

TEST(StreamCapture, ReadingPastTheEndIsTruncated) {
  StreamCapture capture;
  MustKeep(capture, 0, 4096);
  MustFeed(capture, RandomBytes(1000));
  std::array<std::byte, 20> out{};
  for (const uint64_t offset : {uint64_t{990}, uint64_t{1001}, ~uint64_t{0}}) {
    const auto read = CapturedReader(capture).ReadAt(offset, out);
    ASSERT_FALSE(read.has_value());
    EXPECT_EQ(read.error().code(), ErrorCode::kInvalidInput);
    EXPECT_THAT(read.error().Describe(), HasSubstr("truncated"));
  }
  EXPECT_TRUE(CapturedReader(capture).ReadAt(1000, {}).has_value());
}

TEST(StreamCapture, TailOfAStreamOfUnknownSizeIsKept) {
  for (const size_t size : {0U, 1U, 511U, 1536U, 1537U, 10'000U}) {
    const Bytes stream = RandomBytes(size);
    for (const size_t step : {1U, 7U, 1000U, 1536U, 4096U}) {
      StreamCapture capture;
      for (size_t at = 0; at < size; at += step) {
        MustFeed(capture, ByteView(stream).subspan(at, std::min(step, size - at)));
      }
      const size_t tail = std::min<size_t>(size, kCaptureTailBytes);
      const auto read = ReadBytesAt(CapturedReader(capture), size - tail, tail);
      ASSERT_TRUE(read.has_value()) << read.error().Describe();
      EXPECT_TRUE(std::ranges::equal(*read, ByteView(stream).last(tail)));
      if (size > tail) {
        EXPECT_FALSE(ReadBytesAt(CapturedReader(capture), size - tail - 1, 1).has_value());
      }
    }
  }
}

TEST(StreamCapture, TailOfAnAnnouncedStreamIsKept) {
  for (const size_t size : {0U, 1U, 1536U, 10'000U}) {
    const Bytes stream = RandomBytes(size);
    StreamCapture capture(size);
    EXPECT_EQ(capture.size(), size);
    MustFeed(capture, stream);
    const size_t tail = std::min<size_t>(size, kCaptureTailBytes);
    const auto read = ReadBytesAt(CapturedReader(capture), size - tail, tail);
    ASSERT_TRUE(read.has_value()) << read.error().Describe();
    EXPECT_TRUE(std::ranges::equal(*read, ByteView(stream).last(tail)));
  }
}

TEST(StreamCapture, WhatHasNotArrivedIsUnavailable) {
  StreamCapture capture(10'000);
  MustKeep(capture, 0, 2000);
  MustFeed(capture, RandomBytes(1000));
  const CapturedReader reader(capture);
  EXPECT_EQ(reader.size(), 10'000U);
  EXPECT_TRUE(ReadBytesAt(reader, 0, 1000).has_value());
  for (const uint64_t offset : {999U, 1000U, 9000U}) {
    EXPECT_EQ(ReadBytesAt(reader, offset, 2).error().code(), ErrorCode::kUnavailable);
  }
}

TEST(StreamCapture, StreamLongerThanAnnouncedIsRefused) {
  StreamCapture capture(1000);
  MustFeed(capture, RandomBytes(999));
  const auto fed = capture.Feed(RandomBytes(2));
  ASSERT_FALSE(fed.has_value());
  EXPECT_EQ(fed.error().code(), ErrorCode::kInvalidInput);
  EXPECT_THAT(fed.error().Describe(), HasSubstr("longer than the 1000 bytes"));
  EXPECT_EQ(capture.position(), 999U);
  MustFeed(capture, RandomBytes(1));
}

TEST(StreamCapture, RegionsThatHavePassedAreRefused) {
  StreamCapture capture;
  MustFeed(capture, RandomBytes(1000));
  const auto kept = capture.Keep(999, 10);
  ASSERT_FALSE(kept.has_value());
  EXPECT_EQ(kept.error().code(), ErrorCode::kInvalidInput);
  MustKeep(capture, 1000, 10);
}

TEST(StreamCapture, RegionsAreBoundedInBytesAndNumber) {
  StreamCapture capture;
  for (const uint64_t length : {kCaptureMaxBytes + 1, ~uint64_t{0}}) {
    EXPECT_EQ(capture.Keep(10, length).error().code(), ErrorCode::kExhausted);
  }
  MustKeep(capture, 0, kCaptureMaxBytes - 1);
  EXPECT_EQ(capture.Keep(kCaptureMaxBytes - 1, 2).error().code(), ErrorCode::kExhausted);
  MustKeep(capture, 5, 1000);  // wanted already

  StreamCapture many;
  for (uint64_t i = 0; i < kCaptureMaxPieces; ++i) MustKeep(many, i * 10, 1);
  EXPECT_EQ(many.Keep(5, 1).error().code(), ErrorCode::kExhausted);
  MustFeed(many, RandomBytes(kCaptureMaxPieces * 10));
  EXPECT_TRUE(ReadBytesAt(CapturedReader(many), 990, 1).has_value());
}

TEST(StreamCapture, RegionsPastTheAnnouncedSizeCostNothing) {
  StreamCapture capture(100'000);
  MustKeep(capture, 100'000, ~uint64_t{0});
  MustKeep(capture, 90'000, ~uint64_t{0});
  MustFeed(capture, RandomBytes(100'000));
  EXPECT_TRUE(ReadBytesAt(CapturedReader(capture), 90'000, 10'000).has_value());
}

// Regions at random, some of them told while the stream runs; every byte that any of them names
// can be read, whatever the chunks, and none other but the tail.
TEST(StreamCapture, ChunkingMakesNoDifference) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 300; ++round) {
    const size_t size = random() % 20'000;
    const Bytes stream = RandomBytes(size);
    std::vector<std::pair<uint64_t, uint64_t>> regions;
    for (size_t i = random() % 10; i > 0; --i) {
      regions.emplace_back(random() % 21'000, random() % 3000);
    }
    const bool announced = random() % 2 == 0;
    StreamCapture whole = announced ? StreamCapture(size) : StreamCapture();
    StreamCapture pieces = whole;
    for (const auto& [offset, length] : regions) MustKeep(whole, offset, length);
    MustFeed(whole, stream);

    // The same regions in another order, each as late as at its offset.
    std::ranges::shuffle(regions, random);
    std::vector<std::pair<uint64_t, uint64_t>> late;
    for (const auto& region : regions) {
      if (random() % 2 == 0) {
        late.push_back(region);
      } else {
        MustKeep(pieces, region.first, region.second);
      }
    }
    const size_t largest = 1 + random() % 5000;
    for (size_t at = 0; at < size;) {
      const size_t count = std::min<size_t>(size - at, random() % largest);
      for (const auto& [offset, length] : late) {
        if (offset >= at && offset < at + count) MustKeep(pieces, offset, length);
      }
      MustFeed(pieces, ByteView(stream).subspan(at, count));
      at += count;
    }

    std::vector<bool> expected(size, false);
    const auto expect = [&](uint64_t offset, uint64_t length) {
      for (uint64_t i = offset; i < std::min<uint64_t>(offset + length, size); ++i) {
        expected[i] = true;
      }
    };
    for (const auto& [offset, length] : regions) expect(offset, length);
    expect(size - std::min<uint64_t>(size, kCaptureTailBytes), kCaptureTailBytes);
    EXPECT_EQ(Readable(whole, stream), expected) << round;
    EXPECT_EQ(Readable(pieces, stream), expected) << round;
    // Reads across regions and into the tail.
    for (int i = 0; i < 20 && size > 0; ++i) {
      const uint64_t offset = random() % size;
      const uint64_t length = random() % std::min<uint64_t>(size - offset + 1, 4000);
      const auto all = std::all_of(expected.begin() + static_cast<std::ptrdiff_t>(offset),
                                   expected.begin() + static_cast<std::ptrdiff_t>(offset + length),
                                   [](bool b) { return b; });
      const auto read = ReadBytesAt(CapturedReader(pieces), offset, length);
      EXPECT_EQ(read.has_value(), all);
      if (!all) continue;
      EXPECT_TRUE(std::ranges::equal(*read, ByteView(stream).subspan(offset, length)));
    }
  }
}

TEST(StreamCapture, FormatsAreDetectedFromWhatWasKept) {
  const Bytes image = testing::QemuImgCreate("vpc", "-o subformat=fixed", "1M");
  StreamCapture capture;
  for (const auto& [offset, length] : DetectionRanges()) MustKeep(capture, offset, length);
  for (size_t at = 0; at < image.size(); at += 4096) {
    MustFeed(capture, ByteView(image).subspan(at, std::min<size_t>(4096, image.size() - at)));
  }
  const auto found = DetectFormats(CapturedReader(capture));
  ASSERT_TRUE(found.has_value()) << found.error().Describe();
  ASSERT_EQ(found->size(), 1U);
  EXPECT_EQ(found->front().format, Format::kVhd);
}

}  // namespace
}  // namespace vallum::formats
