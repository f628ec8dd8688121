// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "formats/reader.h"

// For the tests of formats and images only.
namespace vallum::formats::testing {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kSanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif
#else
inline constexpr bool kSanitized = false;
#endif

// A directory that is removed at the end.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  std::string File(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

struct CommandResult {
  int status = -1;
  std::string output;  // stdout and stderr
};
// Runs a shell command line.
CommandResult Run(const std::string& command);
// Runs it and fails the test when it fails.
std::string MustRun(const std::string& command);
bool HasTool(const std::string& name);

Bytes ReadFile(const std::string& path);
void WriteFile(const std::string& path, ByteView content);

void PutBe32(Bytes& data, size_t offset, uint32_t value);
void PutBe64(Bytes& data, size_t offset, uint64_t value);
void PutLe32(Bytes& data, size_t offset, uint32_t value);
void PutLe64(Bytes& data, size_t offset, uint64_t value);
void PutText(Bytes& data, size_t offset, const std::string& text);

// A file made by `qemu-img create -f <format> [options] <size>`.
Bytes QemuImgCreate(const std::string& format, const std::string& options, const std::string& size);

struct TestPartition {
  uint64_t first_lba;
  uint64_t last_lba;
  std::string type = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";
};
// A valid GPT disk of that many sectors.
Bytes MakeGptDisk(uint32_t sector_size, uint64_t sectors,
                  const std::vector<TestPartition>& partitions);
// Recomputes the CRCs of both headers and arrays after a patch.
void FixGptCrcs(Bytes& disk, uint32_t sector_size);

// A valid PE32+ program without a signature: one .text, then the sections given.
struct TestSection {
  std::string name;
  Bytes content;
};
Bytes MakePe(const std::vector<TestSection>& sections);
inline constexpr size_t kTestPeSections = 0x80 + 24 + 240;  // its section headers, 40 bytes each

// A valid kernel of boot protocol 2.15 with an EFI stub's header, a gzip payload and a good CRC.
Bytes MakeBzImage();
inline constexpr size_t kTestKernelSetup = 5 * 512;  // then 4096 bytes of protected mode
// Recomputes the CRC at its end after a patch.
void FixKernelCrc(Bytes& kernel);

// The folder of the shared vectors, or empty when it is absent.
std::string VectorsDir();
// Where scripts/make-debian-guest puts debian.raw, or empty when it was not run.
std::string GuestDir();

// Wraps a reader and counts; fails reads past a budget. Shows that work is bounded.
class CountingReader final : public RandomAccessReader {
 public:
  explicit CountingReader(const RandomAccessReader& inner) : inner_(&inner) {}
  uint64_t size() const override { return inner_->size(); }
  Result<void> ReadAt(uint64_t offset, std::span<std::byte> out) const override {
    bytes_ += out.size();
    return inner_->ReadAt(offset, out);
  }
  uint64_t bytes() const { return bytes_; }

 private:
  const RandomAccessReader* inner_;
  mutable uint64_t bytes_ = 0;
};

// A file of any size that is all hole but for its first bytes.
class SparseReader final : public RandomAccessReader {
 public:
  SparseReader(Bytes front, uint64_t size) : front_(std::move(front)), size_(size) {}
  uint64_t size() const override { return size_; }
  Result<void> ReadAt(uint64_t offset, std::span<std::byte> out) const override;
  Result<std::optional<uint64_t>> NextData(uint64_t offset) const override;

 private:
  Bytes front_;
  uint64_t size_;
};

}  // namespace vallum::formats::testing
