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

void SocketToPipe(const ConsoleSessions::Session& session) {
  while (!session.socket->closed() && session.may_continue()) {
    const Result<std::optional<Bytes>> message = session.socket->Receive(kReceiveTimeout);
    if (!message.has_value()) break;
    if (message->has_value() && !WriteAll(*session.pipe, **message)) break;
  }
  session.pipe->Close();
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

bool ConsoleSessions::Enter(const std::string& user) {
  const std::lock_guard lock(mutex_);
  size_t& mine = threads_of_[user];
  if (threads_ >= 2 * kMaximum || mine >= 2 * kMaximumEach) return false;
  threads_ += 2;
  mine += 2;
  return true;
}

void ConsoleSessions::Leave(const std::string& user) {
  // Notified under the lock: the destructor may free the condition as soon as it can take it.
  const std::lock_guard lock(mutex_);
  --threads_;
  if (--threads_of_[user] == 0) threads_of_.erase(user);
  left_.notify_all();
}

void ConsoleSessions::Run(Session session) {
  if (!Enter(session.user)) {
    session.pipe->Close();
    session.socket->Close("too many consoles are open; close one, or try again later");
    return;
  }
  std::thread([this, session] {
    SocketToPipe(session);
    Leave(session.user);
  }).detach();
  std::thread([this, session = std::move(session)] {
    PipeToSocket(*session.socket, *session.pipe);
    Leave(session.user);
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
  // A token that was taken back ends what it opened.
  const auto may_continue = [&controller, user = grant.principal.name] {
    return controller.view().Get<v1::Token>(user) != nullptr;
  };
  return http::Response::Upgrade([&sessions, pipe, user = grant.principal.name,
                                  may_continue](std::shared_ptr<http::WebSocket> socket) {
    sessions.Run(
        {.socket = std::move(socket), .pipe = pipe, .user = user, .may_continue = may_continue});
  });
}

}  // namespace vallum::controller
