// SPDX-License-Identifier: Apache-2.0
#include "controller/snapshots.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/text.h"
#include "controller/boot_binary.h"
#include "controller/deletion.h"
#include "controller/instance_origin.h"
#include "images/inspection.h"

namespace vallum::controller {
namespace {

using Write = ResourceStore::Change;

constexpr std::chrono::milliseconds kTick{1000};
constexpr std::chrono::seconds kAskAgain{10};
// A host that sends nothing for this long sends nothing more, and the instance is held as long. It
// reads the whole disk before it sends any of it.
constexpr std::chrono::minutes kProgress{10};
constexpr int kMaxAsked = 6;
// Between a temporary snapshot and the instance that it was taken for.
constexpr std::chrono::hours kTemporaryAge{1};
constexpr int kAttempts = 20;

std::string Target(const std::string& name) { return "snapshots/" + name; }

Error NotStopped(const v1::Instance& instance) {
  const std::string& name = instance.metadata().name();
  std::string phase = v1::InstancePhase_Name(instance.status().phase());
  phase = ToLower(phase.substr(phase.find('_') + 1));
  return Conflict("instance \"" + name + "\" is " + phase +
                  ": a snapshot holds disk, variables and vTPM as one, which only a stopped "
                  "instance has")
      .WithFix("`vallum instance stop " + name + " --wait`, then take the snapshot");
}

Result<void> CheckStopped(const v1::Instance& instance, Snapshots::Purpose purpose) {
  const v1::InstanceStatus& status = instance.status();
  const std::string& name = instance.metadata().name();
  if (instance.metadata().has_delete_time()) {
    return Conflict("instance \"" + name + "\" is being deleted");
  }
  if (!status.taking_snapshot().empty()) {
    return Conflict("snapshot \"" + status.taking_snapshot() + "\" of instance \"" + name +
                    "\" is being taken")
        .WithFix("wait for it");
  }
  const bool moves = purpose == Snapshots::Purpose::kMove;
  const bool ended =
      status.phase() == v1::INSTANCE_STOPPED || (moves && status.phase() == v1::INSTANCE_CRASHED);
  if ((!moves && instance.spec().power() != v1::POWER_STOPPED) || !ended ||
      status.observed_generation() < instance.metadata().generation()) {
    return NotStopped(instance);
  }
  if (status.host().empty() || !status.boot().has_effective()) {
    return Conflict("instance \"" + name + "\" was never started, so it has nothing of its own yet")
        .WithFix("make another instance from its image, or start and stop it once");
  }
  return Ok();
}

// Of the version that its spec names; empty: it has no key set.
std::string KeySetDigest(const View& view, const v1::Instance& instance) {
  const auto key_set = view.Get<v1::KeySet>(instance.spec().key_set());
  if (key_set == nullptr) return {};
  for (const v1::KeySetVersion& version : key_set->status().versions()) {
    if (version.version() == instance.spec().key_set_version()) return version.sha256();
  }
  return {};
}

// What a host must send.
bool NeedsVariables(const v1::Snapshot& snapshot) {
  return snapshot.status().boot().type() == v1::BOOT_TYPE_UEFI;
}
bool NeedsTpm(const v1::Snapshot& snapshot) {
  return snapshot.status().instance_spec().tpm_model() != "none";
}

}  // namespace

Result<void> Snapshots::Start(Gateway& gateway, View& view) {
  gateway_ = &gateway;
  subscribed_ = &view;
  ASSIGN_OR_RETURN(subscription_, view.Subscribe(0, [this](const Change& change) {
    if (change.kind != Kind::kSnapshot) return;
    {
      const std::lock_guard lock(mutex_);
      work_.changed.insert(change.name);
    }
    wake_.notify_one();
  }));
  thread_ = std::thread([this] { Run(); });
  return Ok();
}

void Snapshots::Stop() {
  if (!thread_.joinable()) return;
  subscribed_->Unsubscribe(subscription_);
  Work left;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
  {
    const std::lock_guard lock(mutex_);
    left = std::exchange(work_, Work{});
  }
  for (const auto& received : left.complete) received->done(Unavailable("the controller stops"));
}

void Snapshots::Run() {
  SettleAll();
  auto next = std::chrono::steady_clock::now() + kTick;
  while (true) {
    Work work;
    {
      std::unique_lock lock(mutex_);
      wake_.wait_until(lock, next, [&] {
        return stopping_ || !work_.complete.empty() || !work_.refused.empty() ||
               !work_.changed.empty();
      });
      if (stopping_) return;
      work = std::exchange(work_, Work{});
    }
    if (std::chrono::steady_clock::now() >= next) {
      work.tick = true;
      next = std::chrono::steady_clock::now() + kTick;
    }
    Do(work);
  }
}

void Snapshots::Failed(const Result<void>& result) const {
  if (result.has_value() || result.error().code() == ErrorCode::kNotFound) return;
  if (parts_.on_error) parts_.on_error(result.error());
}

void Snapshots::Do(Work& work) {
  for (const auto& received : work.complete) {
    const Result<void> kept = Keep(*received);
    Failed(kept);
    // What could not be kept now is asked for again.
    NoteBroken(received->uid);
    received->parts.clear();
    received->done(kept);
  }
  for (const Refusal& refusal : work.refused) {
    Failed(GiveUp(refusal.name, refusal.uid, refusal.why));
  }
  for (const std::string& name : work.changed) Failed(Settle(name));
  for (const auto& snapshot : parts_.view.All<v1::Snapshot>()) {
    const v1::SnapshotState state = snapshot->status().state();
    if (state == v1::SNAPSHOT_TAKING) {
      Failed(Drive(*snapshot));
    } else if (work.tick && snapshot->spec().temporary()) {
      Failed(DropTemporary(*snapshot));
    }
  }
}

void Snapshots::SettleAll() {
  for (const auto& snapshot : parts_.view.All<v1::Snapshot>()) {
    Failed(Settle(snapshot->metadata().name()));
  }
  for (const auto& instance : parts_.view.All<v1::Instance>()) {
    const std::string& taking = instance->status().taking_snapshot();
    if (!taking.empty()) Failed(Settle(taking));
  }
}

Result<Snapshots::Accepted> Snapshots::Create(v1::Snapshot snapshot, const Principal& who,
                                              Purpose purpose) {
  const std::string name = snapshot.metadata().name();
  RETURN_IF_ERROR(ValidateName("snapshot", name));
  if (purpose == Purpose::kKeep && name.starts_with(kMoveSnapshotPrefix)) {
    return InvalidInput("snapshots named " + std::string(kMoveSnapshotPrefix) +
                        "... are made when instances are moved")
        .WithFix("choose another name");
  }
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const std::string& of = snapshot.spec().instance();
    ASSIGN_OR_RETURN(const v1::Instance current, parts_.resources.Get<v1::Instance>(of));
    RETURN_IF_ERROR(CheckStopped(current, purpose));
    snapshot.mutable_metadata()->set_tenant(current.metadata().tenant());
    v1::SnapshotStatus& status = *snapshot.mutable_status();
    status.Clear();
    status.set_state(v1::SNAPSHOT_TAKING);
    status.set_instance_uid(current.metadata().uid());
    *status.mutable_instance_spec() = current.spec();
    *status.mutable_boot() = current.status().boot().requested();
    status.set_key_set_sha256(KeySetDigest(parts_.view, current));
    status.set_tpm_imported(HasImportedTpm(parts_.view, current.spec()));
    parts_.resources.PrepareCreate(snapshot);
    v1::Instance held = current;
    held.mutable_status()->set_taking_snapshot(name);
    v1::Operation operation = parts_.operations.Make("snapshot.create",
                                                     {.kind = Kind::kSnapshot,
                                                      .name = name,
                                                      .uid = snapshot.metadata().uid(),
                                                      .generation = 1,
                                                      .tenant = snapshot.metadata().tenant()},
                                                     who.name);
    const std::string key = KeyOf(Kind::kSnapshot, name);
    store::Txn txn;
    txn.compares = {
        {.key = key, .mod_revision = 0},
        {.key = KeyOf(Kind::kInstance, of), .mod_revision = current.metadata().revision()}};
    txn.writes = {store::Write::Put(key, EncodeResource(snapshot)),
                  store::Write::Put(KeyOf(Kind::kInstance, of), EncodeResource(held)),
                  store::Write::Put(KeyOf(Kind::kOperation, operation.metadata().name()),
                                    EncodeResource(operation))};
    ASSIGN_OR_RETURN(const store::TxnResult done, parts_.resources.raw().Commit(txn));
    RETURN_IF_ERROR(parts_.view.WaitFor(done.revision));
    if (!done.succeeded) {
      if (parts_.view.Find(Kind::kSnapshot, name) == nullptr) continue;
      return Conflict("snapshot \"" + name + "\" exists already").WithFix("choose another name");
    }
    snapshot.mutable_metadata()->set_revision(done.revision);
    operation.mutable_metadata()->set_revision(done.revision);
    Tell("snapshot.create", "info", snapshot, who.name, "asked for, of instance " + of);
    return Accepted{.snapshot = std::move(snapshot), .operation = std::move(operation)};
  }
  return Conflict("instance \"" + snapshot.spec().instance() + "\" changes too often")
      .WithFix("try again");
}

