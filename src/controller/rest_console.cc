// SPDX-License-Identifier: Apache-2.0
#include "controller/rest_console.h"

#include <chrono>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "controller/console_hub.h"
#include "controller/controller.h"
#include "http/message.h"
#include "http/stream.h"

namespace vallum::controller {
namespace {

constexpr std::chrono::seconds kSendTimeout{30};
// How often a quiet socket is asked whether it still is one.
constexpr std::chrono::seconds kReceiveTimeout{5};

// Writes to the guest, waiting while too much waits already.
bool WriteAll(ConsolePipe& pipe, ByteView data) {
  while (true) {
    const Result<void> written = pipe.Write(data);
    if (written.has_value()) return true;
    if (written.error().code() != ErrorCode::kExhausted) return false;
    auto room = std::make_shared<std::promise<void>>();
    pipe.WhenWritable([room] { room->set_value(); });
    room->get_future().wait();
  }
}

void SocketToPipe(http::WebSocket& socket, ConsolePipe& pipe) {
  while (!socket.closed()) {
    const Result<std::optional<Bytes>> message = socket.Receive(kReceiveTimeout);
    if (!message.has_value()) break;
    if (message->has_value() && !WriteAll(pipe, **message)) break;
  }
  pipe.Close();
}

void PipeToSocket(http::WebSocket& socket, ConsolePipe& pipe) {
  std::string reason;
  while (!socket.closed()) {
    auto next = std::make_shared<std::promise<Result<Bytes>>>();
    pipe.Read([next](Result<Bytes> bytes) { next->set_value(std::move(bytes)); });
    const Result<Bytes> bytes = next->get_future().get();
    if (!bytes.has_value()) {
      reason = bytes.error().message().substr(0, 120);
      break;
    }
    if (!socket.Send(*bytes, kSendTimeout).has_value()) break;
  }
  pipe.Close();
  socket.Close(reason);
}

}  // namespace

ConsoleSessions::~ConsoleSessions() {
  std::unique_lock lock(mutex_);
  left_.wait(lock, [this] { return threads_ == 0; });
}

void ConsoleSessions::Leave() {
  // Notified under the lock: the destructor may free the condition as soon as it can take it.
  const std::lock_guard lock(mutex_);
  --threads_;
  left_.notify_all();
}

void ConsoleSessions::Run(std::shared_ptr<http::WebSocket> socket,
                          std::shared_ptr<ConsolePipe> pipe) {
  {
    const std::lock_guard lock(mutex_);
    if (threads_ >= 2 * kMaximum) {
      pipe->Close();
      socket->Close("too many consoles are open; try again later");
      return;
    }
    threads_ += 2;
  }
  std::thread([this, socket, pipe] {
    SocketToPipe(*socket, *pipe);
    Leave();
  }).detach();
  std::thread([this, socket = std::move(socket), pipe = std::move(pipe)] {
    PipeToSocket(*socket, *pipe);
    Leave();
  }).detach();
}

Result<http::Response> OpenConsole(Controller& controller, ConsoleSessions& sessions,
                                   const http::Request& request) {
  const std::string token = request.Param("token").value_or("");
  ASSIGN_OR_RETURN(const ConsoleGrants::Grant grant, controller.console_grants().Redeem(token));
  const auto instance = controller.view().Get<v1::Instance>(grant.instance_name);
  // A name may have gone to another instance since the ticket was made.
  if (instance == nullptr || instance->metadata().uid() != grant.instance_uid) {
    return NotFound("the instance of this console is gone");
  }
  ASSIGN_OR_RETURN(std::shared_ptr<ConsolePipe> pipe,
                   controller.gateway().OpenConsole(grant.instance_name));
  (void)controller.events().Append(
      {.kind = "console.opened",
       .severity = "info",
       .object = "instances/" + grant.instance_name,
       .user = grant.principal.name,
       .message = "serial console of " + grant.instance_name + " opened",
       .tenant = instance->metadata().tenant()});
  return http::Response::Upgrade([&sessions, pipe](std::shared_ptr<http::WebSocket> socket) {
    sessions.Run(std::move(socket), pipe);
  });
}

}  // namespace vallum::controller
