// SPDX-License-Identifier: Apache-2.0
#include "controller/controller.h"

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "base/units.h"

namespace vallum::controller {
namespace {

struct DefaultFlavor {
  const char* name;
  int32_t vcpus;
  ByteCount memory;
};
constexpr DefaultFlavor kFlavors[] = {
    {.name = "tiny", .vcpus = 1, .memory = ByteCount::MiB(512)},
    {.name = "small", .vcpus = 1, .memory = ByteCount::GiB(1)},
    {.name = "medium", .vcpus = 2, .memory = ByteCount::GiB(4)},
};
constexpr const char* kDefaultPool = "default";

// Two controllers may start at once: one makes it, the other finds it made.
template <typename T>
Result<void> CreateOnce(ResourceStore& resources, const View& view, T resource) {
  const Result<T> created = resources.Create(std::move(resource));
  if (!created.has_value()) {
    return created.error().code() == ErrorCode::kConflict ? Ok() : Result<void>(created.error());
  }
  return view.WaitFor(created->metadata().revision());
}

}  // namespace

Controller::Controller(const Options& options, const Parts& parts)
    : options_(options),
      parts_(parts),
      resources_(parts.store, parts.clock),
      operations_(resources_),
      events_(parts.store, parts.clock),
      grants_(parts.clock),
      inspector_({.program = options.inspector.empty() ? images::InspectorBesideThisProgram()
                                                       : options.inspector}) {}

Controller::~Controller() {
  // The gateway calls the reconciler, which calls the gateway: first the calls end, then their
  // targets.
  if (reconciler_ != nullptr) {
    reconciler_->Stop();
  }
  if (attestor_ != nullptr) {
    attestor_->Stop();
  }
  if (snapshots_ != nullptr) {
    snapshots_->Stop();
  }
  gateway_.reset();
}

Result<std::unique_ptr<Controller>> Controller::Start(const Options& options, const Parts& parts) {
  std::unique_ptr<Controller> self(new Controller(options, parts));
  ASSIGN_OR_RETURN(self->view_, View::Create(parts.store));
  self->tokens_ = std::make_unique<Tokens>(self->resources_, *self->view_);
  RETURN_IF_ERROR(self->MakeDefaults()).context("preparing the first start");
  RETURN_IF_ERROR(self->tokens_->Bootstrap(options.state_dir)).context("making the admin token");
  self->key_sets_ = std::make_unique<KeySetService>(self->resources_, *self->view_);
  RETURN_IF_ERROR(self->key_sets_->MakeBuiltIn(options.key_sets)).context("making the key sets");
  // Nothing is asked of it before all is there.
  self->instances_ = std::make_unique<InstanceService>(
      self->resources_, *self->view_, self->operations_, self->events_,
      [raw = self.get()](const std::string& host) { raw->attestor_->AttestNow(host); });
  ASSIGN_OR_RETURN(self->book_, BootBook::Open(options.state_dir / "boots"));
  self->artefacts_ = std::make_unique<KnownArtefacts>(*self->view_);
  self->verdicts_ =
      std::make_unique<BootVerdicts>(BootVerdicts::Parts{.book = *self->book_,
                                                         .view = *self->view_,
                                                         .artefacts = *self->artefacts_,
                                                         .clock = parts.clock});
  self->contents_ = std::make_unique<ContentClaims>(parts.blobs, *self->view_);
  RETURN_IF_ERROR(self->contents_->Sweep()).context("sweeping the contents of images");
  ASSIGN_OR_RETURN(Sealer sealer, Sealer::LoadOrCreate(options.state_dir / "seal.key"));
  self->sealer_ = std::make_unique<Sealer>(std::move(sealer));
  self->snapshots_ =
      std::make_unique<Snapshots>(Snapshots::Parts{.resources = self->resources_,
                                                   .view = *self->view_,
                                                   .operations = self->operations_,
                                                   .events = self->events_,
                                                   .blobs = parts.blobs,
                                                   .contents = *self->contents_,
                                                   .sealer = *self->sealer_,
                                                   .inspector = self->inspector_,
                                                   .clock = parts.clock,
                                                   .on_error = options.reconciler.on_error});
  RETURN_IF_ERROR(self->MakeAttestor());
  self->reconciler_ =
      std::make_unique<Reconciler>(options.reconciler, Reconciler::Parts{
                                                           .resources = self->resources_,
                                                           .view = *self->view_,
                                                           .operations = self->operations_,
                                                           .events = self->events_,
                                                           .book = *self->book_,
                                                           .evidence = *self->evidence_,
                                                           .verdicts = *self->verdicts_,
                                                           .attestor = *self->attestor_,
                                                           .snapshots = *self->snapshots_,
                                                           .metrics = self->metrics_,
                                                           .clock = parts.clock,
                                                       });
  ASSIGN_OR_RETURN(self->gateway_,
                   Gateway::Start(options.gateway, Gateway::Parts{
                                                       .resources = self->resources_,
                                                       .view = *self->view_,
                                                       .tokens = *self->tokens_,
                                                       .events = self->events_,
                                                       .blobs = parts.blobs,
                                                       .authority = parts.authority,
                                                       .listener = *self->reconciler_,
                                                       .snapshots = *self->snapshots_,
                                                       .trust = *self->attestor_,
                                                       .metrics = self->metrics_,
                                                       .clock = parts.clock,
                                                   }));
  RETURN_IF_ERROR(self->attestor_->Start(*self->gateway_));
  RETURN_IF_ERROR(self->reconciler_->Start(*self->gateway_));
  RETURN_IF_ERROR(self->snapshots_->Start(*self->gateway_, *self->view_));
  return self;
}

Result<void> Controller::MakeAttestor() {
  policies_ = std::make_unique<AttestationPolicies>(resources_, *view_, parts_.blobs);
  bindings_ = std::make_unique<TpmBindings>(resources_, *view_, events_, parts_.clock);
  ASSIGN_OR_RETURN(evidence_, EvidenceBook::Open(options_.state_dir / "evidence"));
  ASSIGN_OR_RETURN(leases_, LeaseSigner::Create(parts_.authority, parts_.clock));
  ASSIGN_OR_RETURN(result_signer_,
                   StatementSigner::Create(parts_.authority, tls::kResultSignerUnit, parts_.clock));
  Attestor::Options options = options_.attestor;
  options.on_error = options_.reconciler.on_error;
  attestor_ = std::make_unique<Attestor>(options, Attestor::Parts{.resources = resources_,
                                                                  .view = *view_,
                                                                  .events = events_,
                                                                  .policies = *policies_,
                                                                  .bindings = *bindings_,
                                                                  .evidence = *evidence_,
                                                                  .leases = *leases_,
                                                                  .metrics = metrics_,
                                                                  .clock = parts_.clock});
  return Ok();
}

Result<void> Controller::MakeDefaults() {
  // What an operator deleted stays deleted: a start that finds an administrator is not the first.
  if (tokens_->HasAdmin()) {
    return Ok();
  }
  v1::Pool pool;
  pool.mutable_metadata()->set_name(kDefaultPool);
  pool.mutable_spec()->set_description("made at first start");
  RETURN_IF_ERROR(CreateOnce(resources_, *view_, std::move(pool)));
  for (const DefaultFlavor& values : kFlavors) {
    v1::Flavor flavor;
    flavor.mutable_metadata()->set_name(values.name);
    flavor.mutable_spec()->set_vcpus(values.vcpus);
    flavor.mutable_spec()->set_memory_bytes(static_cast<int64_t>(values.memory.bytes()));
    RETURN_IF_ERROR(CreateOnce(resources_, *view_, std::move(flavor)));
  }
  return Ok();
}

std::string Controller::JoinStringFor(std::string_view secret) const {
  const std::string endpoint = options_.agent_endpoint.empty()
                                   ? "localhost:" + std::to_string(gateway_->port())
                                   : options_.agent_endpoint;
  return JoinString(endpoint, secret, parts_.authority.certificate_pem());
}

}  // namespace vallum::controller
