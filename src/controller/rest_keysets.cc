// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "controller/key_set_content.h"
#include "controller/key_set_service.h"
#include "controller/principal.h"
#include "controller/rest_context.h"
#include "controller/rest_json.h"
#include "firmware/key_update.h"
#include "http/message.h"
#include "images/inspection.h"
#include "images/preflight.h"
#include "store/blob_store.h"

namespace vallum::controller {
namespace {

using http::Request;
using http::Response;
using images::Bootable;

// Judges the content of an image again under other key sets.
Result<std::vector<images::KeySetReport>> Judge(const RestContext& context, const v1::Image& image,
                                                const std::vector<firmware::KeySet>& key_sets) {
  ASSIGN_OR_RETURN(const images::DeclaredFormat format,
                   images::ParseDeclaredFormat(image.status().detected_format()));
  const std::string& digest = image.status().sha256();
  ASSIGN_OR_RETURN(const store::OpenBlob blob, context.controller.blobs().Open(digest));
  ASSIGN_OR_RETURN(const Sha256Digest bound, images::ParseSha256(digest));
  ASSIGN_OR_RETURN(const images::InspectedImage inspected,
                   context.inspector.Inspect(blob.fd.get(), format, bound,
                                             {.key_sets = key_sets, .prediction = {}}));
  return inspected.inspection().reports;
}

// Instances that start from the image with Secure Boot. What they changed on their own disks since
// is not known here.
void AddInstances(const View& view, const std::string& image,
                  v1::CheckUpdateReply::Affected& affected) {
  for (const auto& instance : view.All<v1::Instance>()) {
    if (instance->spec().image() == image &&
        instance->spec().boot().mode() == v1::BOOT_MODE_SECURE) {
      affected.add_instances(instance->metadata().name());
    }
  }
}

//   reports: under every key set as it is, then under every one with the update.
void Compare(const View& view, const v1::Image& image,
             const std::vector<images::KeySetReport>& reports, v1::CheckUpdateReply& reply) {
  const size_t sets = reports.size() / 2;
  for (size_t i = 0; i < sets; ++i) {
    const images::KeySetReport& before = reports[i];
    const images::KeySetReport& after = reports[sets + i];
    if (before.bootable == Bootable::kNo || after.bootable != Bootable::kNo) continue;
    v1::CheckUpdateReply::Affected& affected = *reply.add_affected();
    affected.set_image(image.metadata().name());
    affected.set_key_set(after.key_set);
    affected.set_bootable(std::string(images::BootableName(after.bootable)));
    affected.mutable_reasons()->Assign(after.reasons.begin(), after.reasons.end());
    AddInstances(view, image.metadata().name(), affected);
  }
}

std::string Describe(const firmware::KeyUpdate& update,
                     const std::vector<firmware::KeySet>& key_sets) {
  std::string text = update.description;
  for (const firmware::KeySet& keys : key_sets) {
    const std::string signer = firmware::DescribeUpdateSigner(keys, update);
    if (!signer.empty()) text += "; " + keys.name + ": " + signer;
  }
  return text;
}

Result<Response> CheckUpdate(RestContext& context, const Request& request,
                             const Principal& principal) {
  RETURN_IF_ERROR(Authorize(principal, Verb::kRead, Kind::kHost, {}));
  v1::CheckUpdateRequest wanted;
  RETURN_IF_ERROR(FromJson(request.body, wanted));
  ASSIGN_OR_RETURN(const firmware::KeyUpdate update,
                   firmware::ParseKeyUpdate(AsBytes(wanted.update())));
  if (context.key_sets.empty()) {
    return Unavailable("the controller knows no key set to compare with")
        .WithFix("install the package ovmf beside the controller and start it again");
  }
  // Both in one inspection: each image is read once.
  std::vector<firmware::KeySet> before_and_after = context.key_sets;
  for (const firmware::KeySet& keys : context.key_sets) {
    before_and_after.push_back(firmware::ApplyKeyUpdate(keys, update));
  }
  v1::CheckUpdateReply reply;
  reply.set_update(Describe(update, context.key_sets));
  const View& view = context.controller.view();
  for (const auto& image : view.All<v1::Image>()) {
    if (image->status().boot_binaries().empty()) continue;
    const auto reports = Judge(context, *image, before_and_after);
    if (!reports.has_value()) {
      reply.add_unknown(image->metadata().name() + ": " + reports.error().Describe());
      continue;
    }
    reply.set_images_checked(reply.images_checked() + 1);
    Compare(view, *image, *reports, reply);
  }
  ASSIGN_OR_RETURN(std::string body, ToJson(reply));
  return Response::Json(200, std::move(body));
}

Result<Response> GetVersion(RestContext& context, const Request& request,
                            const Principal& principal) {
  RETURN_IF_ERROR(Authorize(principal, Verb::kRead, Kind::kKeySet, principal.tenant));
  const std::string name = *request.Param("name");
  const std::string wanted = *request.Param("version");
  ASSIGN_OR_RETURN(const AnyResource found, FindVisible(context, principal, Kind::kKeySet, name));
  const auto& key_set = static_cast<const v1::KeySet&>(*found);
  for (const v1::KeySetVersion& version : key_set.status().versions()) {
    if (std::to_string(version.version()) != wanted) continue;
    v1::KeySetVersion shown = version;
    *shown.mutable_content() = *FindContent(key_set, version.version());
    ASSIGN_OR_RETURN(std::string body, ToJson(shown));
    return Response::Json(200, std::move(body));
  }
  return NotFound("keyset " + name + " has no version " + Printable(wanted, 20))
      .WithFix("`vallum keyset show " + name + "` lists the versions");
}

}  // namespace

void ShowKeySet(const RestContext& context, v1::KeySet& key_set) {
  v1::KeySetStatus& status = *key_set.mutable_status();
  for (v1::KeySetVersion& version : *status.mutable_versions()) version.clear_content();
  status.set_instances(CountInstances(context.controller.view(), key_set.metadata().name()));
}

std::vector<ApiRoute> KeySetRoutes(RestContext& context) {
  return {{http::Method::kPost, "/v1/keysets/check-update",
           "Which images and instances a dbx or SBAT update would stop from booting",
           v1::CheckUpdateRequest::descriptor(), v1::CheckUpdateReply::descriptor(), 200,
           [&context](const Request& request, const Principal& principal) {
             return CheckUpdate(context, request, principal);
           }},
          {http::Method::kGet, "/v1/keysets/{name}/versions/{version}",
           "One version of a key set, with its content", nullptr, v1::KeySetVersion::descriptor(),
           200, [&context](const Request& request, const Principal& principal) {
             return GetVersion(context, request, principal);
           }}};
}

}  // namespace vallum::controller
