// SPDX-License-Identifier: Apache-2.0
#include "agent/agent.h"

#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <utility>

#include "agent/gateway.h"
#include "agent/instance_files.h"
#include "agent/state_files.h"
#include "base/text.h"
#include "tpm/address.h"
#include "tpm/host_tpm.h"

namespace vallum::agent {
namespace {

constexpr std::chrono::hours kRenewalCheck{12};
// What reading the disk of an instance may take; usually a tenth of a second.
constexpr std::chrono::seconds kForecastLimit{10};

// The inspector is installed beside the agent's other programs.
std::string InspectorBeside(const std::string& vtpm_program) {
  return (std::filesystem::path(vtpm_program).parent_path() / "vallum-inspect").string();
}

}  // namespace

Agent::Agent(AgentConfig config, const Clock& clock, LogSink log)
    : config_(std::move(config)), clock_(clock), log_(std::move(log)) {}

Agent::~Agent() = default;

Result<std::unique_ptr<Agent>> Agent::Open(const AgentConfig& config, const Clock& clock,
                                           LogSink log) {
  ASSIGN_OR_RETURN(AgentConfig checked, ValidateConfig(config));
  std::unique_ptr<Agent> agent(new Agent(std::move(checked), clock, std::move(log)));
  RETURN_IF_ERROR(agent->OpenState());
  RETURN_IF_ERROR(agent->Join());
  RETURN_IF_ERROR(agent->StartServices());
  return agent;
}

Result<void> Agent::OpenState() {
  // Others may pass through, to reach an instance's own files, but not list.
  RETURN_IF_ERROR(MakeDirectory(config_.state_dir, 0711));
  RETURN_IF_ERROR(MakeDirectory(config_.state_dir / "instances", 0711));
  RETURN_IF_ERROR(MakeDirectory(config_.run_dir, 0711));
  RETURN_IF_ERROR(MakeDirectory(config_.run_dir / "instances", 0711));
  auto lock = store::FileLock::Acquire(config_.state_dir / "agent.lock");
  if (!lock) {
    if (lock.error().code() != ErrorCode::kConflict) {
      return std::move(lock).error();
    }
    return std::move(lock)
        .error()
        .Context("another vallum-agent uses state directory " + config_.state_dir.string())
        .WithFix("stop that agent, or give this one a --state-dir of its own");
  }
  lock_ = std::make_unique<store::FileLock>(*std::move(lock));
  return Ok();
}

Result<void> Agent::Join() {
  auto stored = LoadIdentity(config_.state_dir, config_.host);
  IdentityHealth health;
  if (stored) {
    health = CheckIdentity(*stored, clock_.Now());
  }
  if (stored && health.valid) {
    identity_ = *std::move(stored);
    log_(health.renew_soon ? LogLevel::kWarning : LogLevel::kInfo, health.detail);
    return Ok();
  }
  if (config_.join_token_file) {
    ASSIGN_OR_RETURN(const JoinToken token, ReadJoinTokenFile(*config_.join_token_file));
    ASSIGN_OR_RETURN(identity_, Enrol(config_.state_dir, config_.host, token, clock_));
    log_(LogLevel::kInfo, "joined " + identity_.endpoint + " as " + identity_.host + ", pool " +
                              Printable(identity_.pool, 70) + "; " +
                              CheckIdentity(identity_, clock_.Now()).detail);
    return Ok();
  }
  if (!stored) {
    return std::move(stored).error();
  }
  return Denied(health.detail)
      .WithFix("start vallum-agent once with --join-token-file; running guests are not touched");
}

Result<void> Agent::StartServices() {
  ASSIGN_OR_RETURN_CONTEXT(facts_, ProbeFacts(config_), "finding out what this host can run");
  const bool is_root = geteuid() == 0;
  if (is_root) {
    ASSIGN_OR_RETURN(users_, UserAllocator::Open(config_));
  }
  const std::filesystem::path blob_dir = config_.state_dir / "blobs";
  store::BlobStoreOptions blob_options;
  blob_options.directory = blob_dir;
  ASSIGN_OR_RETURN(blobs_, store::BlobStore::Open(blob_options, clock_));
  channel_ = std::make_unique<ChannelSlot>(MakeChannel(identity_));
  std::optional<gid_t> readers;
  if (users_) {
    readers = users_->image_group();
  }
  images::ConfinedInspector::Options inspector;
  inspector.program = InspectorBeside(config_.vtpm_program);
  images_ = std::make_unique<ImageCache>(*blobs_, blob_dir, *channel_,
                                         images::ConfinedInspector(inspector), readers);
  inspector.timeout = kForecastLimit;
  inspector_.emplace(inspector);
  snapshots_ = std::make_unique<SnapshotTaker>(
      *channel_, images::ConfinedConverter({.program = inspector.program, .timeout = {}}));
  RETURN_IF_ERROR(OpenLeases());
  instances_ = std::make_unique<InstanceManager>(
      InstanceServices{config_, facts_, *images_, users_.get(), board_, clock_, *channel_,
                       *inspector_, *snapshots_, *leases_});
  const size_t adopted = instances_->Uids().size();
  if (adopted > 0) {
    log_(LogLevel::kInfo, "taking over " + std::to_string(adopted) + " instances");
  }
  consoles_ = std::make_unique<ConsoleRelay>(*channel_);
  quotes_ = std::make_unique<QuoteDesk>(
      *channel_, [this](const std::string& uid) { return instances_->Vtpm(uid); });
  StartEvidence();
  session_ = std::make_unique<Session>(*channel_, board_, *this);
  renewer_ = std::jthread([this](const std::stop_token& stop) { KeepRenewed(stop); });
  return Ok();
}

Result<void> Agent::OpenLeases() {
  leases_ = std::make_unique<LeaseKeeper>(LeaseOptions{.path = config_.state_dir / "lease.pb",
                                                       .host = config_.host,
                                                       .boot_id = CurrentBootId(),
                                                       .ca_pem = identity_.ca_pem},
                                          clock_);
  // The lease is for a key whose name is known before its TPM has answered.
  ASSIGN_OR_RETURN(const std::optional<tpm::KeyBlobs> key, LoadKeyBlobs(config_.state_dir));
  const auto name = key ? tpm::KeyName(key->public_area) : Result<Bytes>(Bytes());
  leases_->SetKey(name.value_or(Bytes()));
  if (const std::string trouble = leases_->Load(); !trouble.empty()) {
    log_(LogLevel::kInfo, "the lease of an earlier agent is not taken up: " + trouble);
  }
  return Ok();
}

void Agent::StartEvidence() {
  trust_link_ = std::make_unique<GatewayTrustLink>(*channel_);
  evidence_ = std::make_unique<EvidenceDesk>(
      EvidenceDeskOptions{
          .state_dir = config_.state_dir,
          .root = config_.host_root,
          .boot_id = CurrentBootId(),
          .open = [this](const std::optional<tpm::KeyBlobs>& kept,
                         const std::stop_token& stop) -> Result<tpm::OpenedTpm> {
            ASSIGN_OR_RETURN(const tpm::TpmAddress address, tpm::ParseTpmAddress(config_.tpm));
            tpm::HostTpmOptions options;
            options.address = address;
            return tpm::OpenHostTpm(options, kept, stop);
          },
          .on_key = [this](const Bytes& name) { leases_->SetKey(name); },
          .inform = [this](const std::string& text) { log_(LogLevel::kInfo, text); },
          .warn = [this](const std::string& text) { log_(LogLevel::kWarning, text); }},
      *trust_link_);
}

IdentityHealth Agent::Health() const {
  const std::lock_guard lock(identity_mutex_);
  return CheckIdentity(identity_, clock_.Now());
}

void Agent::KeepRenewed(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    {
      std::unique_lock lock(renewal_mutex_);
      renewal_wanted_.wait_for(lock, stop, kRenewalCheck, [this] { return check_renewal_; });
      check_renewal_ = false;
    }
    if (!stop.stop_requested()) {
      RenewIfDue();
    }
  }
}

