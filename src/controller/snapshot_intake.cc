// SPDX-License-Identifier: Apache-2.0
// The part of Snapshots that hosts talk to.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/text.h"
#include "controller/snapshots.h"
#include "formats/qcow2_writer.h"
#include "tls/file.h"

namespace vallum::controller {
namespace {

constexpr size_t kMaxOrigin = 500;

std::string UploadId(const std::string& uid, const std::string& part) { return uid + "-" + part; }

Result<std::unique_ptr<store::BlobUpload>> BeginAnew(store::BlobStore& blobs,
                                                     const std::string& id) {
  // Left by an attempt that broke off.
  if (auto left = blobs.ResumeUpload(id); left.has_value()) {
    RETURN_IF_ERROR((*left)->Abort());
  }
  return blobs.BeginUpload(id);
}

// Context that a sealed part is bound to.
std::string SealedAs(const std::string& uid, const std::string& part) {
  return "snapshot " + uid + " " + part;
}

class Intake final : public SnapshotIntake {
 public:
  Intake(Snapshots& owner, std::shared_ptr<ReceivedSnapshot> received, uint64_t max_disk)
      : owner_(owner), received_(std::move(received)), max_disk_(max_disk) {}

  ~Intake() override {
    Wipe(buffer_);
    if (upload_ != nullptr) static_cast<void>(upload_->Abort());
    if (received_ == nullptr) return;  // it is with the keeper
    for (auto& [name, part] : received_->parts) {
      part.claim.reset();
      owner_.parts().contents.RemoveUnused(part.part.sha256());
    }
    owner_.NoteBroken(received_->uid);
  }

  Result<void> Take(v1::SnapshotChunk chunk) override {
    RETURN_IF_ERROR(owner_.StillTaking(*received_));
    switch (chunk.content_case()) {
      case v1::SnapshotChunk::kPart:
        return BeginPart(chunk.part());
      case v1::SnapshotChunk::kData:
        return TakeData(AsBytes(chunk.data()));
      case v1::SnapshotChunk::kPartSha256:
        return EndPart(chunk.part_sha256());
      case v1::SnapshotChunk::kRefusal: {
        const Error why =
            Conflict("the host did not take it: " + Printable(chunk.refusal().reason(), 800))
                .WithFix(Printable(chunk.refusal().fix(), 500));
        owner_.NoteRefusal(received_->name, received_->uid, why);
        return why;
      }
      case v1::SnapshotChunk::kHeader:
      case v1::SnapshotChunk::kComplete:
      case v1::SnapshotChunk::CONTENT_NOT_SET:
        break;
    }
    return InvalidInput("a message of a snapshot came where it cannot be");
  }

  void Finish(std::function<void(Result<void>)> done) override {
    if (!part_.empty()) {
      done(InvalidInput("the snapshot ended in the middle of part " + part_));
      return;
    }
    received_->done = std::move(done);
    owner_.NoteComplete(std::exchange(received_, nullptr));
  }

 private:
  Result<void> BeginPart(const v1::SnapshotPartBegin& begin) {
    const bool is_disk = begin.name() == "disk";
    if (!part_.empty() || received_->parts.contains(begin.name()) ||
        !(is_disk || begin.name() == "variables" || begin.name() == "tpm")) {
      return InvalidInput("part \"" + Printable(begin.name(), 40) + "\" came where it cannot be");
    }
    const uint64_t most = is_disk ? max_disk_ : kMaxSnapshotPart;
    if (begin.size_bytes() <= 0 || static_cast<uint64_t>(begin.size_bytes()) > most) {
      return Exhausted("part " + begin.name() + " has " + std::to_string(begin.size_bytes()) +
                       " bytes, 1 to " + std::to_string(most) + " are taken");
    }
    part_ = begin.name();
    size_ = static_cast<uint64_t>(begin.size_bytes());
    taken_ = 0;
    if (!is_disk) {
      buffer_.reserve(size_);
      return Ok();
    }
    ASSIGN_OR_RETURN(upload_, BeginAnew(owner_.parts().blobs, UploadId(received_->uid, part_)));
    return Ok();
  }

