// SPDX-License-Identifier: Apache-2.0
#include "agent/snapshot_taker.h"

#include <fcntl.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "agent/instance_files.h"
#include "agent/instance_variables.h"
#include "agent/launch_plan.h"
#include "agent/state_files.h"
#include "base/digest.h"
#include "base/secret_bytes.h"
#include "base/text.h"
#include "images/inspection.h"
#include "store/file.h"

namespace vallum::agent {
namespace {

// What the controller keeps in memory to seal it.
constexpr ByteCount kPartLimit = ByteCount::MiB(2);
constexpr size_t kChunk = size_t{1} << 20U;

// One call of UploadSnapshot.
class Upload {
 public:
  Upload(const ChannelSlot& channel, const std::stop_token& stop)
      : stopper_(stop, [this] { context_.TryCancel(); }),
        writer_(v1::AgentGateway::NewStub(channel.Get())->UploadSnapshot(&context_, &reply_)) {}

  Result<void> Write(const v1::SnapshotChunk& chunk) {
    if (writer_->Write(chunk)) return Ok();
    return End();
  }

  Result<void> Data(ByteView bytes) {
    hasher_.Update(bytes);
    while (!bytes.empty()) {
      const size_t count = std::min(bytes.size(), kChunk);
      v1::SnapshotChunk chunk;
      chunk.set_data(bytes.data(), count);
      RETURN_IF_ERROR(Write(chunk));
      bytes = bytes.subspan(count);
    }
    return Ok();
  }

  Result<void> Begin(const std::string& part, uint64_t size) {
    hasher_ = Hasher(HashAlgorithm::kSha256);
    v1::SnapshotChunk chunk;
    chunk.mutable_part()->set_name(part);
    chunk.mutable_part()->set_size_bytes(static_cast<int64_t>(size));
    return Write(chunk);
  }

  Result<void> EndPart() {
    v1::SnapshotChunk chunk;
    chunk.set_part_sha256(ToHex(hasher_.Finish()));
    return Write(chunk);
  }

  Result<void> Whole(const std::string& part, ByteView content) {
    RETURN_IF_ERROR(Begin(part, content.size()));
    RETURN_IF_ERROR(Data(content));
    return EndPart();
  }

  // Waits for the controller's word on it.
  Result<void> Finish() {
    writer_->WritesDone();
    const grpc::Status status = writer_->Finish();
    ended_ = true;
    return status.ok() ? Ok() : Result<void>(FromStatus(status, "sending a snapshot"));
  }

  ~Upload() {
    if (ended_) return;
    context_.TryCancel();
    static_cast<void>(writer_->Finish());
  }
  Upload(const Upload&) = delete;
  Upload& operator=(const Upload&) = delete;

 private:
  Error End() {
    const Result<void> ended = Finish();
    return ended.has_value() ? Unavailable("the controller ended the snapshot early")
                             : ended.error();
  }

