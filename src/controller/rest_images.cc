// SPDX-License-Identifier: Apache-2.0
#include "controller/rest_images.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "base/units.h"
#include "controller/boot_binary.h"
#include "controller/content_claims.h"
#include "controller/controller.h"
#include "controller/principal.h"
#include "controller/resource_store.h"
#include "controller/rest_context.h"
#include "controller/rest_query.h"
#include "formats/stream_capture.h"
#include "http/message.h"
#include "http/router.h"
#include "images/confined_converter.h"
#include "images/convert.h"
#include "images/front_inspection.h"
#include "images/inspection.h"
#include "store/blob_store.h"

namespace vallum::controller {
namespace {

using http::Request;
using http::Response;

// received_bytes is stored this often, so that others see an upload move without a commit for each
// chunk.
constexpr uint64_t kProgressStep = uint64_t{64} << 20U;

void FillReport(const images::KeySetReport& report, v1::BootReport& out) {
  out.set_key_set(report.key_set);
  out.set_readiness(std::string(images::ReadinessName(report.readiness)));
  out.set_bootable(std::string(images::BootableName(report.bootable)));
  out.mutable_reasons()->Assign(report.reasons.begin(), report.reasons.end());
  out.mutable_fixes()->Assign(report.fixes.begin(), report.fixes.end());
  for (const images::LinkReport& link : report.chain) {
    v1::BootLink& to = *out.add_chain();
    to.set_path(link.path);
    to.set_role(std::string(images::LinkRoleName(link.role)));
    to.set_authenticode_sha256(link.authenticode_sha256);
    to.set_signer(link.signer);
    to.mutable_sbat()->Assign(link.sbat.begin(), link.sbat.end());
    to.set_verified_by(link.verified_by);
    to.set_allowed(link.allowed);
    to.set_authority(link.authority);
    to.mutable_reasons()->Assign(link.reasons.begin(), link.reasons.end());
    to.mutable_fixes()->Assign(link.fixes.begin(), link.fixes.end());
  }
}

void FillStatus(const images::InspectedImage& image, const std::string& digest,
                v1::ImageStatus& status) {
  const images::Inspection& found = image.inspection();
  status.set_state(v1::IMAGE_READY);
  status.set_sha256(digest);
  status.set_size_bytes(static_cast<int64_t>(found.file_size));
  status.set_received_bytes(static_cast<int64_t>(found.file_size));
  status.set_virtual_size_bytes(static_cast<int64_t>(found.virtual_size));
  status.set_detected_format(std::string(images::DeclaredFormatName(found.format)));
  status.set_content_format(std::string(images::ContentFormatName(found.content)));
  status.set_bootable(found.bootable);
  for (const std::string& fact : found.facts) status.add_facts(fact);
  status.set_subformat(found.subformat);
  status.set_cluster_size_bytes(static_cast<int64_t>(found.cluster_size));
  for (const images::KeySetReport& report : found.reports) {
    FillReport(report, *status.add_boot_reports());
  }
  AddBootBinaries(found, *status.mutable_boot_binaries());
}

void FillSource(const images::InspectedImage& image, const std::string& digest,
                v1::ImageStatus& status) {
  const images::Inspection& found = image.inspection();
  status.set_source_format(std::string(images::DeclaredFormatName(found.format)));
  status.set_source_sha256(digest);
  status.set_subformat(found.subformat);
  status.set_cluster_size_bytes(static_cast<int64_t>(found.cluster_size));
  for (const std::string& fact : found.facts) {
    // What is inside the disk is still the same.
    if (std::ranges::find(status.facts(), fact) == status.facts().end()) {
      status.add_facts("before conversion: " + fact);
    }
  }
}

// What an import is converted to; nothing when it is kept as it came.
//   wanted: spec.store_format, which was validated.
std::optional<images::StoreFormat> ConversionOf(images::DeclaredFormat declared,
                                                const std::string& wanted) {
  using images::DeclaredFormat;
  const bool is_qcow2 = declared == DeclaredFormat::kQcow2;
  const bool is_raw = declared == DeclaredFormat::kGpt || declared == DeclaredFormat::kMbr ||
                      declared == DeclaredFormat::kRaw;
  if (!images::IsDiskFormat(declared)) return std::nullopt;
  const Result<images::StoreFormat> target = images::ParseStoreFormat(wanted);
  if (!target.has_value()) {
    return is_qcow2 || is_raw ? std::nullopt : std::optional(images::StoreFormat::kQcow2);
  }
  const bool kept = *target == images::StoreFormat::kQcow2 ? is_qcow2 : is_raw;
  return kept ? std::nullopt : std::optional(*target);
}

images::DeclaredFormat StoredAs(images::StoreFormat target, images::ContentFormat content) {
  if (target == images::StoreFormat::kQcow2) return images::DeclaredFormat::kQcow2;
  switch (content) {
    case images::ContentFormat::kGpt:
      return images::DeclaredFormat::kGpt;
    case images::ContentFormat::kMbr:
      return images::DeclaredFormat::kMbr;
    case images::ContentFormat::kRaw:
      return images::DeclaredFormat::kRaw;
  }
  return images::DeclaredFormat::kRaw;
}

class ImageUpload final : public http::UploadSink {
 public:
  ImageUpload(RestContext& context, v1::Image image, std::string user, uint64_t total,
              std::unique_ptr<store::BlobUpload> upload)
      : context_(context),
        image_(std::move(image)),
        user_(std::move(user)),
        total_(total),
        upload_(std::move(upload)) {
    // An upload that goes on was judged by its beginning before.
    if (upload_->received().bytes() != 0) return;
    front_ = std::make_unique<formats::StreamCapture>();
    CHECK(front_->Keep(0, images::kFrontBytes).has_value());
  }

