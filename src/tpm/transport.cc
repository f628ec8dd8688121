// SPDX-License-Identifier: Apache-2.0
#include "tpm/transport.h"

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace vallum::tpm {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kStopPoll{100};
constexpr uint64_t kMagic = 0x56414c4c554d5450;  // any of ours
// tag (2), size (4), code (4): TPM 2.0 Library, part 1, 18.
constexpr size_t kHeaderSize = 10;
constexpr size_t kSizeOffset = 2;

Result<int> OpenDevice(const std::string& path) {
  // Not blocking: then a command is handed over at once, and its answer can be waited for.
  const int fd = open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);
  return fd >= 0 ? Result<int>(fd) : ErrnoError(errno, "open the TPM " + path);
}

Result<int> ConnectUnix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return InvalidInput("the path of the TPM's socket is too long: " + path);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return ErrnoError(errno, "socket");
  }
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const int failure = errno;
    close(fd);
    return ErrnoError(failure, "connect to the TPM at " + path);
  }
  return fd;
}

Result<int> ConnectTcp(const std::string& host, const std::string& port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int rc = getaddrinfo(host.c_str(), port.c_str(), &hints, &found); rc != 0) {
    return Unavailable("the TPM's host " + host + " is not found: " + gai_strerror(rc));
  }
  int fd = -1;
  int failure = ECONNREFUSED;
  for (const addrinfo* next = found; next != nullptr && fd < 0; next = next->ai_next) {
    fd = socket(next->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, next->ai_addr, next->ai_addrlen) != 0) {
      failure = errno;
      close(std::exchange(fd, -1));
    }
  }
  freeaddrinfo(found);
  return fd >= 0 ? Result<int>(fd)
                 : ErrnoError(failure, "connect to the TPM at " + host + ":" + port);
}

Result<int> OpenDescriptor(const TpmAddress& address) {
  switch (address.kind) {
    case TpmKind::kNone:
      return NotFound(address.absence);
    case TpmKind::kDevice:
      return OpenDevice(address.path);
    case TpmKind::kUnixSocket:
      return ConnectUnix(address.path);
    case TpmKind::kTcpSocket:
      return ConnectTcp(address.host, address.port);
  }
  return Internal("no such kind of TPM");
}

}  // namespace

struct Transport::Context {
  TSS2_TCTI_CONTEXT_COMMON_V2 common;
  Transport* owner;

  static Transport& Of(TSS2_TCTI_CONTEXT* context) {
    return *reinterpret_cast<Context*>(context)->owner;
  }
};

Transport::Transport(TpmAddress address, std::chrono::seconds limit, std::stop_token stop)
    : address_(std::move(address)),
      limit_(limit),
      stop_(std::move(stop)),
      context_(std::make_unique<Context>()) {
  context_->owner = this;
  TSS2_TCTI_CONTEXT_COMMON_V1& common = context_->common.v1;
  common.magic = kMagic;
  common.version = 2;
  common.transmit = [](TSS2_TCTI_CONTEXT* self, size_t size, const uint8_t* command) {
    return Context::Of(self).Transmit(std::as_bytes(std::span(command, size)));
  };
  common.receive = [](TSS2_TCTI_CONTEXT* self, size_t* size, uint8_t* response, int32_t) {
    return Context::Of(self).Receive(size, response);
  };
  common.finalize = [](TSS2_TCTI_CONTEXT*) {};
  common.cancel = [](TSS2_TCTI_CONTEXT*) -> TSS2_RC { return TSS2_TCTI_RC_NOT_IMPLEMENTED; };
  common.getPollHandles = [](TSS2_TCTI_CONTEXT*, TSS2_TCTI_POLL_HANDLE*, size_t*) -> TSS2_RC {
    return TSS2_TCTI_RC_NOT_IMPLEMENTED;
  };
  common.setLocality = [](TSS2_TCTI_CONTEXT*, uint8_t) -> TSS2_RC {
    return TSS2_TCTI_RC_NOT_IMPLEMENTED;
  };
  context_->common.makeSticky = [](TSS2_TCTI_CONTEXT*, TPM2_HANDLE*, uint8_t) -> TSS2_RC {
    return TSS2_TCTI_RC_NOT_IMPLEMENTED;
  };
}

