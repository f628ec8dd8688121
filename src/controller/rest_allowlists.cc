// SPDX-License-Identifier: Apache-2.0
#include "controller/rest_allowlists.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/units.h"
#include "controller/attestation_policies.h"
#include "controller/content_claims.h"
#include "controller/controller.h"
#include "controller/resource_store.h"
#include "measure/ima_allow_list.h"
#include "store/blob_store.h"

namespace vallum::controller {
namespace {

using http::Request;
using http::Response;

constexpr size_t kPiece = size_t{4} << 20U;

// A list that accepts nothing was meant to be another file.
bool IsEmpty(const measure::ImaAllowList& list) {
  return list.files().names() == 0 && list.keyrings().names() == 0 && list.buffers().names() == 0 &&
         list.exclude_count() == 0;
}

class AllowListUpload final : public http::UploadSink {
 public:
  AllowListUpload(RestContext& context, v1::AllowList list, std::string user)
      : context_(context), list_(std::move(list)), user_(std::move(user)) {}

  Result<void> Write(ByteView chunk) override {
    if (chunk.size() > measure::kMaxAllowListInput - content_.size()) {
      return Exhausted("an allow list of more than " + std::to_string(measure::kMaxAllowListInput) +
                       " bytes")
          .WithFix("split it: policies of different pools may name different lists");
    }
    content_ += AsText(chunk);
    return Ok();
  }

  Response Finish() override {
    Result<Response> response = Complete();
    return response.has_value() ? *std::move(response) : http::ProblemResponse(response.error());
  }

 private:
  Result<Response> Complete() {
    const std::string name = list_.metadata().name();
    ASSIGN_OR_RETURN_CONTEXT(const measure::SharedImaAllowList parsed, ParseAllowList(content_),
                             "allowlist " + name + " refused");
    if (IsEmpty(*parsed)) {
      return InvalidInput("allowlist " + name + " refused: no file is named in it")
          .WithFix("upload what sha256sum prints, or a runtime policy of Keylime");
    }
    const std::string before = list_.status().sha256();
    const auto paths = static_cast<int64_t>(parsed->files().names());
    ASSIGN_OR_RETURN(std::unique_ptr<ContentClaims::Claim> claim, Publish());
    const std::string digest = claim->digest();
    const Result<void> recorded = Record(digest, paths);
    claim.reset();
    for (const std::string& old : {before, digest}) context_.contents.RemoveUnused(old);
    RETURN_IF_ERROR(recorded);
    // It stands in the list's status, told or not.
    (void)context_.controller.events().Append(
        {.kind = "allowlist.imported",
         .severity = "info",
         .object = "allowlists/" + name,
         .user = user_,
         .message =
             "allowlist " + name + " has " + std::to_string(paths) + " paths, sha256 " + digest,
         .tenant = {}});
    return ResourceResponse(200, list_);
  }

  Result<std::unique_ptr<ContentClaims::Claim>> Publish() {
    store::BlobStore& blobs = context_.controller.blobs();
    const std::string& id = list_.metadata().uid();
    // Left by a controller that ended in the middle.
    if (auto left = blobs.ResumeUpload(id); left.has_value()) {
      RETURN_IF_ERROR((*left)->Abort());
    }
    ASSIGN_OR_RETURN(const std::unique_ptr<store::BlobUpload> upload, blobs.BeginUpload(id));
    const ByteView bytes = AsBytes(content_);
    for (size_t at = 0; at < bytes.size(); at += kPiece) {
      const Result<void> written = upload->Append(
          ByteCount::Bytes(at), bytes.subspan(at, std::min(kPiece, bytes.size() - at)));
      if (!written.has_value()) {
        (void)upload->Abort();
        return written.error();
      }
    }
    return context_.contents.Publish(*upload, "");
  }

  Result<void> Record(const std::string& digest, int64_t paths) {
    ASSIGN_OR_RETURN(list_, context_.controller.resources().Modify<v1::AllowList>(
                                list_.metadata().name(),
                                [&](v1::AllowList& current) -> Result<ResourceStore::Change> {
                                  if (current.metadata().uid() != list_.metadata().uid()) {
                                    return Conflict("the allow list was deleted meanwhile");
                                  }
                                  v1::AllowListStatus& status = *current.mutable_status();
                                  status.set_sha256(digest);
                                  status.set_size_bytes(static_cast<int64_t>(content_.size()));
                                  status.set_paths(paths);
                                  return ResourceStore::Change::kWrite;
                                }));
    return context_.controller.view().WaitFor(list_.metadata().revision());
  }

  RestContext& context_;
  v1::AllowList list_;
  std::string user_;
  std::string content_;
};

Result<std::unique_ptr<http::UploadSink>> Start(RestContext& context, const Request& request,
                                                const Principal& principal) {
  ASSIGN_OR_RETURN(const AnyResource found,
                   FindVisible(context, principal, Kind::kAllowList, *request.Param("name")));
  RETURN_IF_ERROR(Authorize(principal, Verb::kUpdate, Kind::kAllowList, {}));
  return std::make_unique<AllowListUpload>(context, static_cast<const v1::AllowList&>(*found),
                                           principal.name);
}

}  // namespace

std::variant<Response, std::unique_ptr<http::UploadSink>> StartAllowListUpload(
    RestContext& context, const Request& request, const Principal& principal) {
  Result<std::unique_ptr<http::UploadSink>> sink = Start(context, request, principal);
  if (!sink.has_value()) return http::ProblemResponse(sink.error());
  return *std::move(sink);
}

}  // namespace vallum::controller