  // Broken off: what arrived is kept, and said, for the client to go on.
  ~ImageUpload() override {
    if (upload_ != nullptr) (void)SaveProgress();
  }

  Result<void> Write(ByteView chunk) override {
    if (total_ != 0 && chunk.size() > total_ - upload_->received().bytes()) {
      return InvalidInput("more bytes came than total=" + std::to_string(total_))
          .WithFix("send the file's real size");
    }
    RETURN_IF_ERROR(JudgeFront(chunk));
    RETURN_IF_ERROR(upload_->Append(upload_->received(), chunk));
    if (upload_->received().bytes() / kProgressStep != saved_ / kProgressStep)
      return SaveProgress();
    return Ok();
  }

  Response Finish() override {
    Result<Response> response = Complete();
    return response.has_value() ? *std::move(response) : http::ProblemResponse(response.error());
  }

 private:
  Result<void> Modify(const std::function<void(v1::ImageStatus&)>& change) {
    auto stored = context_.controller.resources().Modify<v1::Image>(
        image_.metadata().name(), [&](v1::Image& image) -> Result<ResourceStore::Change> {
          if (image.metadata().uid() != image_.metadata().uid())
            return Conflict("the image was deleted meanwhile");
          change(*image.mutable_status());
          return ResourceStore::Change::kWrite;
        });
    RETURN_IF_ERROR(stored);
    image_ = *std::move(stored);
    return context_.controller.view().WaitFor(image_.metadata().revision());
  }

  // Inspects the beginning as soon as it is there: what will be refused need not be sent whole.
  Result<void> JudgeFront(ByteView chunk) {
    if (front_ == nullptr) return Ok();
    RETURN_IF_ERROR(front_->Feed(chunk));
    if (front_->position() < images::kFrontBytes) return Ok();
    Bytes front(images::kFrontBytes);
    RETURN_IF_ERROR(front_->Read(0, front));
    front_.reset();
    ASSIGN_OR_RETURN(const images::DeclaredFormat declared,
                     images::ParseDeclaredFormat(image_.spec().disk_format()));
    const Result<void> judged = context_.inspector.InspectFront(front, total_, declared);
    // What cannot be inspected now is inspected at the end.
    if (judged.has_value() || judged.error().code() != ErrorCode::kInvalidInput) return Ok();
    static_cast<void>(upload_->Abort());
    upload_.reset();
    return Refuse(judged.error());
  }

  Result<void> SaveProgress() {
    saved_ = upload_->received().bytes();
    return Modify([&](v1::ImageStatus& status) {
      status.set_state(v1::IMAGE_IMPORTING);
      status.set_received_bytes(static_cast<int64_t>(saved_));
    });
  }

  Result<Response> Complete() {
    Result<Response> response = Publish();
    // Only now, when this upload no longer claims them: whatever the image is not kept as.
    for (const std::string& digest : published_) context_.contents.RemoveUnused(digest);
    return response;
  }

