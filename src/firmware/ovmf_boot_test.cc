// SPDX-License-Identifier: Apache-2.0
// What OVMF itself does with a store that was made here.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <string>
#include <thread>

#include "firmware/key_store.h"
#include "firmware/test_keys.h"
#include "formats/test_support.h"

namespace vallum::firmware {
namespace {

using formats::testing::MustRun;
using formats::testing::ReadFile;
using formats::testing::TempDir;
using formats::testing::WriteFile;
using testing::Entry;
using testing::TestKeys;

constexpr std::chrono::seconds kPatience{100};  // less than ctest's
constexpr VariableTime kTime = {
    .year = 2026, .month = 1, .day = 2, .hour = 3, .minute = 4, .second = 5};

struct Build {
  OvmfBuild build;
  const char* name;
  const char* code;
};

std::map<std::u16string, Variable> ByName(const VariableStore& store) {
  std::map<std::u16string, Variable> variables;
  for (const Variable* variable : store.Variables()) variables[variable->name] = *variable;
  return variables;
}

// QEMU in the background, ended at the end of the scope with SIGKILL: asked with SIGTERM while the
// firmware writes a variable, QEMU 7.2 hangs for ever (it holds back the write that it waits for;
// mended in 8.1 by draining after the stop of the vCPUs). What the firmware wrote is in the file
// already.
class Firmware {
 public:
  Firmware(const TempDir& dir, const std::string& code, const std::string& variables)
      : pid_file_(dir.File("pid")) {
    MustRun(
        "qemu-system-x86_64 -daemonize -pidfile " + pid_file_ +
        " -machine q35,smm=on -accel tcg -cpu max -m 256 -display none -nodefaults -no-user-config"
        // The 2M build hangs when it could be suspended to memory.
        " -global ICH9-LPC.disable_s3=1"
        " -global driver=cfi.pflash01,property=secure,value=on"
        " -drive if=pflash,unit=0,format=raw,readonly=on,file=" +
        code + " -drive if=pflash,unit=1,format=raw,file=" + variables);
  }
  ~Firmware() {
    MustRun("kill -9 $(cat " + pid_file_ + "); while kill -0 $(cat " + pid_file_ +
            ") 2>/dev/null; do sleep 0.1; done");
  }
  Firmware(const Firmware&) = delete;
  Firmware& operator=(const Firmware&) = delete;

 private:
  std::string pid_file_;
};

// Starts OVMF without a disk and ends it once it has written its boot order and then nothing more
// for a second.
void BootUntilSettled(const TempDir& dir, const std::string& code, const std::string& variables) {
  const Firmware firmware(dir, code, variables);
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  Bytes before;
  while (std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::seconds(1));
    const Bytes now = ReadFile(variables);
    // While the firmware writes, the store may be between two states.
    const auto store = VariableStore::Parse(now);
    if (now == before && store.has_value() &&
        store->Find("BootOrder", kGlobalVariableGuid) != nullptr) {
      return;
    }
    before = now;
  }
  FAIL() << "OVMF did not come to its boot options";
}

class OvmfBootTest : public ::testing::TestWithParam<Build> {};

TEST_P(OvmfBootTest, FirmwareKeepsEveryKeyOfAStoreThatWasMadeHere) {
  if (!std::filesystem::exists(GetParam().code)) GTEST_SKIP() << "the package ovmf is missing";
  TestKeys authorities;
  KeySet keys;
  keys.pk = {Entry(authorities.MakeAuthority("pk"))};
  keys.kek = {Entry(authorities.MakeAuthority("kek"))};
  keys.db = {Entry(authorities.MakeAuthority("db"))};
  keys.dbx = {MakeSignature(SignatureType::kSha256, kShimLockGuid, Bytes(32, std::byte{7}))};
  const auto image = MakeKeyStore(keys, GetParam().build, kTime);
  ASSERT_TRUE(image.has_value()) << image.error().Describe();
  const TempDir dir;
  const std::string variables = dir.File("vars.fd");
  WriteFile(variables, *image);
  ASSERT_NO_FATAL_FAILURE(BootUntilSettled(dir, GetParam().code, variables));

  const auto after = VariableStore::Parse(ReadFile(variables));
  ASSERT_TRUE(after.has_value()) << after.error().Describe();
  auto kept = ByName(*after);
  for (const Variable& key : KeyVariables(keys, kTime)) {
    ASSERT_TRUE(kept.contains(key.name)) << key.NameText();
    EXPECT_EQ(kept[key.name], key) << key.NameText();
  }
  EXPECT_EQ(DeriveSecureBoot(*after), SecureBootSetting::kOn);
  // And it can be given other keys, with all that the firmware wrote.
  const auto replaced = ReplaceKeys(ReadFile(variables), KeySet(), kTime);
  ASSERT_TRUE(replaced.has_value()) << replaced.error().Describe();
  EXPECT_THAT(replaced->kept, ::testing::Contains(::testing::HasSubstr("BootOrder")));
}

INSTANTIATE_TEST_SUITE_P(
    Builds, OvmfBootTest,
    ::testing::Values(Build{OvmfBuild::k4M, "4M", "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"},
                      Build{OvmfBuild::k2M, "2M", "/usr/share/OVMF/OVMF_CODE.secboot.fd"}),
    [](const auto& build) { return build.param.name; });

}  // namespace
}  // namespace vallum::firmware