Result<v1::Snapshot> Snapshots::Import(v1::Snapshot snapshot, const std::string& image,
                                       ByteView variables, const SecretBytes& tpm,
                                       const Principal& who) {
  const auto disk = parts_.view.Get<v1::Image>(image);
  if (disk == nullptr) return NotFound("image \"" + Printable(image) + "\" does not exist");
  if (disk->status().state() != v1::IMAGE_READY || disk->status().detected_format() != "qcow2") {
    return Conflict("image \"" + image + "\" is not a ready qcow2")
        .WithFix("import it with --store-format qcow2");
  }
  parts_.resources.PrepareCreate(snapshot);
  const std::string uid = snapshot.metadata().uid();
  v1::SnapshotStatus status;
  status.set_state(v1::SNAPSHOT_READY);
  *status.mutable_instance_spec() = snapshot.status().instance_spec();
  *status.mutable_boot() = snapshot.status().boot();
  status.set_key_set_sha256(snapshot.status().key_set_sha256());
  status.set_variable_origin(snapshot.status().variable_origin());
  status.mutable_disk()->set_sha256(disk->status().sha256());
  status.mutable_disk()->set_size_bytes(disk->status().size_bytes());
  status.set_disk_virtual_size_bytes(disk->status().virtual_size_bytes());
  *status.mutable_boot_binaries() = disk->status().boot_binaries();
  *status.mutable_taken_at() = ToTimestamp(parts_.clock.Now());
  ReceivedSnapshot::Part stored_variables;
  ReceivedSnapshot::Part stored_tpm;
  if (!variables.empty()) {
    ASSIGN_OR_RETURN(stored_variables, StoreSealed(uid, "variables", variables));
    *status.mutable_variables() = stored_variables.part;
  }
  if (!tpm.empty()) {
    ASSIGN_OR_RETURN(
        stored_tpm,
        StoreSealed(uid, "tpm", tpm.Reveal(SecretAccess("sealing an imported vTPM's state"))));
    *status.mutable_tpm() = stored_tpm.part;
    status.set_tpm_imported(true);
  }
  *snapshot.mutable_status() = std::move(status);
  Result<v1::Snapshot> stored = [&]() -> Result<v1::Snapshot> {
    const std::string key = KeyOf(Kind::kSnapshot, snapshot.metadata().name());
    store::Txn txn;
    txn.compares = {
        {.key = key, .mod_revision = 0},
        {.key = KeyOf(Kind::kImage, image), .mod_revision = disk->metadata().revision()}};
    txn.writes = {store::Write::Put(key, EncodeResource(snapshot))};
    ASSIGN_OR_RETURN(const store::TxnResult done, parts_.resources.raw().Commit(txn));
    RETURN_IF_ERROR(parts_.view.WaitFor(done.revision));
    if (!done.succeeded) {
      return Conflict("snapshot \"" + snapshot.metadata().name() +
                      "\" exists already, or the image changed")
          .WithFix("choose another name");
    }
    snapshot.mutable_metadata()->set_revision(done.revision);
    return snapshot;
  }();
  for (ReceivedSnapshot::Part* part : {&stored_variables, &stored_tpm}) {
    part->claim.reset();
    parts_.contents.RemoveUnused(part->part.sha256());
  }
  if (stored.has_value()) {
    Tell("snapshot.imported", "info", *stored, who.name, "made from an import");
  }
  return stored;
}