  Result<Response> Publish() {
    if (total_ != 0 && upload_->received().bytes() < total_) {
      RETURN_IF_ERROR(SaveProgress());
      upload_.reset();
      return ResourceResponse(200, image_);
    }
    const Result<std::unique_ptr<ContentClaims::Claim>> claim =
        context_.contents.Publish(*upload_, ToLower(image_.spec().expected_sha256()));
    upload_.reset();
    if (!claim.has_value()) {
      if (claim.error().code() != ErrorCode::kCorrupt) return Error(claim.error());
      return Refuse(InvalidInput("the content has not the digest of spec.expectedSha256: " +
                                 claim.error().message())
                        .WithFix("download the file again, or correct the digest"));
    }
    published_.push_back((*claim)->digest());
    return Accept(**claim);
  }

  Result<Response> Accept(const ContentClaims::Claim& claim) {
    ASSIGN_OR_RETURN(const images::DeclaredFormat declared,
                     images::ParseDeclaredFormat(image_.spec().disk_format()));
    Result<images::InspectedImage> inspected = Inspect(claim.digest(), declared);
    if (!inspected.has_value()) return Judge(std::move(inspected).error());
    const std::optional<images::StoreFormat> target =
        ConversionOf(declared, image_.spec().store_format());
    v1::ImageStatus status;
    std::unique_ptr<ContentClaims::Claim> converted;
    if (target.has_value()) {
      Result<std::unique_ptr<ContentClaims::Claim>> made = Convert(claim, *inspected, *target);
      if (!made.has_value()) return Judge(std::move(made).error());
      converted = *std::move(made);
      published_.push_back(converted->digest());
      // What came out is untrusted until it was looked at as anything else is.
      Result<images::InspectedImage> output =
          Inspect(converted->digest(), StoredAs(*target, inspected->inspection().content));
      if (!output.has_value()) return Judge(std::move(output).error().Context("after conversion"));
      FillStatus(*output, converted->digest(), status);
      FillSource(*inspected, claim.digest(), status);
    } else {
      FillStatus(*inspected, claim.digest(), status);
    }
    RETURN_IF_ERROR(Modify([&](v1::ImageStatus& current) { current = status; }));
    Append("image.imported", "info",
           "image " + image_.metadata().name() + " is ready, sha256 " + status.sha256());
    return ResourceResponse(200, image_);
  }

  // Only what the content is decides on the content: when the inspector cannot run, the last part
  // may be sent again.
  Result<Response> Judge(Error error) {
    if (error.code() == ErrorCode::kInvalidInput || error.code() == ErrorCode::kCorrupt) {
      return Refuse(std::move(error));
    }
    return std::move(error).Context("the image was not inspected");
  }

  Result<std::unique_ptr<ContentClaims::Claim>> Convert(const ContentClaims::Claim& source,
                                                        const images::InspectedImage& proof,
                                                        images::StoreFormat target) {
    store::BlobStore& blobs = context_.controller.blobs();
    const std::string id = image_.metadata().uid() + "-converted";
    // Left by a controller that ended in the middle.
    if (auto left = blobs.ResumeUpload(id); left.has_value()) {
      RETURN_IF_ERROR((*left)->Abort());
    }
    ASSIGN_OR_RETURN(const store::OpenBlob blob, blobs.Open(source.digest()));
    ASSIGN_OR_RETURN(const std::unique_ptr<store::BlobUpload> out, blobs.BeginUpload(id));
    const Result<void> converted = context_.converter.Convert(
        blob.fd.get(), proof, target,
        [&](ByteView bytes) { return out->Append(out->received(), bytes); },
        [&](uint64_t done, uint64_t total) { NoteConversion(done, total); });
    if (!converted.has_value()) {
      static_cast<void>(out->Abort());
      return Error(converted.error()).Context("while it was converted");
    }
    return context_.contents.Publish(*out, "");
  }

  // Progress for whoever looks; a commit for each large step only.
  void NoteConversion(uint64_t done, uint64_t total) {
    if (done / kProgressStep == noted_ / kProgressStep) return;
    noted_ = done;
    (void)Modify([&](v1::ImageStatus& status) {
      status.set_reason("converting: " + std::to_string(done) + " of " + std::to_string(total) +
                        " bytes");
    });
  }

