// SPDX-License-Identifier: Apache-2.0
#include "vtpm/channel.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace vallum::vtpm {
namespace {

constexpr size_t kReadSize = size_t{16} << 10U;
// Of which all but the last are closed.
constexpr size_t kMaxDescriptors = 4;

// Keeps the last descriptor of a message, closes the others.
void TakeDescriptors(msghdr& message, UniqueFd& kept) {
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
      kept = UniqueFd(fd);
    }
  }
}

}  // namespace

Result<void> SendWithDescriptor(int socket, ByteView bytes, int descriptor) {
  Bytes request = ToBytes(bytes);
  iovec io{request.data(), request.size()};
  alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &io;
  message.msg_iovlen = 1;
  message.msg_control = space;
  message.msg_controllen = sizeof(space);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &descriptor, sizeof(descriptor));
  const ssize_t sent = sendmsg(socket, &message, MSG_NOSIGNAL);
  if (sent < 0) return ErrnoError(errno, "send a descriptor");
  if (static_cast<size_t>(sent) != bytes.size()) {
    return Unavailable("the peer took only a part of a message with a descriptor");
  }
  return Ok();
}

Channel Channel::Borrow(int fd) {
  Channel channel;
  channel.fd_ = fd;
  return channel;
}

void Channel::Close() {
  owned_.Reset();
  fd_ = -1;
  unsent_.clear();
}

pollfd Channel::PollItem() const {
  const int events =
      (received_.size() < kMaxBuffered ? POLLIN : 0) | (unsent_.empty() ? 0 : POLLOUT);
  return {fd_, static_cast<short>(events), 0};
}

ReadOutcome Channel::Read() {
  std::byte buffer[kReadSize];
  alignas(cmsghdr) char space[CMSG_SPACE(kMaxDescriptors * sizeof(int))];
  iovec io{buffer, sizeof(buffer)};
  msghdr message{};
  message.msg_iov = &io;
  message.msg_iovlen = 1;
  message.msg_control = space;
  message.msg_controllen = sizeof(space);
  const ssize_t count = recvmsg(fd_, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (count < 0) {
    return errno == EAGAIN || errno == EINTR ? ReadOutcome::kNothing : ReadOutcome::kClosed;
  }
  if (message.msg_controllen != 0) {
    TakeDescriptors(message, descriptor_);
  }
  if (count == 0) {
    return ReadOutcome::kClosed;
  }
  received_.insert(received_.end(), buffer, buffer + count);
  return ReadOutcome::kData;
}

Bytes Channel::Take(size_t count) {
  if (count == received_.size()) {
    return std::exchange(received_, {});
  }
  const auto end = received_.begin() + static_cast<std::ptrdiff_t>(count);
  Bytes taken(received_.begin(), end);
  received_.erase(received_.begin(), end);
  return taken;
}

void Channel::Send(ByteView bytes) {
  if (unsent_.empty()) {
    const ssize_t count = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0 && errno != EAGAIN && errno != EINTR) {
      return;
    }
    bytes = bytes.subspan(count < 0 ? 0 : static_cast<size_t>(count));
  }
  unsent_.insert(unsent_.end(), bytes.begin(), bytes.end());
}

void Channel::Flush() {
  const Bytes bytes = std::exchange(unsent_, {});
  Send(bytes);
}

}  // namespace vallum::vtpm
