// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <istream>
#include <vector>

namespace vallum::controller {

// The controller's configuration file: TOML whose names are those of its flags. Tables and
// underscores, as other systems write them, are the flags' dashes: "first_stage_size" in
// [attestation] is --attestation-first-stage-size.
class ConfigFile : public CLI::ConfigTOML {
 public:
  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override;
};

}  // namespace vallum::controller
