// SPDX-License-Identifier: Apache-2.0
#include "agent/console_relay.h"

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <utility>

namespace vallum::agent {
namespace {

constexpr std::chrono::seconds kIdle{60};
constexpr size_t kFrame = size_t{32} << 10U;

}  // namespace

struct ConsoleRelay::Console {
  std::string session_id;
  Result<std::shared_ptr<SerialHub>> line;
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReaderWriter<v1::ConsoleFrame, v1::ConsoleFrame>> stream;
  std::atomic<bool> done = false;
  std::thread thread;
};

ConsoleRelay::ConsoleRelay(const ChannelSlot& channel) : channel_(channel) {}

ConsoleRelay::~ConsoleRelay() {
  for (const auto& console : consoles_) {
    console->context.TryCancel();
    console->thread.join();
  }
}

void ConsoleRelay::Open(const std::string& session_id, Result<std::shared_ptr<SerialHub>> line) {
  auto console = std::make_unique<Console>();
  console->session_id = session_id;
  console->line = std::move(line);
  const std::lock_guard lock(mutex_);
  consoles_.remove_if([](const std::unique_ptr<Console>& old) {
    if (!old->done) {
      return false;
    }
    old->thread.join();
    return true;
  });
  if (consoles_.size() >= kMaxConsoles) {
    console->line =
        Exhausted("this host relays " + std::to_string(kMaxConsoles) + " consoles already")
            .WithFix("close one of them");
  }
  Console& started = *console;
  started.thread = std::thread([this, &started] { Run(started); });
  consoles_.push_back(std::move(console));
}

void ConsoleRelay::Run(Console& console) {
  console.stream = v1::AgentGateway::NewStub(channel_.Get())->Console(&console.context);
  v1::ConsoleFrame first;
  first.set_session_id(console.session_id);
  if (!console.line) {
    first.set_error(console.line.error().Describe());
  }
  if (console.stream->Write(first) && console.line) {
    Pump(console, **console.line);
  } else {
    // The last frame said why; the controller then ends the call.
    console.stream->WritesDone();
    v1::ConsoleFrame ignored;
    while (console.stream->Read(&ignored)) {
    }
  }
  static_cast<void>(console.stream->Finish());
  console.line = NotFound("over");  // lets go of the serial line
  console.done = true;
}

void ConsoleRelay::Pump(Console& console, SerialHub& line) {
  const auto output = line.Subscribe();
  std::thread reader([&console, &line, output] {
    v1::ConsoleFrame frame;
    while (console.stream->Read(&frame)) {
      // Keys that the guest does not take are lost, as on a real serial line.
      static_cast<void>(line.Send(AsBytes(frame.data())));
    }
    output->Close();
  });
  v1::ConsoleFrame frame;
  bool alive = true;
  while (alive) {
    const auto text = output->Next(kIdle);
    if (!text) {
      frame.clear_data();
      frame.set_error("the instance's serial line was closed");
      console.stream->Write(frame);
      break;
    }
    for (size_t at = 0; alive && at < text->size(); at += kFrame) {
      frame.set_data(text->substr(at, kFrame));
      alive = console.stream->Write(frame);
    }
  }
  console.stream->WritesDone();
  reader.join();
}

}  // namespace vallum::agent
