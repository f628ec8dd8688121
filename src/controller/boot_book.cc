// SPDX-License-Identifier: Apache-2.0
#include "controller/boot_book.h"

#include <algorithm>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/ids.h"
#include "tls/file.h"

namespace vallum::controller {
namespace {

constexpr size_t kKeptInMemory = 512;
constexpr std::string_view kRecordEnd = ".boot";
constexpr std::string_view kBaselineEnd = ".baseline";

Error FileError(const std::filesystem::path& path, const std::error_code& code) {
  return Unavailable(path.string() + ": " + code.message())
      .WithFix("see that the controller's state directory can be written to and has room");
}

// Whole or not at all as long as the machine runs. Not synced: the host has it still.
Result<void> WriteRecord(const std::filesystem::path& path, const v1::BootRecord& record) {
  const std::filesystem::path next = path.string() + ".new";
  {
    std::ofstream out(next, std::ios::binary | std::ios::trunc);
    if (!record.SerializeToOstream(&out) || !out.flush()) {
      return FileError(next, std::make_error_code(std::errc::io_error));
    }
  }
  std::error_code failed;
  std::filesystem::rename(next, path, failed);
  return failed ? Result<void>(FileError(path, failed)) : Ok();
}

Result<void> RemoveFile(const std::filesystem::path& path) {
  std::error_code failed;
  std::filesystem::remove(path, failed);
  return failed ? Result<void>(FileError(path, failed)) : Ok();
}

template <typename T>
bool Parse(const Bytes& bytes, const std::string& uid, T& out) {
  return out.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) &&
         out.spec().instance_uid() == uid;
}

}  // namespace

Result<std::unique_ptr<BootBook>> BootBook::Open(const std::filesystem::path& directory) {
  std::error_code failed;
  std::filesystem::create_directory(directory, failed);
  if (!failed) {
    std::filesystem::permissions(directory, std::filesystem::perms::owner_all, failed);
  }
  if (failed) {
    return FileError(directory, failed);
  }
  return std::unique_ptr<BootBook>(new BootBook(directory));
}

std::filesystem::path BootBook::RecordPath(const std::string& uid) const {
  return directory_ / (uid + std::string(kRecordEnd));
}

std::filesystem::path BootBook::BaselinePath(const std::string& uid) const {
  return directory_ / (uid + std::string(kBaselineEnd));
}

BootBook::Entry& BootBook::Use(const std::string& uid) {
  // Uids name files: they are the controller's own.
  CHECK(IsUid(uid));
  if (!entries_.contains(uid) && entries_.size() >= kKeptInMemory) {
    const auto oldest = std::min_element(
        entries_.begin(), entries_.end(),
        [](const auto& a, const auto& b) { return a.second.used < b.second.used; });
    if (oldest->second.record_dirty) {
      // Best effort, as all of its writing.
      static_cast<void>(WriteRecord(RecordPath(oldest->first), *oldest->second.record));
    }
    entries_.erase(oldest);
  }
  Entry& entry = entries_[uid];
  entry.used = ++uses_;
  return entry;
}

std::shared_ptr<const v1::BootRecord> BootBook::Record(const std::string& uid) {
  const std::lock_guard lock(mutex_);
  Entry& entry = Use(uid);
  if (!entry.record_read) {
    entry.record_read = true;
    const Result<Bytes> bytes = tls::ReadSmallFile(RecordPath(uid), kMaxRecordBytes);
    v1::BootRecord record;
    if (bytes.has_value() && Parse(*bytes, uid, record)) {
      entry.record = std::make_shared<v1::BootRecord>(std::move(record));
    }
  }
  return entry.record;
}

Result<void> BootBook::SetRecord(const std::string& uid, v1::BootRecord record, Keep keep) {
  const std::lock_guard lock(mutex_);
  Entry& entry = Use(uid);
  record.mutable_spec()->set_instance_uid(uid);
  entry.record = std::make_shared<v1::BootRecord>(std::move(record));
  entry.record_read = true;
  entry.record_dirty = true;
  if (keep == Keep::kFile) {
    RETURN_IF_ERROR(WriteRecord(RecordPath(uid), *entry.record));
    entry.record_dirty = false;
  }
  return Ok();
}

Result<void> BootBook::ReadBaseline(const std::string& uid, Entry& entry) const {
  if (entry.baseline_read) {
    return Ok();
  }
  const Result<Bytes> bytes = tls::ReadSmallFile(BaselinePath(uid), kMaxBaselineBytes);
  if (bytes.has_value()) {
    v1::Baseline baseline;
    if (!Parse(*bytes, uid, baseline)) {
      return Corrupt(BaselinePath(uid).string() + " is no baseline of its instance")
          .WithFix(
              "restore it from a backup, or remove it: the next verified boot is learned then");
    }
    entry.baseline = std::make_shared<v1::Baseline>(std::move(baseline));
  } else if (bytes.error().code() != ErrorCode::kNotFound) {
    return bytes.error();
  }
  entry.baseline_read = true;
  return Ok();
}

Result<std::shared_ptr<const v1::Baseline>> BootBook::Baseline(const std::string& uid) {
  const std::lock_guard lock(mutex_);
  Entry& entry = Use(uid);
  RETURN_IF_ERROR(ReadBaseline(uid, entry));
  return entry.baseline;
}

Result<v1::Baseline> BootBook::SetBaseline(v1::Baseline baseline, int64_t from) {
  const std::lock_guard lock(mutex_);
  const std::string uid = baseline.spec().instance_uid();
  Entry& entry = Use(uid);
  RETURN_IF_ERROR(ReadBaseline(uid, entry));
  const int64_t current = entry.baseline == nullptr ? 0 : entry.baseline->metadata().revision();
  if (current != from) {
    return Conflict("the baseline was changed by someone else meanwhile")
        .WithFix("read it again and repeat the change on what you read");
  }
  baseline.mutable_metadata()->set_revision(from + 1);
  const std::string bytes = baseline.SerializeAsString();
  if (bytes.size() > kMaxBaselineBytes) {
    return Exhausted("the baseline has " + std::to_string(bytes.size()) + " bytes, at most " +
                     std::to_string(kMaxBaselineBytes) + " are kept");
  }
  RETURN_IF_ERROR(tls::WriteFileAtomically(BaselinePath(uid), AsBytes(bytes), 0600));
  entry.baseline = std::make_shared<v1::Baseline>(baseline);
  return baseline;
}

Result<void> BootBook::Remove(const std::string& uid) {
  const std::lock_guard lock(mutex_);
  CHECK(IsUid(uid));
  entries_.erase(uid);
  RETURN_IF_ERROR(RemoveFile(RecordPath(uid)));
  return RemoveFile(BaselinePath(uid));
}

Result<void> BootBook::RemoveAllBut(const std::set<std::string>& uids) {
  const std::lock_guard lock(mutex_);
  std::error_code failed;
  for (const auto& file : std::filesystem::directory_iterator(directory_, failed)) {
    const std::string name = file.path().filename().string();
    // Of anything else in the folder nothing is known.
    const std::string uid = name.substr(0, name.find('.'));
    if (IsUid(uid) && !uids.contains(uid)) {
      entries_.erase(uid);
      RETURN_IF_ERROR(RemoveFile(file.path()));
    }
  }
  return failed ? Result<void>(FileError(directory_, failed)) : Ok();
}

}  // namespace vallum::controller
