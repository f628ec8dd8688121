// SPDX-License-Identifier: Apache-2.0
#include "controller/test_rig.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <memory>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "firmware/guid.h"

namespace vallum::controller {
namespace {

constexpr std::chrono::seconds kPatience{30};

}  // namespace

TempDir::TempDir() {
  std::string name = (std::filesystem::temp_directory_path() / "vallum-controller-XXXXXX").string();
  CHECK(mkdtemp(name.data()) != nullptr);
  path_ = name;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

Rig::Rig() { Start(); }
Rig::~Rig() { Stop(); }

void Rig::Start() {
  auto store = store::SqliteStore::Open({.path = dir() / "store.db"}, clock_);
  CHECK(store.has_value());
  store_ = *std::move(store);
  auto blobs = store::BlobStore::Open({.directory = dir() / "blobs"}, clock_);
  CHECK(blobs.has_value());
  blobs_ = *std::move(blobs);
  auto authority = tls::CertificateAuthority::LoadOrCreate(dir() / "ca", clock_);
  CHECK(authority.has_value());
  authority_ = *std::move(authority);
  if (key_sets_.empty()) {
    firmware::KeySet microsoft;
    microsoft.name = "microsoft";
    const auto certificates = firmware::CertificatesFromFile(AsBytes(authority_->certificate_pem()),
                                                             firmware::kGlobalVariableGuid);
    CHECK(certificates.has_value());
    microsoft.pk = microsoft.kek = microsoft.db = *certificates;
    key_sets_.push_back(std::move(microsoft));
  }
  Controller::Options options;
  options.key_sets = key_sets_;
  attestor_.tick = std::chrono::milliseconds(50);
  options.attestor = attestor_;
  options.state_dir = dir();
  options.gateway.listen = "127.0.0.1:0";
  options.gateway.names = {.dns_names = {"localhost"}, .ip_addresses = {"127.0.0.1"}};
  options.inspector = std::string(VALLUM_BIN_DIR) + "/vallum-inspect";
  options.gateway.console_timeout = std::chrono::seconds(5);
  auto controller = Controller::Start(
      options, {.store = *store_, .blobs = *blobs_, .authority = *authority_, .clock = clock_});
  if (!controller.has_value()) {
    ADD_FAILURE() << controller.error().DebugString();
  }
  CHECK(controller.has_value());
  controller_ = *std::move(controller);
}

void Rig::Stop() {
  controller_.reset();
  authority_.reset();
  blobs_.reset();
  store_.reset();
}

std::string Rig::JoinSecret(const std::string& name) {
  v1::TokenSpec spec;
  spec.set_role(v1::ROLE_JOIN);
  const Result<v1::Token> token = controller_->tokens().Create(name, spec);
  CHECK(token.has_value());
  return token->status().secret();
}

std::unique_ptr<FakeAgent> Rig::NewAgent(const std::string& host) {
  return std::make_unique<FakeAgent>(host, controller_->gateway().port(),
                                     authority_->certificate_pem());
}

std::unique_ptr<FakeAgent> Rig::ConnectedAgent(const std::string& host, int64_t gib) {
  auto agent = NewAgent(host);
  const grpc::Status enrolled = agent->Enroll(JoinSecret("join-" + host));
  EXPECT_TRUE(enrolled.ok()) << enrolled.error_message();
  EXPECT_TRUE(agent->Connect(FakeAgent::MakeHello(gib)).has_value());
  return agent;
}

void Rig::MakeReadyImage(const std::string& name, const std::string& secure_boot) {
  v1::Image image;
  image.mutable_metadata()->set_name(name);
  if (!secure_boot.empty()) {
    (*image.mutable_spec()->mutable_properties())["os_secure_boot"] = secure_boot;
  }
  image.mutable_status()->set_state(v1::IMAGE_READY);
  image.mutable_status()->set_sha256("abcd");
  image.mutable_status()->set_detected_format("gpt");
  image.mutable_status()->set_content_format("gpt");
  image.mutable_status()->set_bootable(true);
  image.mutable_status()->set_virtual_size_bytes(int64_t{1} << 30);
  const Result<v1::Image> stored = controller_->resources().Create(std::move(image));
  CHECK(stored.has_value());
  CHECK(controller_->view().WaitFor(stored->metadata().revision()).has_value());
}

InstanceService::Accepted Rig::Create(const std::string& name, const std::string& flavor) {
  v1::Instance instance;
  instance.mutable_metadata()->set_name(name);
  instance.mutable_spec()->set_image("debian12");
  instance.mutable_spec()->set_flavor(flavor);
  Result<InstanceService::Accepted> accepted =
      controller_->instances().Create(instance, kTester, kStartsAll);
  EXPECT_TRUE(accepted.has_value()) << accepted.error().Describe();
  CHECK(accepted.has_value());
  return *std::move(accepted);
}

v1::DesiredInstance Rig::RunningInstance(FakeAgent& agent, const std::string& name) {
  const InstanceService::Accepted accepted = Create(name);
  const std::optional<v1::DesiredInstance> desired = agent.NextInstance();
  CHECK(desired.has_value());
  EXPECT_EQ(desired->name(), name);
  agent.Report(FakeAgent::MakeReport(*desired, v1::INSTANCE_RUNNING));
  EXPECT_TRUE(AwaitOperation(accepted.operation.metadata().name(), v1::OPERATION_DONE));
  return *desired;
}

bool Rig::Await(const std::function<bool(const View&)>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  const View& view = controller_->view();
  while (std::chrono::steady_clock::now() < deadline) {
    const store::Revision seen = view.revision();
    if (condition(view)) {
      return true;
    }
    // Woken by the next commit; the limit only bounds the test.
    static_cast<void>(view.WaitFor(seen + 1, std::chrono::milliseconds(200)));
  }
  return false;
}

bool Rig::AwaitPhase(const std::string& instance, v1::InstancePhase phase) {
  return Await([&](const View& view) {
    const auto found = view.Get<v1::Instance>(instance);
    return found != nullptr && found->status().phase() == phase;
  });
}

bool Rig::AwaitOperation(const std::string& name, v1::OperationState state) {
  return Await([&](const View& view) {
    const auto found = view.Get<v1::Operation>(name);
    return found != nullptr && found->state() == state;
  });
}

v1::Operation Rig::Operation(const std::string& name) {
  const auto found = controller_->view().Get<v1::Operation>(name);
  CHECK(found != nullptr);
  return *found;
}

}  // namespace vallum::controller
