// SPDX-License-Identifier: Apache-2.0
#include "controller/config_file.h"

#include <gtest/gtest.h>

#include <memory>
#include <sstream>
#include <string>

namespace vallum::controller {
namespace {

class ConfigFileTest : public testing::Test {
 protected:
  ConfigFileTest() {
    app_.config_formatter(std::make_shared<ConfigFile>());
    app_.allow_config_extras(CLI::config_extras_mode::error);
    app_.add_option("--attestation-stage-size", stage_size_)->check(CLI::Range(1, 100));
    app_.add_option("--listen", listen_);
  }
  void Read(const std::string& text) {
    std::istringstream input(text);
    app_.parse_from_stream(input);
  }

  CLI::App app_;
  int stage_size_ = 0;
  std::string listen_;
};

TEST_F(ConfigFileTest, NamesAreThoseOfTheFlags) {
  Read("listen = \"[::1]:7443\"\nattestation-stage-size = 7\n");
  EXPECT_EQ(listen_, "[::1]:7443");
  EXPECT_EQ(stage_size_, 7);
}

TEST_F(ConfigFileTest, TablesAndUnderscoresAreTheFlagsDashes) {
  Read("listen = \"a:1\"\n[attestation]\nstage_size = 8\n");
  EXPECT_EQ(listen_, "a:1");
  EXPECT_EQ(stage_size_, 8);
}

TEST_F(ConfigFileTest, NameThatIsNoFlagsIsRefused) {
  EXPECT_THROW(Read("[attestation]\nstage_sise = 8\n"), CLI::ConfigError);
}

TEST_F(ConfigFileTest, ValueInATableIsCheckedAsTheFlagsIs) {
  EXPECT_THROW(Read("[attestation]\nstage_size = 0\n"), CLI::ValidationError);
}

}  // namespace
}  // namespace vallum::controller
