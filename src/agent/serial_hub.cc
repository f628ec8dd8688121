// SPDX-License-Identifier: Apache-2.0
#include "agent/serial_hub.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace vallum::agent {
namespace {

constexpr size_t kSubscriberLimit = size_t{256} << 10U;
constexpr std::string_view kDroppedNote = "\r\n[vallum: output was lost here]\r\n";
constexpr int kSendTimeoutMs = 1000;

// The end of the log. The guest decides what is in it, so it is read like any untrusted file.
std::string ReadEnd(const std::string& path, size_t limit) {
  const store::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat info{};
  if (fd.get() < 0 || fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode)) {
    return "";
  }
  const off_t start = std::max<off_t>(0, info.st_size - static_cast<off_t>(limit));
  std::string text(limit, '\0');
  const ssize_t n = pread(fd.get(), text.data(), text.size(), start);
  text.resize(n > 0 ? static_cast<size_t>(n) : 0);
  return text;
}

void KeepEnd(std::string& text, size_t limit) {
  if (text.size() > limit) {
    text.erase(0, text.size() - limit);
  }
}

}  // namespace

void SerialSubscription::Push(std::string_view text) {
  const std::lock_guard lock(mutex_);
  pending_ += text;
  if (pending_.size() > kSubscriberLimit) {
    KeepEnd(pending_, kSubscriberLimit);
    dropped_ = true;
  }
  changed_.notify_all();
}

Result<std::string> SerialSubscription::Next(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, timeout, [this] { return closed_ || !pending_.empty(); });
  if (pending_.empty() && closed_) {
    return NotFound("the serial line is closed");
  }
  std::string text = std::exchange(dropped_, false) ? std::string(kDroppedNote) : std::string();
  text += std::exchange(pending_, {});
  return text;
}

void SerialSubscription::Close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

Result<std::unique_ptr<SerialHub>> SerialHub::Connect(const std::string& socket_path,
                                                      const std::string& log_path,
                                                      Observer observer) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof address.sun_path) {
    return InvalidInput("socket path " + socket_path + " is too long");
  }
  std::memcpy(address.sun_path, socket_path.c_str(), socket_path.size() + 1);
  store::UniqueFd socket_fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (socket_fd.get() < 0) {
    return ErrnoError(errno, "make a socket");
  }
  if (connect(socket_fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return ErrnoError(errno, "connect to " + socket_path);
  }
  store::UniqueFd wake(eventfd(0, EFD_CLOEXEC));
  if (wake.get() < 0) {
    return ErrnoError(errno, "make an eventfd");
  }
  return std::unique_ptr<SerialHub>(new SerialHub(std::move(socket_fd), std::move(wake),
                                                  ReadEnd(log_path, kReplay), std::move(observer)));
}

SerialHub::SerialHub(store::UniqueFd socket, store::UniqueFd wake, std::string past,
                     Observer observer)
    : socket_(std::move(socket)),
      wake_(std::move(wake)),
      observer_(std::move(observer)),
      past_(std::move(past)) {
  thread_ = std::thread([this] { Run(); });
}

SerialHub::~SerialHub() { Close(); }

void SerialHub::Close() {
  const std::lock_guard lock(join_mutex_);
  if (!thread_.joinable()) {
    return;
  }
  const uint64_t one = 1;
  // Cannot fail: the counter of an eventfd holds far more than one.
  [[maybe_unused]] const ssize_t written = write(wake_.get(), &one, sizeof one);
  thread_.join();
}

void SerialHub::Deliver(std::string_view text) {
  const std::lock_guard lock(mutex_);
  past_ += text;
  KeepEnd(past_, kReplay);
  for (const auto& subscriber : subscribers_) {
    subscriber->Push(text);
  }
  // A subscription that nobody else holds is over.
  std::erase_if(subscribers_, [](const auto& subscriber) { return subscriber.use_count() == 1; });
}

void SerialHub::Run() {
  std::array<char, 16384> buffer{};
  {
    // What was said before we listened is output as well; nobody else adds to the past yet.
    std::unique_lock lock(mutex_);
    const std::string past = past_;
    lock.unlock();
    observer_(AsBytes(past));
  }
  while (true) {
    std::array<pollfd, 2> waits{pollfd{socket_.get(), POLLIN, 0}, pollfd{wake_.get(), POLLIN, 0}};
    if (poll(waits.data(), waits.size(), -1) < 0 && errno != EINTR) {
      break;
    }
    if (waits[1].revents != 0) {
      break;
    }
    if (waits[0].revents == 0) {
      continue;
    }
    const ssize_t n = read(socket_.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      break;
    }
    const std::string_view text(buffer.data(), static_cast<size_t>(n));
    observer_(AsBytes(text));
    Deliver(text);
  }
  const std::lock_guard lock(mutex_);
  closed_ = true;
  for (const auto& subscriber : subscribers_) {
    subscriber->Close();
  }
  subscribers_.clear();
}

std::shared_ptr<SerialSubscription> SerialHub::Subscribe() {
  auto subscription = std::make_shared<SerialSubscription>();
  const std::lock_guard lock(mutex_);
  if (!past_.empty()) {
    subscription->Push(past_);
  }
  if (closed_) {
    subscription->Close();
  } else {
    subscribers_.push_back(subscription);
  }
  return subscription;
}

Result<void> SerialHub::Send(ByteView input) {
  const std::lock_guard lock(send_mutex_);
  while (!input.empty()) {
    pollfd wait{socket_.get(), POLLOUT, 0};
    const int ready = poll(&wait, 1, kSendTimeoutMs);
    if (ready < 0 && errno == EINTR) {
      continue;
    }
    if (ready == 0) {
      return Unavailable("the guest does not read its serial line; " +
                         std::to_string(input.size()) + " bytes were not typed");
    }
    const ssize_t n = send(socket_.get(), input.data(), input.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno != EINTR && errno != EAGAIN) {
      return Unavailable("the serial line is closed: " + std::string(std::strerror(errno)));
    }
    input = input.subspan(n > 0 ? static_cast<size_t>(n) : 0);
  }
  return Ok();
}

}  // namespace vallum::agent
