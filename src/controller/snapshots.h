// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "base/result.h"
#include "base/secret_bytes.h"
#include "controller/content_claims.h"
#include "controller/event_log.h"
#include "controller/gateway.h"
#include "controller/operations.h"
#include "controller/principal.h"
#include "controller/resource_store.h"
#include "controller/seal.h"
#include "controller/snapshot_receiver.h"
#include "controller/view.h"
#include "images/confined_inspector.h"
#include "store/blob_store.h"

namespace vallum::controller {

// Names of the snapshots with which the controller moves instances; nobody else gives one.
inline constexpr std::string_view kMoveSnapshotPrefix = "move-";

// Variables and vTPM state are kept in memory while they are sealed: larger ones are refused.
inline constexpr size_t kMaxSnapshotPart = size_t{2} << 20U;

// What came of one snapshot, claimed in the blob store but not named by a resource yet.
struct ReceivedSnapshot {
  std::string name;
  std::string uid;
  std::string variable_origin;
  struct Part {
    std::unique_ptr<ContentClaims::Claim> claim;
    v1::SnapshotPart part;
  };
  std::map<std::string, Part> parts;
  std::function<void(Result<void>)> done;
};

// Snapshots: each is disk, variable store and vTPM of a stopped instance as one unit, so it becomes
// READY with all of them or FAILED with none. Asks hosts for what is to be taken, again and again
// until it is there (level-triggered: a restart goes on), and keeps what they send; variables and
// vTPM are sealed before they reach the disk. Thread-safe; owns one thread. What Parts names
// outlives it.
class Snapshots final : public SnapshotReceiver {
 public:
  struct Parts {
    ResourceStore& resources;
    const View& view;
    Operations& operations;
    EventLog& events;
    store::BlobStore& blobs;
    ContentClaims& contents;
    const Sealer& sealer;
    const images::ConfinedInspector& inspector;
    const Clock& clock;
    // Told of every step that failed and will be tried again; may be empty.
    std::function<void(const Error&)> on_error;
  };
  explicit Snapshots(const Parts& parts) : parts_(parts) {}
  ~Snapshots() override { Stop(); }

  // Starts the thread. The gateway must outlive Stop(). Errors: the view's.
  Result<void> Start(Gateway& gateway, View& view);
  void Stop();

  struct Accepted {
    v1::Snapshot snapshot;
    v1::Operation operation;
  };
  // Begins to take a snapshot: from now on until it is READY or FAILED its instance can be neither
  // started nor deleted. Does not authorize. The view has seen it when this returns.
  //   snapshot: metadata.name, labels and spec.
  // Errors: kInvalidInput (name), kNotFound (instance), kConflict (name taken; the instance runs,
  // is on no host, is being deleted, or another snapshot of it is being taken), the store's.
  //   purpose: an instance that is to be moved has ended and is still wanted to run.
  enum class Purpose { kKeep, kMove };
  Result<Accepted> Create(v1::Snapshot snapshot, const Principal& who,
                          Purpose purpose = Purpose::kKeep);
  // Makes a snapshot out of what was imported: READY at once, on the content of an image.
  //   variables, tpm: empty: it has none.
  // Errors: as Create; kConflict (image not READY, or no qcow2), kExhausted (parts too large).
  Result<v1::Snapshot> Import(v1::Snapshot snapshot, const std::string& image, ByteView variables,
                              const SecretBytes& tpm, const Principal& who);
  // A part of a READY snapshot in clear: "variables" or "tpm". Errors: kNotFound, kCorrupt.
  Result<SecretBytes> OpenPart(const v1::Snapshot& snapshot, const std::string& part) const;

  Result<std::unique_ptr<SnapshotIntake>> Open(const std::string& host,
                                               const v1::SnapshotHeader& header) override;
  Result<SecretBytes> ReadPart(const std::string& host,
                               const v1::FetchSnapshotPartRequest& request) override;

  // Of the intakes; see snapshot_intake.cc. The errors end the call of the host.
  Result<std::shared_ptr<const v1::Snapshot>> StillTaking(const ReceivedSnapshot& received) const;
  void NoteProgress(const std::string& uid, uint64_t done, uint64_t total);
  // The host says that there will be no snapshot.
  void NoteRefusal(const std::string& name, const std::string& uid, const Error& why);
  void NoteComplete(std::shared_ptr<ReceivedSnapshot> received);
  // That an intake has ended without its last message.
  void NoteBroken(const std::string& uid);
  Result<ReceivedSnapshot::Part> StoreSealed(const std::string& uid, const std::string& part,
                                             ByteView content);
  const Parts& parts() const { return parts_; }

 private:
  struct Refusal {
    std::string name;
    std::string uid;
    Error why;
  };
  struct Attempt {
    int sent = 0;
    MonotonicTime last{};
    bool open = false;           // a host is sending it
    MonotonicTime progressed{};  // when something of it came last
    int percent = 0;
  };
  struct Work {
    std::deque<std::shared_ptr<ReceivedSnapshot>> complete;
    std::deque<Refusal> refused;
    std::set<std::string> changed;  // names of snapshots
    bool tick = false;
  };
  void Run();
  void Do(Work& work);
  // What an earlier controller left half done: operations and instances of snapshots that have
  // ended.
  void SettleAll();
  void Failed(const Result<void>& result) const;
  // Asks for one that is being taken, or gives it up.
  Result<void> Drive(const v1::Snapshot& snapshot);
  Result<void> Ask(const v1::Snapshot& snapshot, const std::string& host);
  Result<void> Keep(ReceivedSnapshot& received);
  Result<v1::SnapshotStatus> Judge(const v1::Snapshot& snapshot, const ReceivedSnapshot& received);
  Result<void> GiveUp(const std::string& name, const std::string& uid, const Error& why);
  // After its end: lets go of the instance and ends the operations.
  Result<void> Settle(const std::string& name);
  Result<void> FreeInstance(const std::string& instance, const std::string& snapshot);
  Result<void> DropTemporary(const v1::Snapshot& snapshot);
  void Tell(std::string_view kind, std::string_view severity, const v1::Snapshot& snapshot,
            const std::string& user, const std::string& message);

  const Parts parts_;
  Gateway* gateway_ = nullptr;
  View* subscribed_ = nullptr;
  View::SubscriptionId subscription_ = 0;
  std::thread thread_;
  std::mutex mutex_;  // guards the members below
  std::condition_variable wake_;
  Work work_;
  std::map<std::string, Attempt> attempts_;  // by uid, while it is taken
  bool stopping_ = false;
};

}  // namespace vallum::controller
