// SPDX-License-Identifier: Apache-2.0
#include "controller/config_file.h"

#include <algorithm>

namespace vallum::controller {

std::vector<CLI::ConfigItem> ConfigFile::from_config(std::istream& input) const {
  std::vector<CLI::ConfigItem> entries = CLI::ConfigTOML::from_config(input);
  // The marks of where a table begins and ends.
  std::erase_if(entries,
                [](const CLI::ConfigItem& each) { return each.name == "++" || each.name == "--"; });
  for (CLI::ConfigItem& entry : entries) {
    for (auto parent = entry.parents.rbegin(); parent != entry.parents.rend(); ++parent) {
      entry.name = *parent + "-" + entry.name;
    }
    entry.parents.clear();
    std::ranges::replace(entry.name, '_', '-');
  }
  return entries;
}

}  // namespace vallum::controller
