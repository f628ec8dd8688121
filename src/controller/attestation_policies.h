// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "attest/host_verification.h"
#include "base/result.h"
#include "controller/resource_store.h"
#include "controller/view.h"
#include "store/blob_store.h"

namespace vallum::controller {

// The document of a version, and all documents of a policy: with them a resource stays below
// store::kMaxValueBytes.
inline constexpr size_t kMaxPolicyDocument = size_t{256} << 10U;
inline constexpr size_t kMaxPolicyDocuments = size_t{768} << 10U;

// Attestation policies, their versions, and the form in which hosts are judged by them. Writing
// another document makes a draft; hosts are judged by the version that somebody activated. Does not
// authorize. Thread-safe; calls may block on the store and on the disk.
class AttestationPolicies {
 public:
  // All outlive it.
  AttestationPolicies(ResourceStore& resources, const View& view, const store::BlobStore& blobs)
      : resources_(resources), view_(view), blobs_(blobs) {}

  // `policy` is replaced by what was stored; when it returns, the view has seen it.
  //   user: who asks.
  // Errors: kInvalidInput (the document, with path and line; its size; a name in it that is
  // another), kConflict (exists), and the store's.
  Result<void> Create(v1::AttestationPolicy& policy, const std::string& user);
  // Replaces labels, description and document. Errors: as Create; kNotFound, kConflict (changed
  // meanwhile), kExhausted (too many versions that are not retired).
  Result<void> Update(v1::AttestationPolicy& policy, store::Revision if_match,
                      const std::string& user);
  // Makes a version (0: the newest) the one that hosts are judged by, and the one before a draft.
  // Errors: kNotFound (policy, version), kConflict (retired; changed meanwhile), kInvalidInput (its
  // allow list is not there).
  Result<v1::AttestationPolicy> Activate(const std::string& name, int32_t version);
  // Takes the active version away: its hosts are no longer trusted. Errors: kNotFound, kConflict.
  Result<v1::AttestationPolicy> Retire(const std::string& name, int32_t version);

  // What the hosts of a pool are judged by.
  // Errors: kNotFound (the pool names no policy, there is none of that name, it has no active
  // version, its allow list is gone), in words for the operator.
  Result<attest::SharedPolicy> ForPool(const v1::Pool& pool);
  // A version, 0 for the newest. Errors: kNotFound.
  Result<attest::SharedPolicy> Version(const std::string& name, int32_t version);
  // A document that is no resource. Errors: kInvalidInput, kNotFound (its allow list).
  Result<attest::SharedPolicy> Prepare(std::string_view document, const std::string& name,
                                       int32_t version);

 private:
  using Change = ResourceStore::Change;
  Result<measure::SharedImaAllowList> AllowListOf(const attest::AttestationPolicy& policy);

  ResourceStore& resources_;
  const View& view_;
  const store::BlobStore& blobs_;
  std::mutex mutex_;  // guards the members below
  // By the document's digest, which names its allow list's; with name and version.
  std::map<std::string, std::weak_ptr<const attest::PreparedPolicy>> prepared_;
  std::map<std::string, std::weak_ptr<const measure::ImaAllowList>> allow_lists_;  // by digest
  // Those of ForPool, so that they are made once: by the resource's uid, with their version.
  std::map<std::string, std::pair<int32_t, attest::SharedPolicy>> active_;
};

// Reads content as an allow list: a runtime policy of Keylime, or lines of sha256sum.
// Errors: kInvalidInput, kExhausted.
Result<measure::SharedImaAllowList> ParseAllowList(std::string_view content);

}  // namespace vallum::controller
