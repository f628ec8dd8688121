// SPDX-License-Identifier: Apache-2.0
#include "controller/evidence_book.h"

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/digest.h"
#include "base/ids.h"
#include "store/file.h"
#include "tls/file.h"

namespace vallum::controller {
namespace {

constexpr size_t kDigestText = 64;

std::string_view KindName(EvidenceKind kind) {
  switch (kind) {
    case EvidenceKind::kWhole:
      return "whole";
    case EvidenceKind::kLast:
      return "last";
    case EvidenceKind::kUntrusted:
      return "untrusted";
  }
  return "?";
}

// How many of a kind: enough to follow what happened to a host, not all that ever was.
size_t KeptOf(EvidenceKind kind) { return kind == EvidenceKind::kUntrusted ? 8 : 2; }

// Of a kind, beside the newest. A host that lies can make its evidence as large as one file may be.
constexpr uintmax_t kMaxOlderBytes = uintmax_t{16} << 20U;

// Removes what is too many or too much.
//   older: newest first, without the one that was just written.
void MakeRoom(EvidenceKind kind, const std::vector<std::filesystem::path>& older) {
  uintmax_t bytes = 0;
  for (size_t i = 0; i < older.size(); ++i) {
    std::error_code error;
    const uintmax_t size = std::filesystem::file_size(older[i], error);
    // A large one goes by itself: those before it may be what its host was found out by.
    if (error || i + 1 >= KeptOf(kind) || bytes + size > kMaxOlderBytes) {
      std::filesystem::remove(older[i], error);
    } else {
      bytes += size;
    }
  }
}

// "<kind>-<sha256>", in the host's directory.
std::string FileName(EvidenceKind kind, const std::string& digest) {
  return std::string(KindName(kind)) + "-" + digest;
}

}  // namespace

Result<std::unique_ptr<EvidenceBook>> EvidenceBook::Open(const std::filesystem::path& directory) {
  std::error_code error;
  if (std::filesystem::create_directory(directory, error)) {
    std::filesystem::permissions(directory, std::filesystem::perms::owner_all, error);
  }
  if (error) return ErrnoError(error.value(), "create directory " + directory.string());
  return std::unique_ptr<EvidenceBook>(new EvidenceBook(directory));
}

Result<std::string> EvidenceBook::Put(const std::string& host_uid, EvidenceKind kind,
                                      ByteView bundle) {
  if (!IsUid(host_uid)) return InvalidInput("not the uid of a host");
  const std::string digest = ToHex(Sha256(bundle));
  const std::lock_guard lock(mutex_);
  std::error_code made;
  std::filesystem::create_directory(directory_ / host_uid, made);
  if (made) return ErrnoError(made.value(), "create directory " + (directory_ / host_uid).string());
  const std::filesystem::path path = directory_ / host_uid / FileName(kind, digest);
  std::vector<std::filesystem::path> kept = List(host_uid, FileName(kind, ""));
  if (!kept.empty() && kept.front() == path) return digest;
  RETURN_IF_ERROR(tls::WriteFileAtomically(path, bundle, 0600));
  std::erase(kept, path);
  MakeRoom(kind, kept);
  return digest;
}

Result<Bytes> EvidenceBook::Get(const std::string& host_uid, EvidenceKind kind) {
  const std::lock_guard lock(mutex_);
  const bool last = kind == EvidenceKind::kLast;
  std::vector<std::filesystem::path> kept = List(host_uid, last ? "" : FileName(kind, ""));
  if (last) {
    std::erase_if(kept, [](const std::filesystem::path& path) {
      return path.filename().string().starts_with(FileName(EvidenceKind::kUntrusted, ""));
    });
  }
  if (!kept.empty()) return Read(kept.front());
  return NotFound("no evidence of the host is kept")
      .WithFix("`vallum host attest` has it sent; it takes a host of a trusted pool");
}

Result<Bytes> EvidenceBook::GetExactly(const std::string& host_uid, const std::string& sha256) {
  const std::lock_guard lock(mutex_);
  for (const std::filesystem::path& path : List(host_uid, "")) {
    if (sha256.size() == kDigestText && path.filename().string().ends_with(sha256)) {
      return Read(path);
    }
  }
  return NotFound("no evidence of the host with that SHA-256 is kept")
      .WithFix("events and `vallum host show` name what was kept; older evidence makes room");
}

Result<Bytes> EvidenceBook::Read(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(Bytes bundle, tls::ReadSmallFile(path, kMaxBundleBytes));
  if (!path.filename().string().ends_with(ToHex(Sha256(bundle)))) {
    return Corrupt(path.string() + " is not what was written there")
        .WithFix("`vallum host attest` has new evidence sent");
  }
  return bundle;
}

std::vector<std::filesystem::path> EvidenceBook::List(const std::string& host_uid,
                                                      const std::string& begin) const {
  std::vector<std::pair<std::filesystem::file_time_type, std::filesystem::path>> found;
  if (!IsUid(host_uid)) return {};
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory_ / host_uid, error)) {
    const std::string name = entry.path().filename().string();
    // What an interrupted write left ends otherwise.
    const size_t dash = name.find('-');
    if (!name.starts_with(begin) || dash == std::string::npos ||
        name.size() - dash - 1 != kDigestText) {
      continue;
    }
    std::error_code unknown;
    found.emplace_back(entry.last_write_time(unknown), entry.path());
  }
  std::ranges::sort(found, std::greater<>());
  std::vector<std::filesystem::path> paths;
  for (auto& [time, path] : found) paths.push_back(std::move(path));
  return paths;
}

Result<void> EvidenceBook::RemoveAllBut(const std::set<std::string>& host_uids) {
  const std::lock_guard lock(mutex_);
  std::error_code error;
  std::vector<std::filesystem::path> gone;
  for (const auto& entry : std::filesystem::directory_iterator(directory_, error)) {
    const std::string name = entry.path().filename().string();
    if (!host_uids.contains(name)) gone.push_back(entry.path());
  }
  for (const auto& path : gone) std::filesystem::remove_all(path, error);
  if (error) return ErrnoError(error.value(), "clean up " + directory_.string());
  return Ok();
}

}  // namespace vallum::controller
