// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "agent/config.h"
#include "base/result.h"

namespace vallum::agent {

// Gives each instance a user of its own, kept in <state-dir>/users over restarts: two instances
// never share one, and one instance keeps its own. The first uid of the range is the group that may
// read image blobs and is never given to an instance. Thread-safe.
class UserAllocator {
 public:
  // Reads what was given before. Without the file, the owners of the instances' disks are taken.
  // Errors: kCorrupt (the file is damaged, or gives one user twice), with the fix.
  static Result<std::unique_ptr<UserAllocator>> Open(const AgentConfig& config);

  // The instance's user; durable when it returns.
  // Errors: kExhausted (the range is used up), those of the file system.
  Result<uid_t> Allocate(const std::string& instance);
  Result<void> Release(const std::string& instance);
  // The group that may read image blobs.
  gid_t image_group() const { return first_; }

 private:
  UserAllocator(std::filesystem::path path, uid_t first, uid_t count)
      : path_(std::move(path)), first_(first), count_(count) {}
  Result<void> Load(const std::string& text);
  Result<void> Rebuild(const std::filesystem::path& instances);
  Result<void> Save() const;
  Result<void> Add(const std::string& instance, uid_t user);

  const std::filesystem::path path_;
  const uid_t first_;
  const uid_t count_;
  std::mutex mutex_;
  std::map<std::string, uid_t> users_;
  std::map<uid_t, std::string> instances_;
};

}  // namespace vallum::agent
