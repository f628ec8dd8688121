// SPDX-License-Identifier: Apache-2.0
#include "images/firmware_files.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "base/error.h"

namespace vallum::images {

Result<Bytes> ReadLocalFile(const std::string& path, size_t limit) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error) return ErrnoError(error.value(), "read " + path);
  if (size > limit) {
    return InvalidInput(path + " has " + std::to_string(size) + " bytes, at most " +
                        std::to_string(limit) + " are read");
  }
  Bytes content(size);
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(content.data()), static_cast<std::streamsize>(size));
  if (!file) return Unavailable("reading " + path + " failed");
  return content;
}

std::vector<firmware::DescriptorFile> ReadDescriptorFiles(
    const std::vector<std::string>& directories, std::vector<std::string>& problems) {
  std::vector<firmware::DescriptorFile> files;
  for (const std::string& directory : directories) {
    std::error_code failure;
    for (const auto& entry : std::filesystem::directory_iterator(directory, failure)) {
      const std::filesystem::path target = std::filesystem::canonical(entry.path(), failure);
      if (entry.path().extension() != ".json") continue;
      firmware::DescriptorFile file{directory, entry.path().filename().string(), {}};
      if (target != "/dev/null") {
        Result<Bytes> content = ReadLocalFile(entry.path(), firmware::kMaxDescriptorSize);
        if (!content.has_value()) {
          problems.push_back(content.error().Describe());
          continue;
        }
        file.content = *std::move(content);
      }
      files.push_back(std::move(file));
    }
  }
  return files;
}

}  // namespace vallum::images
