// SPDX-License-Identifier: Apache-2.0
#include "vm/probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "vm/process.h"
#include "vm/process_files.h"
#include "vm/test_guest.h"

namespace vallum::vm {
namespace {

using testing::HasSubstr;

TEST(ProbeTest, HostIsProbedWithRealGuestsAndCached) {
  const TestDir dir;
  ProbeOptions options;
  options.cache_path = dir.path() + "/probes.json";
  const auto first = ProbeHost(options);
  ASSERT_TRUE(first.has_value()) << first.error().Describe();
  EXPECT_THAT(first->qemu_version, testing::MatchesRegex("[0-9]+\\.[0-9]+\\.[0-9]+"));
  EXPECT_TRUE(first->Has(kProbeTcg)) << first->Find(kProbeTcg)->detail;
  EXPECT_TRUE(first->Has(kProbeTcgSmm)) << first->Find(kProbeTcgSmm)->detail;
  EXPECT_TRUE(first->Has("machine:q35"));
  EXPECT_TRUE(first->Has("object:rng-builtin"));
  EXPECT_TRUE(first->Has("device:virtio-blk-pci"));
  EXPECT_FALSE(first->Has("device:no-such-device"));
  ASSERT_NE(first->Find(kProbeKvm), nullptr);
  EXPECT_FALSE(first->Find(kProbeKvm)->detail.empty());
  EXPECT_TRUE(first->BestAccelerator(VariableProtection::kSmm).has_value());

  // Proof that the cache answers: what we write into it comes back.
  std::string text = *ReadSmallFile(options.cache_path);
  const std::string mark = "a guest ran";
  ASSERT_NE(text.find(mark), std::string::npos);
  text.replace(text.find(mark), mark.size(), "from cache!");
  ASSERT_TRUE(WriteFileAtomically(options.cache_path, text).has_value());
  const auto second = ProbeHost(options);
  ASSERT_TRUE(second.has_value());
  EXPECT_TRUE(std::ranges::any_of(second->probes,
                                  [](const Probe& p) { return p.detail == "from cache!"; }));

  std::ofstream(options.cache_path) << "damaged";
  const auto third = ProbeHost(options);
  ASSERT_TRUE(third.has_value());
  EXPECT_TRUE(third->Has(kProbeTcg));
}

TEST(ProbeTest, GuestThatRanOutOfTimeIsNotRemembered) {
  const TestDir dir;
  ProbeOptions options;
  options.cache_path = dir.path() + "/probes.json";
  options.guest_limit = std::chrono::milliseconds(0);
  const auto probes = ProbeHost(options);
  ASSERT_TRUE(probes.has_value()) << probes.error().Describe();
  EXPECT_FALSE(probes->Has(kProbeTcg));
  EXPECT_FALSE(std::filesystem::exists(options.cache_path));
}

TEST(ProbeTest, MissingSwtpmIsRememberedWithTheRest) {
  const TestDir dir;
  ProbeOptions options;
  options.cache_path = dir.path() + "/probes.json";
  options.swtpm_program = "/no/such/swtpm";
  const auto probes = ProbeHost(options);
  ASSERT_TRUE(probes.has_value()) << probes.error().Describe();
  EXPECT_FALSE(probes->Has(kProbeSwtpm));
  EXPECT_TRUE(std::filesystem::exists(options.cache_path));
}

TEST(ProbeTest, MissingQemuIsNotFoundWithTheFix) {
  ProbeOptions options;
  options.qemu_program = "/no/such/qemu";
  const auto probes = ProbeHost(options);
  ASSERT_FALSE(probes.has_value());
  EXPECT_EQ(probes.error().code(), ErrorCode::kNotFound);
  EXPECT_THAT(probes.error().fix(), HasSubstr("install"));
}

TEST(HostProbesTest, KvmIsPreferredOnlyWhereItHasWhatIsNeeded) {
  HostProbes host;
  host.probes = {{"accel:kvm", true, ""},
                 {"smm:kvm", false, ""},
                 {"accel:tcg", true, ""},
                 {"smm:tcg", true, ""}};
  EXPECT_EQ(host.BestAccelerator(VariableProtection::kNone), Accelerator::kKvm);
  EXPECT_EQ(host.BestAccelerator(VariableProtection::kSmm), Accelerator::kTcg);
  host.probes.pop_back();
  EXPECT_EQ(host.BestAccelerator(VariableProtection::kSmm), std::nullopt);
}

TEST(HostProbesTest, MissingCgroupIsSaidInWords) {
  const TestDir dir;
  ProbeOptions options;
  options.cgroup_parent = dir.path();
  const auto probes = ProbeHost(options);
  ASSERT_TRUE(probes.has_value());
  EXPECT_FALSE(probes->Has(kProbeCgroupV2));
  EXPECT_THAT(probes->Find(kProbeCgroupV2)->detail, HasSubstr("not a cgroup v2 directory"));
}

}  // namespace
}  // namespace vallum::vm