  grpc::ClientContext context_;
  v1::UploadSnapshotReply reply_;
  const std::stop_callback<std::function<void()>> stopper_;
  std::unique_ptr<grpc::ClientWriter<v1::SnapshotChunk>> writer_;
  Hasher hasher_{HashAlgorithm::kSha256};
  bool ended_ = false;
};

v1::SnapshotChunk Header(const v1::TakeSnapshot& request, const std::string& origin) {
  v1::SnapshotChunk chunk;
  chunk.mutable_header()->set_snapshot_uid(request.snapshot_uid());
  chunk.mutable_header()->set_variable_origin(origin);
  return chunk;
}

}  // namespace

std::filesystem::path TpmStateFile(const InstancePaths& paths) {
  return paths.tpm_dir / "tpm2-00.permall";
}

Result<void> SnapshotTaker::Send(const v1::TakeSnapshot& request,
                                 const v1::DesiredInstance& desired,
                                 const v1::BootEffective& effective, const InstancePaths& paths,
                                 const std::filesystem::path& image,
                                 const std::stop_token& stop) const {
  // Small ones first: what is missing is known before much was sent.
  Bytes variables;
  if (effective.type() == v1::BOOT_TYPE_UEFI) {
    ASSIGN_OR_RETURN(variables, ReadWholeFile(paths.variables, kPartLimit));
  }
  SecretBytes tpm;
  if (effective.tpm_model() != "none") {
    ASSIGN_OR_RETURN(Bytes state, ReadWholeFile(TpmStateFile(paths), kPartLimit));
    tpm = SecretBytes::TakeAndWipe(state);
  }
  ASSIGN_OR_RETURN(const store::UniqueFd overlay, store::OpenFile(paths.root_disk, O_RDONLY));
  ASSIGN_OR_RETURN(const store::UniqueFd base, store::OpenFile(image, O_RDONLY));
  ASSIGN_OR_RETURN(const images::DeclaredFormat format,
                   images::ParseDeclaredFormat(desired.image_format()));
  ASSIGN_OR_RETURN(const ByteCount size, RootDiskSize(desired));

  Upload upload(channel_, stop);
  RETURN_IF_ERROR(upload.Write(Header(request, LoadVariableOrigin(paths))));
  if (!variables.empty()) {
    RETURN_IF_ERROR(upload.Whole("variables", variables));
  }
  if (!tpm.empty()) {
    RETURN_IF_ERROR(upload.Whole("tpm", tpm.Reveal(SecretAccess("sending a vTPM's state"))));
  }
  const uint64_t virtual_size = (size.bytes() + 511) / 512 * 512;
  RETURN_IF_ERROR(converter_.Flatten(
      overlay.get(), base.get(), format, virtual_size,
      [&](uint64_t bytes) { return upload.Begin("disk", bytes); },
      [&](ByteView bytes) { return upload.Data(bytes); }, {}));
  RETURN_IF_ERROR(upload.EndPart());
  v1::SnapshotChunk last;
  last.set_complete(true);
  RETURN_IF_ERROR(upload.Write(last));
  return upload.Finish();
}

void SnapshotTaker::Refuse(const v1::TakeSnapshot& request, const Error& why) const {
  Upload upload(channel_, {});
  v1::SnapshotChunk refusal;
  refusal.mutable_refusal()->set_reason(Printable(why.Describe(), 800));
  refusal.mutable_refusal()->set_fix(Printable(why.fix(), 500));
  // One that does not arrive is asked for again.
  if (upload.Write(Header(request, {})).has_value() && upload.Write(refusal).has_value()) {
    static_cast<void>(upload.Finish());
  }
}

Result<Bytes> SnapshotTaker::Fetch(const std::string& uid, const std::string& part,
                                   const std::string& sha256) const {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  v1::FetchSnapshotPartRequest request;
  request.set_instance_uid(uid);
  request.set_part(part);
  v1::BlobChunk reply;
  const grpc::Status status =
      v1::AgentGateway::NewStub(channel_.Get())->FetchSnapshotPart(&context, request, &reply);
  if (!status.ok()) return FromStatus(status, "fetching the " + part + " of a snapshot");
  Bytes content = ToBytes(AsBytes(reply.data()));
  Wipe(std::as_writable_bytes(std::span<char>(*reply.mutable_data())));
  if (ToHex(Sha256(content)) != sha256) {
    Wipe(content);
    return Corrupt("the controller sent another " + part + " than the snapshot has");
  }
  return content;
}

Result<void> SnapshotTaker::PlaceParts(const v1::DesiredInstance& desired,
                                       const InstancePaths& paths) const {
  std::error_code failure;
  // The disk is made after these, so without one nothing was started from them.
  if (!desired.has_snapshot() || std::filesystem::exists(paths.root_disk, failure)) return Ok();
  const v1::SnapshotSource& source = desired.snapshot();
  RETURN_IF_ERROR(MakeDirectory(paths.directory, 0711));
  if (!source.variables_sha256().empty()) {
    ASSIGN_OR_RETURN(const Bytes content,
                     Fetch(desired.uid(), "variables", source.variables_sha256()));
    // First: a store without it counts as the guest's own. What the snapshot says of itself may be
    // anybody's words.
    RETURN_IF_ERROR(StoreVariableOrigin(paths, kPlacedOrigin));
    RETURN_IF_ERROR(WriteFileAtomically(paths.variables, content, 0600));
  }
  if (!source.tpm_sha256().empty()) {
    RETURN_IF_ERROR(MakeDirectory(paths.tpm_dir, 0700));
    RemoveLeftovers(paths.tpm_dir);
    ASSIGN_OR_RETURN(Bytes content, Fetch(desired.uid(), "tpm", source.tpm_sha256()));
    const SecretBytes state = SecretBytes::TakeAndWipe(content);
    RETURN_IF_ERROR(WriteFileAtomically(TpmStateFile(paths),
                                        state.Reveal(SecretAccess("placing a copied vTPM")), 0600));
  }
  return Ok();
}

}  // namespace vallum::agent
