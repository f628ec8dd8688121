// SPDX-License-Identifier: Apache-2.0
// Snapshots whose content and words come from outside.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/secret_bytes.h"
#include "controller/rest_rig.h"
#include "controller/seal.h"
#include "controller/snapshots.h"

namespace vallum::controller {
namespace {

using http::Method;
using nlohmann::json;

class SnapshotImportTest : public RestRigTest {
 protected:
  SnapshotImportTest() {
    rig_.MakeReadyImage("disk");
    Change<v1::Image>(
        "disk", [](v1::Image& image) { image.mutable_status()->set_detected_format("qcow2"); });
    acme_ = ClientFor(v1::ROLE_TENANT, "acme");
  }
  template <typename T, typename F>
  void Change(const std::string& name, F change) {
    const auto stored = rig_.controller().resources().Modify<T>(
        name, [&](T& current) -> Result<ResourceStore::Change> {
          change(current);
          return ResourceStore::Change::kWrite;
        });
    ASSERT_TRUE(stored.has_value()) << stored.error().Describe();
    ASSERT_TRUE(rig_.controller().view().WaitFor(stored->metadata().revision()).has_value());
  }
  static json MakeValidImport() {
    return {{"name", "snap"},
            {"image", "disk"},
            {"spec", {{"flavor", "tiny"}, {"tpmModel", "none"}}},
            {"variables", ToBase64(AsBytes("boot entries and keys"))}};
  }
  http::Response Import(const json& body) {
    return Send(*acme_, Method::kPost, "/v1/snapshots/import", body.dump());
  }
  http::Response CreateFromIt() {
    return Send(*acme_, Method::kPost, "/v1/instances",
                R"({"metadata":{"name":"web1"},"spec":{"snapshot":"snap"}})");
  }
  v1::InstanceSpec SpecOfWeb1() {
    return rig_.controller().view().Get<v1::Instance>("web1")->spec();
  }

