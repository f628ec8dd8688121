// SPDX-License-Identifier: Apache-2.0
#include "store/blob_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/ids.h"
#include "base/result.h"
#include "base/text.h"
#include "base/units.h"
#include "store/blob_paths.h"
#include "store/blob_upload_state.h"
#include "store/file.h"

namespace vallum::store {
namespace {

constexpr size_t kReadSize = size_t{1} << 20U;

Result<void> MakePrivateDirectory(const std::filesystem::path& path) {
  if (::mkdir(path.c_str(), 0700) == 0) return SyncDirectory(path.parent_path());
  if (errno == EEXIST && std::filesystem::is_directory(path)) return Ok();
  return ErrnoError(errno, "mkdir " + path.string());
}

Result<std::string> ReadBootId() {
  ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile("/proc/sys/kernel/random/boot_id", O_RDONLY));
  std::array<char, 64> text{};
  const ssize_t n = ::read(fd.get(), text.data(), text.size());
  const std::string id(Trim(std::string_view(text.data(), n > 0 ? static_cast<size_t>(n) : 0)));
  if (!IsUid(id)) return Internal("the kernel's boot id is \"" + Printable(id) + "\"");
  return id;
}

struct Entry {
  std::string name;
  struct stat status{};
};

// The regular files and directories in a directory, by name.
Result<std::vector<Entry>> ListDirectory(const std::filesystem::path& path) {
  std::vector<Entry> entries;
  std::error_code error;
  std::filesystem::directory_iterator it(path, error);
  for (; !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
    Entry entry{it->path().filename().string()};
    // A file that is gone since is none.
    if (::lstat(it->path().c_str(), &entry.status) == 0) entries.push_back(std::move(entry));
  }
  if (error) return ErrnoError(error.value(), "list " + path.string());
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.name < b.name; });
  return entries;
}

Result<void> RemoveTree(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) return ErrnoError(error.value(), "remove " + path.string());
  return Ok();
}

//   uploads: the directory of all boot ids.
Result<void> Sweep(const std::filesystem::path& uploads, const std::string& boot_id,
                   WallTime oldest) {
  ASSIGN_OR_RETURN(const std::vector<Entry> boots, ListDirectory(uploads));
  for (const Entry& boot : boots) {
    if (boot.name == boot_id) continue;
    RETURN_IF_ERROR(RemoveTree(uploads / boot.name));
  }
  ASSIGN_OR_RETURN(const std::vector<Entry> mine, ListDirectory(uploads / boot_id));
  for (const Entry& upload : mine) {
    if (std::chrono::system_clock::from_time_t(upload.status.st_mtime) < oldest) {
      RETURN_IF_ERROR(RemoveTree(uploads / boot_id / upload.name));
    }
  }
  return Ok();
}

Result<std::string> HashFile(int fd) {
  Hasher hasher(HashAlgorithm::kSha256);
  Bytes buffer(kReadSize);
  uint64_t offset = 0;
  while (true) {
    const ssize_t n = ::pread(fd, buffer.data(), buffer.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError(errno, "read at offset " + std::to_string(offset));
    if (n == 0) return ToHex(hasher.Finish());
    hasher.Update(ByteView(buffer).first(static_cast<size_t>(n)));
    offset += static_cast<uint64_t>(n);
  }
}

Error NoBlob(std::string_view digest) {
  return NotFound("there is no blob " + std::string(digest));
}

}  // namespace

Result<void> CheckBlobDigest(std::string_view digest) {
  if (digest.size() == 64 && digest.find_first_not_of("0123456789abcdef") == std::string::npos) {
    return Ok();
  }
  return InvalidInput("\"" + Printable(digest, 80) + "\" is not a SHA-256 digest")
      .WithFix("give 64 lower-case hexadecimal digits");
}

HeldUpload::HeldUpload(std::shared_ptr<BlobPaths> paths, std::string id)
    : paths_(std::move(paths)), id_(std::move(id)) {}

HeldUpload::~HeldUpload() {
  const std::lock_guard lock(paths_->mutex);
  paths_->held_uploads.erase(id_);
}

Result<std::unique_ptr<HeldUpload>> HeldUpload::Take(std::shared_ptr<BlobPaths> paths,
                                                     std::string_view id) {
  const std::lock_guard lock(paths->mutex);
  if (!paths->held_uploads.emplace(id).second) {
    return Conflict("upload " + std::string(id) + " is in use")
        .WithFix("wait for the transfer that is under way to end");
  }
  return std::unique_ptr<HeldUpload>(new HeldUpload(paths, std::string(id)));
}

