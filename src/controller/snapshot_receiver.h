// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/secret_bytes.h"
#include "vallum/v1/agent.pb.h"

namespace vallum::controller {

// One snapshot that a host is sending. Destroyed before its end: all that came is thrown away.
// Used by one thread at a time.
class SnapshotIntake {
 public:
  virtual ~SnapshotIntake() = default;
  // Takes a message after the header. Blocks on the disk. Errors: what the host is told; the
  // snapshot is then sent anew or given up.
  virtual Result<void> Take(v1::SnapshotChunk chunk) = 0;
  // Everything came: checks and keeps it. Returns at once; `done` is called once, on another
  // thread.
  virtual void Finish(std::function<void(Result<void>)> done) = 0;
};

// What the gateway hands the snapshots of hosts to. Thread-safe.
class SnapshotReceiver {
 public:
  virtual ~SnapshotReceiver() = default;
  // Errors: kDenied (this host was not asked for it), kConflict (it is sending it already).
  virtual Result<std::unique_ptr<SnapshotIntake>> Open(const std::string& host,
                                                       const v1::SnapshotHeader& header) = 0;
  // A part, in clear, of the snapshot that an instance of this host is made from.
  // Errors: kDenied (not its instance; a vTPM that the instance does not take over), kNotFound,
  // kCorrupt.
  virtual Result<SecretBytes> ReadPart(const std::string& host,
                                       const v1::FetchSnapshotPartRequest& request) = 0;
};

}  // namespace vallum::controller