Result<void> Snapshots::Drive(const v1::Snapshot& snapshot) {
  const std::string& name = snapshot.metadata().name();
  const std::string& uid = snapshot.metadata().uid();
  const auto instance = parts_.view.Get<v1::Instance>(snapshot.spec().instance());
  if (instance == nullptr || instance->metadata().uid() != snapshot.status().instance_uid()) {
    return GiveUp(name, uid, NotFound("the instance was deleted meanwhile"));
  }
  const std::string& host = instance->status().host();
  const auto found = parts_.view.Get<v1::Host>(host);
  if (found == nullptr || found->status().state() == v1::HOST_DOWN) {
    return GiveUp(name, uid,
                  Unavailable("host \"" + host + "\", which has the instance, is " +
                              (found == nullptr ? "gone" : "down"))
                      .WithFix("take the snapshot again when the host is back"));
  }
  return Ask(snapshot, host);
}

Result<void> Snapshots::Ask(const v1::Snapshot& snapshot, const std::string& host) {
  const std::string& uid = snapshot.metadata().uid();
  bool too_often = false;
  bool stuck = false;
  int percent = 0;
  {
    const std::lock_guard lock(mutex_);
    Attempt& attempt = attempts_[uid];
    percent = attempt.percent;
    const MonotonicTime now = parts_.clock.Monotonic();
    stuck = attempt.open && now - attempt.progressed >= kProgress;
    if (!attempt.open && (attempt.sent == 0 || now - attempt.last >= kAskAgain)) {
      too_often = attempt.sent >= kMaxAsked;
      attempt.last = now;
      v1::TakeSnapshot request;
      request.set_snapshot_uid(uid);
      request.set_instance_uid(snapshot.status().instance_uid());
      if (!too_often && gateway_->SendTakeSnapshot(host, request)) ++attempt.sent;
    }
  }
  const std::string& name = snapshot.metadata().name();
  if (stuck) {
    return GiveUp(name, uid,
                  Unavailable("host \"" + host + "\" began to send it, and then nothing came for " +
                              std::to_string(kProgress.count()) + " minutes")
                      .WithFix("look at the log of its agent, then take the snapshot again"));
  }
  if (too_often) {
    return GiveUp(name, uid,
                  Unavailable("host \"" + host + "\" was asked " + std::to_string(kMaxAsked) +
                              " times and never sent the whole of it")
                      .WithFix("look at the log of its agent, then take the snapshot again"));
  }
  for (const auto& operation : parts_.view.RunningOperations(Target(name))) {
    if (operation->progress_percent() == percent && !operation->message().empty()) continue;
    RETURN_IF_ERROR(parts_.operations.Progress(operation->metadata().name(), percent,
                                               "host " + host + " sends it"));
  }
  return Ok();
}

