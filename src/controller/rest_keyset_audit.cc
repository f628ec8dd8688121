// SPDX-License-Identifier: Apache-2.0
// GET /v1/keysets/audit: which boots hang on certificates that end.
#include <algorithm>
#include <ctime>
#include <string>
#include <utility>
#include <vector>

#include "base/digest.h"
#include "base/result.h"
#include "controller/principal.h"
#include "controller/rest_context.h"
#include "controller/rest_json.h"
#include "firmware/signature_list.h"
#include "http/message.h"
#include "images/inspection_request.h"
#include "images/preflight.h"
#include "vallum/v1/keyset_audit.pb.h"

namespace vallum::controller {
namespace {

using firmware::KnownCertificate;
using http::Request;
using http::Response;

google::protobuf::Timestamp ToTimestamp(const firmware::VariableTime& time) {
  std::tm utc{};
  utc.tm_year = time.year - 1900;
  utc.tm_mon = time.month - 1;
  utc.tm_mday = time.day;
  utc.tm_hour = time.hour;
  utc.tm_min = time.minute;
  utc.tm_sec = time.second;
  google::protobuf::Timestamp out;
  out.set_seconds(timegm(&utc));
  return out;
}

// The certificate that is replaced by others, if that is what the authority of a link names.
const KnownCertificate* Ending(const std::string& authority) {
  for (const KnownCertificate& known : firmware::KnownCertificates()) {
    const bool ends = known.expires.year != 0 && !known.successors.front().empty();
    if (ends && authority.find(known.sha256.substr(0, 16)) != std::string::npos) return &known;
  }
  return nullptr;
}

bool Holds(const std::vector<firmware::Signature>& list, std::string_view name) {
  return std::ranges::any_of(list, [&](const firmware::Signature& entry) {
    const KnownCertificate* known = firmware::FindKnownCertificate(entry.data);
    return known != nullptr && known->name == name;
  });
}

void AddDependences(const v1::Image& image, const KeyUse& use, const images::KeySetReport& report,
                    v1::KeySetAuditReply& reply) {
  std::vector<const KnownCertificate*> told;
  for (const images::LinkReport& link : report.chain) {
    const KnownCertificate* ending = link.allowed ? Ending(link.authority) : nullptr;
    if (ending == nullptr || std::ranges::find(told, ending) != told.end()) continue;
    told.push_back(ending);
    v1::KeySetAuditReply::Dependence& out = *reply.add_dependences();
    out.set_certificate(std::string(ending->name));
    *out.mutable_expire_time() = ToTimestamp(ending->expires);
    out.set_image(image.metadata().name());
    out.set_program(link.path);
    out.set_key_set(use.name);
    out.set_version(use.version);
    out.mutable_instances()->Assign(use.instances.begin(), use.instances.end());
    for (const std::string_view successor : ending->successors) {
      if (!successor.empty() && !Holds(use.keys.db, successor)) {
        out.add_successors_missing(std::string(successor));
      }
    }
  }
}

// Key sets above what one inspection takes are judged by the next one.
Result<void> AuditImage(const RestContext& context, const v1::Image& image,
                        v1::KeySetAuditReply& reply) {
  const auto [uses, unknown] = UsesOfImage(context, image);
  for (const std::string& one : unknown) reply.add_unknown(one);
  for (size_t from = 0; from < uses.size(); from += images::kMaxRequestKeySets) {
    const size_t to = std::min(uses.size(), from + images::kMaxRequestKeySets);
    std::vector<firmware::KeySet> keys;
    for (size_t i = from; i < to; ++i) keys.push_back(uses[i].keys);
    ASSIGN_OR_RETURN(const std::vector<images::KeySetReport> reports,
                     JudgeImage(context, image, keys));
    for (size_t i = 0; i < std::min(reports.size(), keys.size()); ++i) {
      AddDependences(image, uses[from + i], reports[i], reply);
    }
  }
  return Ok();
}

}  // namespace

Result<Response> AuditKeySets(RestContext& context, const Request& /*request*/,
                              const Principal& principal) {
  // Names instances of all tenants.
  RETURN_IF_ERROR(Authorize(principal, Verb::kRead, Kind::kHost, {}));
  v1::KeySetAuditReply reply;
  const View& view = context.controller.view();
  for (const auto& image : view.All<v1::Image>()) {
    if (image->status().boot_binaries().empty()) continue;
    const Result<void> done = AuditImage(context, *image, reply);
    if (!done.has_value()) {
      reply.add_unknown(image->metadata().name() + ": " + done.error().Describe());
    }
  }
  for (const auto& stored : view.All<v1::KeySet>()) {
    v1::KeySet key_set = *stored;
    ShowKeySet(context, key_set);
    if (key_set.status().findings().empty()) continue;
    v1::KeySetAuditReply::KeySetFindings& out = *reply.add_key_sets();
    out.set_key_set(key_set.metadata().name());
    out.set_version(key_set.status().version());
    *out.mutable_findings() = key_set.status().findings();
  }
  ASSIGN_OR_RETURN(std::string body, ToJson(reply));
  return Response::Json(200, std::move(body));
}

}  // namespace vallum::controller