Result<std::unique_ptr<BlobStore>> BlobStore::Open(const BlobStoreOptions& options,
                                                   const Clock& clock) {
  const std::filesystem::path directory = std::filesystem::absolute(options.directory);
  RETURN_IF_ERROR(MakePrivateDirectory(directory)).context("opening the blob store");
  ASSIGN_OR_RETURN_CONTEXT(FileLock lock, FileLock::Acquire(directory / "lock"),
                           "opening the blob store");
  ASSIGN_OR_RETURN(const std::string boot_id, ReadBootId());
  const std::filesystem::path uploads = directory / "uploads";
  RETURN_IF_ERROR(MakePrivateDirectory(directory / "sha256"));
  RETURN_IF_ERROR(MakePrivateDirectory(uploads));
  RETURN_IF_ERROR(MakePrivateDirectory(uploads / boot_id));
  RETURN_IF_ERROR(Sweep(uploads, boot_id, clock.Now() - options.max_upload_age))
      .context("removing abandoned uploads");
  std::shared_ptr<BlobPaths> paths(new BlobPaths{
      directory / "sha256", uploads / boot_id, options.max_blob_size, std::move(lock), {}, {}});
  return std::unique_ptr<BlobStore>(new BlobStore(std::move(paths)));
}

BlobStore::BlobStore(std::shared_ptr<BlobPaths> paths) : paths_(std::move(paths)) {}
BlobStore::~BlobStore() = default;

Result<std::unique_ptr<BlobUpload>> BlobStore::OpenUpload(std::string_view id, int create_flags) {
  RETURN_IF_ERROR(ValidateName("upload", id));
  ASSIGN_OR_RETURN(auto held, HeldUpload::Take(paths_, id));
  ASSIGN_OR_RETURN(auto state, BlobUpload::State::Open(std::move(held), create_flags));
  RETURN_IF_ERROR(state->HashWhatIsThere());
  return std::unique_ptr<BlobUpload>(new BlobUpload(std::move(state)));
}

Result<std::unique_ptr<BlobUpload>> BlobStore::BeginUpload(std::string_view id) {
  return OpenUpload(id, O_CREAT | O_EXCL);
}

Result<std::unique_ptr<BlobUpload>> BlobStore::ResumeUpload(std::string_view id) {
  return OpenUpload(id, 0);
}

Result<std::vector<UploadInfo>> BlobStore::ListUploads() const {
  ASSIGN_OR_RETURN(const std::vector<Entry> entries, ListDirectory(paths_->uploads));
  std::vector<UploadInfo> uploads;
  for (const Entry& entry : entries) {
    uploads.push_back({entry.name, ByteCount::Bytes(static_cast<uint64_t>(entry.status.st_size))});
  }
  return uploads;
}

Result<OpenBlob> BlobStore::Open(std::string_view digest) const {
  RETURN_IF_ERROR(CheckBlobDigest(digest));
  OpenBlob blob;
  blob.path = paths_->blobs / digest;
  auto fd = OpenFile(blob.path, O_RDONLY | O_NOFOLLOW);
  if (!fd && fd.error().code() == ErrorCode::kNotFound) return NoBlob(digest);
  if (!fd) return fd.error();
  blob.fd = *std::move(fd);
  struct stat status{};
  if (::fstat(blob.fd.get(), &status) != 0) return ErrnoError(errno, "stat " + blob.path.string());
  blob.size = ByteCount::Bytes(static_cast<uint64_t>(status.st_size));
  return blob;
}

Result<void> BlobStore::Remove(std::string_view digest) {
  RETURN_IF_ERROR(CheckBlobDigest(digest));
  const std::filesystem::path path = paths_->blobs / digest;
  if (::unlink(path.c_str()) == 0) return SyncDirectory(paths_->blobs);
  if (errno == ENOENT) return NoBlob(digest);
  return ErrnoError(errno, "unlink " + path.string());
}

Result<void> BlobStore::VerifyDigest(std::string_view digest) const {
  ASSIGN_OR_RETURN(const OpenBlob blob, Open(digest));
  ASSIGN_OR_RETURN_CONTEXT(const std::string actual, HashFile(blob.fd.get()), blob.path.string());
  if (actual == digest) return Ok();
  return Corrupt("blob " + std::string(digest) + " has content of SHA-256 " + actual)
      .WithFix("remove it and import the file again");
}

Result<std::vector<BlobInfo>> BlobStore::List() const {
  ASSIGN_OR_RETURN(const std::vector<Entry> entries, ListDirectory(paths_->blobs));
  std::vector<BlobInfo> blobs;
  for (const Entry& entry : entries) {
    if (!CheckBlobDigest(entry.name) || !S_ISREG(entry.status.st_mode)) continue;
    blobs.push_back({entry.name, ByteCount::Bytes(static_cast<uint64_t>(entry.status.st_size))});
  }
  return blobs;
}

}  // namespace vallum::store