Result<v1::SnapshotStatus> Snapshots::Judge(const v1::Snapshot& snapshot,
                                            const ReceivedSnapshot& received) {
  const auto missing = [&](const char* part) { return !received.parts.contains(part); };
  if (missing("disk") || (NeedsVariables(snapshot) && missing("variables")) ||
      (NeedsTpm(snapshot) && missing("tpm"))) {
    return Corrupt("the host did not send every part: a snapshot has disk" +
                   std::string(NeedsVariables(snapshot) ? ", variables" : "") +
                   (NeedsTpm(snapshot) ? ", vTPM" : ""));
  }
  v1::SnapshotStatus status = snapshot.status();
  *status.mutable_disk() = received.parts.at("disk").part;
  if (!missing("variables")) *status.mutable_variables() = received.parts.at("variables").part;
  if (!missing("tpm")) *status.mutable_tpm() = received.parts.at("tpm").part;
  const std::string& digest = status.disk().sha256();
  ASSIGN_OR_RETURN(const store::OpenBlob blob, parts_.blobs.Open(digest));
  ASSIGN_OR_RETURN(const Sha256Digest bound, images::ParseSha256(digest));
  ASSIGN_OR_RETURN(const images::InspectedImage disk,
                   parts_.inspector.Inspect(blob.fd.get(), images::DeclaredFormat::kQcow2, bound));
  AddBootBinaries(disk.inspection(), *status.mutable_boot_binaries());
  status.set_disk_virtual_size_bytes(static_cast<int64_t>(disk.inspection().virtual_size));
  status.set_variable_origin(received.variable_origin);
  status.set_state(v1::SNAPSHOT_READY);
  status.set_progress_percent(100);
  *status.mutable_taken_at() = ToTimestamp(parts_.clock.Now());
  return status;
}