  std::unique_ptr<http::Client> acme_;
};

TEST_F(SnapshotImportTest, WhatIsValidIsImportedAndMakesAnInstance) {
  const http::Response imported = Import(MakeValidImport());
  ASSERT_EQ(imported.status, 201) << imported.body;
  const http::Response created = CreateFromIt();
  EXPECT_EQ(created.status, 202) << created.body;
}

TEST_F(SnapshotImportTest, TenantImportsNoBridgeNoHostAndNoHugeSeed) {
  const json specs[] = {{{"networks", {{{"type", "bridge"}, {"bridge", "br-mgmt"}}}}},
                        {{"host", "node1"}}};
  for (const json& spec : specs) {
    json body = MakeValidImport();
    body["spec"] = spec;
    EXPECT_EQ(Import(body).status, 403) << spec;
  }
  json body = MakeValidImport();
  body["spec"]["seed"] = {{"userData", std::string(100'000, 'x')}};
  EXPECT_EQ(Import(body).status, 400);
}

TEST_F(SnapshotImportTest, TenantGetsTheSizesOfItsFlavorWhateverTheImportSays) {
  json body = MakeValidImport();
  body["spec"]["vcpus"] = 64;
  body["spec"]["memoryBytes"] = "1099511627776";
  ASSERT_EQ(Import(body).status, 201);
  ASSERT_EQ(CreateFromIt().status, 202);
  const auto flavor = rig_.controller().view().Get<v1::Flavor>("tiny");
  EXPECT_EQ(SpecOfWeb1().vcpus(), flavor->spec().vcpus());
  EXPECT_EQ(SpecOfWeb1().memory_bytes(), flavor->spec().memory_bytes());
}

TEST_F(SnapshotImportTest, WhatASnapshotBringsAlongIsCheckedLikeTheRequest) {
  ASSERT_EQ(Import(MakeValidImport()).status, 201);
  // As one that was imported before, or is of an instance that an operator made for the tenant.
  Change<v1::Snapshot>("snap", [](v1::Snapshot& snapshot) {
    v1::InstanceSpec& spec = *snapshot.mutable_status()->mutable_instance_spec();
    spec.set_vcpus(64);
    v1::Network& network = *spec.add_networks();
    network.set_type("bridge");
    network.set_bridge("br-mgmt");
  });
  EXPECT_EQ(CreateFromIt().status, 403);
  Change<v1::Snapshot>("snap", [](v1::Snapshot& snapshot) {
    snapshot.mutable_status()->mutable_instance_spec()->clear_networks();
  });
  ASSERT_EQ(CreateFromIt().status, 202);
  EXPECT_NE(SpecOfWeb1().vcpus(), 64);
}

TEST_F(SnapshotImportTest, WithoutAFlavorATenantIsAskedForOne) {
  json body = MakeValidImport();
  body["spec"].erase("flavor");
  body["spec"]["vcpus"] = 64;
  ASSERT_EQ(Import(body).status, 201);
  const http::Response refused = CreateFromIt();
  EXPECT_EQ(refused.status, 400) << refused.body;
  EXPECT_NE(refused.body.find("--flavor"), std::string::npos);
}

TEST_F(SnapshotImportTest, ImportNamesNoKeySetThatItsTenantDoesNotSeeAndNoVersionThatIsNotThere) {
  v1::KeySet theirs;
  theirs.mutable_metadata()->set_name("theirs");
  theirs.mutable_metadata()->set_tenant("other");
  const auto stored = rig_.controller().resources().Create(theirs);
  ASSERT_TRUE(rig_.controller().view().WaitFor(stored->metadata().revision()).has_value());
  json body = MakeValidImport();
  body["spec"]["keySet"] = "theirs";
  EXPECT_EQ(Import(body).status, 404);
  body["spec"]["keySet"] = "microsoft";
  EXPECT_EQ(Import(body).status, 201);
  body["name"] = "second";
  body["spec"]["keySetVersion"] = 999;
  EXPECT_EQ(Import(body).status, 404);
}

TEST_F(SnapshotImportTest, WhatAnImportSaysOfTheMakingOfItsVariablesCountsForNothing) {
  const auto agent = rig_.ConnectedAgent("node1");
  json body = MakeValidImport();
  body["variableOrigin"] = "SECURE key set microsoft version 1 abcd";
  ASSERT_EQ(Import(body).status, 201);
  EXPECT_EQ(rig_.controller().view().Get<v1::Snapshot>("snap")->status().variable_origin(), "");
  // As one that was imported before.
  Change<v1::Snapshot>("snap", [](v1::Snapshot& snapshot) {
    snapshot.mutable_status()->set_variable_origin("SECURE key set microsoft version 1 abcd");
  });
  ASSERT_EQ(CreateFromIt().status, 202);
  const auto desired = agent->NextInstance();
  ASSERT_TRUE(desired.has_value());
  EXPECT_NE(desired->snapshot().variables_sha256(), "");
  EXPECT_EQ(desired->snapshot().variable_origin(), "an import");
}

class ImportedTpmTest : public SnapshotImportTest {
 protected:
  ImportedTpmTest() {
    Change<v1::Image>("disk", [](v1::Image& image) {
      (*image.mutable_spec()->mutable_properties())["os_secure_boot"] = "required";
    });
    agent_ = rig_.ConnectedAgent("node1");
    const SecretBytes passphrase(AsBytes("a long passphrase"));
    const auto sealed = SealWithPassphrase(AsBytes("the seeds of somebody"), passphrase);
    json body = MakeValidImport();
    body["spec"] = {{"flavor", "tiny"}};
    body["tpm"] = ToBase64(*sealed);
    body["passphrase"] = "a long passphrase";
    const http::Response imported = Import(body);
    EXPECT_EQ(imported.status, 201) << imported.body;
  }
  v1::DesiredInstance CreateWith(const std::string& origin) {
    const json body = {{"metadata", {{"name", "web1"}}},
                       {"spec", {{"snapshot", "snap"}, {"tpmOrigin", origin}}}};
    const http::Response created = Send(*acme_, Method::kPost, "/v1/instances", body.dump());
    EXPECT_EQ(created.status, 202) << created.body;
    return *agent_->NextInstance();
  }
  std::string Warnings() {
    return rig_.controller()
        .view()
        .Get<v1::Instance>("web1")
        ->status()
        .boot()
        .requested()
        .ShortDebugString();
  }

  std::unique_ptr<FakeAgent> agent_;
  std::string pem_;
};

TEST_F(ImportedTpmTest, ItsKeysAreNotCertifiedAndThatIsSaid) {
  const v1::DesiredInstance desired = CreateWith("TPM_ORIGIN_COPY");
  const grpc::Status refused =
      agent_->IssueVtpm(desired.uid(), FakeAgent::MakeEndorsementKey(), pem_);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_NE(refused.error_message().find("was imported"), std::string::npos);
  EXPECT_NE(Warnings().find("its vTPM was imported"), std::string::npos);
  EXPECT_TRUE(rig_.Await([](const View& view) {
    const auto events = view.All<v1::Event>();
    return std::ranges::any_of(events, [](const auto& event) {
      return event->kind() == "instance.vtpm-not-certified" && event->metadata().tenant() == "acme";
    });
  }));
}

TEST_F(ImportedTpmTest, InstanceWithAVtpmOfItsOwnIsCertified) {
  const v1::DesiredInstance desired = CreateWith("TPM_ORIGIN_NEW");
  const grpc::Status issued =
      agent_->IssueVtpm(desired.uid(), FakeAgent::MakeEndorsementKey(), pem_);
  EXPECT_TRUE(issued.ok()) << issued.error_message();
  EXPECT_EQ(Warnings().find("was imported"), std::string::npos);
}

TEST_F(ImportedTpmTest, StateThatCannotBeToldOfDoesNotLeave) {
  const auto ask = [&] {
    return Send(*acme_, Method::kPost, "/v1/snapshots/snap/tpm",
                R"({"passphrase":"another passphrase"})");
  };
  EXPECT_EQ(ask().status, 200);
  store::Txn txn;
  txn.writes = {store::Write::Put("/vallum/event-head", "no event at all")};
  ASSERT_TRUE(rig_.controller().resources().raw().Commit(txn).has_value());
  const http::Response refused = ask();
  EXPECT_GE(refused.status, 500) << refused.body;
  EXPECT_FALSE(Body(refused).contains("sealed"));
}

TEST_F(ImportedTpmTest, CopyOfACopyIsImportedToo) {
  CreateWith("TPM_ORIGIN_COPY");
  // Stopped, as an instance is of which a snapshot is taken.
  Change<v1::Instance>("web1", [](v1::Instance& instance) {
    instance.mutable_spec()->set_power(v1::POWER_STOPPED);
    instance.mutable_status()->set_phase(v1::INSTANCE_STOPPED);
    instance.mutable_status()->mutable_boot()->mutable_effective()->set_type(v1::BOOT_TYPE_UEFI);
    instance.mutable_status()->set_observed_generation(1000);
  });
  v1::Snapshot snapshot;
  snapshot.mutable_metadata()->set_name("second");
  snapshot.mutable_spec()->set_instance("web1");
  const auto taken = rig_.controller().snapshots().Create(std::move(snapshot), kTester);
  ASSERT_TRUE(taken.has_value()) << taken.error().Describe();
  EXPECT_TRUE(taken->snapshot.status().tpm_imported());
}

}  // namespace
}  // namespace vallum::controller
