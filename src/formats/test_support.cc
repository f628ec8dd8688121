// SPDX-License-Identifier: Apache-2.0
#include "formats/test_support.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "formats/fields.h"
#include "formats/reader.h"

namespace vallum::formats::testing {
namespace {

template <typename T>
void Put(Bytes& data, size_t offset, T value, bool big_endian) {
  ASSERT_LE(offset + sizeof(T), data.size());
  for (size_t i = 0; i < sizeof(T); ++i) {
    const size_t at = big_endian ? sizeof(T) - 1 - i : i;
    data[offset + at] = static_cast<std::byte>(uint64_t{value} >> (8 * i) & 0xffU);
  }
}

uint32_t Crc(ByteView data) {
  return static_cast<uint32_t>(
      crc32(0, reinterpret_cast<const Bytef*>(data.data()), static_cast<uInt>(data.size())));
}

void PutGuid(Bytes& data, size_t offset, const std::string& guid) {
  std::string hex = guid;
  std::erase(hex, '-');
  const Bytes raw = *FromHex(hex);
  constexpr std::array<size_t, 16> kOrder = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
  for (size_t i = 0; i < 16; ++i) data[offset + i] = raw[kOrder[i]];
}

constexpr size_t kEntries = 128;
constexpr size_t kEntrySize = 128;

void WriteGptHeader(Bytes& disk, uint64_t sector, uint64_t lba, uint64_t other, uint64_t entries,
                    uint64_t first_usable, uint64_t last_usable) {
  const auto at = static_cast<size_t>(lba * sector);
  PutText(disk, at, "EFI PART");
  PutLe32(disk, at + 8, 0x00010000);
  PutLe32(disk, at + 12, 92);
  PutLe64(disk, at + 24, lba);
  PutLe64(disk, at + 32, other);
  PutLe64(disk, at + 40, first_usable);
  PutLe64(disk, at + 48, last_usable);
  PutGuid(disk, at + 56, "11111111-2222-3333-4444-555555555555");
  PutLe64(disk, at + 72, entries);
  PutLe32(disk, at + 80, kEntries);
  PutLe32(disk, at + 84, kEntrySize);
}

}  // namespace

TempDir::TempDir() {
  std::string name = (std::filesystem::temp_directory_path() / "vallum-test-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) std::abort();
  path_ = name;
}
TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

CommandResult Run(const std::string& command) {
  CommandResult result;
  FILE* pipe = popen(("( " + command + " ) 2>&1 </dev/null").c_str(), "r");
  if (pipe == nullptr) return result;
  std::array<char, 4096> buffer{};
  for (size_t got = 0; (got = fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) {
    result.output.append(buffer.data(), got);
  }
  const int status = pclose(pipe);
  result.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return result;
}

std::string MustRun(const std::string& command) {
  CommandResult result = Run(command);
  EXPECT_EQ(result.status, 0) << command << "\n" << result.output;
  return result.output;
}

bool HasTool(const std::string& name) {
  return Run("PATH=$PATH:/usr/sbin:/sbin command -v " + name).status == 0;
}

Bytes ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  Bytes content(std::filesystem::file_size(path));
  file.read(reinterpret_cast<char*>(content.data()), static_cast<std::streamsize>(content.size()));
  EXPECT_TRUE(file.good()) << path;
  return content;
}

void WriteFile(const std::string& path, ByteView content) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(content.data()),
             static_cast<std::streamsize>(content.size()));
  EXPECT_TRUE(file.good()) << path;
}

void PutBe32(Bytes& data, size_t offset, uint32_t value) { Put(data, offset, value, true); }
void PutBe64(Bytes& data, size_t offset, uint64_t value) { Put(data, offset, value, true); }
void PutLe32(Bytes& data, size_t offset, uint32_t value) { Put(data, offset, value, false); }
void PutLe64(Bytes& data, size_t offset, uint64_t value) { Put(data, offset, value, false); }
void PutText(Bytes& data, size_t offset, const std::string& text) {
  ASSERT_LE(offset + text.size(), data.size());
  std::ranges::copy(AsBytes(text), data.begin() + static_cast<std::ptrdiff_t>(offset));
}

