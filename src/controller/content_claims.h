// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>

#include "base/result.h"
#include "controller/view.h"
#include "store/blob_store.h"

namespace vallum::controller {

// Keeps an image's content while some upload has published it but no image names it yet: another
// image with the same content may be refused or deleted at that moment. Thread-safe. The blob store
// and the view outlive it.
class ContentClaims {
 public:
  ContentClaims(store::BlobStore& blobs, const View& view) : blobs_(blobs), view_(view) {}

  // Holds its content until it is destroyed.
  class Claim {
   public:
    Claim(ContentClaims& claims, std::string digest) : claims_(claims), digest_(digest) {}
    ~Claim() { claims_.Release(digest_); }
    Claim(const Claim&) = delete;
    Claim& operator=(const Claim&) = delete;
    const std::string& digest() const { return digest_; }

   private:
    ContentClaims& claims_;
    const std::string digest_;
  };
  // Commits an upload and claims what it holds.
  //   expected: lower-case SHA-256 that the content must have, or empty.
  // Errors: as BlobUpload::Commit and CommitExpecting.
  Result<std::unique_ptr<Claim>> Publish(store::BlobUpload& upload, std::string_view expected);

  // Removes a content that neither a claim nor an image, snapshot, allow list or attestation policy
  // of the view names; otherwise does nothing.
  void RemoveUnused(const std::string& digest);
  // Removes every content that nothing names: left behind when a controller ended between storing a
  // content and its resource, or between deleting the two. For a start, before anything is claimed.
  // Errors: those of BlobStore::List.
  Result<void> Sweep();

 private:
  void Release(const std::string& digest);

  store::BlobStore& blobs_;
  const View& view_;
  std::mutex mutex_;  // held while content is published and while it is removed
  std::multiset<std::string> claimed_;
};

}  // namespace vallum::controller