Result<void> Snapshots::Keep(ReceivedSnapshot& received) {
  const auto snapshot = StillTaking(received);
  Result<void> kept = Ok();
  if (!snapshot.has_value()) {
    kept = snapshot.error();
  } else if (const auto status = Judge(**snapshot, received); !status.has_value()) {
    // Sent anew it would be the same.
    kept = GiveUp(received.name, received.uid, status.error());
    if (kept.has_value()) kept = status.error();
  } else {
    const auto stored = parts_.resources.Modify<v1::Snapshot>(
        received.name, [&](v1::Snapshot& current) -> Result<Write> {
          if (current.metadata().uid() != received.uid ||
              current.status().state() != v1::SNAPSHOT_TAKING) {
            return Conflict("the snapshot was deleted meanwhile");
          }
          *current.mutable_status() = *status;
          return Write::kWrite;
        });
    kept = stored.has_value() ? parts_.view.WaitFor(stored->metadata().revision())
                              : Result<void>(stored.error());
    if (stored.has_value()) {
      Tell("snapshot.ready", "info", *stored, {},
           "of instance " + stored->spec().instance() + ", disk sha256 " + status->disk().sha256());
      Failed(Settle(received.name));
    }
  }
  std::vector<std::string> digests;
  for (auto& [name, part] : received.parts) {
    digests.push_back(part.part.sha256());
    part.claim.reset();
  }
  for (const std::string& digest : digests) parts_.contents.RemoveUnused(digest);
  return kept;
}

Result<void> Snapshots::GiveUp(const std::string& name, const std::string& uid, const Error& why) {
  bool written = false;
  ASSIGN_OR_RETURN(
      const v1::Snapshot stored,
      parts_.resources.Modify<v1::Snapshot>(name, [&](v1::Snapshot& current) -> Result<Write> {
        written =
            current.metadata().uid() == uid && current.status().state() == v1::SNAPSHOT_TAKING;
        if (!written) return Write::kKeep;
        current.mutable_status()->set_state(v1::SNAPSHOT_FAILED);
        current.mutable_status()->set_reason(Printable(why.Describe(), 1000));
        current.mutable_status()->set_fix(Printable(why.fix(), 1000));
        return Write::kWrite;
      }));
  RETURN_IF_ERROR(parts_.view.WaitFor(stored.metadata().revision()));
  if (written) Tell("snapshot.failed", "error", stored, {}, why.Describe());
  return Settle(name);
}

