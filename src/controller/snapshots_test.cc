// SPDX-License-Identifier: Apache-2.0
#include "controller/snapshots.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "base/digest.h"
#include "controller/test_rig.h"
#include "formats/byte_sink.h"
#include "formats/qcow2_writer.h"
#include "formats/test_support.h"

namespace vallum::controller {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

const std::string kTpm = "the seeds of a TPM, which nobody may read";
const std::string kVariables = "boot entries and keys";

// A flat qcow2 with a GPT, as a host sends it.
const std::string& Disk() {
  static const std::string disk = [] {
    const Bytes raw = formats::testing::MakeGptDisk(512, 16384, {{2048, 8191}});
    const formats::MemoryReader reader(raw);
    const auto plan = formats::Qcow2Plan::Make(reader, formats::ZeroClusters::kFind);
    formats::BytesSink out;
    EXPECT_TRUE(plan->Write(reader, out).has_value());
    const Bytes bytes = std::move(out).Take();
    return std::string(AsText(bytes));
  }();
  return disk;
}

void AddPart(std::vector<v1::SnapshotChunk>& chunks, const std::string& name,
             const std::string& content) {
  v1::SnapshotChunk begin;
  begin.mutable_part()->set_name(name);
  begin.mutable_part()->set_size_bytes(static_cast<int64_t>(content.size()));
  v1::SnapshotChunk data;
  data.set_data(content);
  v1::SnapshotChunk end;
  end.set_part_sha256(ToHex(Sha256(AsBytes(content))));
  chunks.insert(chunks.end(), {begin, data, end});
}

v1::SnapshotChunk Header(const std::string& uid) {
  v1::SnapshotChunk header;
  header.mutable_header()->set_snapshot_uid(uid);
  header.mutable_header()->set_variable_origin("SECURE microsoft");
  return header;
}

std::vector<v1::SnapshotChunk> WholeSnapshot(const std::string& uid) {
  std::vector<v1::SnapshotChunk> chunks = {Header(uid)};
  AddPart(chunks, "variables", kVariables);
  AddPart(chunks, "tpm", kTpm);
  AddPart(chunks, "disk", Disk());
  chunks.emplace_back().set_complete(true);
  return chunks;
}

class SnapshotsTest : public testing::Test {
 protected:
  SnapshotsTest() {
    rig_.MakeReadyImage("debian12");
    agent_ = rig_.ConnectedAgent("node1");
    const InstanceService::Accepted accepted = rig_.Create("web1");
    desired_ = *agent_->NextInstance();
    Report(v1::INSTANCE_RUNNING);
  }
  void Report(v1::InstancePhase phase) {
    v1::InstanceReport report = FakeAgent::MakeReport(desired_, phase);
    report.mutable_status()->mutable_boot()->mutable_effective()->set_type(v1::BOOT_TYPE_UEFI);
    agent_->Report(report);
    EXPECT_TRUE(rig_.AwaitPhase("web1", phase));
  }
  void StopInstance() {
    ASSERT_TRUE(instances().Stop("web1", StopKind::kForce, kTester).has_value());
    desired_ = *agent_->NextInstance();
    Report(v1::INSTANCE_STOPPED);
  }
  Result<Snapshots::Accepted> Take(const std::string& name) {
    v1::Snapshot snapshot;
    snapshot.mutable_metadata()->set_name(name);
    snapshot.mutable_spec()->set_instance("web1");
    return rig_.controller().snapshots().Create(std::move(snapshot), kTester);
  }
  // The controller's word to the host that it shall take one.
  v1::TakeSnapshot AwaitRequest() {
    while (auto message = agent_->Next()) {
      if (message->has_take_snapshot()) return message->take_snapshot();
    }
    ADD_FAILURE() << "the session ended";
    return {};
  }
  v1::SnapshotStatus MakeReady(const std::string& name) {
    StopInstance();
    const auto accepted = Take(name);
    EXPECT_TRUE(accepted.has_value()) << accepted.error().Describe();
    const grpc::Status sent = agent_->SendSnapshot(WholeSnapshot(AwaitRequest().snapshot_uid()));
    EXPECT_TRUE(sent.ok()) << sent.error_message();
    EXPECT_TRUE(rig_.AwaitOperation(accepted->operation.metadata().name(), v1::OPERATION_DONE));
    return view().Get<v1::Snapshot>(name)->status();
  }
  std::string AwaitFailure(const Snapshots::Accepted& accepted) {
    EXPECT_TRUE(rig_.AwaitOperation(accepted.operation.metadata().name(), v1::OPERATION_FAILED));
    return rig_.Operation(accepted.operation.metadata().name()).message();
  }
  size_t Blobs() { return rig_.blobs().List()->size(); }
  InstanceService& instances() { return rig_.controller().instances(); }
  const View& view() { return rig_.controller().view(); }

