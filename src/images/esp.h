// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/fat.h"
#include "formats/gpt.h"
#include "formats/reader.h"

namespace vallum::images {

inline constexpr size_t kMaxEspFiles = 4096;
inline constexpr size_t kMaxEspDirectories = 256;
inline constexpr size_t kMaxEspDepth = 8;
inline constexpr size_t kMaxEspPath = 1024;                      // bytes
inline constexpr size_t kMaxEspFacts = 64;                       // of what is not read
inline constexpr size_t kMaxEspFileBytes = size_t{160} << 20U;   // one file, held in memory
inline constexpr size_t kMaxEspBytesRead = size_t{1024} << 20U;  // all reads together

struct EspFile {
  std::string path;  // "\EFI\BOOT\BOOTX64.EFI", as spelt on the disk
  formats::FatEntry entry;

  uint64_t size() const { return entry.size; }
};

// The path in one spelling, to compare: lower case, separated by '\', with one in front.
std::string NormalPath(std::string_view path);
// "\efi\boot" of "\efi\boot\bootx64.efi".
std::string_view FolderOf(std::string_view path);

// The files of an EFI system partition. What is damaged or too much is left out and said in
// facts(): it is the guest's problem, not the host's. The disk must outlive it. Not thread-safe.
class Esp {
 public:
  // Opens the first EFI system partition of a table and lists its files.
  // Errors: kNotFound (no such partition, or no file system in it that firmware reads; in words);
  // those of the reader that are not about the content.
  static Result<std::unique_ptr<Esp>> Open(const formats::RandomAccessReader& disk,
                                           const formats::GptTable& table);

  uint32_t partition_number() const { return partition_.number; }
  const formats::GptPartition& partition() const { return partition_; }
  const formats::FatVolume& volume() const { return *volume_; }
  const std::vector<EspFile>& files() const { return files_; }
  const std::vector<std::string>& facts() const { return facts_; }

  // Looks a path up as firmware does, without regard to case; nullptr when there is none.
  const EspFile* Find(std::string_view path) const;
  // Errors: kInvalidInput (damaged), kExhausted (larger than `limit`, or too much was read).
  Result<Bytes> Read(const EspFile& file, size_t limit = kMaxEspFileBytes) const;

 private:
  Esp(const formats::WindowReader& window, const formats::GptPartition& partition)
      : window_(window), partition_(partition) {}
  Result<void> List(const formats::FatEntry& directory, const std::string& path, size_t depth);
  void Note(const std::string& fact);

  const formats::WindowReader window_;
  const formats::GptPartition partition_;
  std::unique_ptr<formats::FatVolume> volume_;
  std::vector<EspFile> files_;
  std::map<std::string, size_t> by_path_;  // in files_, by NormalPath
  std::vector<std::string> facts_;
  size_t directories_ = 0;
  mutable uint64_t bytes_read_ = 0;
};

}  // namespace vallum::images
