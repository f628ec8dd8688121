// SPDX-License-Identifier: Apache-2.0
#include "vtpm/control_client.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/text.h"
#include "vtpm/control_protocol.h"

namespace vallum::vtpm {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

SteadyTime DeadlineIn(std::chrono::milliseconds timeout) {
  return std::chrono::steady_clock::now() + timeout;
}

// Waits until the descriptor is ready for the events or the deadline has passed.
Result<void> WaitReady(int fd, short events, SteadyTime deadline) {
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd item{fd, events, 0};
    const int ready = poll(&item, 1, static_cast<int>(std::max<int64_t>(0, left.count())));
    if (ready > 0) {
      return Ok();
    }
    if (ready == 0) {
      return Unavailable("vallum-vtpm did not answer in time");
    }
    if (errno != EINTR) {
      return ErrnoError(errno, "poll");
    }
  }
}

Result<sockaddr_un> SocketAddress(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return InvalidInput("'" + Printable(path) + "' does not fit a unix socket address (" +
                        std::to_string(sizeof(address.sun_path) - 1) + " bytes)")
        .WithFix("use a shorter run directory");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

}  // namespace

Result<ControlClient> ControlClient::Connect(const std::string& socket_path,
                                             std::chrono::milliseconds timeout) {
  ASSIGN_OR_RETURN(const sockaddr_un address, SocketAddress(socket_path));
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) {
    return ErrnoError(errno, "socket");
  }
  ControlClient client(fd, timeout);
  const SteadyTime deadline = DeadlineIn(timeout);
  for (;;) {
    // A unix socket connects at once, or says EAGAIN while the listener's queue is full.
    if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
      return client;
    }
    if (errno != EAGAIN || std::chrono::steady_clock::now() >= deadline) {
      return ErrnoError(errno, "connect " + socket_path);
    }
    static_cast<void>(poll(nullptr, 0, 1));
  }
}

ControlClient ControlClient::FromDescriptor(int fd, std::chrono::milliseconds timeout) {
  static_cast<void>(fcntl(fd, F_SETFL, O_NONBLOCK));
  return ControlClient(fd, timeout);
}

ControlClient::~ControlClient() {
  if (fd_ >= 0) {
    close(fd_);
  }
}

ControlClient::ControlClient(ControlClient&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      timeout_(other.timeout_),
      received_(std::move(other.received_)) {}

ControlClient& ControlClient::operator=(ControlClient&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(timeout_, other.timeout_);
  std::swap(received_, other.received_);
  return *this;
}

Result<void> ControlClient::Send(std::string_view bytes, SteadyTime deadline) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) {
      bytes.remove_prefix(static_cast<size_t>(sent));
    } else if (errno == EAGAIN) {
      RETURN_IF_ERROR(WaitReady(fd_, POLLOUT, deadline));
    } else if (errno == EPIPE || errno == ECONNRESET) {
      return Unavailable("vallum-vtpm has ended");
    } else if (errno != EINTR) {
      return ErrnoError(errno, "send to vallum-vtpm");
    }
  }
  return Ok();
}

Result<std::string> ControlClient::ReceiveLine(SteadyTime deadline) {
  char buffer[8192];
  for (;;) {
    if (const size_t end = received_.find('\n'); end != std::string::npos) {
      std::string line = received_.substr(0, end);
      received_.erase(0, end + 1);
      return line;
    }
    if (received_.size() > kMaxReplyLine) {
      return Corrupt("a reply of more than " + std::to_string(kMaxReplyLine) + " bytes");
    }
    const ssize_t count = recv(fd_, buffer, sizeof(buffer), MSG_DONTWAIT);
    if (count > 0) {
      received_.append(buffer, static_cast<size_t>(count));
    } else if (count == 0 || errno == ECONNRESET) {
      return Unavailable("vallum-vtpm has ended");
    } else if (errno == EAGAIN) {
      RETURN_IF_ERROR(WaitReady(fd_, POLLIN, deadline));
    } else if (errno != EINTR) {
      return ErrnoError(errno, "receive from vallum-vtpm");
    }
  }
}

Result<std::string> ControlClient::Call(const std::string& request,
                                        std::chrono::milliseconds timeout) {
  if (fd_ < 0) {
    return Unavailable("the connection was given up after an earlier error");
  }
  const SteadyTime deadline = DeadlineIn(timeout);
  auto sent = Send(request, deadline);
  auto line = sent.has_value() ? ReceiveLine(deadline) : Result<std::string>(sent.error());
  if (!line.has_value()) {
    // A late reply would be taken for the next one's.
    close(std::exchange(fd_, -1));
  }
  return line;
}

Result<VtpmStatus> ControlClient::Status() {
  ASSIGN_OR_RETURN(const std::string line, Call(FormatRequest(StatusRequest{}), timeout_));
  return ParseStatusReply(line);
}

Result<RecordBatch> ControlClient::RecordsSince(uint64_t sequence) {
  return WaitForRecords(sequence, std::chrono::milliseconds(0));
}

Result<RecordBatch> ControlClient::WaitForRecords(uint64_t sequence,
                                                  std::chrono::milliseconds wait) {
  wait = std::clamp(wait, std::chrono::milliseconds(0), kMaxWait);
  ASSIGN_OR_RETURN(const std::string line,
                   Call(FormatRequest(RecordsRequest{sequence, wait}), timeout_ + wait));
  return ParseRecordsReply(line);
}

Result<std::map<PcrIndex, Bytes>> ControlClient::ReadPcrs(HashAlgorithm bank,
                                                          const PcrSelection& pcrs) {
  ASSIGN_OR_RETURN(const std::string line, Call(FormatRequest(PcrsRequest{bank, pcrs}), timeout_));
  return ParsePcrsReply(line);
}

void ControlClient::Interrupt() { static_cast<void>(shutdown(fd_, SHUT_RDWR)); }

Result<VtpmIdentity> ControlClient::Identity() {
  ASSIGN_OR_RETURN(const std::string line, Call(FormatRequest(IdentityRequest{}), timeout_));
  return ParseIdentityReply(line);
}

Result<Quote> ControlClient::MakeQuote(const QuoteRequest& request) {
  ASSIGN_OR_RETURN(const std::string line, Call(FormatRequest(request), timeout_));
  return ParseQuoteReply(line);
}

Result<void> ControlClient::PutCertificate(ByteView der) {
  ASSIGN_OR_RETURN(const std::string line,
                   Call(FormatRequest(CertificateRequest{ToBytes(der)}), timeout_));
  return ParseDoneReply(line);
}

Result<void> ControlClient::Stop() {
  ASSIGN_OR_RETURN(const std::string line, Call(FormatRequest(StopRequest{}), timeout_));
  return ParseDoneReply(line);
}

}  // namespace vallum::vtpm