  Rig rig_;
  std::unique_ptr<FakeAgent> agent_;
  v1::DesiredInstance desired_;
};

TEST_F(SnapshotsTest, SnapshotOfAnotherTenantMakesNoInstance) {
  v1::Snapshot snapshot;
  snapshot.mutable_metadata()->set_name("theirs");
  snapshot.mutable_metadata()->set_tenant("other");
  snapshot.mutable_status()->set_state(v1::SNAPSHOT_READY);
  const auto stored = rig_.controller().resources().Create(std::move(snapshot));
  ASSERT_TRUE(stored.has_value());
  ASSERT_TRUE(rig_.controller().view().WaitFor(stored->metadata().revision()).has_value());
  v1::Instance instance;
  instance.mutable_metadata()->set_name("web9");
  instance.mutable_metadata()->set_tenant("acme");
  instance.mutable_spec()->set_snapshot("theirs");
  const Principal acme{.name = "acme", .role = v1::ROLE_TENANT, .tenant = "acme"};
  const auto made = rig_.controller().instances().Create(instance, acme, kStartsAll);
  ASSERT_FALSE(made.has_value());
  EXPECT_EQ(made.error().code(), ErrorCode::kNotFound);
  // Nor does it say what it is of, or that there is one.
  v1::InstanceSpec spec = instance.spec();
  spec.set_flavor("small");
  spec.set_disk_bytes(1);
  const auto explained = rig_.controller().instances().Explain(spec, acme);
  ASSERT_FALSE(explained.has_value());
  EXPECT_EQ(explained.error().code(), ErrorCode::kNotFound);
  EXPECT_THAT(explained.error().message(), HasSubstr("\"theirs\" does not exist"));
}

TEST_F(SnapshotsTest, RunningInstanceIsRefusedWithTheFix) {
  const auto accepted = Take("snap");
  ASSERT_FALSE(accepted.has_value());
  EXPECT_EQ(accepted.error().code(), ErrorCode::kConflict);
  EXPECT_THAT(accepted.error().fix(), HasSubstr("vallum instance stop web1"));
}

TEST_F(SnapshotsTest, WholeSnapshotIsReadyAndItsSecretsAreSealed) {
  const v1::SnapshotStatus status = MakeReady("snap");
  EXPECT_EQ(status.state(), v1::SNAPSHOT_READY);
  EXPECT_EQ(status.disk_virtual_size_bytes(), 16384 * 512);
  EXPECT_EQ(status.variable_origin(), "SECURE microsoft");
  EXPECT_EQ(status.key_set_sha256().size(), 64U);
  EXPECT_EQ(Blobs(), 3U);
  const auto blobs = rig_.blobs().List();
  ASSERT_TRUE(blobs.has_value());
  for (const auto& blob : *blobs) {
    std::ifstream file(rig_.blobs().Open(blob.digest)->path, std::ios::binary);
    const std::string content((std::istreambuf_iterator<char>(file)), {});
    EXPECT_EQ(content.find(kTpm), std::string::npos);
    EXPECT_EQ(content.find(kVariables), std::string::npos);
  }
  EXPECT_EQ(view().Get<v1::Instance>("web1")->status().taking_snapshot(), "");
}

TEST_F(SnapshotsTest, InstanceIsNeitherStartedNorDeletedWhileItIsTaken) {
  StopInstance();
  const auto accepted = Take("snap");
  ASSERT_TRUE(accepted.has_value());
  for (const auto& done :
       {instances().Start("web1", kTester), instances().Delete("web1", kTester)}) {
    ASSERT_FALSE(done.has_value());
    EXPECT_EQ(done.error().code(), ErrorCode::kConflict);
    EXPECT_THAT(done.error().message(), HasSubstr("snapshot \"snap\""));
  }
  EXPECT_FALSE(Take("second").has_value());
  // A report of the host does not end it.
  agent_->Report(FakeAgent::MakeReport(desired_, v1::INSTANCE_STOPPED));
  ASSERT_TRUE(agent_->SendSnapshot(WholeSnapshot(AwaitRequest().snapshot_uid())).ok());
  EXPECT_TRUE(rig_.AwaitOperation(accepted->operation.metadata().name(), v1::OPERATION_DONE));
  EXPECT_TRUE(instances().Start("web1", kTester).has_value());
}

TEST_F(SnapshotsTest, SnapshotWithoutOneOfItsPartsFailsAndLeavesNothing) {
  StopInstance();
  const auto accepted = Take("snap");
  std::vector<v1::SnapshotChunk> chunks = {Header(AwaitRequest().snapshot_uid())};
  AddPart(chunks, "variables", kVariables);
  AddPart(chunks, "disk", Disk());
  chunks.emplace_back().set_complete(true);
  EXPECT_FALSE(agent_->SendSnapshot(chunks).ok());
  EXPECT_THAT(AwaitFailure(*accepted), HasSubstr("vTPM"));
  EXPECT_EQ(Blobs(), 0U);
  EXPECT_TRUE(instances().Start("web1", kTester).has_value());
}

TEST_F(SnapshotsTest, WordsOfAHostThatRefusesBecomeTheReason) {
  StopInstance();
  const auto accepted = Take("snap");
  std::vector<v1::SnapshotChunk> chunks = {Header(AwaitRequest().snapshot_uid())};
  chunks.emplace_back().mutable_refusal()->set_reason("the disk is on fire");
  static_cast<void>(agent_->SendSnapshot(chunks));
  EXPECT_THAT(AwaitFailure(*accepted), HasSubstr("the disk is on fire"));
  EXPECT_EQ(view().Get<v1::Snapshot>("snap")->status().state(), v1::SNAPSHOT_FAILED);
}

TEST_F(SnapshotsTest, TransferThatBreaksLeavesNothingAndIsSentAnewWhole) {
  StopInstance();
  const auto accepted = Take("snap");
  const std::string uid = AwaitRequest().snapshot_uid();
  std::vector<v1::SnapshotChunk> chunks = WholeSnapshot(uid);
  chunks.resize(chunks.size() - 2);  // the disk has no end
  EXPECT_EQ(agent_->SendSnapshot(chunks).error_code(), grpc::StatusCode::ABORTED);
  EXPECT_EQ(Blobs(), 0U);
  EXPECT_TRUE(rig_.blobs().ListUploads()->empty());
  EXPECT_TRUE(agent_->SendSnapshot(WholeSnapshot(uid)).ok());
  EXPECT_TRUE(rig_.AwaitOperation(accepted->operation.metadata().name(), v1::OPERATION_DONE));
}

TEST_F(SnapshotsTest, PartWithAnotherDigestIsRefused) {
  StopInstance();
  ASSERT_TRUE(Take("snap").has_value());
  std::vector<v1::SnapshotChunk> chunks = {Header(AwaitRequest().snapshot_uid())};
  AddPart(chunks, "disk", Disk());
  chunks.back().set_part_sha256(ToHex(Sha256(AsBytes("another"))));
  EXPECT_EQ(agent_->SendSnapshot(chunks).error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_EQ(Blobs(), 0U);
}

TEST_F(SnapshotsTest, PartLargerThanAnnouncedOrThanItMayBeIsRefused) {
  StopInstance();
  ASSERT_TRUE(Take("snap").has_value());
  const std::string uid = AwaitRequest().snapshot_uid();
  std::vector<v1::SnapshotChunk> chunks = {Header(uid)};
  AddPart(chunks, "tpm", kTpm);
  chunks[1].mutable_part()->set_size_bytes(3);
  EXPECT_EQ(agent_->SendSnapshot(chunks).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  chunks[1].mutable_part()->set_size_bytes(int64_t{1} << 30);
  EXPECT_EQ(agent_->SendSnapshot(chunks).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(SnapshotsTest, HostThatWasNotAskedMaySendNothing) {
  StopInstance();
  ASSERT_TRUE(Take("snap").has_value());
  const std::string uid = AwaitRequest().snapshot_uid();
  const auto other = rig_.ConnectedAgent("node2");
  EXPECT_EQ(other->SendSnapshot(WholeSnapshot(uid)).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(
      agent_->SendSnapshot(WholeSnapshot("0a0a0a0a-1b1b-4c2c-8d3d-4e4e4e4e4e4e")).error_code(),
      grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(SnapshotsTest, DiskThatInspectionRefusesFailsTheSnapshot) {
  StopInstance();
  const auto accepted = Take("snap");
  std::vector<v1::SnapshotChunk> chunks = {Header(AwaitRequest().snapshot_uid())};
  AddPart(chunks, "variables", kVariables);
  AddPart(chunks, "tpm", kTpm);
  AddPart(chunks, "disk", "no qcow2 at all");
  chunks.emplace_back().set_complete(true);
  EXPECT_FALSE(agent_->SendSnapshot(chunks).ok());
  static_cast<void>(AwaitFailure(*accepted));
  EXPECT_EQ(Blobs(), 0U);
}

TEST_F(SnapshotsTest, SnapshotOfAnInstanceWhoseHostGoesDownFailsAndFreesIt) {
  StopInstance();
  const auto accepted = Take("snap");
  agent_->Disconnect();
  rig_.clock().Advance(std::chrono::seconds(60));
  EXPECT_THAT(AwaitFailure(*accepted), HasSubstr("node1"));
  EXPECT_TRUE(rig_.Await([](const View& view) {
    return view.Get<v1::Instance>("web1")->status().taking_snapshot().empty();
  }));
}

TEST_F(SnapshotsTest, UploadThatHangsFailsTheSnapshotAndFreesTheInstance) {
  StopInstance();
  const auto accepted = Take("snap");
  const auto upload = agent_->BeginSnapshot({Header(AwaitRequest().snapshot_uid())});
  // The host lives on, so that it is the upload alone that hangs.
  EXPECT_TRUE(rig_.Await([&](const View& view) {
    agent_->Beat();
    rig_.clock().Advance(std::chrono::seconds(10));
    return view.Get<v1::Snapshot>("snap")->status().state() == v1::SNAPSHOT_FAILED;
  }));
  EXPECT_THAT(AwaitFailure(*accepted), HasSubstr("then nothing came for 10 minutes"));
  EXPECT_TRUE(rig_.Await([](const View& view) {
    return view.Get<v1::Instance>("web1")->status().taking_snapshot().empty();
  }));
  upload->context.TryCancel();
  upload->writer->Finish();
}

TEST_F(SnapshotsTest, ContentThatNothingNamesIsSweptAtTheStart) {
  MakeReady("snap");
  // Stored, and then the controller ended before it was named.
  const auto upload = rig_.blobs().BeginUpload("left");
  ASSERT_TRUE((*upload)->Append(ByteCount(), AsBytes("left behind")).has_value());
  ASSERT_TRUE((*upload)->Commit().has_value());
  ASSERT_EQ(Blobs(), 4U);
  rig_.Stop();
  rig_.Start();
  EXPECT_EQ(Blobs(), 3U);
  EXPECT_TRUE(
      rig_.controller().snapshots().OpenPart(*view().Get<v1::Snapshot>("snap"), "tpm").has_value());
}

TEST_F(SnapshotsTest, TemporarySnapshotIsDroppedWithItsUseKey) {
  MakeReady("snap");
  const std::string use = UseKey(Kind::kSnapshot, "snap");
  store::Store& store = rig_.controller().resources().raw();
  store::Txn txn;
  txn.writes = {store::Write::Put(use, "an instance that was")};
  ASSERT_TRUE(store.Commit(txn).has_value());
  ASSERT_TRUE(rig_.controller()
                  .resources()
                  .Modify<v1::Snapshot>("snap",
                                        [](v1::Snapshot& current) -> Result<ResourceStore::Change> {
                                          current.mutable_spec()->set_temporary(true);
                                          return ResourceStore::Change::kWrite;
                                        })
                  .has_value());
  rig_.clock().Advance(std::chrono::hours(2));
  EXPECT_TRUE(
      rig_.Await([](const View& view) { return view.Get<v1::Snapshot>("snap") == nullptr; }));
  EXPECT_TRUE(store.Read({.range = store::KeyRange::Single(use)})->items.empty());
}

TEST_F(SnapshotsTest, RestartedControllerGoesOn) {
  StopInstance();
  const auto accepted = Take("snap");
  rig_.Stop();
  rig_.Start();
  auto again = rig_.NewAgent("node1");
  again->TakeIdentityOf(*agent_);
  agent_ = std::move(again);
  v1::Hello hello = FakeAgent::MakeHello();
  *hello.add_instances() = FakeAgent::MakeReport(desired_, v1::INSTANCE_STOPPED);
  ASSERT_TRUE(agent_->Connect(hello).has_value());
  ASSERT_TRUE(agent_->SendSnapshot(WholeSnapshot(AwaitRequest().snapshot_uid())).ok());
  EXPECT_TRUE(rig_.AwaitOperation(accepted->operation.metadata().name(), v1::OPERATION_DONE));
}

// ---- what is made of it ----

v1::Instance FromSnapshot(const std::string& name, v1::TpmOrigin origin) {
  v1::Instance instance;
  instance.mutable_metadata()->set_name(name);
  instance.mutable_spec()->set_snapshot("snap");
  instance.mutable_spec()->set_tpm_origin(origin);
  return instance;
}

TEST_F(SnapshotsTest, CloneHasTheSourcesShapeAndAnIdentityOfItsOwn) {
  const v1::SnapshotStatus status = MakeReady("snap");
  const auto clone =
      instances().Create(FromSnapshot("web2", v1::TPM_ORIGIN_NEW), kTester, kStartsAll);
  ASSERT_TRUE(clone.has_value()) << clone.error().Describe();
  const auto source = view().Get<v1::Instance>("web1");
  EXPECT_NE(clone->instance.metadata().uid(), source->metadata().uid());
  EXPECT_EQ(clone->instance.spec().memory_bytes(), source->spec().memory_bytes());
  EXPECT_EQ(clone->instance.spec().boot().mode(), source->spec().boot().mode());
  EXPECT_EQ(clone->instance.spec().power(), v1::POWER_RUNNING);
  v1::DesiredInstance desired;
  while (desired.name() != "web2") desired = *agent_->NextInstance();
  EXPECT_EQ(desired.image_sha256(), status.disk().sha256());
  EXPECT_EQ(desired.image_format(), "qcow2");
  EXPECT_EQ(desired.snapshot().variables_sha256(), status.variables().content_sha256());
  EXPECT_EQ(desired.snapshot().tpm_sha256(), "");
  std::string content;
  EXPECT_TRUE(agent_->FetchBlob(status.disk().sha256(), 0, content).ok());
  EXPECT_EQ(content, Disk());
  EXPECT_TRUE(agent_->FetchPart(desired.uid(), "variables", content).ok());
  EXPECT_EQ(content, kVariables);
  EXPECT_EQ(agent_->FetchPart(desired.uid(), "tpm", content).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(SnapshotsTest, CopiedVtpmIsGivenToTheHostOfTheCloneAlone) {
  const v1::SnapshotStatus status = MakeReady("snap");
  ASSERT_TRUE(instances()
                  .Create(FromSnapshot("web2", v1::TPM_ORIGIN_COPY), kTester, kStartsAll)
                  .has_value());
  v1::DesiredInstance desired;
  while (desired.name() != "web2") desired = *agent_->NextInstance();
  EXPECT_EQ(desired.snapshot().tpm_sha256(), ToHex(Sha256(AsBytes(kTpm))));
  std::string content;
  EXPECT_TRUE(agent_->FetchPart(desired.uid(), "tpm", content).ok());
  EXPECT_EQ(content, kTpm);
  const auto other = rig_.ConnectedAgent("node2");
  EXPECT_FALSE(other->FetchPart(desired.uid(), "tpm", content).ok());
  EXPECT_FALSE(agent_->FetchPart(desired_.uid(), "tpm", content).ok());
}

TEST_F(SnapshotsTest, CopyWithoutASnapshotIsRefused) {
  v1::Instance instance = FromSnapshot("web2", v1::TPM_ORIGIN_COPY);
  instance.mutable_spec()->clear_snapshot();
  instance.mutable_spec()->set_image("debian12");
  instance.mutable_spec()->set_flavor("small");
  const auto made = instances().Create(instance, kTester, kStartsAll);
  ASSERT_FALSE(made.has_value());
  EXPECT_EQ(made.error().code(), ErrorCode::kInvalidInput);
}

TEST_F(SnapshotsTest, SnapshotThatIsNotReadyMakesNoInstance) {
  StopInstance();
  ASSERT_TRUE(Take("snap").has_value());
  const auto made =
      instances().Create(FromSnapshot("web2", v1::TPM_ORIGIN_NEW), kTester, kStartsAll);
  ASSERT_FALSE(made.has_value());
  EXPECT_EQ(made.error().code(), ErrorCode::kConflict);
}

// ---- trust ----

v1::Instance Trusted() {
  v1::Instance instance;
  instance.mutable_metadata()->set_name("secret1");
  instance.mutable_spec()->set_image("debian12");
  instance.mutable_spec()->set_flavor("small");
  instance.mutable_spec()->set_trusted_service(true);
  return instance;
}

TEST_F(SnapshotsTest, TrustedInstanceIsRefusedInAPoolThatIsNot) {
  const auto made = instances().Create(Trusted(), kTester, kStartsAll);
  ASSERT_FALSE(made.has_value());
  EXPECT_EQ(made.error().code(), ErrorCode::kConflict);
  EXPECT_THAT(made.error().message(), HasSubstr("trusted_service=true conflicts with pool"));
}

TEST_F(SnapshotsTest, WhoAllowedAnUntrustedPoolIsRecorded) {
  v1::Instance instance = Trusted();
  instance.mutable_spec()->set_allow_untrusted(true);
  ASSERT_TRUE(instances().Create(instance, kTester, kStartsAll).has_value());
  EXPECT_TRUE(rig_.Await([](const View& view) {
    for (const auto& event : view.All<v1::Event>()) {
      if (event->kind() == "instance.trust-overridden") return event->user() == "tester";
    }
    return false;
  }));
}

TEST_F(SnapshotsTest, WhoAllowsAnUntrustedPoolIsToldBeforeTheInstanceIsThere) {
  v1::Instance instance = Trusted();
  instance.mutable_spec()->set_allow_untrusted(true);
  // Refused at the very end: there is one of that name.
  instance.mutable_metadata()->set_name("web1");
  EXPECT_EQ(instances().Create(instance, kTester, kStartsAll).error().code(), ErrorCode::kConflict);
  EXPECT_TRUE(rig_.Await([](const View& view) {
    for (const auto& event : view.All<v1::Event>()) {
      if (event->kind() == "instance.trust-overridden") return event->object() == "instances/web1";
    }
    return false;
  }));
}

TEST_F(SnapshotsTest, TrustedPoolTakesNoHostUntilItIsAttested) {
  v1::Pool pool;
  pool.mutable_metadata()->set_name("attested");
  pool.mutable_spec()->set_trusted_service(true);
  const auto stored = rig_.controller().resources().Create(pool);
  ASSERT_TRUE(view().WaitFor(stored->metadata().revision()).has_value());
  const auto host = rig_.controller().resources().Modify<v1::Host>(
      "node1", [](v1::Host& current) -> Result<ResourceStore::Change> {
        current.mutable_spec()->set_pool("attested");
        return ResourceStore::Change::kWrite;
      });
  ASSERT_TRUE(view().WaitFor(host->metadata().revision()).has_value());
  v1::InstanceSpec spec = Trusted().spec();
  spec.set_pool("attested");
  const auto explained = instances().Explain(spec, kTester);
  ASSERT_TRUE(explained.has_value()) << explained.error().Describe();
  EXPECT_EQ(explained->chosen(), "");
  ASSERT_EQ(explained->hosts_size(), 1);
  // By its trust or, once the reconciler has seen its new pool, by its state.
  EXPECT_THAT(explained->hosts(0).detail(),
              AnyOf(HasSubstr("not attested"), HasSubstr("not been attested")));
}

}  // namespace
}  // namespace vallum::controller
