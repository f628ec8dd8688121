// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "base/bytes.h"

namespace vallum::bench {

// The file that the command line names, or else one of $VALLUM_VECTORS; empty without either.
inline std::string InputPath(int argc, char** argv, const std::string& vector) {
  if (argc > 1) return argv[1];
  const char* vectors = std::getenv("VALLUM_VECTORS");
  return vectors == nullptr ? "" : std::string(vectors) + "/" + vector;
}

// The content of a file; empty when there is none.
inline Bytes ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  return ToBytes(AsBytes(text));
}

}  // namespace vallum::bench
