// SPDX-License-Identifier: Apache-2.0
#include "fleet_setup.h"

#include <cstdio>
#include <memory>
#include <utility>

#include "base/clock.h"
#include "base/secret_bytes.h"
#include "controller/attestation_policies.h"
#include "controller/peer_identity.h"
#include "controller/resource_store.h"
#include "controller/view.h"
#include "store/blob_store.h"
#include "store/sqlite_store.h"
#include "tls/authority.h"
#include "tls/certificate.h"

namespace vallum::bench {
namespace {

constexpr size_t kHostsInTxn = 100;
// Nothing but what the benchmark asks for has hosts judged while it measures.
constexpr int32_t kIntervalSeconds = 3600;
constexpr int32_t kLeaseSeconds = 7200;

Result<void> MakePool(controller::ResourceStore& resources, controller::View& view,
                      const store::BlobStore& blobs, const std::string& document) {
  v1::AttestationPolicy policy;
  policy.mutable_metadata()->set_name(kFleetPolicy);
  policy.mutable_spec()->set_document(document);
  controller::AttestationPolicies policies(resources, view, blobs);
  RETURN_IF_ERROR(policies.Create(policy, "bench"));
  RETURN_IF_ERROR(policies.Activate(kFleetPolicy, 0));
  v1::Pool pool;
  pool.mutable_metadata()->set_name(kFleetPool);
  pool.mutable_spec()->set_trusted_service(true);
  pool.mutable_spec()->set_attestation_policy(kFleetPolicy);
  pool.mutable_spec()->set_attest_interval_seconds(kIntervalSeconds);
  pool.mutable_spec()->set_lease_seconds(kLeaseSeconds);
  RETURN_IF_ERROR(resources.Create(std::move(pool)));
  return Ok();
}

Result<FleetSeed> MakeSeed(const tls::CertificateAuthority& authority, size_t number) {
  FleetSeed seed;
  seed.name = FleetHostName(number);
  ASSIGN_OR_RETURN(const tls::KeyAndCsr made, tls::MakeKeyAndCsr(seed.name));
  seed.key_pem = AsText(made.private_key_pem.Reveal(SecretAccess("a benchmark's own key")));
  ASSIGN_OR_RETURN(seed.certificate_pem, authority.IssueAgent(made.csr_der, seed.name));
  return seed;
}

Result<v1::Host> HostOf(const FleetSeed& seed) {
  ASSIGN_OR_RETURN(const controller::PeerIdentity peer,
                   controller::ReadIdentity(seed.certificate_pem));
  v1::Host host;
  host.mutable_metadata()->set_name(seed.name);
  host.mutable_spec()->set_pool(kFleetPool);
  host.mutable_status()->set_state(v1::HOST_JOINING);
  host.mutable_status()->set_agent_key_sha256(peer.key_sha256);
  *host.mutable_status()->mutable_identity() = seed.tpm.Identity();
  return host;
}

}  // namespace

std::string FleetHostName(size_t number) {
  char name[32];
  std::snprintf(name, sizeof name, "host-%05zu", number);
  return name;
}

std::string NextPolicyDocument(const controller::SoftwareHost& tpm, int version) {
  std::string document = tpm.PolicyDocument();
  const std::string name = "name = \"gold\"\nversion = 1\n";
  return "name = \"" + std::string(kFleetPolicy) + "\"\nversion = " + std::to_string(version) +
         "\n" + document.substr(name.size());
}

Result<std::vector<FleetSeed>> MakeFleet(const std::filesystem::path& state_dir, size_t hosts) {
  const SystemClock clock;
  ASSIGN_OR_RETURN(const auto store,
                   store::SqliteStore::Open({.path = state_dir / "store.db"}, clock));
  ASSIGN_OR_RETURN(const auto blobs,
                   store::BlobStore::Open({.directory = state_dir / "blobs"}, clock));
  ASSIGN_OR_RETURN(const auto authority, tls::CertificateAuthority::Load(state_dir / "ca", clock));
  controller::ResourceStore resources(*store, clock);
  ASSIGN_OR_RETURN(const auto view, controller::View::Create(*store));
  RETURN_IF_ERROR(
      MakePool(resources, *view, *blobs, NextPolicyDocument(controller::SoftwareHost(), 1)));
  std::vector<FleetSeed> seeds;
  store::Txn txn;
  for (size_t i = 0; i < hosts; ++i) {
    ASSIGN_OR_RETURN(FleetSeed seed, MakeSeed(*authority, i));
    ASSIGN_OR_RETURN(v1::Host host, HostOf(seed));
    resources.PrepareCreate(host);
    txn.writes.push_back(store::Write::Put(controller::KeyOf(controller::Kind::kHost, seed.name),
                                           controller::EncodeResource(host)));
    seeds.push_back(std::move(seed));
    if (txn.writes.size() == kHostsInTxn || i + 1 == hosts) {
      RETURN_IF_ERROR(store->Commit(txn));
      txn.writes.clear();
    }
  }
  return seeds;
}

}  // namespace vallum::bench