  Result<images::InspectedImage> Inspect(const std::string& digest,
                                         images::DeclaredFormat declared) {
    ASSIGN_OR_RETURN(const store::OpenBlob blob, context_.controller.blobs().Open(digest));
    ASSIGN_OR_RETURN(const Sha256Digest bound, images::ParseSha256(digest));
    return context_.inspector.Inspect(blob.fd.get(), declared, bound,
                                      {.key_sets = context_.key_sets, .prediction = {}});
  }

  // Nothing of a refused image is kept but the event that says why.
  Error Refuse(Error reason) {
    const Result<store::Revision> gone = context_.controller.resources().Delete(
        Kind::kImage, image_.metadata().name(), image_.metadata().revision());
    // Who reads the answer and asks again must not find it any more.
    if (gone.has_value()) (void)context_.controller.view().WaitFor(*gone);
    Append("image.refused", "warning",
           "image " + image_.metadata().name() + " was refused: " + reason.Describe());
    return std::move(reason).Context("image " + image_.metadata().name() + " refused");
  }

  void Append(const std::string& kind, const std::string& severity, const std::string& message) {
    (void)context_.controller.events().Append({.kind = kind,
                                               .severity = severity,
                                               .object = "images/" + image_.metadata().name(),
                                               .user = user_,
                                               .message = Printable(message, 1000),
                                               .tenant = {}});
  }

  RestContext& context_;
  v1::Image image_;
  std::string user_;
  uint64_t total_;  // 0: this request brings the rest
  uint64_t saved_ = 0;
  uint64_t noted_ = 0;                             // of a conversion
  std::vector<std::string> published_;             // digests: what was uploaded and what it became
  std::unique_ptr<store::BlobUpload> upload_;      // nullptr once it has ended
  std::unique_ptr<formats::StreamCapture> front_;  // until the beginning was judged
};

Result<std::unique_ptr<store::BlobUpload>> OpenUpload(RestContext& context, const v1::Image& image,
                                                      uint64_t offset) {
  store::BlobStore& blobs = context.controller.blobs();
  Result<std::unique_ptr<store::BlobUpload>> upload = blobs.ResumeUpload(image.metadata().uid());
  if (!upload.has_value() && upload.error().code() == ErrorCode::kNotFound) {
    upload = blobs.BeginUpload(image.metadata().uid());
  }
  RETURN_IF_ERROR(upload);
  if ((*upload)->received().bytes() != offset) {
    const std::string have = std::to_string((*upload)->received().bytes());
    return Conflict("the upload of image " + image.metadata().name() + " is at offset " + have +
                    ", not " + std::to_string(offset))
        .WithFix("go on at offset=" + have);
  }
  return upload;
}

Result<std::unique_ptr<http::UploadSink>> Start(RestContext& context, const Request& request,
                                                const Principal& principal) {
  ASSIGN_OR_RETURN(const AnyResource found,
                   FindVisible(context, principal, Kind::kImage, *request.Param("name")));
  RETURN_IF_ERROR(Authorize(principal, Verb::kUpdate, Kind::kImage, MetadataOf(*found).tenant()));
  const auto& image = static_cast<const v1::Image&>(*found);
  if (image.status().state() == v1::IMAGE_READY) {
    return Conflict("image " + image.metadata().name() +
                    " has its content already; content is never changed")
        .WithFix("import it under another name");
  }
  ASSIGN_OR_RETURN(const uint64_t offset, ParseUnsigned(request, "offset", 0));
  ASSIGN_OR_RETURN(
      const uint64_t total,
      ParseUnsigned(request, "total", static_cast<uint64_t>(image.spec().expected_size_bytes())));
  ASSIGN_OR_RETURN(std::unique_ptr<store::BlobUpload> upload, OpenUpload(context, image, offset));
  if (total != 0 && offset > total) return InvalidInput("offset is past total");
  return std::make_unique<ImageUpload>(context, image, principal.name, total, std::move(upload));
}

}  // namespace

std::variant<Response, std::unique_ptr<http::UploadSink>> StartUpload(RestContext& context,
                                                                      const Request& request,
                                                                      const Principal& principal) {
  Result<std::unique_ptr<http::UploadSink>> sink = Start(context, request, principal);
  if (!sink.has_value()) return http::ProblemResponse(sink.error());
  return *std::move(sink);
}

}  // namespace vallum::controller
