// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <poll.h>

#include <cstddef>

#include "base/bytes.h"
#include "base/result.h"
#include "vtpm/unique_fd.h"

namespace vallum::vtpm {

// Sends bytes with a descriptor beside the first of them (SCM_RIGHTS), as CMD_SET_DATAFD of the TPM
// control protocol has it. The descriptor stays the caller's. Errors: as ErrnoError.
Result<void> SendWithDescriptor(int socket, ByteView bytes, int descriptor);

enum class ReadOutcome { kData, kNothing, kClosed };

// One end of a stream that neither side may block on: received bytes wait until they make a
// message, sent bytes wait until the peer reads. May own its descriptor. Not thread-safe.
class Channel {
 public:
  // No more than this is read before the owner takes some away.
  static constexpr size_t kMaxBuffered = size_t{2} << 20U;

  Channel() = default;
  explicit Channel(UniqueFd fd) : owned_(std::move(fd)), fd_(owned_.get()) {}
  // The descriptor belongs to somebody who lives longer.
  static Channel Borrow(int fd);

  bool open() const { return fd_ >= 0; }
  void Close();

  pollfd PollItem() const;

  // Reads what is there. A descriptor that comes along replaces one that nobody took.
  ReadOutcome Read();
  ByteView received() const { return received_; }
  Bytes Take(size_t count);
  Bytes TakeAll() { return Take(received_.size()); }
  UniqueFd TakeDescriptor() { return std::move(descriptor_); }

  // Sends, or keeps for later what the peer does not take. Whether the peer is there shows on
  // reading.
  void Send(ByteView bytes);
  void Flush();
  bool flushed() const { return unsent_.empty(); }

 private:
  UniqueFd owned_;
  int fd_ = -1;
  Bytes received_;
  Bytes unsent_;
  UniqueFd descriptor_;
};

}  // namespace vallum::vtpm
