// SPDX-License-Identifier: Apache-2.0
#include "controller/rest_images.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "base/units.h"
#include "controller/content_claims.h"
#include "controller/controller.h"
#include "controller/principal.h"
#include "controller/resource_store.h"
#include "controller/rest_context.h"
#include "http/message.h"
#include "http/router.h"
#include "images/inspection.h"
#include "store/blob_store.h"

namespace vallum::controller {
namespace {

using http::Request;
using http::Response;

// received_bytes is stored this often, so that others see an upload move without a commit for each
// chunk.
constexpr uint64_t kProgressStep = uint64_t{64} << 20U;

Result<uint64_t> ParseSize(const Request& request, std::string_view name, uint64_t fallback) {
  const std::optional<std::string> text = request.Query(name);
  if (!text.has_value()) return fallback;
  uint64_t value = 0;
  const char* end = text->data() + text->size();
  const auto parsed = std::from_chars(text->data(), end, value);
  if (parsed.ec != std::errc() || parsed.ptr != end) {
    return InvalidInput(std::string(name) + "=" + Printable(*text, 40) +
                        " is not a number of bytes");
  }
  return value;
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
  for (const images::BootBinary& binary : found.boot_binaries) {
    v1::BootBinary& out = *status.add_boot_binaries();
    out.set_path(binary.path);
    out.set_authenticode_sha256(binary.authenticode_sha256);
    out.set_signer(binary.signer);
    out.set_vendor_cert(std::string(AsText(binary.vendor_cert_section)));
    out.set_sbat_level(std::string(AsText(binary.sbat_level_section)));
    for (const Bytes& certificate : binary.certificates) {
      out.add_signer_certificates(std::string(AsText(certificate)));
    }
  }
}

class ImageUpload final : public http::UploadSink {
 public:
  ImageUpload(RestContext& context, v1::Image image, std::string user, uint64_t total,
              std::unique_ptr<store::BlobUpload> upload)
      : context_(context),
        image_(std::move(image)),
        user_(std::move(user)),
        total_(total),
        upload_(std::move(upload)) {}

  // Broken off: what arrived is kept, and said, for the client to go on.
  ~ImageUpload() override {
    if (upload_ != nullptr) (void)SaveProgress();
  }

  Result<void> Write(ByteView chunk) override {
    if (total_ != 0 && chunk.size() > total_ - upload_->received().bytes()) {
      return InvalidInput("more bytes came than total=" + std::to_string(total_))
          .WithFix("send the file's real size");
    }
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

  Result<void> SaveProgress() {
    saved_ = upload_->received().bytes();
    return Modify([&](v1::ImageStatus& status) {
      status.set_state(v1::IMAGE_IMPORTING);
      status.set_received_bytes(static_cast<int64_t>(saved_));
    });
  }

  Result<Response> Complete() {
    std::string content;
    Result<Response> response = Complete(content);
    // Only now, when this upload no longer claims it.
    if (!response.has_value()) context_.contents.RemoveUnused(content);
    return response;
  }

  // Sets `content` to the digest of what was published.
  Result<Response> Complete(std::string& content) {
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
    content = (*claim)->digest();
    return Accept(**claim);
  }

  Result<Response> Accept(const ContentClaims::Claim& claim) {
    Result<images::InspectedImage> inspected = Inspect(claim.digest());
    // Only what the content is decides on the content: when the inspector cannot run, the last part
    // may be sent again.
    if (!inspected.has_value() && inspected.error().code() != ErrorCode::kInvalidInput &&
        inspected.error().code() != ErrorCode::kCorrupt) {
      return std::move(inspected).error().Context("the image was not inspected");
    }
    if (!inspected.has_value()) return Refuse(std::move(inspected).error());
    RETURN_IF_ERROR(Modify([&](v1::ImageStatus& status) {
      status.Clear();
      FillStatus(*inspected, claim.digest(), status);
    }));
    Append("image.imported", "info",
           "image " + image_.metadata().name() + " is ready, sha256 " + claim.digest());
    return ResourceResponse(200, image_);
  }

  Result<images::InspectedImage> Inspect(const std::string& digest) {
    ASSIGN_OR_RETURN(const images::DeclaredFormat declared,
                     images::ParseDeclaredFormat(image_.spec().disk_format()));
    ASSIGN_OR_RETURN(const store::OpenBlob blob, context_.controller.blobs().Open(digest));
    ASSIGN_OR_RETURN(const Bytes raw, FromHex(digest));
    Sha256Digest bound{};
    std::copy(raw.begin(), raw.end(), bound.begin());
    return context_.inspector.Inspect(blob.fd.get(), declared, bound);
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
  std::unique_ptr<store::BlobUpload> upload_;
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
  ASSIGN_OR_RETURN(const uint64_t offset, ParseSize(request, "offset", 0));
  ASSIGN_OR_RETURN(
      const uint64_t total,
      ParseSize(request, "total", static_cast<uint64_t>(image.spec().expected_size_bytes())));
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
