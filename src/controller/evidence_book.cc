// SPDX-License-Identifier: Apache-2.0
#include "controller/evidence_book.h"

#include <string>
#include <utility>
#include <vector>

#include "base/digest.h"
#include "base/ids.h"
#include "store/file.h"
#include "tls/file.h"

namespace vallum::controller {
namespace {

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
  const auto before = Find(host_uid, kind);
  const std::filesystem::path path = directory_ / host_uid / FileName(kind, digest);
  if (before.has_value() && *before == path) return digest;
  RETURN_IF_ERROR(tls::WriteFileAtomically(path, bundle, 0600));
  if (before.has_value()) {
    std::error_code error;
    std::filesystem::remove(*before, error);
  }
  return digest;
}

Result<Bytes> EvidenceBook::Get(const std::string& host_uid, EvidenceKind kind) {
  const std::lock_guard lock(mutex_);
  ASSIGN_OR_RETURN(const std::filesystem::path path, Find(host_uid, kind));
  ASSIGN_OR_RETURN(Bytes bundle, tls::ReadSmallFile(path, kMaxBundleBytes));
  if (!path.filename().string().ends_with(ToHex(Sha256(bundle)))) {
    return Corrupt(path.string() + " is not what was written there")
        .WithFix("`vallum host attest` has new evidence sent");
  }
  return bundle;
}

Result<std::filesystem::path> EvidenceBook::Find(const std::string& host_uid,
                                                 EvidenceKind kind) const {
  if (IsUid(host_uid)) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(directory_ / host_uid, error)) {
      const std::string name = entry.path().filename().string();
      // What an interrupted write left has another length.
      if (name.size() == FileName(kind, std::string(64, '0')).size() &&
          name.starts_with(FileName(kind, ""))) {
        return entry.path();
      }
    }
  }
  return NotFound("no evidence of the host is kept")
      .WithFix("`vallum host attest` has it sent; it takes a host of a trusted pool");
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
