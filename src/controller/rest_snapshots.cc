// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "base/result.h"
#include "base/secret_bytes.h"
#include "base/text.h"
#include "controller/controller.h"
#include "controller/principal.h"
#include "controller/rest_context.h"
#include "controller/rest_json.h"
#include "controller/rest_query.h"
#include "controller/seal.h"
#include "controller/snapshots.h"
#include "controller/spec_limits.h"
#include "http/message.h"

namespace vallum::controller {
namespace {

using http::Request;
using http::Response;

constexpr uint64_t kMaxRead = uint64_t{8} << 20U;
// Two parts of kMaxSnapshotPart in base64, and the rest.
constexpr ByteCount kImportLimit = ByteCount::MiB(7);

// A text field that holds a secret, moved out and wiped.
SecretBytes TakeSecret(std::string& text) {
  SecretBytes secret(AsBytes(text));
  Wipe(std::as_writable_bytes(std::span<char>(text)));
  text.clear();
  return secret;
}

Result<Response> Create(RestContext& context, const Request& request, const Principal& principal) {
  v1::Snapshot snapshot;
  RETURN_IF_ERROR(FromJson(request.body, snapshot));
  RETURN_IF_ERROR(ValidateResource(Kind::kSnapshot, snapshot));
  ASSIGN_OR_RETURN(const AnyResource instance,
                   FindVisible(context, principal, Kind::kInstance, snapshot.spec().instance()));
  RETURN_IF_ERROR(
      Authorize(principal, Verb::kCreate, Kind::kSnapshot, MetadataOf(*instance).tenant()));
  ASSIGN_OR_RETURN(const Snapshots::Accepted accepted,
                   context.controller.snapshots().Create(std::move(snapshot), principal));
  return AcceptedResponse(accepted.operation);
}

// A READY snapshot whose content the principal may have.
Result<v1::Snapshot> Readable(RestContext& context, const Request& request,
                              const Principal& principal) {
  ASSIGN_OR_RETURN(const AnyResource found,
                   FindVisible(context, principal, Kind::kSnapshot, *request.Param("name")));
  // An auditor reads what there is, not what is in it.
  RETURN_IF_ERROR(
      Authorize(principal, Verb::kOperate, Kind::kSnapshot, MetadataOf(*found).tenant()));
  const auto& snapshot = static_cast<const v1::Snapshot&>(*found);
  if (snapshot.status().state() != v1::SNAPSHOT_READY) {
    return Conflict("snapshot " + snapshot.metadata().name() + " is not ready")
        .WithFix("wait for it");
  }
  return snapshot;
}

Response Content(std::string bytes) {
  Response response;
  response.body = std::move(bytes);
  response.headers.Set("Content-Type", "application/octet-stream");
  response.headers.Set("Cache-Control", "no-store");
  return response;
}

Result<Response> GetDisk(RestContext& context, const v1::Snapshot& snapshot, uint64_t offset,
                         uint64_t length) {
  ASSIGN_OR_RETURN(const store::OpenBlob blob,
                   context.controller.blobs().Open(snapshot.status().disk().sha256()));
  if (offset > blob.size.bytes()) return InvalidInput("offset is past the end of the disk");
  std::string bytes(std::min(length, blob.size.bytes() - offset), '\0');
  for (size_t at = 0; at < bytes.size();) {
    const ssize_t got =
        pread(blob.fd.get(), bytes.data() + at, bytes.size() - at, static_cast<off_t>(offset + at));
    if (got <= 0) return Unavailable("the disk cannot be read").WithFix("try again");
    at += static_cast<size_t>(got);
  }
  return Content(std::move(bytes));
}

Result<Response> GetContent(RestContext& context, const Request& request,
                            const Principal& principal) {
  ASSIGN_OR_RETURN(const v1::Snapshot snapshot, Readable(context, request, principal));
  ASSIGN_OR_RETURN(const uint64_t offset, ParseUnsigned(request, "offset", 0));
  ASSIGN_OR_RETURN(const uint64_t length, ParseUnsigned(request, "length", kMaxRead));
  const std::string part = *request.Param("part");
  if (part == "disk") return GetDisk(context, snapshot, offset, std::min(length, kMaxRead));
  if (part != "variables") {
    return NotFound("a snapshot's content is disk and variables; \"" + Printable(part, 40) +
                    "\" is not given out")
        .WithFix("POST /v1/snapshots/{name}/tpm gives the vTPM under a passphrase");
  }
  ASSIGN_OR_RETURN(const SecretBytes variables,
                   context.controller.snapshots().OpenPart(snapshot, part));
  return Content(
      std::string(AsText(variables.Reveal(SecretAccess("giving a snapshot's variables")))));
}

Result<Response> ExportTpm(RestContext& context, const Request& request,
                           const Principal& principal) {
  v1::ExportTpmRequest wanted;
  RETURN_IF_ERROR(FromJson(request.body, wanted));
  const SecretBytes passphrase = TakeSecret(*wanted.mutable_passphrase());
  ASSIGN_OR_RETURN(const v1::Snapshot snapshot, Readable(context, request, principal));
  ASSIGN_OR_RETURN(const SecretBytes state,
                   context.controller.snapshots().OpenPart(snapshot, "tpm"));
  ASSIGN_OR_RETURN(
      const Bytes sealed,
      SealWithPassphrase(state.Reveal(SecretAccess("sealing a vTPM for export")), passphrase));
  // One that cannot be told of does not leave.
  RETURN_IF_ERROR(context.controller.events().Append(
      {.kind = "snapshot.tpm-exported",
       .severity = "warning",
       .object = "snapshots/" + snapshot.metadata().name(),
       .user = principal.name,
       .message = "the vTPM's state left the deployment, sealed under a passphrase: whoever has "
                  "both can be this machine",
       .tenant = snapshot.metadata().tenant()}));
  v1::ExportTpmReply reply;
  reply.set_sealed(sealed.data(), sealed.size());
  ASSIGN_OR_RETURN(std::string body, ToJson(reply));
  return Response::Json(200, std::move(body));
}

Result<Response> Import(RestContext& context, const Request& request, const Principal& principal) {
  v1::ImportSnapshotRequest wanted;
  RETURN_IF_ERROR(FromJson(request.body, wanted));
  const SecretBytes passphrase = TakeSecret(*wanted.mutable_passphrase());
  RETURN_IF_ERROR(ValidateName("snapshot", wanted.name()));
  RETURN_IF_ERROR(FindVisible(context, principal, Kind::kImage, wanted.image()));
  v1::Snapshot snapshot;
  snapshot.mutable_metadata()->set_name(wanted.name());
  if (principal.role == v1::ROLE_TENANT) snapshot.mutable_metadata()->set_tenant(principal.tenant);
  RETURN_IF_ERROR(
      Authorize(principal, Verb::kCreate, Kind::kSnapshot, snapshot.metadata().tenant()));
  RETURN_IF_ERROR(CheckImported(context.controller.view(), snapshot.metadata().tenant(), principal,
                                *wanted.mutable_spec()));
  snapshot.mutable_spec()->set_temporary(wanted.temporary());
  snapshot.mutable_spec()->set_description("imported");
  *snapshot.mutable_status()->mutable_instance_spec() = wanted.spec();
  snapshot.mutable_status()->mutable_boot()->set_type(wanted.spec().boot().type());
  snapshot.mutable_status()->mutable_boot()->set_mode(wanted.spec().boot().mode());
  SecretBytes tpm;
  if (!wanted.tpm().empty()) {
    ASSIGN_OR_RETURN(tpm, OpenWithPassphrase(AsBytes(wanted.tpm()), passphrase));
  }
  ASSIGN_OR_RETURN(const v1::Snapshot stored, context.controller.snapshots().Import(
                                                  std::move(snapshot), wanted.image(),
                                                  AsBytes(wanted.variables()), tpm, principal));
  return ResourceResponse(201, stored);
}

ApiHandler Bind(RestContext& context,
                Result<Response> (*handler)(RestContext&, const Request&, const Principal&)) {
  return [&context, handler](const Request& request, const Principal& principal) {
    return handler(context, request, principal);
  };
}

}  // namespace

std::vector<ApiRoute> SnapshotRoutes(RestContext& context) {
  using http::Method;
  const std::string all = "/v1/snapshots";
  const std::string one = all + "/{name}";
  const auto* snapshot = v1::Snapshot::descriptor();
  std::vector<ApiRoute> routes = {
      {Method::kPost, all, "Take a snapshot of a stopped instance; the answer is its operation",
       snapshot, v1::Operation::descriptor(), 202, Bind(context, Create)},
      {Method::kGet, one + "/content/{part}",
       "Bytes of disk or variables: ?offset=&length=, at most 8 MiB at once", nullptr, nullptr, 200,
       Bind(context, GetContent)},
      {Method::kPost, one + "/tpm", "The vTPM's state, sealed under a passphrase",
       v1::ExportTpmRequest::descriptor(), v1::ExportTpmReply::descriptor(), 200,
       Bind(context, ExportTpm)},
      {Method::kPost, all + "/import", "Make a snapshot on the content of an image",
       v1::ImportSnapshotRequest::descriptor(), snapshot, 201, Bind(context, Import)},
  };
  routes.back().body_limit = kImportLimit;
  return routes;
}

}  // namespace vallum::controller
