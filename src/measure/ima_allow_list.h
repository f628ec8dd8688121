// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"
#include "measure/ima_digest_table.h"
#include "measure/ima_signature.h"

namespace vallum::measure {

inline constexpr size_t kMaxAllowListInput = size_t{256} << 20U;
inline constexpr size_t kMaxExcludes = 4096;
inline constexpr size_t kMaxExcludeBytes = 4096;
inline constexpr size_t kMaxIgnoredKeyrings = 64;

// Regular expressions of paths that nobody answers for.
class ImaExcludes;

// Which files, buffers and keys the operator accepts on a host. Immutable: hosts share one by
// pointer (see SharedImaAllowList), none has a copy. Thread-safe.
class ImaAllowList {
 public:
  ImaAllowList(const ImaAllowList&) = delete;
  ImaAllowList& operator=(const ImaAllowList&) = delete;
  ~ImaAllowList();

  const ImaDigestTable& files() const { return files_; }
  // Certificates by the name of the keyring that they may be loaded on, e.g. ".ima".
  const ImaDigestTable& keyrings() const { return keyrings_; }
  // Other buffers by name: "kexec-cmdline", critical data.
  const ImaDigestTable& buffers() const { return buffers_; }
  const ImaKeys& keys() const { return keys_; }

  // Whether an exclude matches from the path's first byte on; linear in its length.
  bool IsExcluded(std::string_view path) const;
  size_t exclude_count() const;
  // "*" among the ignored keyrings stands for each.
  bool IgnoresKeyring(std::string_view name) const;
  // What the template hashes in the log are expected to be made with.
  HashAlgorithm log_hash() const { return log_hash_; }
  // Without the excludes' automaton, which is bounded (8 MiB) and shared.
  size_t MemoryBytes() const;

 private:
  friend class ImaAllowListBuilder;
  ImaAllowList();

  ImaDigestTable files_;
  ImaDigestTable keyrings_;
  ImaDigestTable buffers_;
  ImaKeys keys_;
  std::unique_ptr<const ImaExcludes> excludes_;
  std::vector<std::string> ignored_keyrings_;
  HashAlgorithm log_hash_ = HashAlgorithm::kSha1;
};

using SharedImaAllowList = std::shared_ptr<const ImaAllowList>;

// Makes an allow list out of parts. Not thread-safe.
class ImaAllowListBuilder {
 public:
  ImaAllowListBuilder();
  ~ImaAllowListBuilder();
  ImaAllowListBuilder(const ImaAllowListBuilder&) = delete;
  ImaAllowListBuilder& operator=(const ImaAllowListBuilder&) = delete;

  // Errors of all: kInvalidInput, kExhausted; see ImaDigestTableBuilder and ImaKeys.
  // A name whose list of digests is empty is known by AddName: each digest of it is another one.
  ImaDigestTableBuilder& files() { return files_; }
  ImaDigestTableBuilder& keyrings() { return keyrings_; }
  ImaDigestTableBuilder& buffers() { return buffers_; }
  Result<void> AddKey(ByteView key);
  // A regular expression in RE2's syntax: no back references, no look-around. It is to match the
  // beginning of a path.
  Result<void> AddExclude(std::string_view pattern);
  Result<void> IgnoreKeyring(std::string_view name);
  void SetLogHash(HashAlgorithm hash) { log_hash_ = hash; }

  // Errors: kInvalidInput (the excludes together are too large for a bounded automaton).
  Result<SharedImaAllowList> Build() &&;

 private:
  ImaDigestTableBuilder files_;
  ImaDigestTableBuilder keyrings_;
  ImaDigestTableBuilder buffers_;
  ImaKeys keys_;
  std::unique_ptr<ImaExcludes> excludes_;
  std::vector<std::string> ignored_keyrings_;
  HashAlgorithm log_hash_ = HashAlgorithm::kSha1;
};

// Reads a runtime policy of Keylime: meta, digests, excludes, keyrings, ima, ima-buf,
// verification-keys; and its older allow lists, which say hashes and exclude. Digests are told
// apart by their size alone, as there.
//   json: at most kMaxAllowListInput; untrusted.
// Errors: kInvalidInput (no such document: what and where; a version or a member that is not
// known and could narrow what is accepted); kExhausted (a limit).
// Source: Keylime docs/user_guide/runtime_ima.rst; keylime/ima/ima.py. Pure; thread-safe.
Result<SharedImaAllowList> ImportKeylimePolicy(std::string_view json);

// Reads what sha1sum and its like print: digest, space, space or '*', path (escaped as there), and
// Keylime's flat lists: digest, space, path or %keyring:NAME. '#' begins a remark; ' ' becomes '_'.
Result<SharedImaAllowList> ImportDigestList(std::string_view text);

}  // namespace vallum::measure