  Result<void> TakeData(ByteView data) {
    if (part_.empty() || data.size() > size_ - taken_) {
      return InvalidInput("more bytes came than part \"" + part_ + "\" was said to have");
    }
    taken_ += data.size();
    if (upload_ == nullptr) {
      buffer_.insert(buffer_.end(), data.begin(), data.end());
      return Ok();
    }
    owner_.NoteProgress(received_->uid, taken_, size_);
    return upload_->Append(upload_->received(), data);
  }

  Result<void> EndPart(const std::string& sha256) {
    if (part_.empty() || taken_ != size_) {
      return InvalidInput("part \"" + part_ + "\" ended after " + std::to_string(taken_) + " of " +
                          std::to_string(size_) + " bytes");
    }
    ReceivedSnapshot::Part stored;
    if (upload_ != nullptr) {
      const std::unique_ptr<store::BlobUpload> upload = std::move(upload_);
      ASSIGN_OR_RETURN(stored.claim, owner_.parts().contents.Publish(*upload, ToLower(sha256)));
      stored.part.set_sha256(stored.claim->digest());
      stored.part.set_size_bytes(static_cast<int64_t>(size_));
    } else {
      if (ToHex(Sha256(buffer_)) != ToLower(sha256)) {
        return Corrupt("part " + part_ + " has not the digest that it was sent with");
      }
      ASSIGN_OR_RETURN(stored, owner_.StoreSealed(received_->uid, part_, buffer_));
      Wipe(buffer_);
      buffer_.clear();
    }
    received_->parts.emplace(std::exchange(part_, {}), std::move(stored));
    return Ok();
  }

