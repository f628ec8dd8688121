// SPDX-License-Identifier: Apache-2.0
#include "vm/qmp_client.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/text.h"

namespace vallum::vm {
namespace {

constexpr int kMaxDepth = 32;
constexpr size_t kMaxEvents = 1024;

Error Gone() { return Unavailable("QEMU closed its monitor connection"); }

// 0 when the time is over.
int MillisecondsLeft(MonotonicTime end) {
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
  return static_cast<int>(std::clamp<int64_t>(left.count(), 0, 1'000'000'000));
}

Result<void> WaitFor(int fd, short events, MonotonicTime end) {
  for (;;) {
    pollfd entry{.fd = fd, .events = events, .revents = 0};
    const int ready = poll(&entry, 1, MillisecondsLeft(end));
    if (ready > 0) {
      return Ok();
    }
    if (ready == 0) {
      return Unavailable("QEMU did not answer in time");
    }
    if (errno != EINTR) {
      return ErrnoError(errno, "poll the monitor connection");
    }
  }
}

std::string TextMember(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

QmpGreeting ReadGreeting(const Json& greeting) {
  std::string version;
  const Json::json_pointer base("/version/qemu");
  for (const char* part : {"major", "minor", "micro"}) {
    const auto at = base / part;
    if (greeting.contains(at) && greeting.at(at).is_number_unsigned()) {
      version += (version.empty() ? "" : ".") + std::to_string(greeting.at(at).get<uint64_t>());
    }
  }
  return QmpGreeting{.version = version};
}

Result<Json> ParseBounded(std::string_view line) {
  bool too_deep = false;
  const auto watch_depth = [&](int depth, Json::parse_event_t, Json&) {
    too_deep = too_deep || depth > kMaxDepth;
    return !too_deep;
  };
  Json value = Json::parse(line, watch_depth, /*allow_exceptions=*/false);
  if (too_deep || value.is_discarded() || !value.is_object()) {
    return InvalidInput("QEMU's monitor sent what is no QMP message: " + Printable(line, 100));
  }
  return value;
}

}  // namespace

Result<void> LineSplitter::Feed(std::string_view data) {
  pending_ += data;
  size_t begin = 0;
  for (size_t end = pending_.find('\n', scanned_); end != std::string::npos;
       end = pending_.find('\n', begin)) {
    size_t length = end - begin;
    if (length > 0 && pending_[end - 1] == '\r') {
      --length;
    }
    lines_.push_back(pending_.substr(begin, length));
    begin = end + 1;
  }
  pending_.erase(0, begin);
  scanned_ = pending_.size();
  if (pending_.size() > kMaxLine) {
    return Exhausted("QEMU's monitor sent a line of more than " + std::to_string(kMaxLine) +
                     " bytes");
  }
  return Ok();
}

std::optional<std::string> LineSplitter::Next() {
  if (lines_.empty()) {
    return std::nullopt;
  }
  std::string line = std::move(lines_.front());
  lines_.pop_front();
  return line;
}

Result<QmpMessage> ParseQmpMessage(std::string_view line) {
  ASSIGN_OR_RETURN(Json message, ParseBounded(line));
  if (const auto greeting = message.find("QMP"); greeting != message.end()) {
    return greeting->is_object() ? ReadGreeting(*greeting) : QmpGreeting{};
  }
  if (message.contains("event")) {
    return QmpEvent{.name = TextMember(message, "event"),
                    .data = message.value("data", Json::object())};
  }
  QmpReply reply;
  if (const auto id = message.find("id"); id != message.end() && id->is_number_unsigned()) {
    reply.id = id->get<uint64_t>();
  }
  if (const auto error = message.find("error"); error != message.end() && error->is_object()) {
    reply.error_class = TextMember(*error, "class");
    reply.error_description = Printable(TextMember(*error, "desc"), 1000);
    return reply;
  }
  if (const auto value = message.find("return"); value != message.end()) {
    reply.value = std::move(*value);
    return reply;
  }
  return InvalidInput("QEMU's monitor sent an unknown kind of message: " + Printable(line, 100));
}

Result<std::unique_ptr<QmpClient>> QmpClient::Dial(const std::string& socket_path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof address.sun_path) {
    return InvalidInput("socket path " + Printable(socket_path) + " is too long");
  }
  memcpy(address.sun_path, socket_path.data(), socket_path.size());
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid() ||
      connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return ErrnoError(errno, "connect to " + socket_path);
  }
  return std::unique_ptr<QmpClient>(new QmpClient(std::move(fd)));
}

Result<void> QmpClient::Handshake(std::chrono::milliseconds limit) {
  const MonotonicTime end = std::chrono::steady_clock::now() + limit;
  ASSIGN_OR_RETURN(QmpMessage message, NextMessage(end));
  // The specification has the greeting first. QEMU's threads do not hold to it: an event that the
  // main thread sends while the monitor's thread is accepting us goes out before it.
  while (std::holds_alternative<QmpEvent>(message)) {
    Keep(std::move(message));
    ASSIGN_OR_RETURN(message, NextMessage(end));
  }
  const auto* greeting = std::get_if<QmpGreeting>(&message);
  if (greeting == nullptr) {
    return InvalidInput("the monitor did not greet: this is no QEMU");
  }
  version_ = greeting->version;
  ASSIGN_OR_RETURN([[maybe_unused]] const Json nothing,
                   Execute("qmp_capabilities", Json::object(), limit));
  return Ok();
}

Result<Json> QmpClient::Execute(std::string_view command, const Json& arguments,
                                std::chrono::milliseconds limit) {
  const MonotonicTime end = std::chrono::steady_clock::now() + limit;
  const uint64_t id = next_id_++;
  const std::string context = "running QMP command " + std::string(command);
  const Json request = {{"execute", command}, {"arguments", arguments}, {"id", id}};
  const std::string line = request.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  RETURN_IF_ERROR(Send(line, end)).context(context);
  ASSIGN_OR_RETURN_CONTEXT(QmpReply reply, WaitForReply(id, end), context);
  if (!reply.error_class.has_value()) {
    return std::move(reply.value);
  }
  const std::string words = "QEMU refused: " + reply.error_description;
  const bool missing =
      *reply.error_class == "CommandNotFound" || *reply.error_class == "DeviceNotFound";
  return (missing ? NotFound(words) : InvalidInput(words)).Context(context);
}

Result<QmpReply> QmpClient::WaitForReply(uint64_t id, MonotonicTime end) {
  for (;;) {
    ASSIGN_OR_RETURN(QmpMessage message, NextMessage(end));
    auto* reply = std::get_if<QmpReply>(&message);
    // A reply without an id is an error in our request's syntax; another id is the late answer to
    // a command that we gave up waiting for.
    if (reply != nullptr && reply->id.value_or(id) == id) {
      return std::move(*reply);
    }
    Keep(std::move(message));
  }
}

Result<QmpMessage> QmpClient::NextMessage(MonotonicTime end) {
  for (;;) {
    if (const auto line = splitter_.Next(); line.has_value()) {
      return ParseQmpMessage(*line);
    }
    RETURN_IF_ERROR(WaitFor(fd_.get(), POLLIN, end));
    RETURN_IF_ERROR(ReadOnce());
  }
}

Result<void> QmpClient::ReadOnce() {
  std::array<char, 16384> buffer{};
  const ssize_t got = recv(fd_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (got == 0 || (got < 0 && errno == ECONNRESET)) {
    return Gone();
  }
  if (got < 0) {
    return errno == EAGAIN || errno == EINTR
               ? Ok()
               : Result<void>(ErrnoError(errno, "read from the monitor"));
  }
  return splitter_.Feed(std::string_view(buffer.data(), static_cast<size_t>(got)));
}

void QmpClient::Keep(QmpMessage message) {
  auto* event = std::get_if<QmpEvent>(&message);
  if (event == nullptr) {
    return;
  }
  events_.push_back(std::move(*event));
  if (events_.size() > kMaxEvents) {
    events_.pop_front();
  }
}

Result<void> QmpClient::Pump() {
  for (;;) {
    // Lines first: Execute may have read more than its reply, and what arrived before the end of
    // the connection counts.
    while (const auto line = splitter_.Next()) {
      ASSIGN_OR_RETURN(QmpMessage message, ParseQmpMessage(*line));
      Keep(std::move(message));
    }
    pollfd entry{.fd = fd_.get(), .events = POLLIN, .revents = 0};
    if (poll(&entry, 1, 0) != 1) {
      return Ok();
    }
    RETURN_IF_ERROR(ReadOnce());
  }
}

std::vector<QmpEvent> QmpClient::TakeEvents() {
  std::vector<QmpEvent> events(std::make_move_iterator(events_.begin()),
                               std::make_move_iterator(events_.end()));
  events_.clear();
  return events;
}

Result<void> QmpClient::Send(std::string_view line, MonotonicTime end) {
  while (!line.empty()) {
    const ssize_t sent = send(fd_.get(), line.data(), line.size(), MSG_NOSIGNAL);
    if (sent > 0) {
      line.remove_prefix(static_cast<size_t>(sent));
    } else if (errno == EAGAIN) {
      RETURN_IF_ERROR(WaitFor(fd_.get(), POLLOUT, end));
    } else if (errno == EPIPE || errno == ECONNRESET) {
      return Gone();
    } else if (errno != EINTR) {
      return ErrnoError(errno, "write to the monitor");
    }
  }
  return Ok();
}

}  // namespace vallum::vm
