// SPDX-License-Identifier: Apache-2.0
#include "controller/content_claims.h"

#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "controller/allow_list_use.h"
#include "vallum/v1/resources.pb.h"

namespace vallum::controller {
namespace {

// The digests of contents that resources name.
std::set<std::string> NamedContents(const View& view) {
  std::set<std::string> named = AllowListsInUse(view);
  for (const auto& image : view.All<v1::Image>()) named.insert(image->status().sha256());
  for (const auto& snapshot : view.All<v1::Snapshot>()) {
    const v1::SnapshotStatus& status = snapshot->status();
    named.insert({status.disk().sha256(), status.variables().sha256(), status.tpm().sha256()});
  }
  return named;
}

}  // namespace

Result<std::unique_ptr<ContentClaims::Claim>> ContentClaims::Publish(store::BlobUpload& upload,
                                                                     std::string_view expected) {
  const std::lock_guard lock(mutex_);
  ASSIGN_OR_RETURN(const store::BlobInfo blob,
                   expected.empty() ? upload.Commit() : upload.CommitExpecting(expected));
  claimed_.insert(blob.digest);
  return std::make_unique<Claim>(*this, blob.digest);
}

void ContentClaims::Release(const std::string& digest) {
  const std::lock_guard lock(mutex_);
  claimed_.erase(claimed_.find(digest));
}

void ContentClaims::RemoveUnused(const std::string& digest) {
  const std::lock_guard lock(mutex_);
  if (digest.empty() || claimed_.contains(digest) || NamedContents(view_).contains(digest)) return;
  (void)blobs_.Remove(digest);
}

Result<void> ContentClaims::Sweep() {
  ASSIGN_OR_RETURN(const std::vector<store::BlobInfo> blobs, blobs_.List());
  const std::lock_guard lock(mutex_);
  std::set<std::string> named = NamedContents(view_);
  named.insert(claimed_.begin(), claimed_.end());
  for (const store::BlobInfo& blob : blobs) {
    if (!named.contains(blob.digest)) (void)blobs_.Remove(blob.digest);
  }
  return Ok();
}

}  // namespace vallum::controller