void Agent::RenewIfDue() {
  if (!Health().renew_soon) {
    return;
  }
  auto renewed = Renew(config_.state_dir, identity_, channel_->Get(), clock_);
  if (!renewed) {
    log_(LogLevel::kWarning, "certificate not renewed: " + renewed.error().Describe());
    return;
  }
  channel_->Replace(MakeChannel(*renewed));
  {
    const std::lock_guard lock(identity_mutex_);
    identity_ = *std::move(renewed);
  }
  log_(LogLevel::kInfo, "certificate renewed: " + Health().detail);
  session_->CapabilitiesChanged();  // they tell of the certificate
}

void Agent::Run() { session_->Run(); }

void Agent::Stop() { session_->Stop(); }

v1::HostCapabilities Agent::Capabilities() {
  v1::HostCapabilities capabilities = MakeCapabilities(facts_);
  capabilities.set_disk_free_bytes(static_cast<int64_t>(DiskFree(config_.state_dir)));
  const IdentityHealth health = Health();
  v1::Probe& probe = *capabilities.add_probes();
  probe.set_name("agent-certificate");
  probe.set_ok(health.valid && !health.renew_soon);
  probe.set_detail(health.detail);
  return capabilities;
}

v1::Heartbeat Agent::MakeHeartbeat() {
  v1::Heartbeat heartbeat;
  heartbeat.set_disk_free_bytes(static_cast<int64_t>(DiskFree(config_.state_dir)));
  return heartbeat;
}

void Agent::OnDesiredState(const v1::DesiredState& desired) { instances_->SetDesired(desired); }

void Agent::OnDesiredInstance(const v1::DesiredInstance& desired) {
  instances_->SetDesired(desired);
}

void Agent::OnOpenConsole(const v1::OpenConsole& request) {
  consoles_->Open(request.session_id(), instances_->Serial(request.instance_uid()));
}

void Agent::OnMakeQuote(const v1::MakeQuote& request) { quotes_->Ask(request); }
void Agent::OnTakeSnapshot(const v1::TakeSnapshot& request) { instances_->TakeSnapshot(request); }

void Agent::OnRequestEvidence(const v1::RequestEvidence& request) { evidence_->Ask(request); }

void Agent::OnTrust(const v1::TrustNotice& notice) {
  if (const auto taken = leases_->Take(notice); !taken) {
    log_(LogLevel::kWarning, taken.error().Describe());
  }
  instances_->LeaseChanged();
}

void Agent::OnConnected(const v1::Welcome& welcome) {
  leases_->SetReached(true);
  if (welcome.attested()) {
    evidence_->Bind();
  }
  {
    const std::lock_guard lock(renewal_mutex_);
    check_renewal_ = true;
  }
  renewal_wanted_.notify_all();
  const IdentityHealth health = Health();
  log_(health.renew_soon ? LogLevel::kWarning : LogLevel::kInfo,
       "connected to " + identity_.endpoint +
           (health.renew_soon ? "; " + health.detail : std::string()));
}

void Agent::OnDisconnected(const Error& reason) {
  leases_->SetReached(false);
  const IdentityHealth health = Health();
  log_(LogLevel::kWarning, "not connected to " + identity_.endpoint + ": " + reason.Describe() +
                               (health.valid ? "" : "; " + health.detail) +
                               "; instances keep running, trying again");
}

}  // namespace vallum::agent
