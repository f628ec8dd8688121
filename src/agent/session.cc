// SPDX-License-Identifier: Apache-2.0
#include "agent/session.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <thread>
#include <utility>

#include "agent/backoff.h"
#include "agent/gateway.h"
#include "agent/instance_files.h"

namespace vallum::agent {
namespace {

using SteadyClock = std::chrono::steady_clock;
constexpr std::chrono::seconds kDefaultHeartbeat{10};

}  // namespace

std::string AgentVersion() { return "0.1.0"; }

struct Session::Attempt {
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReaderWriter<v1::AgentMessage, v1::ControllerMessage>> stream;
  std::atomic<bool> welcomed = false;
  std::atomic<bool> ended = false;
  std::atomic<int> heartbeat_seconds = static_cast<int>(kDefaultHeartbeat.count());
};

Session::Session(const ChannelSlot& channel, ReportBoard& board, SessionHandler& handler)
    : channel_(channel), board_(board), handler_(handler) {}

Session::~Session() { Stop(); }

void Session::Stop() {
  const std::lock_guard lock(mutex_);
  stop_ = true;
  if (current_ != nullptr) {
    current_->TryCancel();
  }
  stopped_.notify_all();
  board_.Wake();
}

void Session::CapabilitiesChanged() {
  capabilities_changed_ = true;
  board_.Wake();
}

void Session::HandleMessage(Attempt& attempt, const v1::ControllerMessage& message) {
  switch (message.message_case()) {
    case v1::ControllerMessage::kWelcome:
      if (message.welcome().heartbeat_seconds() > 0) {
        attempt.heartbeat_seconds = std::clamp(message.welcome().heartbeat_seconds(), 1, 3600);
      }
      attempt.welcomed = true;
      handler_.OnConnected(message.welcome());
      board_.Wake();
      break;
    case v1::ControllerMessage::kDesired:
      handler_.OnDesiredState(message.desired());
      break;
    case v1::ControllerMessage::kInstance:
      handler_.OnDesiredInstance(message.instance());
      break;
    case v1::ControllerMessage::kOpenConsole:
      handler_.OnOpenConsole(message.open_console());
      break;
    case v1::ControllerMessage::kMakeQuote:
      handler_.OnMakeQuote(message.make_quote());
      break;
    case v1::ControllerMessage::kTakeSnapshot:
      handler_.OnTakeSnapshot(message.take_snapshot());
      break;
    case v1::ControllerMessage::kRequestEvidence:
      handler_.OnRequestEvidence(message.request_evidence());
      break;
    case v1::ControllerMessage::kTrust:
      handler_.OnTrust(message.trust());
      break;
    case v1::ControllerMessage::MESSAGE_NOT_SET:
      break;  // from a newer controller
  }
}

void Session::ReadLoop(Attempt& attempt) {
  v1::ControllerMessage message;
  while (attempt.stream->Read(&message)) {
    HandleMessage(attempt, message);
  }
  attempt.ended = true;
  board_.Wake();
}

void Session::WriteLoop(Attempt& attempt) {
  v1::AgentMessage message;
  v1::Hello& hello = *message.mutable_hello();
  hello.set_agent_version(AgentVersion());
  hello.set_boot_id(CurrentBootId());
  capabilities_changed_ = false;  // first: what changes from here on is told once more
  *hello.mutable_capabilities() = handler_.Capabilities();
  for (v1::InstanceReport& report : board_.TakeAll()) {
    *hello.add_instances() = std::move(report);
  }
  bool alive = attempt.stream->Write(message);
  SteadyClock::time_point last_beat = SteadyClock::now();
  while (alive && !attempt.ended) {
    message.Clear();
    const auto next_beat = last_beat + std::chrono::seconds(attempt.heartbeat_seconds.load());
    if (SteadyClock::now() >= next_beat) {
      last_beat = SteadyClock::now();
      *message.mutable_heartbeat() = handler_.MakeHeartbeat();
    } else if (capabilities_changed_.exchange(false)) {
      *message.mutable_capabilities() = handler_.Capabilities();
    } else if (auto next = board_.TakeNext(next_beat); next) {
      message = *std::move(next);
    } else {
      continue;
    }
    alive = attempt.stream->Write(message);
  }
}

bool Session::RunStream(Error& reason) {
  Attempt attempt;
  {
    const std::lock_guard lock(mutex_);
    if (stop_) {
      return false;
    }
    current_ = &attempt.context;
  }
  attempt.stream = v1::AgentGateway::NewStub(channel_.Get())->Session(&attempt.context);
  std::thread reader([this, &attempt] { ReadLoop(attempt); });
  WriteLoop(attempt);
  // A write fails only when the call is over, so the reader ends by itself, and Finish has the
  // controller's own reason; cancelling here would replace it.
  reader.join();
  const grpc::Status status = attempt.stream->Finish();
  {
    const std::lock_guard lock(mutex_);
    current_ = nullptr;
  }
  reason = FromStatus(status, "talking to the controller");
  return attempt.welcomed;
}

void Session::Pause(int failures) {
  std::random_device random;
  const auto delay = ReconnectDelay(failures, random());
  std::unique_lock lock(mutex_);
  stopped_.wait_for(lock, delay, [this] { return stop_; });
}

void Session::Run() {
  int failures = 0;
  while (true) {
    Error reason = Unavailable("not connected");
    failures = RunStream(reason) ? 1 : failures + 1;
    {
      const std::lock_guard lock(mutex_);
      if (stop_) {
        return;
      }
    }
    handler_.OnDisconnected(reason);
    Pause(failures);
  }
}

}  // namespace vallum::agent
