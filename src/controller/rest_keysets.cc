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
#include "firmware/key_set_tools.h"
#include "firmware/key_update.h"
#include "http/message.h"
#include "images/inspection.h"
#include "images/inspection_request.h"
#include "images/preflight.h"
#include "store/blob_store.h"
#include "vallum/v1/keyset_audit.pb.h"

namespace vallum::controller {
namespace {

using http::Request;
using http::Response;
using images::Bootable;

//   reports: under each key set as it is, then under each one with the update.
void Compare(const v1::Image& image, const std::vector<KeyUse>& uses,
             const std::vector<images::KeySetReport>& reports, v1::CheckUpdateReply& reply) {
  for (size_t i = 0; i < uses.size(); ++i) {
    const images::KeySetReport& after = reports[uses.size() + i];
    if (reports[i].bootable == Bootable::kNo || after.bootable != Bootable::kNo) continue;
    v1::CheckUpdateReply::Affected& affected = *reply.add_affected();
    affected.set_image(image.metadata().name());
    affected.set_key_set(uses[i].name);
    affected.set_bootable(std::string(images::BootableName(after.bootable)));
    affected.mutable_reasons()->Assign(after.reasons.begin(), after.reasons.end());
    affected.mutable_instances()->Assign(uses[i].instances.begin(), uses[i].instances.end());
  }
}

// Both in one inspection: the image is read once for several key sets.
Result<void> CheckImage(const RestContext& context, const v1::Image& image,
                        const firmware::KeyUpdate& update, v1::CheckUpdateReply& reply) {
  constexpr size_t kAtOnce = images::kMaxRequestKeySets / 2;
  const auto [uses, unknown] = UsesOfImage(context, image);
  for (const std::string& one : unknown) reply.add_unknown(one);
  for (size_t from = 0; from < uses.size(); from += kAtOnce) {
    const std::vector<KeyUse> some(
        uses.begin() + static_cast<ptrdiff_t>(from),
        uses.begin() + static_cast<ptrdiff_t>(std::min(uses.size(), from + kAtOnce)));
    std::vector<firmware::KeySet> before_and_after;
    for (const KeyUse& use : some) before_and_after.push_back(use.keys);
    for (const KeyUse& use : some) {
      before_and_after.push_back(firmware::ApplyKeyUpdate(use.keys, update));
    }
    ASSIGN_OR_RETURN(const auto reports, JudgeImage(context, image, before_and_after));
    if (reports.size() != before_and_after.size()) return Internal("a report is missing");
    Compare(image, some, reports, reply);
  }
  return Ok();
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
  v1::CheckUpdateReply reply;
  reply.set_update(Describe(update, context.key_sets));
  const View& view = context.controller.view();
  for (const auto& image : view.All<v1::Image>()) {
    if (image->status().boot_binaries().empty()) continue;
    if (const Result<void> done = CheckImage(context, *image, update, reply); !done.has_value()) {
      reply.add_unknown(image->metadata().name() + ": " + done.error().Describe());
      continue;
    }
    reply.set_images_checked(reply.images_checked() + 1);
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

Result<std::vector<images::KeySetReport>> JudgeImage(
    const RestContext& context, const v1::Image& image,
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

ImageUses UsesOfImage(const RestContext& context, const v1::Image& image) {
  const View& view = context.controller.view();
  ImageUses out;
  std::vector<KeyUse>& uses = out.uses;
  for (const firmware::KeySet& keys : context.key_sets) {
    const auto key_set = view.Get<v1::KeySet>(keys.name);
    uses.push_back({.name = keys.name,
                    .version = key_set == nullptr ? 0 : key_set->status().version(),
                    .keys = keys,
                    .instances = {}});
  }
  for (const auto& instance : view.All<v1::Instance>()) {
    if (instance->spec().image() != image.metadata().name() ||
        instance->status().boot().requested().mode() != v1::BOOT_MODE_SECURE) {
      continue;
    }
    // What os_secure_boot_signature adds makes it another set.
    Result<firmware::KeySet> keys = KeysFor(view, *instance);
    if (!keys.has_value()) {
      // It keeps nobody from learning of the others.
      out.unknown.push_back("instance " + instance->metadata().name() + ": " +
                            keys.error().Describe());
      continue;
    }
    auto use = std::ranges::find(uses, *keys, &KeyUse::keys);
    if (use == uses.end()) {
      uses.push_back({.name = keys->name,
                      .version = instance->spec().key_set_version(),
                      .keys = *std::move(keys),
                      .instances = {}});
      use = std::prev(uses.end());
    }
    use->instances.push_back(instance->metadata().name());
  }
  return out;
}

Preflight PreflightOf(const RestContext& context) {
  return
      [&context](const v1::Image& image, const firmware::KeySet& keys) -> Result<PreflightVerdict> {
        ASSIGN_OR_RETURN(const std::vector<images::KeySetReport> reports,
                         JudgeImage(context, image, {keys}));
        if (reports.empty()) return Internal("the inspection of the image says nothing");
        const images::KeySetReport& report = reports.front();
        if (report.bootable != Bootable::kNo) return PreflightVerdict{};
        return PreflightVerdict{.starts = false,
                                .reason = report.reasons.empty() ? "its boot chain is refused"
                                                                 : report.reasons.front()};
      };
}

void ShowKeySet(const RestContext& context, v1::KeySet& key_set) {
  v1::KeySetStatus& status = *key_set.mutable_status();
  for (v1::KeySetVersion& version : *status.mutable_versions()) version.clear_content();
  status.set_instances(CountInstances(context.controller.view(), key_set.metadata().name()));
  // An empty set is meant to be empty.
  if (key_set.metadata().name() == kNoKeys) return;
  const auto keys = ParseContent(key_set.metadata().name(), key_set.spec().content());
  if (!keys.has_value()) {
    status.add_findings("error: " + keys.error().message());
    return;
  }
  const WallTime now = context.controller.clock().Now();
  for (const firmware::KeyFinding& finding : firmware::VerifyKeySet(*keys, now)) {
    status.add_findings(std::string(firmware::FindingSeverityName(finding.severity)) + ": " +
                        finding.text);
  }
  for (const firmware::AgingCertificate& aging : firmware::FindAgingCertificates(*keys, now)) {
    if (aging.missing.empty()) continue;
    status.add_findings("warning: " + aging.list + " has " + aging.name + ", which " +
                        (aging.expired ? "ended on " : "ends on ") + aging.expires + ", but not " +
                        Join(aging.missing, " and "));
  }
}

std::vector<ApiRoute> KeySetRoutes(RestContext& context) {
  return {{http::Method::kPost, "/v1/keysets/check-update",
           "Which images and instances a dbx or SBAT update would stop from booting",
           v1::CheckUpdateRequest::descriptor(), v1::CheckUpdateReply::descriptor(), 200,
           [&context](const Request& request, const Principal& principal) {
             return CheckUpdate(context, request, principal);
           }},
          {http::Method::kGet, "/v1/keysets/audit",
           "Which boots hang on certificates that end, and key sets with findings", nullptr,
           v1::KeySetAuditReply::descriptor(), 200,
           [&context](const Request& request, const Principal& principal) {
             return AuditKeySets(context, request, principal);
           }},
          {http::Method::kGet, "/v1/keysets/{name}/versions/{version}",
           "One version of a key set, with its content", nullptr, v1::KeySetVersion::descriptor(),
           200, [&context](const Request& request, const Principal& principal) {
             return GetVersion(context, request, principal);
           }}};
}

}  // namespace vallum::controller
