// SPDX-License-Identifier: Apache-2.0
#include "agent/user_allocator.h"

#include <sys/stat.h>

#include <charconv>
#include <system_error>
#include <utility>

#include "agent/state_files.h"
#include "base/ids.h"
#include "base/text.h"

namespace vallum::agent {
namespace {

constexpr std::string_view kKind = "users";

}  // namespace

Result<std::unique_ptr<UserAllocator>> UserAllocator::Open(const AgentConfig& config) {
  std::unique_ptr<UserAllocator> allocator(
      new UserAllocator(config.state_dir / "users", config.first_user, config.user_count));
  auto text = ReadStateFile(allocator->path_, kKind);
  if (text) {
    RETURN_IF_ERROR(allocator->Load(*text));
    return allocator;
  }
  if (text.error().code() != ErrorCode::kNotFound) {
    return std::move(text).error().Context(
        "reading which user each instance has; without the file it is made again from the owners "
        "of the instances' disks");
  }
  RETURN_IF_ERROR(allocator->Rebuild(config.state_dir / "instances"));
  return allocator;
}

Result<void> UserAllocator::Add(const std::string& instance, uid_t user) {
  const bool new_user = instances_.emplace(user, instance).second;
  const bool new_instance = users_.emplace(instance, user).second;
  if (!new_user || !new_instance) {
    return Corrupt("uid " + std::to_string(user) + " is given to instance " + instance +
                   " and to instance " + instances_[user])
        .WithFix(
            "delete one of the two instances' directories, or chown its files to a free uid, "
            "and remove " +
            path_.string());
  }
  return Ok();
}

Result<void> UserAllocator::Load(const std::string& text) {
  for (const std::string& line : Split(text, '\n')) {
    if (line.empty()) {
      continue;
    }
    const std::vector<std::string> words = Split(line, ' ');
    uid_t user = 0;
    const bool parsed =
        words.size() == 2 && IsUid(words[1]) &&
        std::from_chars(words[0].data(), words[0].data() + words[0].size(), user).ec == std::errc();
    if (!parsed) {
      return Corrupt(path_.string() + " has a line that is not 'uid instance': " + Printable(line))
          .WithFix("remove the file; it is made again from the owners of the instances' disks");
    }
    RETURN_IF_ERROR(Add(words[1], user));
  }
  return Ok();
}

Result<void> UserAllocator::Rebuild(const std::filesystem::path& instances) {
  std::error_code failure;
  for (const auto& entry : std::filesystem::directory_iterator(instances, failure)) {
    const std::string uid = entry.path().filename().string();
    struct stat info{};
    const std::filesystem::path disk = entry.path() / "root.qcow2";
    // A disk of root belongs to an agent that ran without users: it is given one at the next start.
    if (IsUid(uid) && lstat(disk.c_str(), &info) == 0 && info.st_uid != 0) {
      RETURN_IF_ERROR(Add(uid, info.st_uid));
    }
  }
  return Ok();
}

Result<void> UserAllocator::Save() const {
  std::string text;
  for (const auto& [user, instance] : instances_) {
    text += std::to_string(user) + " " + instance + "\n";
  }
  return WriteStateFile(path_, kKind, text);
}

Result<uid_t> UserAllocator::Allocate(const std::string& instance) {
  const std::lock_guard lock(mutex_);
  if (const auto found = users_.find(instance); found != users_.end()) {
    return found->second;
  }
  for (uid_t user = first_ + 1; user < first_ + count_; ++user) {
    if (instances_.contains(user)) {
      continue;
    }
    RETURN_IF_ERROR(Add(instance, user));
    if (auto saved = Save(); !saved) {
      users_.erase(instance);
      instances_.erase(user);
      return std::move(saved).error();
    }
    return user;
  }
  return Exhausted("all " + std::to_string(count_ - 1) + " users for instances are given away")
      .WithFix("delete instances of this host, or start the agent with a larger --uid-count");
}

Result<void> UserAllocator::Release(const std::string& instance) {
  const std::lock_guard lock(mutex_);
  const auto found = users_.find(instance);
  if (found == users_.end()) {
    return Ok();
  }
  instances_.erase(found->second);
  users_.erase(found);
  return Save();
}

}  // namespace vallum::agent
