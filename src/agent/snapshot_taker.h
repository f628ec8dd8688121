// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <stop_token>
#include <string>

#include "agent/config.h"
#include "agent/gateway.h"
#include "base/result.h"
#include "images/confined_converter.h"
#include "vallum/v1/agent.grpc.pb.h"

namespace vallum::agent {

// Carries snapshots to and from the controller. Thread-safe; calls block for the transfer.
class SnapshotTaker {
 public:
  //   channel: outlives it.
  SnapshotTaker(const ChannelSlot& channel, images::ConfinedConverter converter)
      : channel_(channel), converter_(std::move(converter)) {}

  // Sends disk, variables and vTPM state of an instance that does not run, as one unit. The disk is
  // merged with its image in a confined process while it is sent.
  //   image: the file below the instance's disk.
  // Errors: kUnavailable (the controller asks again), others for why there is no snapshot; the
  // controller was told then.
  Result<void> Send(const v1::TakeSnapshot& request, const v1::DesiredInstance& desired,
                    const v1::BootEffective& effective, const InstancePaths& paths,
                    const std::filesystem::path& image, const std::stop_token& stop) const;
  // Tells the controller that there will be no snapshot, and why.
  void Refuse(const v1::TakeSnapshot& request, const Error& why) const;

  // Before the first start of an instance that is made from a snapshot: puts its variable store
  // and, if that is copied, the state of its vTPM into place. Does nothing once there is a disk.
  // Errors: kUnavailable (controller away), kCorrupt (other content than promised), the file
  // system's.
  Result<void> PlaceParts(const v1::DesiredInstance& desired, const InstancePaths& paths) const;

 private:
  Result<Bytes> Fetch(const std::string& uid, const std::string& part,
                      const std::string& sha256) const;

  const ChannelSlot& channel_;
  const images::ConfinedConverter converter_;
};

// Where swtpm keeps what a TPM remembers when it is off.
std::filesystem::path TpmStateFile(const InstancePaths& paths);

}  // namespace vallum::agent
