// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "controller/attestation_policies.h"
#include "controller/attestor.h"
#include "controller/boot_book.h"
#include "controller/boot_verdicts.h"
#include "controller/console_hub.h"
#include "controller/content_claims.h"
#include "controller/event_log.h"
#include "controller/evidence_book.h"
#include "controller/gateway.h"
#include "controller/instance_service.h"
#include "controller/key_set_service.h"
#include "controller/known_artefacts.h"
#include "controller/lease_signer.h"
#include "controller/metrics.h"
#include "controller/operations.h"
#include "controller/reconciler.h"
#include "controller/resource_store.h"
#include "controller/scheduler.h"
#include "controller/snapshots.h"
#include "controller/statement_signer.h"
#include "controller/tokens.h"
#include "controller/tpm_bindings.h"
#include "controller/view.h"
#include "firmware/key_set.h"
#include "store/blob_store.h"
#include "store/store.h"
#include "tls/authority.h"

namespace vallum::controller {

// All parts of a controller but its REST server, put together on a store. Owns the view's and the
// reconciler's thread and the gateway. The store, blobs, authority and clock outlive it.
class Controller {
 public:
  struct Options {
    std::filesystem::path state_dir;
    Gateway::Options gateway;
    Reconciler::Options reconciler;
    Attestor::Options attestor;
    // host:port that agents are told to dial; empty: the gateway's own port on localhost.
    std::string agent_endpoint;
    // That this machine brings: built-in key sets are made of them.
    std::vector<firmware::KeySet> key_sets;
    std::string inspector;  // vallum-inspect; empty: beside this program
  };
  struct Parts {
    store::Store& store;
    store::BlobStore& blobs;
    tls::CertificateAuthority& authority;
    const Clock& clock;
  };
  // Makes what a first start needs (pool "default", flavors, admin token), the built-in key sets,
  // and starts everything.
  static Result<std::unique_ptr<Controller>> Start(const Options& options, const Parts& parts);
  ~Controller();
  Controller(const Controller&) = delete;
  Controller& operator=(const Controller&) = delete;

  ResourceStore& resources() { return resources_; }
  View& view() { return *view_; }
  Operations& operations() { return operations_; }
  EventLog& events() { return events_; }
  Tokens& tokens() { return *tokens_; }
  KeySetService& key_sets() { return *key_sets_; }
  InstanceService& instances() { return *instances_; }
  AttestationPolicies& policies() { return *policies_; }
  TpmBindings& tpm_bindings() { return *bindings_; }
  EvidenceBook& evidence() { return *evidence_; }
  Attestor& attestor() { return *attestor_; }
  StatementSigner& result_signer() { return *result_signer_; }
  Snapshots& snapshots() { return *snapshots_; }
  ContentClaims& contents() { return *contents_; }
  Gateway& gateway() { return *gateway_; }
  ConsoleGrants& console_grants() { return grants_; }
  Reconciler& reconciler() { return *reconciler_; }
  BootVerdicts& verdicts() { return *verdicts_; }
  Metrics& metrics() { return metrics_; }
  store::BlobStore& blobs() { return parts_.blobs; }
  const Clock& clock() const { return parts_.clock; }
  // The string for a new host, from a join token's secret.
  std::string JoinStringFor(std::string_view secret) const;

 private:
  Controller(const Options& options, const Parts& parts);
  Result<void> MakeDefaults();
  Result<void> MakeAttestor();

  Options options_;
  Parts parts_;
  Metrics metrics_;
  ResourceStore resources_;
  Operations operations_;
  EventLog events_;
  ConsoleGrants grants_;
  std::unique_ptr<View> view_;
  std::unique_ptr<Tokens> tokens_;
  std::unique_ptr<KeySetService> key_sets_;
  std::unique_ptr<InstanceService> instances_;
  std::unique_ptr<KnownArtefacts> artefacts_;
  std::unique_ptr<BootBook> book_;
  std::unique_ptr<BootVerdicts> verdicts_;
  std::unique_ptr<ContentClaims> contents_;
  std::unique_ptr<Sealer> sealer_;
  images::ConfinedInspector inspector_;
  std::unique_ptr<Snapshots> snapshots_;
  std::unique_ptr<AttestationPolicies> policies_;
  std::unique_ptr<TpmBindings> bindings_;
  std::unique_ptr<EvidenceBook> evidence_;
  std::unique_ptr<LeaseSigner> leases_;
  std::unique_ptr<StatementSigner> result_signer_;
  std::unique_ptr<Attestor> attestor_;
  std::unique_ptr<Reconciler> reconciler_;
  std::unique_ptr<Gateway> gateway_;
};

}  // namespace vallum::controller