Bytes QemuImgCreate(const std::string& format, const std::string& options,
                    const std::string& size) {
  const TempDir dir;
  const std::string file = dir.File("image");
  MustRun("qemu-img create -q -f " + format + " " + options + " " + file + " " + size);
  return ReadFile(file);
}

void FixGptCrcs(Bytes& disk, uint32_t sector_size) {
  const size_t last = disk.size() / sector_size - 1;
  for (const size_t lba : {size_t{1}, last}) {
    const size_t at = lba * sector_size;
    const uint64_t entries = U64Le(disk, at + 72) * sector_size;
    // A random patch may have moved the array out of the disk.
    if (IsInside(entries, kEntries * kEntrySize, disk.size())) {
      PutLe32(disk, at + 88,
              Crc(ByteView(disk).subspan(static_cast<size_t>(entries), kEntries * kEntrySize)));
    }
    PutLe32(disk, at + 16, 0);
    PutLe32(disk, at + 16, Crc(ByteView(disk).subspan(at, 92)));
  }
}

Bytes MakeGptDisk(uint32_t sector_size, uint64_t sectors,
                  const std::vector<TestPartition>& partitions) {
  Bytes disk(static_cast<size_t>(sectors) * sector_size);
  disk[446 + 4] = std::byte{0xee};
  PutLe32(disk, 446 + 8, 1);
  PutLe32(disk, 446 + 12, static_cast<uint32_t>(sectors - 1));
  PutText(disk, 510, "\x55\xaa");
  const uint64_t array = (kEntries * kEntrySize + sector_size - 1) / sector_size;
  const uint64_t backup_entries = sectors - 1 - array;
  WriteGptHeader(disk, sector_size, 1, sectors - 1, 2, 2 + array, backup_entries - 1);
  WriteGptHeader(disk, sector_size, sectors - 1, 1, backup_entries, 2 + array, backup_entries - 1);
  for (const uint64_t table : {uint64_t{2}, backup_entries}) {
    auto at = static_cast<size_t>(table * sector_size);
    for (const TestPartition& p : partitions) {
      PutGuid(disk, at, p.type);
      PutGuid(disk, at + 16, "AAAAAAAA-0000-0000-0000-0000000000" + std::to_string(10 + at % 90));
      PutLe64(disk, at + 32, p.first_lba);
      PutLe64(disk, at + 40, p.last_lba);
      at += kEntrySize;
    }
  }
  // The unique GUID must be the same in both copies.
  for (size_t i = 0; i < partitions.size() * kEntrySize; ++i) {
    disk[static_cast<size_t>(backup_entries) * sector_size + i] = disk[2 * sector_size + i];
  }
  FixGptCrcs(disk, sector_size);
  return disk;
}

Bytes MakePe(const std::vector<TestSection>& sections) {
  constexpr size_t kPe = 0x80;
  constexpr size_t kOptional = kPe + 24;
  constexpr size_t kOptionalSize = 240;
  constexpr size_t kHeaders = 0x400;
  std::vector<TestSection> all = {{".text", Bytes(512, std::byte{0xc3})}};
  all.insert(all.end(), sections.begin(), sections.end());
  Bytes file(kHeaders);
  PutText(file, 0, "MZ");
  PutLe32(file, 60, kPe);
  PutText(file, kPe, "PE");
  PutLe32(file, kPe + 4, 0x8664U | static_cast<uint32_t>(all.size()) << 16U);
  PutLe32(file, kPe + 20, kOptionalSize | 0x22U << 16U);
  PutLe32(file, kOptional, 0x20b);
  PutLe32(file, kOptional + 16, 0x1000);  // entry point
  PutLe32(file, kOptional + 32, 0x1000);  // section alignment
  PutLe32(file, kOptional + 36, 0x200);   // file alignment
  PutLe32(file, kOptional + 56, static_cast<uint32_t>(0x1000 * (all.size() + 1)));
  PutLe32(file, kOptional + 60, kHeaders);
  PutLe32(file, kOptional + 68, 10);  // EFI application
  PutLe32(file, kOptional + 108, 16);
  for (size_t i = 0; i < all.size(); ++i) {
    const size_t at = kOptional + kOptionalSize + i * 40;
    const size_t raw = (all[i].content.size() + 511) / 512 * 512;
    PutText(file, at, all[i].name.substr(0, 8));
    PutLe32(file, at + 8, static_cast<uint32_t>(all[i].content.size()));
    PutLe32(file, at + 12, static_cast<uint32_t>(0x1000 * (i + 1)));
    PutLe32(file, at + 16, static_cast<uint32_t>(raw));
    PutLe32(file, at + 20, static_cast<uint32_t>(file.size()));
    PutLe32(file, at + 36, 0x60000020);
    file.insert(file.end(), all[i].content.begin(), all[i].content.end());
    file.resize(file.size() + raw - all[i].content.size());
  }
  return file;
}