Result<void> Snapshots::Settle(const std::string& name) {
  const auto snapshot = parts_.view.Get<v1::Snapshot>(name);
  if (snapshot != nullptr && snapshot->status().state() == v1::SNAPSHOT_TAKING) return Ok();
  if (snapshot != nullptr) {
    const std::lock_guard lock(mutex_);
    attempts_.erase(snapshot->metadata().uid());
  }
  for (const auto& instance : parts_.view.All<v1::Instance>()) {
    if (instance->status().taking_snapshot() != name) continue;
    RETURN_IF_ERROR(FreeInstance(instance->metadata().name(), name));
  }
  for (const auto& operation : parts_.view.RunningOperations(Target(name))) {
    const std::string& id = operation->metadata().name();
    if (snapshot == nullptr || snapshot->metadata().uid() != operation->target_uid()) {
      RETURN_IF_ERROR(parts_.operations.Fail(id, NotFound("the snapshot was deleted meanwhile")));
    } else if (snapshot->status().state() == v1::SNAPSHOT_READY) {
      RETURN_IF_ERROR(parts_.operations.Finish(id, "taken"));
    } else {
      RETURN_IF_ERROR(parts_.operations.Fail(
          id, Conflict(snapshot->status().reason()).WithFix(snapshot->status().fix())));
    }
  }
  return Ok();
}

Result<void> Snapshots::FreeInstance(const std::string& instance, const std::string& snapshot) {
  ASSIGN_OR_RETURN(
      const v1::Instance stored,
      parts_.resources.Modify<v1::Instance>(instance, [&](v1::Instance& current) -> Result<Write> {
        if (current.status().taking_snapshot() != snapshot) return Write::kKeep;
        current.mutable_status()->clear_taking_snapshot();
        return Write::kWrite;
      }));
  return parts_.view.WaitFor(stored.metadata().revision());
}

Result<void> Snapshots::DropTemporary(const v1::Snapshot& snapshot) {
  const std::string& name = snapshot.metadata().name();
  const bool failed = snapshot.status().state() == v1::SNAPSHOT_FAILED;
  // A failed one of a move says why until the move is tried again.
  const bool moves = name.starts_with(kMoveSnapshotPrefix);
  const WallTime made =
      FromTimestamp(failed ? snapshot.metadata().create_time() : snapshot.status().taken_at());
  if ((!failed || moves) && parts_.clock.Now() < made + kTemporaryAge) return Ok();
  for (const auto& instance : parts_.view.All<v1::Instance>()) {
    if (instance->spec().snapshot() == name) return Ok();
  }
  if (failed && !parts_.view.RunningOperations(Target(name)).empty()) return Ok();
  ASSIGN_OR_RETURN(const store::Revision gone,
                   DeleteUnused(parts_.resources, parts_.view, Kind::kSnapshot, name,
                                snapshot.metadata().revision()));
  RETURN_IF_ERROR(parts_.view.WaitFor(gone));
  const v1::SnapshotStatus& status = snapshot.status();
  for (const auto* part : {&status.disk(), &status.variables(), &status.tpm()}) {
    parts_.contents.RemoveUnused(part->sha256());
  }
  return Ok();
}

void Snapshots::Tell(std::string_view kind, std::string_view severity, const v1::Snapshot& snapshot,
                     const std::string& user, const std::string& message) {
  Failed([&]() -> Result<void> {
    RETURN_IF_ERROR(parts_.events.Append({.kind = std::string(kind),
                                          .severity = std::string(severity),
                                          .object = Target(snapshot.metadata().name()),
                                          .user = user,
                                          .message = Printable(message, 1000),
                                          .tenant = snapshot.metadata().tenant()}));
    return Ok();
  }());
}

}  // namespace vallum::controller