Transport::~Transport() { Disconnect(); }

TSS2_TCTI_CONTEXT* Transport::tcti() {
  return reinterpret_cast<TSS2_TCTI_CONTEXT*>(context_.get());
}

Result<std::unique_ptr<Transport>> Transport::Open(const TpmAddress& address,
                                                   std::chrono::seconds limit,
                                                   std::stop_token stop) {
  auto fd = OpenDescriptor(address);
  if (!fd) {
    return std::move(fd).error().WithFix(
        "see that the TPM is there, that the agent may open it, and what --tpm says");
  }
  std::unique_ptr<Transport> transport(new Transport(address, limit, std::move(stop)));
  transport->fd_ = *fd;
  return transport;
}

void Transport::Disconnect() {
  if (fd_ >= 0) {
    close(std::exchange(fd_, -1));
  }
}

TSS2_RC Transport::Connect() {
  if (fd_ < 0) {
    const auto fd = OpenDescriptor(address_);
    if (!fd) {
      return Break();
    }
    fd_ = *fd;
  }
  return TSS2_RC_SUCCESS;
}

TSS2_RC Transport::Break() {
  state_ = State::kBroken;
  return TSS2_TCTI_RC_IO_ERROR;
}

TSS2_RC Transport::Await(short events, std::chrono::steady_clock::time_point deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<milliseconds>(deadline - std::chrono::steady_clock::now());
    if (stop_.stop_requested() || left.count() <= 0) {
      state_ = stop_.stop_requested() ? State::kStopped : State::kTimedOut;
      return TSS2_TCTI_RC_IO_ERROR;
    }
    pollfd item{.fd = fd_, .events = events, .revents = 0};
    if (poll(&item, 1, static_cast<int>(std::min(left, kStopPoll).count())) > 0) {
      return TSS2_RC_SUCCESS;
    }
  }
}

TSS2_RC Transport::Transmit(ByteView command) {
  // An answer that came too late would be taken for the next command's.
  if (state_ != State::kOpen) {
    return TSS2_TCTI_RC_IO_ERROR;
  }
  if (const TSS2_RC rc = Connect(); rc != TSS2_RC_SUCCESS) {
    return rc;
  }
  const auto deadline = std::chrono::steady_clock::now() + limit_;
  while (!command.empty()) {
    if (const TSS2_RC rc = Await(POLLOUT, deadline); rc != TSS2_RC_SUCCESS) {
      return rc;
    }
    // A device takes a command in one piece.
    const ssize_t count = write(fd_, command.data(), command.size());
    if (count < 0 && errno != EINTR && errno != EAGAIN) {
      return Break();
    }
    command = command.subspan(static_cast<size_t>(std::max<ssize_t>(0, count)));
  }
  return TSS2_RC_SUCCESS;
}

TSS2_RC Transport::Receive(size_t* size, uint8_t* response) {
  if (response == nullptr) {
    *size = TPM2_MAX_RESPONSE_SIZE;
    return TSS2_RC_SUCCESS;
  }
  if (state_ != State::kOpen) {
    return TSS2_TCTI_RC_IO_ERROR;
  }
  const auto deadline = std::chrono::steady_clock::now() + limit_;
  size_t received = 0;
  size_t wanted = kHeaderSize;
  while (received < wanted) {
    if (const TSS2_RC rc = Await(POLLIN, deadline); rc != TSS2_RC_SUCCESS) {
      return rc;
    }
    const ssize_t count = read(fd_, response + received, *size - received);
    if (count == 0 || (count < 0 && errno != EINTR && errno != EAGAIN)) {
      return Break();
    }
    received += static_cast<size_t>(std::max<ssize_t>(0, count));
    if (received >= kHeaderSize) {
      ByteCursor header(std::as_bytes(std::span(response, received)).subspan(kSizeOffset));
      wanted = header.ReadU32Be().value_or(0);
    }
    if (wanted < kHeaderSize || wanted > *size || received > wanted) {
      return Break();
    }
  }
  *size = received;
  if (address_.kind != TpmKind::kDevice) {
    Disconnect();
  }
  return TSS2_RC_SUCCESS;
}

}  // namespace vallum::tpm
