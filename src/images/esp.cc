// SPDX-License-Identifier: Apache-2.0
#include "images/esp.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "images/boot_binaries.h"

namespace vallum::images {
namespace {

using formats::FatEntry;
using formats::FatEntryKind;

}  // namespace

std::string NormalPath(std::string_view path) {
  std::string out = ToLower(path);
  std::ranges::replace(out, '/', '\\');
  if (!out.starts_with('\\')) out.insert(out.begin(), '\\');
  return out;
}

std::string_view FolderOf(std::string_view path) {
  const size_t slash = path.find_last_of("\\/");
  return slash == std::string_view::npos ? std::string_view() : path.substr(0, slash);
}

Result<std::unique_ptr<Esp>> Esp::Open(const formats::RandomAccessReader& disk,
                                       const formats::GptTable& table) {
  const auto is_esp = [](const formats::GptPartition& partition) {
    return formats::FormatGuid(partition.type) == formats::kEspTypeGuid;
  };
  const auto first = std::ranges::find_if(table.partitions, is_esp);
  if (first == table.partitions.end()) {
    return NotFound("no EFI system partition: starts under BIOS only");
  }
  ASSIGN_OR_RETURN(const formats::WindowReader window,
                   formats::WindowReader::Create(disk, first->first_lba * table.sector_size,
                                                 first->sectors() * table.sector_size));
  std::unique_ptr<Esp> esp(new Esp(window, *first));
  Result<formats::FatVolume> volume = formats::FatVolume::Open(esp->window_);
  if (!volume.has_value()) {
    if (!IsAboutContent(volume.error())) return std::move(volume).error();
    return NotFound(fmt::format("the EFI system partition (number {}) is not read: {}",
                                first->number, volume.error().Describe()));
  }
  esp->volume_ = std::make_unique<formats::FatVolume>(*std::move(volume));
  // Firmware looks at each; an image has one. More than one is said, and the first is read.
  for (auto other = first + 1; other != table.partitions.end(); ++other) {
    if (!is_esp(*other)) continue;
    esp->Note(
        fmt::format("partition {} is a further EFI system partition, not read", other->number));
  }
  RETURN_IF_ERROR(esp->List(esp->volume_->Root(), "", 0));
  return esp;
}

void Esp::Note(const std::string& fact) {
  if (facts_.size() >= kMaxEspFacts) return;
  if (std::ranges::find(facts_, fact) == facts_.end()) facts_.push_back(fact);
}

Result<void> Esp::List(const FatEntry& directory, const std::string& path, size_t depth) {
  if (depth > kMaxEspDepth || ++directories_ > kMaxEspDirectories) {
    Note("the EFI system partition has more directories than are read");
    return Ok();
  }
  const Result<std::vector<FatEntry>> entries = volume_->List(directory);
  if (!entries.has_value()) {
    if (!IsAboutContent(entries.error())) return entries.error();
    Note(Printable(path.empty() ? "\\" : path) + " is not read: " + entries.error().Describe());
    return Ok();
  }
  for (const FatEntry& entry : *entries) {
    const std::string entry_path = path + "\\" + entry.name;
    if (entry_path.size() > kMaxEspPath) {
      Note("the EFI system partition has longer paths than are read");
      continue;
    }
    if (entry.kind == FatEntryKind::kDirectory) {
      RETURN_IF_ERROR(List(entry, entry_path, depth + 1));
    } else if (files_.size() < kMaxEspFiles) {
      by_path_.emplace(NormalPath(entry_path), files_.size());  // the first of two
      files_.push_back({.path = entry_path, .entry = entry});
    } else {
      Note("the EFI system partition has more files than are read");
    }
  }
  return Ok();
}

const EspFile* Esp::Find(std::string_view path) const {
  const auto found = by_path_.find(NormalPath(path));
  return found == by_path_.end() ? nullptr : &files_[found->second];
}

Result<Bytes> Esp::Read(const EspFile& file, size_t limit) const {
  if (file.size() > limit) {
    return Exhausted("it has " + std::to_string(file.size()) + " bytes, above the limit of " +
                     std::to_string(limit));
  }
  if (file.size() > kMaxEspBytesRead - bytes_read_) {
    return Exhausted("more than " + std::to_string(kMaxEspBytesRead) +
                     " bytes of the EFI system partition would be read");
  }
  bytes_read_ += file.size();
  return volume_->Read(file.entry, limit);
}

}  // namespace vallum::images
