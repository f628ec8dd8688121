// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "base/text.h"
#include "controller/gateway_impl.h"
#include "controller/snapshot_receiver.h"

namespace vallum::controller {
namespace {

// Receives one snapshot. Deletes itself.
class SnapshotReactor final : public grpc::ServerReadReactor<v1::SnapshotChunk> {
 public:
  SnapshotReactor(Gateway::Impl& gateway, std::string host)
      : gateway_(gateway), host_(std::move(host)) {
    gateway_.live().Add();
  }
  void Begin() { StartRead(&chunk_); }

  void OnReadDone(bool ok) override {
    if (!ok) {
      intake_.reset();
      Finish({grpc::StatusCode::ABORTED, "the snapshot ended before its last message"});
      return;
    }
    const Result<Next> taken = Take();
    if (!taken.has_value()) {
      intake_.reset();
      Finish(ToGrpcStatus(taken.error()));
    } else if (*taken == Next::kRead) {
      StartRead(&chunk_);
    } else {
      intake_->Finish([this](const Result<void>& kept) {
        Finish(kept.has_value() ? grpc::Status::OK : ToGrpcStatus(kept.error()));
      });
    }
  }

  void OnDone() override {
    intake_.reset();
    LiveCalls& live = gateway_.live();
    delete this;
    live.Remove();
  }

 private:
  enum class Next { kRead, kFinish };
  Result<Next> Take() {
    if (intake_ == nullptr) {
      if (!chunk_.has_header()) return InvalidInput("the first message must be the header");
      ASSIGN_OR_RETURN(intake_, gateway_.parts().snapshots.Open(host_, chunk_.header()));
      return Next::kRead;
    }
    if (chunk_.content_case() == v1::SnapshotChunk::kComplete) return Next::kFinish;
    RETURN_IF_ERROR(intake_->Take(std::move(chunk_)));
    chunk_.Clear();
    return Next::kRead;
  }

  Gateway::Impl& gateway_;
  const std::string host_;
  v1::SnapshotChunk chunk_;
  std::unique_ptr<SnapshotIntake> intake_;
};

}  // namespace

grpc::ServerReadReactor<v1::SnapshotChunk>* Gateway::Impl::UploadSnapshot(
    grpc::CallbackServerContext* context, v1::UploadSnapshotReply* /*reply*/) {
  Result<std::string> host = IdentifyHost(*context);
  if (!host.has_value()) {
    return new Refusal<grpc::ServerReadReactor<v1::SnapshotChunk>>(live_,
                                                                   ToGrpcStatus(host.error()));
  }
  auto* reactor = new SnapshotReactor(*this, *std::move(host));
  reactor->Begin();
  return reactor;
}

grpc::ServerUnaryReactor* Gateway::Impl::FetchSnapshotPart(
    grpc::CallbackServerContext* context, const v1::FetchSnapshotPartRequest* request,
    v1::BlobChunk* reply) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const Result<std::string> host = IdentifyHost(*context);
  if (!host.has_value()) {
    reactor->Finish(ToGrpcStatus(host.error()));
    return reactor;
  }
  if (const auto may = CheckTrusted(*host, request->instance_uid()); !may.has_value()) {
    reactor->Finish(ToRefusal(may.error()));
    return reactor;
  }
  const Result<SecretBytes> part = parts_.snapshots.ReadPart(*host, *request);
  if (!part.has_value()) {
    reactor->Finish(ToGrpcStatus(part.error()));
    return reactor;
  }
  reply->set_data(
      std::string(AsText(part->Reveal(SecretAccess("sending a snapshot's part to its host")))));
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace vallum::controller