  Snapshots& owner_;
  std::shared_ptr<ReceivedSnapshot> received_;
  const uint64_t max_disk_;
  std::string part_;  // that is coming; empty: none
  uint64_t size_ = 0;
  uint64_t taken_ = 0;
  Bytes buffer_;
  std::unique_ptr<store::BlobUpload> upload_;
};

}  // namespace

Result<std::shared_ptr<const v1::Snapshot>> Snapshots::StillTaking(
    const ReceivedSnapshot& received) const {
  auto snapshot = parts_.view.Get<v1::Snapshot>(received.name);
  if (snapshot == nullptr || snapshot->metadata().uid() != received.uid ||
      snapshot->status().state() != v1::SNAPSHOT_TAKING) {
    return NotFound("this snapshot is no longer asked for");
  }
  return snapshot;
}

Result<std::unique_ptr<SnapshotIntake>> Snapshots::Open(const std::string& host,
                                                        const v1::SnapshotHeader& header) {
  for (const auto& snapshot : parts_.view.All<v1::Snapshot>()) {
    if (snapshot->metadata().uid() != header.snapshot_uid() ||
        snapshot->status().state() != v1::SNAPSHOT_TAKING) {
      continue;
    }
    const auto instance = parts_.view.Get<v1::Instance>(snapshot->spec().instance());
    if (instance == nullptr || instance->metadata().uid() != snapshot->status().instance_uid() ||
        instance->status().host() != host) {
      break;
    }
    {
      const std::lock_guard lock(mutex_);
      Attempt& attempt = attempts_[header.snapshot_uid()];
      if (attempt.open) return Conflict("the host is sending this snapshot already");
      attempt.open = true;
      attempt.progressed = parts_.clock.Monotonic();
    }
    auto received = std::make_shared<ReceivedSnapshot>();
    received->name = snapshot->metadata().name();
    received->uid = snapshot->metadata().uid();
    received->variable_origin = Printable(header.variable_origin(), kMaxOrigin);
    const auto disk =
        static_cast<uint64_t>(std::max<int64_t>(instance->spec().disk_bytes(), 0)) + 512;
    return std::make_unique<Intake>(*this, std::move(received),
                                    formats::MaxQcow2FileSize(disk / 512 * 512));
  }
  return Denied("this host was not asked for this snapshot");
}

void Snapshots::NoteProgress(const std::string& uid, uint64_t done, uint64_t total) {
  const std::lock_guard lock(mutex_);
  Attempt& attempt = attempts_[uid];
  attempt.percent = total == 0 ? 0 : static_cast<int>(done * 99 / total);
  attempt.progressed = parts_.clock.Monotonic();
}

void Snapshots::NoteRefusal(const std::string& name, const std::string& uid, const Error& why) {
  {
    const std::lock_guard lock(mutex_);
    work_.refused.push_back({.name = name, .uid = uid, .why = why});
  }
  wake_.notify_one();
}

void Snapshots::NoteComplete(std::shared_ptr<ReceivedSnapshot> received) {
  {
    const std::lock_guard lock(mutex_);
    if (!stopping_) {
      work_.complete.push_back(std::move(received));
      received = nullptr;
    }
  }
  if (received != nullptr) {
    received->done(Unavailable("the controller stops"));
    return;
  }
  wake_.notify_one();
}

void Snapshots::NoteBroken(const std::string& uid) {
  const std::lock_guard lock(mutex_);
  if (const auto found = attempts_.find(uid); found != attempts_.end()) {
    found->second.open = false;
  }
}

Result<ReceivedSnapshot::Part> Snapshots::StoreSealed(const std::string& uid,
                                                      const std::string& part, ByteView content) {
  if (content.size() > kMaxSnapshotPart) {
    return Exhausted("part " + part + " is larger than " + std::to_string(kMaxSnapshotPart) +
                     " bytes");
  }
  ASSIGN_OR_RETURN(const Bytes sealed, parts_.sealer.Seal(content, SealedAs(uid, part)));
  ASSIGN_OR_RETURN(const auto upload, BeginAnew(parts_.blobs, UploadId(uid, part)));
  RETURN_IF_ERROR(upload->Append(ByteCount(), sealed));
  ReceivedSnapshot::Part stored;
  ASSIGN_OR_RETURN(stored.claim, parts_.contents.Publish(*upload, ""));
  stored.part.set_sha256(stored.claim->digest());
  stored.part.set_size_bytes(static_cast<int64_t>(sealed.size()));
  stored.part.set_content_sha256(ToHex(Sha256(content)));
  return stored;
}

Result<SecretBytes> Snapshots::OpenPart(const v1::Snapshot& snapshot,
                                        const std::string& part) const {
  const v1::SnapshotStatus& status = snapshot.status();
  const v1::SnapshotPart& wanted = part == "tpm" ? status.tpm() : status.variables();
  if ((part != "tpm" && part != "variables") || wanted.sha256().empty()) {
    return NotFound("snapshot \"" + snapshot.metadata().name() + "\" has no part \"" +
                    Printable(part, 40) + "\"");
  }
  ASSIGN_OR_RETURN(const store::OpenBlob blob, parts_.blobs.Open(wanted.sha256()));
  if (blob.size.bytes() > kMaxSnapshotPart + kSealOverhead) {
    return Corrupt("the sealed part is too large");
  }
  ASSIGN_OR_RETURN(const Bytes sealed,
                   tls::ReadSmallFile(blob.path, kMaxSnapshotPart + kSealOverhead));
  return parts_.sealer.Open(sealed, SealedAs(snapshot.metadata().uid(), part));
}

Result<SecretBytes> Snapshots::ReadPart(const std::string& host,
                                        const v1::FetchSnapshotPartRequest& request) {
  for (const auto& instance : parts_.view.All<v1::Instance>()) {
    if (instance->metadata().uid() != request.instance_uid() || instance->status().host() != host) {
      continue;
    }
    const auto snapshot = parts_.view.Get<v1::Snapshot>(instance->spec().snapshot());
    if (snapshot == nullptr) break;
    if (request.part() == "tpm" && instance->spec().tpm_origin() != v1::TPM_ORIGIN_COPY) {
      return Denied("the instance has a vTPM of its own");
    }
    return OpenPart(*snapshot, request.part());
  }
  return Denied("no instance of this host is made from that snapshot");
}

}  // namespace vallum::controller
