// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <filesystem>
#include <string>

#include "agent/config.h"
#include "agent/user_allocator.h"

namespace vallum::agent {

inline constexpr const char* kUid = "0a0a0a0a-1b1b-4c2c-8d3d-4e4e4e4e4e4e";

// A directory below /tmp, short enough for sockets, removed at the end.
class TempDir {
 public:
  TempDir() {
    std::string pattern = "/tmp/vagent-XXXXXX";
    path_ = mkdtemp(pattern.data());
    // Instances' users must be able to pass through.
    std::filesystem::permissions(path_, std::filesystem::perms(0711));
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline AgentConfig MakeConfig(const std::filesystem::path& directory) {
  AgentConfig config;
  config.state_dir = directory;
  config.run_dir = directory / "r";
  config.host = "node1";
  config.vtpm_program = std::string(VALLUM_BIN_DIR) + "/vallum-vtpm";
  return config;
}

}  // namespace vallum::agent