void FixKernelCrc(Bytes& kernel) {
  const size_t at = kernel.size() - 4;
  PutLe32(kernel, at, ~Crc(ByteView(kernel).first(at)));
}

Bytes MakeBzImage() {
  constexpr size_t kPe = 0x40;
  constexpr size_t kOptional = kPe + 24;
  constexpr size_t kOptionalSize = 152;  // five directories, of which the last is certificates
  constexpr size_t kProtected = 4096;
  Bytes file(kTestKernelSetup + kProtected);
  PutText(file, 0, "MZ");
  PutLe32(file, 60, kPe);
  PutText(file, kPe, "PE");
  PutLe32(file, kPe + 4, 0x8664U | 1U << 16U);
  PutLe32(file, kPe + 20, kOptionalSize);
  PutLe32(file, kOptional, 0x20b);
  PutLe32(file, kOptional + 60, 512);  // headers
  PutLe32(file, kOptional + 108, 5);
  PutText(file, kOptional + kOptionalSize, ".text");
  PutLe32(file, kOptional + kOptionalSize + 8, kProtected);
  PutLe32(file, kOptional + kOptionalSize + 16, kProtected);
  PutLe32(file, kOptional + kOptionalSize + 20, kTestKernelSetup);
  PutLe32(file, 0x1f1, 4);  // setup_sects
  PutLe32(file, 0x1f4, kProtected / 16);
  PutText(file, 0x1fe,
          "\x55\xaa\xeb\x6a"
          "HdrS\x0f\x02");
  PutLe32(file, 0x20e, 0x100U | 0x01U << 24U);  // kernel_version, loadflags
  PutText(file, 0x300, "6.1.0-test (builder) #1 SMP");
  PutLe32(file, 0x230, 0x200000);
  PutLe32(file, 0x234, 1U | 21U << 8U | 0x3fU << 16U);
  PutLe32(file, 0x238, 2047);
  PutLe32(file, 0x248, 64);  // payload
  PutLe32(file, 0x24c, 128);
  PutText(file, kTestKernelSetup + 64, "\x1f\x8b\x08");
  FixKernelCrc(file);
  return file;
}

std::string VectorsDir() {
  const char* given = std::getenv("VALLUM_VECTORS");
  std::string dir = given != nullptr ? given : VALLUM_TESTDATA "/../../../../shared/vectors";
  return std::filesystem::exists(dir + "/manifest.json") ? dir : std::string();
}

std::string GuestDir() {
  // Lexically, since testdata need not exist.
  const std::filesystem::path dir =
      std::filesystem::path(VALLUM_TESTDATA "/../../../build/guest").lexically_normal();
  return std::filesystem::exists(dir / "debian.raw") ? dir.string() : std::string();
}

Result<void> SparseReader::ReadAt(uint64_t offset, std::span<std::byte> out) const {
  if (!IsInside(offset, out.size(), size_)) return InvalidInput("truncated");
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = offset + i < front_.size() ? front_[static_cast<size_t>(offset) + i] : std::byte{0};
  }
  return Ok();
}

Result<std::optional<uint64_t>> SparseReader::NextData(uint64_t offset) const {
  if (offset < front_.size()) return std::optional<uint64_t>(offset);
  return std::optional<uint64_t>();
}

}  // namespace vallum::formats::testing
