// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "store/file.h"

namespace vallum::agent {

// One reader's view of a serial line: first the output of the recent past, then what follows. A
// reader that is too slow loses the oldest bytes and is told so. Thread-safe.
class SerialSubscription {
 public:
  // Waits for output. Empty text: none came in time.
  // Errors: kNotFound (the line is closed, and everything was read).
  Result<std::string> Next(std::chrono::milliseconds timeout);
  // Ends the wait of Next; it then gives kNotFound.
  void Close();

 private:
  friend class SerialHub;
  void Push(std::string_view text);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::string pending_;
  bool dropped_ = false;
  bool closed_ = false;
};

// Holds the one connection that QEMU's serial socket takes, and shares it: output goes to every
// subscriber and to the observer, input of all goes to the guest. Owns a thread. Thread-safe.
class SerialHub {
 public:
  using Observer = std::function<void(ByteView)>;
  static constexpr size_t kReplay = size_t{64} << 10U;

  // Connects.
  //   log_path: where QEMU writes the same output; its end becomes the past that subscribers see.
  //   observer: called on the hub's thread with that past, then with each piece of output; must not
  //     call the hub.
  // Errors: kUnavailable (nobody listens), kDenied.
  static Result<std::unique_ptr<SerialHub>> Connect(const std::string& socket_path,
                                                    const std::string& log_path, Observer observer);
  ~SerialHub();
  SerialHub(const SerialHub&) = delete;
  SerialHub& operator=(const SerialHub&) = delete;

  // Ends the thread and every subscription; the observer is not called afterwards. May be called
  // again.
  void Close();
  std::shared_ptr<SerialSubscription> Subscribe();
  // Types on the guest's serial line.
  // Errors: kUnavailable (the guest does not take it, or the line is closed). Blocks up to 1 s.
  Result<void> Send(ByteView input);

 private:
  SerialHub(store::UniqueFd socket, store::UniqueFd wake, std::string past, Observer observer);
  void Run();
  void Deliver(std::string_view text);

  const store::UniqueFd socket_;
  const store::UniqueFd wake_;
  const Observer observer_;
  std::mutex mutex_;
  std::mutex send_mutex_;
  std::string past_;
  std::vector<std::shared_ptr<SerialSubscription>> subscribers_;
  bool closed_ = false;
  std::mutex join_mutex_;
  std::thread thread_;
};

}  // namespace vallum::agent
