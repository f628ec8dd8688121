// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <google/protobuf/descriptor.h>

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "controller/controller.h"
#include "controller/instance_keys.h"
#include "controller/instance_origin.h"
#include "controller/principal.h"
#include "controller/resource_kind.h"
#include "firmware/key_set.h"
#include "http/message.h"
#include "http/router.h"
#include "images/confined_converter.h"
#include "images/confined_inspector.h"
#include "images/preflight.h"

namespace vallum::controller {

class ConsoleSessions;
class ContentClaims;
class WatchSessions;

// What the handlers share; everything outlives the server.
struct RestContext {
  Controller& controller;
  const images::ConfinedInspector& inspector;
  const images::ConfinedConverter& converter;
  WatchSessions& watches;
  ConsoleSessions& consoles;
  ContentClaims& contents;
  const std::vector<firmware::KeySet>& key_sets;  // images are judged under each
  // Held by the one trial of a policy at a time.
  std::shared_ptr<std::mutex> policy_trial = std::make_shared<std::mutex>();
};

// Answers a request of somebody who is known; an error becomes a problem document.
using ApiHandler = std::function<Result<http::Response>(const http::Request&, const Principal&)>;

// One operation of the API: the router and /openapi.json are both made from these.
struct ApiRoute {
  http::Method method = http::Method::kGet;
  std::string pattern;
  std::string summary;
  const google::protobuf::Descriptor* request = nullptr;  // nullptr: no body
  const google::protobuf::Descriptor* reply = nullptr;    // nullptr: no content
  int status = 200;
  ApiHandler handler;  // empty: the route is added elsewhere and only described here
  bool is_list = false;
  ByteCount body_limit = http::kDefaultBodyLimit;
};

// The routes of every kind of resource: list, get, create, replace, patch, delete, watch.
std::vector<ApiRoute> ResourceRoutes(RestContext& context);
// What instances have beside these: power actions, consoles, and how they would be scheduled.
std::vector<ApiRoute> InstanceRoutes(RestContext& context);
// What an instance booted, and its baseline.
std::vector<ApiRoute> BootRoutes(RestContext& context);

// Taking snapshots, and their content.
std::vector<ApiRoute> SnapshotRoutes(RestContext& context);
// Questions about the keys under which images start, and the versions of key sets.
std::vector<ApiRoute> KeySetRoutes(RestContext& context);
std::vector<ApiRoute> RolloutRoutes(RestContext& context);
// Versions of attestation policies: activate, retire, test.
std::vector<ApiRoute> PolicyRoutes(RestContext& context);
// What is done to a host for its trust: approve, attest, learn; its evidence.
std::vector<ApiRoute> TrustRoutes(RestContext& context);
// For clients of OpenAttestation and Keylime, and results for relying parties.
std::vector<ApiRoute> OatRoutes(RestContext& context);
std::vector<ApiRoute> KeylimeRoutes();
std::vector<ApiRoute> EarRoutes(RestContext& context);

// Judges the content of an image again, under other key sets: one report for each.
Result<std::vector<images::KeySetReport>> JudgeImage(const RestContext& context,
                                                     const v1::Image& image,
                                                     const std::vector<firmware::KeySet>& key_sets);
// One version of a key set under which an image is started, and by whom.
struct KeyUse {
  std::string name;
  int32_t version = 0;
  firmware::KeySet keys;
  std::vector<std::string> instances;  // with Secure Boot
};
struct ImageUses {
  std::vector<KeyUse> uses;
  std::vector<std::string> unknown;  // instances whose keys are not there, and why
};
// The sets that come with the controller, and those of the instances that are made from the image.
ImageUses UsesOfImage(const RestContext& context, const v1::Image& image);
Result<http::Response> AuditKeySets(RestContext& context, const http::Request& request,
                                    const Principal& principal);

// Inspects the content of an image under some keys, in a process of its own. The context outlives
// it.
Preflight PreflightOf(const RestContext& context);
// ?NAME=true or nothing. Errors: kInvalidInput.
Result<bool> ParseFlag(const http::Request& request, std::string_view name);

// 200 with the resource and its ETag.
Result<http::Response> ResourceResponse(int status, const google::protobuf::Message& resource);
// 202 with the operation and its Location.
Result<http::Response> AcceptedResponse(const v1::Operation& operation);

// Finds a resource that the principal may see; one that it may not see does not exist for it.
// Errors: kNotFound.
Result<AnyResource> FindVisible(const RestContext& context, const Principal& principal, Kind kind,
                                const std::string& name);

// Fills in what a key set's answer says of its users, and leaves out the contents of old versions:
// each is asked for by itself.
void ShowKeySet(const RestContext& context, v1::KeySet& key_set);

// Leaves the documents of versions out: each is asked for by itself.
void ShowPolicy(v1::AttestationPolicy& policy);

// What clients see of a resource: tokens without digests, pools with their counts, uploads with
// what arrived.
std::unique_ptr<google::protobuf::Message> Shown(const RestContext& context, Kind kind,
                                                 const google::protobuf::Message& resource);

// Checks what people may write in a resource of a kind. Errors: kInvalidInput, naming the field.
Result<void> ValidateResource(Kind kind, const google::protobuf::Message& resource);
// Checks that what a pool or a host names exists, as far as the view has seen. Errors:
// kInvalidInput, naming the field.
Result<void> CheckReferences(const View& view, Kind kind, const google::protobuf::Message& after);
// What decides which hosts of a pool are trusted takes the role admin, as policies do.
//   before: nullptr for a pool that is created. Errors: kDenied, naming the role.
Result<void> CheckTrustAnchors(const Principal& principal, Kind kind,
                               const google::protobuf::Message* before,
                               const google::protobuf::Message& after);
// Whether trusted instances would find themselves among hosts that need not be attested, because
// their pool or their host changes. kAllowed: somebody said that they may, which is to be recorded.
//   allowance: what was said.
// Errors: kConflict, naming the first of them.
enum class UntrustedAllowance { kNotSaid, kSaid };
Result<TrustCrossing> CheckTrustKept(const View& view, Kind kind,
                                     const google::protobuf::Message& before,
                                     const google::protobuf::Message& after,
                                     UntrustedAllowance allowance);

}  // namespace vallum::controller
