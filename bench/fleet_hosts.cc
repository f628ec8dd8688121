// SPDX-License-Identifier: Apache-2.0
#include "fleet_hosts.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <utility>

#include "agent/backoff.h"
#include "agent/gateway.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "controller/resource_store.h"
#include "vallum/v1/agent.grpc.pb.h"

namespace vallum::bench {
namespace {

using Steady = std::chrono::steady_clock;

v1::Hello MakeHello(const std::string& boot_id) {
  v1::Hello hello;
  hello.set_agent_version("fleet");
  hello.set_boot_id(boot_id);
  v1::HostCapabilities& capabilities = *hello.mutable_capabilities();
  for (const char* trait : {"VALLUM_FIRMWARE_UEFI", "VALLUM_SMM", "COMPUTE_SECURITY_TPM_2_0",
                            "COMPUTE_SECURITY_UEFI_SECURE_BOOT", "COMPUTE_SECURITY_TPM_CRB"}) {
    capabilities.add_traits(trait);
  }
  capabilities.set_hypervisor_type("QEMU");
  capabilities.set_hypervisor_version("7.2.22");
  capabilities.set_cpus(64);
  capabilities.set_memory_bytes(int64_t{256} << 30);
  capabilities.set_disk_free_bytes(int64_t{1} << 40);
  capabilities.set_accelerator("kvm");
  for (const char* name : {"kvm", "tcg", "smm", "swtpm", "firmware-secure-boot"}) {
    v1::Probe& probe = *capabilities.add_probes();
    probe.set_name(name);
    probe.set_ok(true);
  }
  return hello;
}

// Runs steps at their time, one after the other.
class Agenda {
 public:
  void At(Steady::time_point when, std::function<void()> step) {
    const std::lock_guard lock(mutex_);
    steps_.emplace(when, std::move(step));
    wake_.notify_one();
  }
  [[noreturn]] void Run() {
    while (true) {
      std::unique_lock lock(mutex_);
      const auto when =
          steps_.empty() ? Steady::now() + std::chrono::seconds(1) : steps_.begin()->first;
      if (when > Steady::now()) {
        wake_.wait_until(lock, when);
        continue;
      }
      const auto step = std::move(steps_.begin()->second);
      steps_.erase(steps_.begin());
      lock.unlock();
      step();
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  std::multimap<Steady::time_point, std::function<void()>> steps_;
};

// Sends one answer. Deletes itself.
class Submission final : public grpc::ClientWriteReactor<v1::EvidenceChunk> {
 public:
  Submission(v1::AgentGateway::Stub& stub, v1::EvidenceChunk chunk, FleetBoard& board)
      : chunk_(std::move(chunk)), board_(board) {
    context_.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    stub.async()->SubmitEvidence(&context_, &reply_, this);
    StartWriteLast(&chunk_, grpc::WriteOptions());
    StartCall();
  }
  void OnDone(const grpc::Status& status) override {
    ++(status.ok() ? board_.answers : board_.answers_lost);
    delete this;
  }

 private:
  grpc::ClientContext context_;
  v1::EvidenceChunk chunk_;
  v1::SubmitEvidenceReply reply_;
  FleetBoard& board_;
};

struct Shared {
  FleetTarget target;
  FleetBoard& board;
  Agenda& agenda;
};

// One host over all its sessions. Lives as long as its process.
class FleetHost {
 public:
  FleetHost(FleetSeed seed, Shared& shared) : seed_(std::move(seed)), shared_(shared) {}
  void Dial();

  // Of its session.
  void OnEnded(bool welcomed);
  void OnMessage(const v1::ControllerMessage& message);
  v1::Hello Hello() const { return MakeHello(seed_.tpm.boot_id()); }
  Shared& shared() { return shared_; }

 private:
  void OnTrust(const v1::TrustNotice& notice);

  FleetSeed seed_;
  Shared& shared_;
  std::unique_ptr<v1::AgentGateway::Stub> stub_;
  int failures_ = 0;
  uint32_t leased_in_ = 0;  // round of the last lease
};

// One stream. Holds itself until it has ended and no heartbeat is planned any more.
class FleetSession final : public grpc::ClientBidiReactor<v1::AgentMessage, v1::ControllerMessage>,
                           public std::enable_shared_from_this<FleetSession> {
 public:
  explicit FleetSession(FleetHost& host) : host_(host) {}

  void Begin(v1::AgentGateway::Stub& stub) {
    self_ = shared_from_this();
    *outgoing_.mutable_hello() = host_.Hello();
    stub.async()->Session(&context_, this);
    AddHold();  // for heartbeats, which start outside of the reactor's calls
    writing_ = true;
    StartWrite(&outgoing_);
    StartRead(&incoming_);
    StartCall();
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      const std::lock_guard lock(mutex_);
      ended_ = true;
      RemoveHold();
      return;
    }
    if (incoming_.has_welcome()) OnWelcome();
    host_.OnMessage(incoming_);
    StartRead(&incoming_);
  }
  void OnWriteDone(bool /*ok*/) override {
    const std::lock_guard lock(mutex_);
    writing_ = false;
  }
  void OnDone(const grpc::Status& /*status*/) override {
    if (welcomed_) --host_.shared().board.sessions;
    host_.OnEnded(welcomed_);
    self_.reset();
  }

 private:
  void OnWelcome() {
    welcomed_ = true;
    ++host_.shared().board.sessions;
    beat_ = std::chrono::seconds(incoming_.welcome().heartbeat_seconds());
    PlanBeat();
  }
  void PlanBeat() {
    host_.shared().agenda.At(Steady::now() + beat_, [self = shared_from_this()] { self->Beat(); });
  }
  void Beat() {
    {
      const std::lock_guard lock(mutex_);
      if (ended_) return;
      if (!writing_) {
        writing_ = true;
        outgoing_.mutable_heartbeat()->set_disk_free_bytes(int64_t{1} << 40);
        StartWrite(&outgoing_);
      }
    }
    PlanBeat();
  }

  FleetHost& host_;
  std::shared_ptr<FleetSession> self_;
  grpc::ClientContext context_;
  v1::ControllerMessage incoming_;
  bool welcomed_ = false;
  std::chrono::seconds beat_{10};

  std::mutex mutex_;  // guards the members below
  v1::AgentMessage outgoing_;
  bool writing_ = false;
  bool ended_ = false;
};

void FleetHost::Dial() {
  if (stub_ == nullptr) {
    agent::Identity identity;
    identity.host = seed_.name;
    identity.endpoint = shared_.target.endpoint;
    identity.ca_pem = shared_.target.ca_pem;
    identity.certificate_pem = seed_.certificate_pem;
    identity.private_key_pem = SecretBytes(AsBytes(seed_.key_pem));
    stub_ = v1::AgentGateway::NewStub(agent::MakeChannel(identity));
  }
  std::make_shared<FleetSession>(*this)->Begin(*stub_);
}

void FleetHost::OnEnded(bool welcomed) {
  if (!welcomed) ++shared_.board.dials_lost;
  failures_ = welcomed ? 1 : failures_ + 1;
  thread_local std::mt19937 random{std::random_device{}()};
  shared_.agenda.At(
      Steady::now() + agent::ReconnectDelay(failures_, static_cast<uint32_t>(random())),
      [this] { Dial(); });
}

void FleetHost::OnMessage(const v1::ControllerMessage& message) {
  if (message.has_request_evidence()) {
    for (v1::EvidenceChunk& chunk : seed_.tpm.Answer(message.request_evidence())) {
      new Submission(*stub_, std::move(chunk), shared_.board);
    }
  }
  if (message.has_trust()) OnTrust(message.trust());
}

void FleetHost::OnTrust(const v1::TrustNotice& notice) {
  v1::LeaseClaims claims;
  if (!notice.has_lease() || !claims.ParseFromString(notice.lease().claims())) return;
  FleetBoard& board = shared_.board;
  const uint32_t round = board.round;
  const int64_t issued =
      claims.issue_time().seconds() * 1'000'000'000 + claims.issue_time().nanos();
  if (issued < board.round_begin_ns || claims.policy_version() < board.round_version ||
      leased_in_ == round) {
    return;
  }
  leased_in_ = round;
  ++board.leased;
}

}  // namespace

void RunFleet(std::vector<FleetSeed> seeds, const FleetTarget& target, FleetBoard& board,
              int spread_ms) {
  Agenda agenda;
  Shared shared{.target = target, .board = board, .agenda = agenda};
  std::vector<std::unique_ptr<FleetHost>> hosts;
  hosts.reserve(seeds.size());
  for (FleetSeed& seed : seeds) {
    hosts.push_back(std::make_unique<FleetHost>(std::move(seed), shared));
  }
  while (!board.go) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  const Steady::time_point start = Steady::now();
  for (size_t i = 0; i < hosts.size(); ++i) {
    const auto after = std::chrono::milliseconds(static_cast<int64_t>(i) * spread_ms /
                                                 static_cast<int64_t>(hosts.size()));
    agenda.At(start + after, [host = hosts[i].get()] { host->Dial(); });
  }
  agenda.Run();
}

}  // namespace vallum::bench
