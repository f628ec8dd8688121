// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stop_token>
#include <string>

#include "agent/gateway.h"
#include "base/result.h"
#include "images/confined_inspector.h"
#include "images/inspection.h"
#include "store/blob_store.h"
#include "vallum/v1/agent.grpc.pb.h"

namespace vallum::agent {

struct ImageRequest {
  std::string sha256;
  uint64_t size = 0;
  std::string format;  // "qcow2" or "raw"
};

// The images that this host has, fetched from the controller when they are first needed.
// Thread-safe; one transfer per image, whoever asks.
class ImageCache {
 public:
  using Progress = std::function<void(uint64_t done, uint64_t total)>;

  // readers: the group that may read images; absent: only the agent's own user.
  ImageCache(store::BlobStore& blobs, std::filesystem::path directory, const ChannelSlot& channel,
             images::ConfinedInspector inspector, std::optional<gid_t> readers);

  // Returns the path of the image's file: content of that digest and size, inspected on this host
  // as what it is said to be, readable by the instances' users. Goes on where a broken transfer
  // stopped.
  // Errors: kUnavailable (controller away, or stop asked for), kCorrupt (other content than asked
  // for), kInvalidInput (inspection refused it), kExhausted (disk full). Blocks for the transfer.
  Result<std::filesystem::path> Get(const ImageRequest& request, const Progress& progress,
                                    const std::stop_token& stop);

  // Says that an instance needs an image, until it is released. An empty digest: it is not known
  // which; until that instance is released, nothing is removed.
  void Hold(const std::string& instance, const std::string& sha256);
  // Ends what an instance holds and removes every image that no other instance does. One that
  // cannot be removed now is tried again at the next release.
  void Release(const std::string& instance);

 private:
  bool IsHeld(const std::string& sha256) const;  // mutex_ is held
  Result<void> Fetch(const ImageRequest& request, const Progress& progress,
                     const std::stop_token& stop);
  Result<void> Receive(const ImageRequest& request, store::BlobUpload& upload,
                       const Progress& progress, const std::stop_token& stop);
  Result<std::filesystem::path> Check(const ImageRequest& request);
  Result<images::InspectedImage> Inspect(const ImageRequest& request, int fd);
  Result<void> Share(const std::filesystem::path& path) const;

  store::BlobStore& blobs_;
  const std::filesystem::path directory_;
  const ChannelSlot& channel_;
  const images::ConfinedInspector inspector_;
  const std::optional<gid_t> readers_;
  std::mutex mutex_;
  std::condition_variable_any done_;
  std::set<std::string> busy_;
  std::map<std::string, std::set<std::string>> held_;  // digests, by instance
  std::map<std::string, images::InspectedImage> inspected_;
};

}  // namespace vallum::agent
